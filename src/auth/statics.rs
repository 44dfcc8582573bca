//! Static tokens, from a file: who has one may do what its line says.

use std::{collections::HashMap, fmt, sync::Arc};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Access, Pattern};

/// The shortest static token, in bytes.
pub const SHORTEST_TOKEN: usize = 16;
/// What a token's hash begins with in the file.
const HASHED: &str = "sha256:";

/// A token as its hash, for the file of tokens: whoever reads that cannot use it.
///
/// ```
/// let line = format!("read=log {}", h3cast::auth::hashed("correct-horse-battery"));
/// assert!(line.starts_with("read=log sha256:"));
/// ```
#[must_use]
pub fn hashed(token: &str) -> String {
    let digits = hash(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{HASHED}{digits}")
}

pub(super) type Hash = [u8; 32];

/// Tokens are compared by their hashes: how long that takes tells nothing of a token.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

/// A line of the file of tokens is wrong. It does not show the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: {what} (a line is `read=FEEDS publish=FEEDS name=NAME TOKEN`, with what a client may not do left out)"
)]
pub struct BadTokens {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct Rights {
    read: Vec<Pattern>,
    publish: Vec<Pattern>,
    name: Option<Arc<str>>,
}

#[derive(Clone)]
struct Entry {
    rights: Rights,
    /// Ends what runs under this token, once it is gone from the file, or its rights have changed.
    revoked: CancellationToken,
}

/// The tokens of a file.
#[derive(Clone, Default)]
pub(super) struct Statics(HashMap<Hash, Entry>);

impl fmt::Debug for Statics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Statics {
    /// Reads a file of tokens.
    pub(super) fn parse(text: &str) -> Result<Self, BadTokens> {
        let mut tokens = Self::default();
        // Editors of some systems begin a file so.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: String| BadTokens { line: at + 1, what };
            let (hash, rights) = entry(line).map_err(wrong)?;
            let entry = Entry { rights, revoked: CancellationToken::new() };
            if tokens.0.insert(hash, entry).is_some() {
                return Err(wrong("this token is on an earlier line as well: write what it allows on one line".into()));
            }
        }
        Ok(tokens)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What that token allows.
    pub(super) fn access(&self, token: &str) -> Option<Access> {
        let Entry { rights, revoked } = self.0.get(&hash(token))?;
        let access = Access::granted()
            .read(rights.read.iter().cloned())
            .publish(rights.publish.iter().cloned())
            .revoked_by(revoked.clone());
        Some(match &rights.name {
            Some(name) => access.subject(name.clone()).by("static token"),
            None => access,
        })
    }

    /// Each token by its hash.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &Hash> {
        self.0.keys()
    }

    /// What a token allows, in `other` as here: then its streams continue when `other` takes the place of this.
    pub(super) fn hand_over(&self, hash: &Hash, other: Option<&mut Self>) {
        let Some(entry) = self.0.get(hash) else { return };
        match other.and_then(|other| other.0.get_mut(hash)) {
            Some(new) if new.rights == entry.rights => new.revoked = entry.revoked.clone(),
            _ => entry.revoked.cancel(),
        }
    }

    /// Whether it has that token.
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.0.contains_key(hash)
    }

    /// Takes the place of earlier ones, whose streams go on where nothing has changed for their token.
    pub(super) fn replace(mut self, earlier: &Self) -> Self {
        for (hash, entry) in &earlier.0 {
            match self.0.get_mut(hash) {
                Some(new) if new.rights == entry.rights => new.revoked = entry.revoked.clone(),
                _ => entry.revoked.cancel(),
            }
        }
        self
    }
}

/// `read=A,B publish=C name=N TOKEN`. Errors do not show the token.
fn entry(line: &str) -> Result<(Hash, Rights), String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let token = words.pop().unwrap_or_default();
    let is_right = |word: &str| ["read=", "publish=", "name="].iter().any(|right| word.starts_with(right));
    if is_right(token) {
        return Err("the token is missing at the end of the line".into());
    }
    let mut rights = Rights::default();
    for word in words {
        let (key, value) = word.split_once('=').filter(|_| is_right(word)).ok_or_else(|| {
            // It may be a token, or the first half of one.
            "a word before the token is not one of read=FEEDS, publish=FEEDS and name=NAME".to_owned()
        })?;
        let patterns = || value.split(',').map(str::parse).collect::<Result<Vec<Pattern>, _>>();
        match key {
            "read" => rights.read.extend(patterns().map_err(|error| format!("{key}=: {error}"))?),
            "publish" => rights.publish.extend(patterns().map_err(|error| format!("{key}=: {error}"))?),
            _ if value.is_empty() => return Err("name= has no name".into()),
            _ => rights.name = Some(value.into()),
        }
    }
    if rights.read.is_empty() && rights.publish.is_empty() {
        return Err("the token allows nothing: add read=FEEDS or publish=FEEDS, as in read=chat.*".into());
    }
    let hash = match token.strip_prefix(HASHED) {
        Some(digits) => unhex(digits).ok_or("sha256: is followed by the 64 hexadecimal digits of a token's SHA-256")?,
        None if token.len() < SHORTEST_TOKEN => {
            return Err(format!(
                "the token has fewer than {SHORTEST_TOKEN} characters, and could be guessed: take a random one"
            ));
        }
        None => hash(token),
    };
    Ok((hash, rights))
}

fn unhex(digits: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Action::{Publish, Read};

    const ONE: &str = "the-first-of-the-tokens";
    const TWO: &str = "the-second-of-the-tokens";

    #[test]
    fn what_a_line_allows() {
        let text = format!(
            "\u{feff}# two\r\n\r\n  read=chat.*,log publish=chat.a name=alice {ONE}  \r\npublish=* {}\n",
            hashed(TWO)
        );
        let tokens = Statics::parse(&text).unwrap();
        assert_eq!(tokens.len(), 2);
        let one = tokens.access(ONE).unwrap();
        assert_eq!(one.who(), Some("alice"));
        assert!(one.allows(Read, "chat.b") && one.allows(Read, "log") && one.allows(Publish, "chat.a"));
        assert!(!one.allows(Read, "other") && !one.allows(Publish, "chat.b"));
        let two = tokens.access(TWO).unwrap();
        assert!(two.allows(Publish, "x.y") && !two.allows(Read, "log"));
        // The hash itself is no token.
        assert!(tokens.access(&hashed(TWO)).is_none() && tokens.access("").is_none());
        assert!(!format!("{tokens:?}").contains("first"));
    }

    #[test]
    fn wrong_lines_are_told_without_their_tokens() {
        for (line, word) in [
            (format!("red=log {ONE}"), "not one of read="),
            (format!("read=lo/g {ONE}"), "lo/g"),
            (ONE.to_owned(), "allows nothing"),
            (format!("name=x {ONE}"), "allows nothing"),
            ("read=log short".to_owned(), "fewer than 16"),
            ("read=log".to_owned(), "missing"),
            ("read=log sha256:123".to_owned(), "64"),
            (format!("read=log {ONE}\nread=x {ONE}"), "line 3: this token"),
            (format!("read=log {ONE} {TWO}"), "not one of read="),
        ] {
            let error = Statics::parse(&format!("# c\n{line}")).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("line "), "{line}: {error}");
            assert!(!error.contains("the-first") && !error.contains("the-second"), "{error}");
        }
    }

    /// As while a token is replaced by another: both are of one client.
    #[test]
    fn two_tokens_may_have_one_name() {
        let tokens = Statics::parse(&format!("read=a name=alice {ONE}\nread=b name=alice {TWO}")).unwrap();
        let (one, two) = (tokens.access(ONE).unwrap(), tokens.access(TWO).unwrap());
        assert_eq!(one.named_by(), two.named_by());
        assert!(one.allows(Read, "a") && !two.allows(Read, "a"));
    }

    #[test]
    fn what_has_changed_is_revoked() {
        let first = Statics::parse(&format!("read=a {ONE}\nread=b {TWO}")).unwrap();
        let (one, two) = (first.access(ONE).unwrap(), first.access(TWO).unwrap());
        let second = Statics::parse(&format!("read=a {ONE}\nread=c {TWO}")).unwrap().replace(&first);
        assert!(!one.has_ended() && two.has_ended());
        assert!(!second.access(TWO).unwrap().has_ended());
        let third = Statics::default().replace(&second);
        assert!(one.has_ended() && third.access(ONE).is_none());
    }
}
