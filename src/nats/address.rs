//! `nats://HOST:PORT/SUBJECT`.

use std::str::FromStr;

/// Servers of one NATS system, and a subject there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Each as `nats://[USER:PASSWORD@]HOST[:PORT]`, or `tls://…`.
    pub servers: Vec<String>,
    /// The subject; for an engine what comes before the feed's name.
    pub subject: String,
    /// The JetStream stream that has the subject, when it is not to be looked for.
    pub stream: Option<String>,
    /// What comes is not kept: the subject is not one of JetStream.
    pub live: bool,
}

/// A text is no address of a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` {wrong}: write nats://HOST:PORT/SUBJECT (several as HOST:PORT,HOST:PORT), tls:// for TLS, ?live after it for a subject without JetStream"
)]
pub struct BadAddress {
    text: String,
    wrong: &'static str,
}

/// What an engine's subjects begin with when it does not say.
pub(super) const PREFIX: &str = "h3cast";

impl Address {
    /// Whether it is an address at all, right or wrong.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("nats://") || text.starts_with("tls://")
    }

    /// Whether it stands for many subjects.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.subject.split('.').any(|token| matches!(token, "*" | ">"))
    }

    /// Reads `nats://HOST:PORT[/PREFIX]`.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for what an engine has not.
    pub fn engine(text: &str) -> Result<Self, BadAddress> {
        let bad = |wrong| BadAddress { text: shown(text), wrong };
        let authority = text.split_once("://").map_or("", |(_, rest)| rest);
        let (_, path) = authority.split_once('/').unwrap_or((authority, ""));
        let address = match path {
            "" => format!("{}/{PREFIX}", text.trim_end_matches('/')).parse::<Self>()?,
            _ => text.parse::<Self>()?,
        };
        match address.is_wildcard() || address.live || address.stream.is_some() {
            true => Err(bad("is not a valid engine: its subject must be a plain prefix")),
            false => Ok(address),
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |wrong| BadAddress { text: shown(text), wrong };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is not a valid address"))?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(bad("is not a NATS address"));
        }
        let (authority, path) = rest.split_once('/').ok_or_else(|| bad("has no subject"))?;
        let (subject, query) = path.split_once('?').unwrap_or((path, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if hosts.split(',').any(str::is_empty) {
            return Err(bad("has no server"));
        }
        let servers: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{user}{host}")).collect();
        if servers.iter().any(|server| server.parse::<async_nats::ServerAddr>().is_err()) {
            return Err(bad("names an invalid server"));
        }
        let tokens: Vec<_> = subject.split('.').collect();
        let plain = |token: &str| {
            !token.is_empty() && token.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'))
        };
        let right = tokens.iter().enumerate().all(|(at, token)| match *token {
            "*" => true,
            ">" => at + 1 == tokens.len(),
            token => plain(token),
        });
        if !right {
            return Err(bad("has no valid subject"));
        }
        let (mut stream, mut live) = (None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                None if pair == "live" => live = true,
                Some(("stream", name)) if !name.is_empty() => stream = Some(name.to_owned()),
                _ => return Err(bad("has something other than `live` or `stream=NAME` after the question mark")),
            }
        }
        if live && (stream.is_some() || tokens.iter().any(|token| matches!(*token, "*" | ">"))) {
            return Err(bad("is live, so it must have one subject and no stream"));
        }
        Ok(Self { servers, subject: subject.to_owned(), stream, live })
    }
}

/// Without the password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |text: &str| text.parse::<Address>();
        let plain = read("nats://h:4222/logs.web").unwrap();
        assert_eq!((plain.servers, plain.subject.as_str()), (vec!["nats://h:4222".to_owned()], "logs.web"));
        let many = read("tls://u:p@a:1,b:2/x?stream=S").unwrap();
        assert_eq!(many.servers, ["tls://u:p@a:1", "tls://u:p@b:2"]);
        assert_eq!(many.stream.as_deref(), Some("S"));
        assert!(read("nats://h/logs.*").unwrap().is_wildcard());
        assert!(read("nats://h/logs.>").unwrap().is_wildcard());
        assert!(read("nats://h/x?live").unwrap().live);
        for text in [
            "nats://h:4222",
            "nats://h:4222/",
            "nats:///x",
            "nats://a,,b/x",
            "nats://h/a..b",
            "nats://h/>.a",
            "nats://h/a b",
            "nats://h/a*",
            "nats://h/x?what",
            "nats://h/x.*?live",
            "http://h/x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(!read("nats://u:secret@h").unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn engines() {
        assert_eq!(Address::engine("nats://h:4222").unwrap().subject, "h3cast");
        assert_eq!(Address::engine("nats://h:4222/").unwrap().subject, "h3cast");
        assert_eq!(Address::engine("nats://h:4222/app.feeds").unwrap().subject, "app.feeds");
        for text in ["nats://h/x.*", "nats://h/x?live", "nats://h/x?stream=S", "nats://", "x"] {
            assert!(Address::engine(text).is_err(), "{text}");
        }
    }
}
