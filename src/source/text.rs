//! Sources as they are written: `[NAME=]SOURCE`.

use std::str::FromStr;

use super::{Kind, Source};
use crate::feed::{self, Pattern};

/// A text is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// It is like none.
    #[error(
        "invalid source `{0}`: write demo, -, exec:COMMAND, file:PATH, tail:PATH, publish or nats://HOST:PORT/SUBJECT, with NAME= before it for a feed of that name"
    )]
    Unknown(String),
    /// It lacks what it is to read.
    #[error("`{text}` lacks its {what}: write {example}")]
    Incomplete {
        /// As it was written.
        text: String,
        /// What it lacks.
        what: &'static str,
        /// What it could be.
        example: &'static str,
    },
    /// Its name cannot be that of a feed.
    #[error(
        "invalid feed name `{0}`: a name has up to 100 ASCII letters, digits, `-`, `_` and `.`, and not only dots; only \
         `publish` takes a pattern, whose last parts between dots are `*`, as in chat.*=publish"
    )]
    Name(String),
    /// It is like one of NATS, and is none.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::nats::BadAddress),
}

impl FromStr for Kind {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        #[cfg(feature = "nats")]
        if crate::nats::Address::is_meant(text) {
            return Ok(Self::Nats(text.parse()?));
        }
        let bad = || BadSource::Unknown(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("demo", "") if !text.ends_with(':') => Ok(Self::Demo),
            ("publish", "") if !text.ends_with(':') => Ok(Self::Publish),
            ("-", "") => Ok(Self::Stdin),
            ("exec", command) if command.trim().is_empty() => {
                Err(incomplete(text, "command", "exec:COMMAND, as in exec:'ping localhost'"))
            }
            ("file", "") => Err(incomplete(text, "path", "file:PATH, as in file:video.mp4")),
            ("tail", "") => Err(incomplete(text, "path", "tail:PATH, as in tail:/var/log/syslog")),
            ("exec", command) => Ok(Self::Exec(command.to_owned())),
            ("file", path) => Ok(Self::File(path.into())),
            ("tail", path) => Ok(Self::Tail(path.into())),
            _ => Err(bad()),
        }
    }
}

fn incomplete(text: &str, what: &'static str, example: &'static str) -> BadSource {
    BadSource::Incomplete { text: text.to_owned(), what, example }
}

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let whole = || Ok(Self { name: feed::DEFAULT.to_owned(), kind: text.parse()? });
        let Some((name, source)) = text.split_once('=') else { return whole() };
        match source.parse::<Kind>() {
            Ok(kind) if is_name(name) || (kind == Kind::Publish && name.parse::<Pattern>().is_ok()) => {
                Ok(Self { name: name.to_owned(), kind })
            }
            Err(BadSource::Unknown(_)) => whole(),
            Err(error) if is_name(name) => Err(error),
            // A command may have an equals sign of its own.
            Ok(_) | Err(_) => whole().map_err(|error| match error {
                BadSource::Unknown(_) => BadSource::Name(name.to_owned()),
                error => error,
            }),
        }
    }
}

/// A name that is a segment of a URL as it stands.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && name.chars().all(plain) && name.contains(|c| c != '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let source = |text: &str| text.parse::<Source>();
        let of = |name: &str, kind| Ok(Source { name: name.into(), kind });
        assert_eq!(source("-"), of("default", Kind::Stdin));
        assert_eq!(source("demo"), of("default", Kind::Demo));
        assert_eq!(source("chat=publish"), of("chat", Kind::Publish));
        assert_eq!(source("chat.*=publish"), of("chat.*", Kind::Publish));
        for text in ["chat.*=demo", "chat*=publish", "*.chat=publish", ".*=publish"] {
            assert!(matches!(source(text), Err(BadSource::Name(_))), "{text}");
        }
        assert_eq!(source("log=tail:/var/log/a=b"), of("log", Kind::Tail("/var/log/a=b".into())));
        assert_eq!(source("build=exec:A=1 cargo build"), of("build", Kind::Exec("A=1 cargo build".into())));
        assert_eq!(source("exec:A=1 make"), of("default", Kind::Exec("A=1 make".into())));
        assert_eq!(source("a.b-c_1=-"), of("a.b-c_1", Kind::Stdin));
        for text in [
            "",
            "=",
            "x",
            "exec:",
            "a b=-",
            "..=-",
            "a/b=-",
            "name=",
            "name=what",
            "demo:x",
            "demo:",
            "publish:",
            "http://x",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
        for name in ["a/b", "ü", "a b", "", "..", &"x".repeat(101)] {
            for kind in ["demo", "exec:make", "tail:"] {
                assert_eq!(source(&format!("{name}={kind}")), Err(BadSource::Name(name.into())), "{name} {kind}");
            }
            assert_eq!(source(&format!("{name}=what")), Err(BadSource::Unknown(format!("{name}=what"))));
        }
        for text in ["exec:", "file:", "tail:", "exec"] {
            for (given, name) in [(text.to_owned(), ""), (format!("log={text}"), "log=")] {
                let Err(error @ BadSource::Incomplete { .. }) = source(&given) else { panic!("{name}{text}") };
                assert!(error.to_string().starts_with(&format!("`{text}` lacks its ")), "{error}");
            }
        }
        assert_eq!(source("exec:A=demo"), of("default", Kind::Exec("A=demo".into())));
        assert_eq!(source("exec:A=tail:"), of("default", Kind::Exec("A=tail:".into())));
    }
}
