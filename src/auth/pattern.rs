//! Which feeds are meant: a name, or a pattern of names.

use std::{fmt, str::FromStr};

/// A feed's name, or a pattern of names.
///
/// A name has parts, separated by dots. `*` stands for one part, as in `chat.*`, and `>` at the end for one or more
/// of them, as in NATS. Within a part `*` stands for any letters: `log-*`. A `*` alone is every feed.
///
/// ```
/// use h3cast::auth::Pattern;
///
/// let pattern: Pattern = "chat.*".parse()?;
/// assert!(pattern.matches("chat.room1"));
/// assert!(!pattern.matches("chat") && !pattern.matches("chat.a.b"));
/// assert!("chat.>".parse::<Pattern>()?.matches("chat.a.b"));
/// assert!("*".parse::<Pattern>()?.matches("chat.a.b"));
/// # Ok::<(), h3cast::auth::BadPattern>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// A text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a feed or a pattern of feeds: write a name, `chat.*` (one part after chat), `chat.>` (all below chat) or `*` (every feed)"
)]
pub struct BadPattern(String);

/// The longest pattern, in bytes: a feed's name has at most 200.
const LONGEST: usize = 200;

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.chars().take(LONGEST).collect());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*');
        let part = |part: &str| part.chars().all(plain);
        let (parts, last) = text.rsplit_once('.').map_or((None, text), |(parts, last)| (Some(parts), last));
        let valid = !text.is_empty()
            && text.len() <= LONGEST
            && parts.is_none_or(|parts| parts.split('.').all(part))
            && (last == ">" || part(last))
            && text.contains(|c| c != '.');
        if valid { Ok(Self(text.to_owned())) } else { Err(bad()) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Every feed.
    #[must_use]
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Whether it stands for every feed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0 == "*" || self.0 == ">"
    }

    /// Whether a feed of that name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.is_all() {
            return true;
        }
        let mut parts = name.split('.');
        for wanted in self.0.split('.') {
            let Some(part) = parts.next() else { return false };
            match wanted {
                ">" => return true,
                wanted if like(wanted.as_bytes(), part.as_bytes()) => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// What is meant of `family`, which is a feed's name or the pattern of a family of feeds, in words: a name or a
    /// pattern, `family` itself if that is all of it. Of two parts that are both only partly letters, ours stands
    /// for what they have in common.
    #[cfg(feature = "cli")]
    pub(crate) fn common(&self, family: &str) -> Option<String> {
        if self.is_all() {
            return Some(family.to_owned());
        }
        let (mut ours, mut theirs) = (self.0.split('.'), family.split('.'));
        let mut common = Vec::new();
        loop {
            common.push(match (ours.next(), theirs.next()) {
                (None, None) => return Some(common.join(".")),
                (Some(">"), Some(part)) => {
                    common.extend(std::iter::once(part).chain(theirs));
                    return Some(common.join("."));
                }
                (Some(part), Some(">")) => {
                    common.extend(std::iter::once(part).chain(ours));
                    return Some(common.join("."));
                }
                (Some(our), Some("*")) => our,
                (Some(our), Some(their)) if like(our.as_bytes(), their.as_bytes()) => their,
                (Some(our), Some(their)) if their.contains('*') && like(their.as_bytes(), our.as_bytes()) => our,
                (Some(our), Some(their)) if our.contains('*') && their.contains('*') => our,
                _ => return None,
            });
        }
    }
}

/// Whether a part is like one in which `*` is any letters. Takes time in proportion to both at most: after a `*`
/// only the last one is tried again.
fn like(wanted: &[u8], part: &[u8]) -> bool {
    // One that is there at all is not empty.
    if wanted == b"*" {
        return !part.is_empty();
    }
    let (mut w, mut p) = (0, 0);
    let mut star = None;
    while p < part.len() {
        if wanted.get(w) == Some(&b'*') {
            star = Some((w, p));
            w += 1;
        } else if wanted.get(w) == Some(&part[p]) {
            (w, p) = (w + 1, p + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (w, p) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    wanted[w..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_names_are_meant() {
        for (pattern, meant, not) in [
            ("log", &["log"][..], &["logs", "log.a", "Log", ""][..]),
            ("*", &["log", "chat.a.b", "default"], &[]),
            (">", &["log", "chat.a.b"], &[]),
            ("chat.*", &["chat.a", "chat.room-1"], &["chat", "chat.", "chat.a.b", "xchat.a", "chats.a"]),
            ("chat.>", &["chat.a", "chat.a.b"], &["chat", "chats.a"]),
            ("*.log", &["a.log"], &["log", "a.b.log", ".log"]),
            ("a.*.c", &["a.b.c"], &["a.c", "a.b.b.c", "a..c"]),
            ("log-*", &["log-", "log-a", "log-a-b"], &["log", "log-a.b"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a.b"]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            for name in meant {
                assert!(pattern.matches(name), "{pattern} {name}");
            }
            for name in not {
                assert!(!pattern.matches(name), "{pattern} {name}");
            }
        }
        for bad in ["", ".", "..", "a b", "chat.>.x", "chat>", "a/b", "ä", &"x".repeat(201)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern: Pattern = format!("{}b", "*a".repeat(90)).parse().unwrap();
        let start = std::time::Instant::now();
        assert!(!pattern.matches(&"a".repeat(200)));
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
    }
}
