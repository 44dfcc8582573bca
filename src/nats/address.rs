//! `nats://HOST:PORT/SUBJECT`.

use std::{path::PathBuf, str::FromStr};

use super::Access;

/// Servers of one NATS system, and a subject there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Each as `nats://[USER:PASSWORD@]HOST[:PORT]`, or `tls://…`, `ws://…`, `wss://…`; `TOKEN@` is a token.
    pub servers: Vec<String>,
    /// Files for this system alone, in place of those of [`NatsOptions`](super::NatsOptions).
    pub access: Access,
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
    "`{text}` {wrong}: write nats://HOST:PORT/SUBJECT (several as HOST:PORT,HOST:PORT), tls:// for TLS, ws:// or wss:// for WebSocket, ?live after it for a subject without JetStream"
)]
pub struct BadAddress {
    text: String,
    wrong: &'static str,
}

/// What an engine's subjects begin with when it does not say.
pub(super) const PREFIX: &str = "h3cast";
/// What an address may begin with.
const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

impl Address {
    /// Whether it is an address at all, right or wrong.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
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
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let authority = place.split_once("://").map_or("", |(_, rest)| rest);
        let (_, path) = authority.split_once('/').unwrap_or((authority, ""));
        let address = match path {
            "" => format!("{}/{PREFIX}?{query}", place.trim_end_matches('/')).parse::<Self>()?,
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
        if !SCHEMES.contains(&scheme) {
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
        let (mut stream, mut live, mut access) = (None, false, Access::default());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                None if pair == "live" => live = true,
                Some(("stream", name)) if !name.is_empty() => stream = Some(name.to_owned()),
                Some(("creds", path)) if !path.is_empty() => access.credentials = file(path),
                Some(("token-file", path)) if !path.is_empty() => access.token = file(path),
                Some(("ca", path)) if !path.is_empty() => access.ca = file(path),
                Some(("cert", path)) if !path.is_empty() => access.certificate = file(path),
                Some(("key", path)) if !path.is_empty() => access.key = file(path),
                _ => {
                    return Err(bad(
                        "has something other than `live`, `stream=NAME` or creds, token-file, ca, cert or key, each with =FILE, after the question mark",
                    ));
                }
            }
        }
        if access.certificate.is_some() != access.key.is_some() {
            return Err(bad("needs both cert=FILE and key=FILE, or neither"));
        }
        if live && (stream.is_some() || tokens.iter().any(|token| matches!(*token, "*" | ">"))) {
            return Err(bad("is live, so it must have one subject and no stream"));
        }
        Ok(Self { servers, access, subject: subject.to_owned(), stream, live })
    }
}

/// The path in a query, where `&` and `%` are percent-encoded.
fn file(path: &str) -> Option<PathBuf> {
    Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into())
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
        assert_eq!(read("wss://h/x").unwrap().servers, ["wss://h"]);
        let own = read("tls://h/x?creds=/a%26b&ca=ca.pem&cert=c&key=k&stream=S").unwrap();
        assert_eq!(own.access.credentials, Some("/a&b".into()));
        assert_eq!((own.access.key, own.stream.as_deref()), (Some("k".into()), Some("S")));
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
            "nats://h/x?creds=",
            "nats://h/x?cert=a",
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
        let own = Address::engine("tls://h?creds=/x/y.creds").unwrap();
        assert_eq!((own.subject.as_str(), own.access.credentials), ("h3cast", Some("/x/y.creds".into())));
        for text in ["nats://h/x.*", "nats://h/x?live", "nats://h/x?stream=S", "nats://", "x"] {
            assert!(Address::engine(text).is_err(), "{text}");
        }
    }
}
