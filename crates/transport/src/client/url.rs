//! The URL of a server's resource, and what to write instead of one that cannot be opened.

mod problem;

use std::net::Ipv6Addr;

use http::{Uri, uri::PathAndQuery};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

pub use problem::UrlProblem;

use crate::listen::{DEFAULT_HTTP_PORT, DEFAULT_PORT};

/// A URL that this client cannot open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot open `{url}`: {problem}; write {instead}")]
pub struct BadUrl {
    /// As it was given, without a password.
    url: String,
    problem: UrlProblem,
    instead: String,
}

impl BadUrl {
    /// The URL as it was given, without a password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &UrlProblem {
        &self.problem
    }

    /// What to write in its place.
    #[must_use]
    pub fn instead(&self) -> &str {
        &self.instead
    }

    /// The same, with something else to write.
    #[must_use]
    pub fn but(self, instead: String) -> Self {
        Self { instead: without_token(&instead), ..self }
    }
}

/// What is encoded in a path or query, as browsers do it (WHATWG URL §4.4).
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// What is wrong with a part, and what to write in its place.
type Correction = (UrlProblem, String);

fn example(rest: &str) -> String {
    format!("https://localhost:{DEFAULT_PORT}{}", if rest.starts_with('/') { rest } else { "/stream" })
}

/// Reads a URL as it is typed. `https://host` means its root; what must be encoded in the path is; a
/// fragment means nothing to a server, and is left out.
pub fn parse(text: &str) -> Result<Uri, BadUrl> {
    let text = text.trim();
    let text = text.split_once('#').map_or(text, |(url, _fragment)| url);
    let bad = |correction| bad(text, correction);
    let Some((scheme, rest)) = text.split_once("://") else { return Err(bad(without_scheme(text))) };
    let (authority, path) = split(rest);
    if !scheme.eq_ignore_ascii_case("https") {
        return Err(bad(other_scheme(scheme, authority, path)));
    }
    let (host, port) = host_and_port(authority, path).map_err(bad)?;
    let path = match path {
        "" => "/".into(),
        path if path.starts_with('?') => format!("/{path}"),
        path => path.to_owned(),
    };
    let path: String = utf8_percent_encode(&path, ENCODED).collect();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let unreadable = |_| bad((UrlProblem::Unreadable, example("")));
    let path = PathAndQuery::try_from(path).map_err(unreadable)?;
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build();
    uri.map_err(|_| bad((UrlProblem::Unreadable, example(""))))
}

/// Host, port and path of a URL of plain HTTP.
#[must_use]
pub fn plain(text: &str) -> Option<(&str, u16, &str)> {
    let (scheme, rest) = text.trim().split_once("://")?;
    let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
    let (authority, path) = split(rest);
    let (host, port) = host_and_port(authority, path).ok().filter(|_| scheme.eq_ignore_ascii_case("http"))?;
    Some((host, port.unwrap_or(80), path))
}

/// Host (without brackets) and port of a URI that this client can open.
pub(super) fn target(uri: &Uri) -> Result<(&str, u16), BadUrl> {
    let bad = |correction| bad(&uri.to_string(), correction);
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = uri.authority().map(http::uri::Authority::as_str);
    match (uri.scheme_str(), authority) {
        (Some("https"), Some(authority)) => {
            let (host, port) = host_and_port(authority, path).map_err(bad)?;
            Ok((host, port.unwrap_or(443)))
        }
        (Some(scheme), authority) => Err(bad(other_scheme(scheme, authority.unwrap_or_default(), path))),
        (None, _) => Err(bad(without_scheme(&uri.to_string()))),
    }
}

/// Authority, and path with query.
fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

fn bad(url: &str, (problem, instead): Correction) -> BadUrl {
    BadUrl { url: shown(url), problem, instead: without_token(&instead) }
}

/// Without what may be a password, or a token.
fn shown(url: &str) -> String {
    let url = &without_token(url);
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    let (authority, path) = split(rest);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}…@{host}{path}"),
        None => url.to_owned(),
    }
}

/// A URL, or what is meant as one, with `…` for the value of each `token` in its query.
fn without_token(url: &str) -> String {
    let Some((path, query)) = url.split_once('?') else { return url.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some(("token", _)) => "token=…",
        _ => pair,
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn without_scheme(text: &str) -> Correction {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text {
        "" => (UrlProblem::Empty, format!("https://HOST:PORT/PATH, as in {}", example(""))),
        path if path.starts_with('/') && !path.starts_with("//") => (UrlProblem::NoServer, example(path)),
        // It is not known of a single name whether it is a host or a feed.
        word if word.chars().all(name) && !word.contains('.') && word != "localhost" => {
            let instead = format!("https://HOST:PORT/PATH, as in {}/{word}", example(""));
            (UrlProblem::Word, instead)
        }
        text => {
            let known = ["https:", "http:"].iter().find_map(|scheme| text.strip_prefix(scheme));
            let rest = known.unwrap_or(text).trim_start_matches('/');
            let (authority, path) = split(rest);
            (UrlProblem::NoHttps, rewritten(authority, path))
        }
    }
}

fn other_scheme(scheme: &str, authority: &str, path: &str) -> Correction {
    let why = match scheme {
        "" => UrlProblem::NoScheme,
        scheme if scheme.eq_ignore_ascii_case("http") => UrlProblem::PlainHttp,
        scheme => UrlProblem::Scheme(scheme.to_owned()),
    };
    (why, rewritten(authority, path))
}

/// The same with https, at the port where that is by default if it was the plain one.
fn rewritten(authority: &str, path: &str) -> String {
    let plain = format!(":{DEFAULT_HTTP_PORT}");
    let instead = match host_and_port(authority, path) {
        Ok(_) => match authority.strip_suffix(&plain) {
            Some(host) => format!("{host}:{DEFAULT_PORT}"),
            None => authority.to_owned(),
        },
        Err((_, instead)) => return instead,
    };
    format!("https://{instead}{path}")
}

fn host_and_port<'a>(authority: &'a str, path: &str) -> Result<(&'a str, Option<u16>), Correction> {
    if let Some((_, host)) = authority.rsplit_once('@') {
        return Err((UrlProblem::Credentials, format!("https://{host}{path}")));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let unclosed = || (UrlProblem::OpenBracket, format!("https://[::1]:{DEFAULT_PORT}{path}"));
            let (host, port) = rest.split_once(']').ok_or_else(unclosed)?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err((UrlProblem::Ipv6(host.to_owned()), format!("https://[::1]:{DEFAULT_PORT}{path}")));
            }
            match port.strip_prefix(':') {
                None if !port.is_empty() => {
                    return Err((UrlProblem::NoColon, format!("https://[{host}]:{DEFAULT_PORT}{path}")));
                }
                port => (host, port),
            }
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(without_brackets(authority, path)),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let with = |host: &str, port: u16| match host.contains(':') {
        true => format!("https://[{host}]:{port}{path}"),
        false => format!("https://{host}:{port}{path}"),
    };
    let number = |port: &str| port.parse::<u16>().ok().filter(|number| *number > 0 && !port.starts_with('+'));
    // RFC 3986 §3.2.3: an empty port is the default one.
    let port = match port.filter(|port| !port.is_empty()) {
        None => None,
        Some(port) => Some(number(port).ok_or_else(|| {
            let host = if host.is_empty() { "localhost" } else { host };
            (UrlProblem::Port(port.to_owned()), with(host, DEFAULT_PORT))
        })?),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    match host.chars().find(|c| !named(*c)) {
        _ if host.is_empty() => Err((UrlProblem::NoHost, with("localhost", port.unwrap_or(DEFAULT_PORT)))),
        Some(c) if !c.is_ascii() => Err((UrlProblem::NotAscii, "its ASCII form, which begins with xn--".into())),
        Some(c) => Err((UrlProblem::Character(c), example(path))),
        // As TLS wants it, which would refuse it later.
        None if rustls::pki_types::ServerName::try_from(host).is_err() => {
            Err((UrlProblem::Host(host.to_owned()), example(path)))
        }
        None => Ok((host, port)),
    }
}

/// More than one colon, and no brackets.
fn without_brackets(authority: &str, path: &str) -> Correction {
    let why = UrlProblem::NoBrackets;
    let port = authority
        .rsplit_once(':')
        .filter(|(host, port)| host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0));
    match port {
        Some((host, port)) => (why, format!("https://[{host}]:{port}{path}")),
        None if authority.parse::<Ipv6Addr>().is_ok() => (why, format!("https://[{authority}]{path}")),
        None => (UrlProblem::Colons, example(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// It may end up in a log, or in a message that someone passes on.
    #[test]
    fn an_error_shows_no_token() {
        for text in [
            "http://localhost/stream?token=geheim",
            "https://:x/stream?from=start&token=geheim",
            "localhost/stream?token=geheim&limit=1",
            "/stream?token=geheim",
            "https://me:geheim@localhost/?token=geheim#token=geheim",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains('…') && !error.contains("geheim"), "{error}");
        }
        assert_eq!(without_token("a?token&b=token=c&tokens=d?token=e"), "a?token&b=token=c&tokens=d?token=e");
    }

    #[test]
    fn urls_as_they_are_typed() {
        for (text, read) in [
            ("https://localhost:4433/stream", "https://localhost:4433/stream"),
            ("HTTPS://localhost:4433/stream?from=start&limit=2", "https://localhost:4433/stream?from=start&limit=2"),
            (" https://host.example\n", "https://host.example/"),
            ("https://host.example?a", "https://host.example/?a"),
            ("https://host.example:/x", "https://host.example/x"),
            ("https://[::1]:4433/x", "https://[::1]:4433/x"),
            ("https://[::1]", "https://[::1]/"),
            ("https://127.0.0.1:1/x#y", "https://127.0.0.1:1/x"),
            ("https://a_b.localhost./a b/ü?q=\"|\"", "https://a_b.localhost./a%20b/%C3%BC?q=%22%7C%22"),
            ("https://host/%20%zz", "https://host/%20%zz"),
            ("https://host/a@b:c", "https://host/a@b:c"),
        ] {
            assert_eq!(parse(text).map(|uri| uri.to_string()), Ok(read.to_owned()), "{text}");
            assert!(target(&parse(text).unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_to_write_instead() {
        for (text, why, instead) in [
            ("https://localhost:99999/", "99999 is not a port", "https://localhost:4433/"),
            ("https://localhost:0/x", "0 is not a port", "https://localhost:4433/x"),
            ("https://localhost:+1/x", "+1 is not a port", "https://localhost:4433/x"),
            ("https://localhost:443a", "443a is not a port", "https://localhost:4433"),
            ("https://[::1]:x/", "x is not a port", "https://[::1]:4433/"),
            ("https://user:pw@host:1/x", "passwords are not sent", "https://host:1/x"),
            ("https://1.2.3/x", "1.2.3 is neither a host name nor an IP address", "https://localhost:4433/x"),
            ("https://a..b/x", "a..b is neither", "https://localhost:4433/x"),
            ("https://user@host", "passwords are not sent", "https://host"),
            ("http://localhost:8080/stream", "always https", "https://localhost:4433/stream"),
            ("HTTP://host/x?y", "always https", "https://host/x?y"),
            ("http://u:p@host/", "always https", "https://host/"),
            ("wss://host:1/x", "wss is not a scheme", "https://host:1/x"),
            ("://host/x", "no scheme", "https://host/x"),
            ("localhost:4433/stream", "begins with https://", "https://localhost:4433/stream"),
            ("localhost", "begins with https://", "https://localhost"),
            ("localhost:8080", "begins with https://", "https://localhost:4433"),
            ("host.example", "begins with https://", "https://host.example"),
            ("https:/host/x", "begins with https://", "https://host/x"),
            ("//host/x", "begins with https://", "https://host/x"),
            ("demo", "not a URL", "https://HOST:PORT/PATH, as in https://localhost:4433/stream/demo"),
            ("/stream/x", "names no server", "https://localhost:4433/stream/x"),
            ("", "it is empty", "https://HOST:PORT/PATH, as in https://localhost:4433/stream"),
            ("https://", "names no host", "https://localhost:4433"),
            ("https:///x", "names no host", "https://localhost:4433/x"),
            ("https://:7/x", "names no host", "https://localhost:7/x"),
            ("https://::1:4433/x", "in brackets", "https://[::1]:4433/x"),
            ("https://fe80::1/x", "in brackets", "https://[fe80::1]/x"),
            ("https://a:1:2/x", "more than one colon", "https://localhost:4433/x"),
            ("https://[::1/x", "ends with a bracket", "https://[::1]:4433/x"),
            ("https://[x]/x", "x is not an IPv6 address", "https://[::1]:4433/x"),
            ("https://[fe80::1%eth0]/x", "is not an IPv6 address", "https://[::1]:4433/x"),
            ("https://[::1]4433/x", "between host and port", "https://[::1]:4433/x"),
            ("https://bücher.example/", "must be ASCII", "its ASCII form, which begins with xn--"),
            ("https://a b/x", "` ` cannot be in a host's name", "https://localhost:4433/x"),
            ("https://a\u{1b}b/x", "`\\u{1b}` cannot be in a host's name", "https://localhost:4433/x"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.to_string().contains(why), "{text}: {error}");
            assert_eq!(error.instead, instead, "{text}: {error}");
        }
        let error = parse("https://user:secret@host/").unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("user:"), "{error}");
    }

    #[test]
    fn uris_of_a_library_s_user() {
        for (text, expected) in [
            ("https://host/", Ok(("host", 443))),
            ("https://[::1]:7/", Ok(("::1", 7))),
            ("https://localhost:99999/", Err("not a port")),
            ("https://user:pw@host/", Err("passwords")),
            ("http://host/", Err("always https")),
            ("/stream", Err("names no server")),
        ] {
            let uri: Uri = text.parse().unwrap();
            match (target(&uri), expected) {
                (Ok(target), Ok(expected)) => assert_eq!(target, expected),
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
                (got, expected) => panic!("{text}: {got:?}, {expected:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_opened(text in "(https://)?[a-zA-Z0-9:@/?\\[\\].%ü -]{0,20}") {
            if let Ok(uri) = parse(&text) {
                prop_assert!(target(&uri).is_ok(), "{}", uri);
                prop_assert_eq!(parse(&uri.to_string()).unwrap().to_string(), uri.to_string());
            }
        }
    }
}
