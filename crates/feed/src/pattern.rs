//! Patterns of the names that feeds may have.

use std::fmt;

/// The longest name of a feed.
const LONGEST: usize = 100;

/// The text is not a valid pattern of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid pattern of feed names `{0}`: write the parts of a name between dots, and `*` for each of the last ones that \
     may be anything, as in chat.* or rooms.*.*"
)]
pub struct BadPattern(String);

/// The names that the feeds of [`WrittenFeeds`](crate::WrittenFeeds) may have: parts between dots, of which the last ones may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// What names begin with.
    prefix: String,
    /// How many parts follow.
    parts: usize,
}

impl std::str::FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let prefix = text.trim_end_matches(".*");
        let (prefix, parts) = match text == "*" || prefix == "*" {
            true => (String::new(), 1 + (text.len() - 1) / 2),
            false => (format!("{prefix}."), (text.len() - prefix.len()) / 2),
        };
        let plain = prefix.split_terminator('.').all(is_part);
        let pattern = Self { text: text.to_owned(), prefix, parts };
        if plain && parts > 0 && pattern.shortest() <= LONGEST { Ok(pattern) } else { Err(bad()) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text is a part of a name.
fn is_part(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Pattern {
    /// What its names begin with: all before the first `*`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a feed may have that name: up to 100 letters, digits, `-`, `_` and `.`, as everywhere.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.prefix) else { return false };
        name.len() <= LONGEST && rest.split('.').count() == self.parts && rest.split('.').all(is_part)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    fn shortest(&self) -> usize {
        self.prefix.len() + 2 * self.parts - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_their_names() {
        for (pattern, matching, other) in [
            (
                "chat.*",
                &["chat.a", "chat.a-B_1"][..],
                &["chat", "chat.", "chat.a.b", "chat..a", "chats.a", "chat.ä", "chat.*"][..],
            ),
            ("a.b.*.*", &["a.b.c.d"], &["a.b.c", "a.b.c.d.e", "a.b..d"]),
            ("*", &["a", "default"], &["", "a.b", "."]),
            ("*.*", &["a.b"], &["a", "a."]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            for name in matching {
                assert!(pattern.matches(name), "{pattern} {name}");
            }
            for name in other {
                assert!(!pattern.matches(name), "{pattern} {name}");
            }
            assert!(!pattern.matches(&format!("{}{}", pattern.prefix(), "x".repeat(101))));
        }
        for bad in ["", "chat", "chat.", ".*", "chat.*.a", "chat*", "*a", "ch*t.*", "chat.**", "a b.*", "a..*"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
