//! `nats://HOST:PORT/SUBJECT`.

use std::{collections::BTreeSet, fmt, path::PathBuf, str::FromStr};

use super::{Access, login::is_inbox};

/// Servers of one NATS system, and a subject there. `Debug` leaves users, passwords and tokens out.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Each as `nats://[USER:PASSWORD@]HOST[:PORT]`, or `tls://…`, `ws://…`, `wss://…`; `TOKEN@` is a token.
    pub servers: Vec<String>,
    /// Files for this system alone, in place of those of [`NatsOptions`](super::NatsOptions).
    pub access: Access,
    /// The subject, in which an address has `%40` for `@`; for an engine what comes before the feed's name.
    pub subject: String,
    /// The JetStream stream that has the subject, when it is not to be looked for.
    pub stream: Option<String>,
    /// What comes is not kept: the subject is not one of JetStream.
    pub live: bool,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, access, subject, stream, live } = self;
        let servers: Vec<_> = servers.iter().map(|server| shown(server)).collect();
        let mut all = f.debug_struct("Address");
        all.field("servers", &servers).field("access", access).field("subject", subject);
        all.field("stream", stream).field("live", live).finish()
    }
}

/// A text is no address of a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {wrong}")]
pub struct BadAddress {
    text: String,
    /// What is wrong with it, and what to write.
    wrong: String,
}

/// What an engine's subjects begin with when it does not say.
pub(super) const PREFIX: &str = "h3cast";
/// What an address may begin with.
const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

/// What may be after the question mark.
const OPTIONS: [&str; 8] = ["live", "stream", "creds", "token-file", "ca", "cert", "key", "inbox"];
/// The longest option that an error repeats if there is none like it.
const LONGEST: usize = 20;
/// What a user, a password or a token must not have as it stands: it would not end where it should.
const ENCODED: &str =
    "in a user, a password or a token, write %2F for `/`, %3F for `?`, %23 for `#`, %5C for `\\` and %40 for `@`";

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Feed,
    Engine,
}

impl Use {
    /// How it is written.
    fn form(self) -> String {
        const SERVERS: &str = "(several as HOST:PORT,HOST:PORT), tls:// for TLS, ws:// or wss:// for WebSocket";
        match self {
            Self::Feed => {
                format!("write nats://HOST:PORT/SUBJECT {SERVERS}, ?live after it for a subject without JetStream")
            }
            Self::Engine => format!("write nats://HOST:PORT or nats://HOST:PORT/PREFIX {SERVERS}"),
        }
    }

    /// What may be after the question mark.
    fn options(self) -> &'static str {
        match self {
            Self::Feed => "live, stream=NAME, inbox=PREFIX, or creds, token-file, ca, cert or key, each with =FILE",
            Self::Engine => "inbox=PREFIX, or creds, token-file, ca, cert or key, each with =FILE",
        }
    }
}

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
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let authority = place.split_once("://").map_or("", |(_, rest)| rest);
        let (_, path) = authority.split_once('/').unwrap_or((authority, ""));
        let read = match path {
            "" => Self::read(&format!("{}/{PREFIX}?{query}", place.trim_end_matches('/')), Use::Engine),
            _ => Self::read(text, Use::Engine),
        };
        // As it was given, not as it was read.
        let bad = |wrong: String| BadAddress { text: shown(text), wrong };
        let address = read.map_err(bad)?;
        match address.is_wildcard() {
            true => {
                Err(bad(format!("has a wildcard, and every feed is stored under one prefix: {}", Use::Engine.form())))
            }
            false => Ok(address),
        }
    }

    /// The error is what is wrong, in words after the address.
    fn read(text: &str, for_what: Use) -> Result<Self, String> {
        let bad = |wrong: &str| format!("{wrong}: {}", for_what.form());
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
        // What was meant as a password would be a host, a port or a subject, which are shown.
        if authority.contains(['?', '#', '\\']) {
            return Err(format!("has a `?`, `#` or `\\` before the subject: {ENCODED}"));
        }
        if subject.contains('@') {
            return Err(format!("has an `@` after a `/`: {ENCODED}, in a subject too"));
        }
        if hosts.split(',').any(str::is_empty) {
            return Err(bad("has no server"));
        }
        let servers: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{user}{host}")).collect();
        if servers.iter().any(|server| server.parse::<async_nats::ServerAddr>().is_err()) {
            return Err(bad("names an invalid server"));
        }
        let subject = subject.replace("%40", "@");
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
        let mut keys = BTreeSet::new();
        let mut rest = query;
        while !rest.is_empty() {
            let here = rest;
            let (pair, after) = here.split_once('&').unwrap_or((here, ""));
            rest = after;
            if pair.is_empty() {
                continue;
            }
            let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
            if for_what == Use::Engine && matches!(key, "live" | "stream") {
                return Err(format!(
                    "has ?{key}, which is for a feed of one subject, and not for an engine: leave it out. After the \
                     question mark may be {}",
                    for_what.options()
                ));
            }
            if !keys.insert(key) {
                return Err(format!("has ?{key} twice: leave one out"));
            }
            match pair.split_once('=') {
                None if pair == "live" => live = true,
                Some(("stream", name)) if !name.is_empty() => stream = Some(name.to_owned()),
                Some(("creds", path)) if !path.is_empty() => access.credentials = file(path),
                Some(("token-file", path)) if !path.is_empty() => access.token = file(path),
                Some(("ca", path)) if !path.is_empty() => access.ca = file(path),
                Some(("cert", path)) if !path.is_empty() => access.certificate = file(path),
                Some(("key", path)) if !path.is_empty() => access.key = file(path),
                Some(("inbox", prefix)) if is_inbox(prefix) => access.inbox = Some(prefix.to_owned()),
                _ => return Err(format!("{}{}", bad_option(key, here), for_what.options())),
            }
        }
        if access.certificate.is_some() != access.key.is_some() {
            return Err("needs both cert=FILE and key=FILE, or neither".into());
        }
        if live && stream.is_some() {
            return Err("has ?live and stream=: a live subject has no stream, so leave one of them out".into());
        }
        if live && tokens.iter().any(|token| matches!(*token, "*" | ">")) {
            return Err("has ?live and a wildcard: a live feed has one subject".into());
        }
        Ok(Self { servers, access, subject, stream, live })
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        Self::read(text, Use::Feed).map_err(|wrong| BadAddress { text: shown(text), wrong })
    }
}

/// What is wrong with an option that cannot be read, up to what may be instead; `rest` begins with it. Neither it nor its
/// value is repeated if it may be a part of a secret: what is before an `@` may be a password with a question mark.
fn bad_option(key: &str, rest: &str) -> String {
    let is_word =
        (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let wrong = match key {
        "inbox" => "whose value is not a prefix of subjects",
        "live" => "which takes no value",
        key if OPTIONS.contains(&key) => "which lacks its value",
        _ => "which is unknown",
    };
    let told = match rest.contains('@') {
        true if !OPTIONS.contains(&key) => format!("an option that is unknown: {ENCODED}; "),
        false if !is_word => "an option that is unknown: ".to_owned(),
        _ => format!("?{key}, {wrong}: "),
    };
    format!("has {told}after the question mark may be ")
}

/// The path in a query, where `&` and `%` are percent-encoded.
fn file(path: &str) -> Option<PathBuf> {
    Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into())
}

/// Without the password: nothing before the last `@`.
fn shown(text: &str) -> String {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| SCHEMES.contains(scheme));
    match (scheme, text.rsplit_once('@')) {
        (Some(scheme), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        (_, None) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parts of a secret, as long as they would help somebody, in what is printed. The letters and digits of the
    /// secrets here are in no sentence.
    fn leaks<'a>(secret: &'a str, printed: &str) -> Option<&'a str> {
        let windows = (0..secret.len().saturating_sub(3)).map(|at| &secret[at..at + 4]);
        let mut windows = windows.filter(|window| window.bytes().any(|byte| byte.is_ascii_alphanumeric()));
        windows.find(|window| printed.contains(window))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// People paste passwords as they are. What is not refused has all of the password before its hosts, and only
        /// hosts, ports and subjects are logged.
        #[test]
        fn no_part_of_a_secret_is_printed(secret in r"[QZqz5-9?#/@:&=\\%,!.-]{4,12}", port in "[6-9]{0,4}") {
            for login in [secret.clone(), format!("me:{secret}"), format!("me:{port}{secret}"), format!("{secret}:me")] {
                for address in ["h:1234", "h/x", "h:1234,i/x?live", "h/x?what", "h/x?creds=/a@b", "h/x.*?live", "h"] {
                    for scheme in ["nats", "wss", "nat"] {
                        let text = format!("{scheme}://{login}@{address}");
                        for read in [text.parse::<Address>(), Address::engine(&text)] {
                            let printed = match &read {
                                Err(error) => error.to_string(),
                                Ok(address) => {
                                    let server = |server: &String| server.parse::<async_nats::ServerAddr>().unwrap();
                                    let servers = address.servers.iter().map(server);
                                    let servers: Vec<_> = servers.map(|at| format!("{}:{}", at.host(), at.port())).collect();
                                    format!("{servers:?} {} {:?}", address.subject, address.access)
                                }
                            };
                            prop_assert_eq!(leaks(&secret, &printed), None, "{}: {}", text, printed);
                            prop_assert_eq!(leaks(&secret, &format!("{read:?}")), None, "{}: {:?}", text, read);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_secret_that_is_not_encoded_is_refused_with_what_to_write() {
        let engine = |text: &str| Address::engine(text).unwrap_err().to_string();
        let feed = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        for told in [
            engine("nats://s3cr?et@h:4222"),
            engine("nats://admin:1?hunter2@h"),
            engine("nats://s3cr#et@h:4222"),
            engine("nats://user:1234/abcd@h"),
            feed("nats://user:1234/a?ss@h/x"),
            feed("nats://user:1234/abcd@h/x"),
            feed("nats://s3cr?et@h/x"),
            feed("nats://s3cr#et@h/x"),
            feed(r"ws://s3cr\et@h/x"),
        ] {
            assert!(told.starts_with("`") && told.contains("://…@h"), "{told}");
            assert!(told.contains("%3F for `?`") && told.contains("%40 for `@`"), "{told}");
        }
        let long = format!("nats://h/x?{}", "a".repeat(21));
        for text in ["nats://h/x?Steam=S", "nats://h/x?steam=S&creds=/a@b", "nats://h/x?s3", &long] {
            assert!(feed(text).contains(" has an option that is unknown: "), "{text}");
        }
        assert!(feed("nats://h/x?stream=&creds=/a@b").contains(" has ?stream, which lacks its value"));
        assert_eq!("nats://u:p@h/a%40b.c".parse::<Address>().unwrap().subject, "a@b.c");
    }

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
        let inbox = read("nats://u:p@h/x?live&inbox=_INBOX_u").unwrap();
        assert_eq!((inbox.live, inbox.access.inbox.as_deref()), (true, Some("_INBOX_u")));
        for text in [
            "nats://h/x?inbox=a.*",
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

    /// No error speaks of an option that was not typed and would not help.
    #[test]
    fn errors_name_what_was_typed() {
        let engine = |text: &str| Address::engine(text).unwrap_err().to_string();
        let feed = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        for text in ["nats://h/x.*", "x", "nats://", "nats://h?what", "nats://h?creds=", "nats://h?stream=S"] {
            let told = engine(text);
            assert!(!told.contains("live") && told.starts_with(&format!("`{text}` ")), "{told}");
        }
        assert!(engine("nats://h?stream=S").contains("has ?stream, which is for a feed of one subject"));
        assert!(engine("nats://h/p?live").contains("has ?live, which is for a feed of one subject"));
        assert!(engine("x").contains("write nats://HOST:PORT or nats://HOST:PORT/PREFIX"));
        assert!(feed("nats://h/x?stream=").contains("has ?stream, which lacks its value: "));
        assert!(feed("nats://h/x?inbox=a.*").contains("has ?inbox, whose value is not a prefix"));
        assert!(feed("nats://h/x?stream=S&stream=T").ends_with("has ?stream twice: leave one out"));
        assert!(feed("nats://h/x?steam=S").contains("has ?steam, which is unknown: "));
        assert!(feed("nats://h/x.*?live").ends_with("has ?live and a wildcard: a live feed has one subject"));
        assert!(feed("nats://h/x?live&stream=S").contains("has ?live and stream="));
    }
}
