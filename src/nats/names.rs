//! Which names the feeds of a pattern of subjects have.

use crate::feed::{self, Pattern};

/// How long they may be, in bytes.
const LONGEST: usize = 200;

/// The names of the feeds of a pattern of subjects.
pub(super) struct Names {
    /// What they begin with.
    prefix: String,
    /// As it is shown to people.
    pub(super) pattern: String,
    /// With wildcards.
    pub(super) subject: String,
    /// Clients write the feeds.
    written: bool,
}

impl Names {
    /// Those of feeds that others write: the feed `name` has all of them.
    pub(super) fn read(name: &str, subject: String) -> Self {
        let prefix = if name == feed::DEFAULT { String::new() } else { format!("{name}.") };
        Self::of(prefix, subject, false)
    }

    /// Those of feeds that clients write.
    pub(super) fn written(pattern: &Pattern, subject: String) -> Self {
        Self::of(pattern.prefix().to_owned(), subject, true)
    }

    fn of(prefix: String, subject: String, written: bool) -> Self {
        let wild: Vec<_> = subject.split('.').filter(|token| matches!(*token, "*" | ">")).collect();
        let pattern = format!("{prefix}{}", wild.join("."));
        Self { prefix, pattern, subject, written }
    }

    /// The subject of the feed of that name; `None` if it is none of them.
    pub(super) fn subject_of(&self, name: &str) -> Option<String> {
        let mut rest = name.strip_prefix(&self.prefix)?.split('.');
        let mut subject = Vec::new();
        for token in self.subject.split('.') {
            match token {
                "*" => subject.push(rest.next()?),
                ">" => {
                    subject.push(rest.next()?);
                    subject.extend(&mut rest);
                }
                token => subject.push(token),
            }
        }
        // Of those that clients write the pattern has the rule; others publish to whatever NATS allows.
        let plain = |c: char| match self.written {
            true => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
            false => !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'),
        };
        let all = rest.next().is_none() && name.len() <= LONGEST;
        (all && subject.iter().all(|token| !token.is_empty()) && name.chars().all(plain)).then(|| subject.join("."))
    }
}
