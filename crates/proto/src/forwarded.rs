//! What proxies say of the requests that they forward: `Forwarded`
//! ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)), and the nodes of `X-Forwarded-For`.
//!
//! ```
//! use h3cast_proto::forwarded::{self, Node};
//!
//! let hops = forwarded::parse(r#"for="[2001:db8::7]:4711";proto=https, for=unknown"#).unwrap();
//! assert_eq!(hops[0].node, Some(Node::Address("2001:db8::7".parse().unwrap(), Some(4711))));
//! assert_eq!((hops[0].https, hops[1].node), (Some(true), Some(Node::Hidden)));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proxy::port_of;

/// Whom a proxy forwards: what it says in one element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hop {
    /// The client that it forwards (`for`), which may be a proxy itself.
    pub node: Option<Node>,
    /// Whether that client uses TLS (`proto`).
    pub https: Option<bool>,
    /// What that client calls the server (`host`), as it stands there.
    pub host: Option<String>,
}

/// A node on the way of a request (RFC 7239 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// An address, and its port if that is stated.
    Address(IpAddr, Option<u16>),
    /// `unknown`, or a name that hides the address (`_` and letters).
    Hidden,
}

/// A field is malformed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadForwarded(&'static str);

const fn bad<T>(why: &'static str) -> Result<T, BadForwarded> {
    Err(BadForwarded(why))
}

/// Reads the value of one `Forwarded` field: what each proxy said, the first one first. Elements without
/// anything in them are left out.
///
/// # Errors
///
/// When the field does not have the syntax of RFC 7239 §4, a node none of §6, or `proto` is not `http` or `https`.
pub fn parse(value: &str) -> Result<Vec<Hop>, BadForwarded> {
    let mut hops = Vec::new();
    let (mut hop, mut seen) = (Hop::default(), Vec::new());
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, after) = token(rest);
            let after = after.strip_prefix('=').filter(|_| !name.is_empty());
            let Some(after) = after else { return bad("a parameter is not NAME=VALUE") };
            let (text, after) = match after.strip_prefix('"') {
                Some(quoted) => unquoted(quoted)?,
                None => {
                    let (text, after) = token(after);
                    (text.to_owned(), after)
                }
            };
            if text.is_empty() {
                return bad("a parameter has no value");
            }
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "for" => hop.node = Some(node(&text)?),
                "proto" => hop.https = Some(is_https(&text)?),
                "host" => hop.host = Some(text),
                _ => {}
            }
            if seen.contains(&name) {
                return bad("a parameter is given twice in one element");
            }
            seen.push(name);
            rest = after.trim_start_matches([' ', '\t']);
        }
        let more = rest.strip_prefix(';');
        if more.is_none() {
            if !seen.is_empty() {
                seen.clear();
                hops.push(std::mem::take(&mut hop));
            }
            if rest.is_empty() {
                return Ok(hops);
            }
        }
        let Some(after) = more.or_else(|| rest.strip_prefix(',')) else {
            return bad("a value with other letters than a token's is not in quotes");
        };
        rest = after;
    }
}

/// A token (RFC 9110 §5.6.2), which may be empty, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_letter(c)).unwrap_or(text.len()))
}

/// What is in a quoted string after its first quote (RFC 9110 §5.6.4), and what follows it.
fn unquoted(text: &str) -> Result<(String, &str), BadForwarded> {
    let mut string = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            Some('"') => return Ok((string, chars.as_str())),
            Some('\\') => match chars.next() {
                Some(escaped @ ('\t' | ' '..='~')) => string.push(escaped),
                _ => return bad("a quoted value ends with a backslash"),
            },
            Some(plain) if plain == '\t' || !plain.is_ascii_control() => string.push(plain),
            _ => return bad("a quoted value has no end"),
        }
    }
}

/// The scheme that a client uses, as `proto` and `X-Forwarded-Proto` have it; those of WebSocket count as those of
/// HTTP.
///
/// # Errors
///
/// When it is another one.
pub fn is_https(scheme: &str) -> Result<bool, BadForwarded> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Ok(true),
        "http" | "ws" => Ok(false),
        _ => bad("the scheme is neither http nor https"),
    }
}

/// Reads a node: an IPv4 address, an IPv6 address in brackets, `unknown` or a name that begins with `_`, each with
/// a port or without.
///
/// # Errors
///
/// When it is none of these.
pub fn node(text: &str) -> Result<Node, BadForwarded> {
    let is_obfuscated = |text: &str| {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        text.len() > 1 && text.starts_with('_') && text.bytes().all(named)
    };
    let (name, port) = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let port = match port {
        Some(port) if is_obfuscated(port) => None,
        Some(port) => match port_of(port) {
            Some(port) => Some(port),
            None => return bad("a port is not a number up to 65535"),
        },
        None => None,
    };
    if let Some(v6) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return match v6.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Node::Address(ip.into(), port)),
            Err(_) => bad("what is in brackets is not an IPv6 address"),
        };
    }
    if let Ok(ip) = name.parse::<Ipv4Addr>() {
        return Ok(Node::Address(ip.into(), port));
    }
    match name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        true => Ok(Node::Hidden),
        false => bad("a node is not an address (IPv6 in brackets), `unknown`, or a name that begins with `_`"),
    }
}

/// Reads a node of `X-Forwarded-For`, where IPv6 addresses may stand without brackets.
///
/// # Errors
///
/// When it is none.
pub fn bare_node(text: &str) -> Result<Node, BadForwarded> {
    match text.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(Node::Address(ip.into(), None)),
        Err(_) => node(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(ip: &str, port: Option<u16>) -> Option<Node> {
        Some(Node::Address(ip.parse().unwrap(), port))
    }

    #[test]
    fn hops() {
        let nodes = |value| parse(value).unwrap().into_iter().map(|hop| hop.node).collect::<Vec<_>>();
        // RFC 7239 §4 and §7.1
        assert_eq!(nodes(r#"for="_gazonk""#), [Some(Node::Hidden)]);
        assert_eq!(nodes(r#"For="[2001:db8:cafe::17]:4711""#), [address("2001:db8:cafe::17", Some(4711))]);
        assert_eq!(
            nodes("for=192.0.2.43, for=198.51.100.17"),
            [address("192.0.2.43", None), address("198.51.100.17", None)]
        );
        assert_eq!(nodes(r#"for=unknown , ,for=_hidden;by="_x:_y","#), [Some(Node::Hidden); 2]);
        assert_eq!(nodes(r#"for="192.0.2.1:_port""#), [address("192.0.2.1", None)]);
        assert_eq!(nodes(""), []);
        assert_eq!(nodes(" ,;, "), []);
        assert_eq!(nodes("proto=http"), [None]);
        let whole = parse(r#"for=192.0.2.60; proto=HTTPS ;by=203.0.113.43;host="a\.example:8443";x="a,b;c""#).unwrap();
        let host = Some("a.example:8443".into());
        assert_eq!(whole, [Hop { node: address("192.0.2.60", None), https: Some(true), host }]);
    }

    #[test]
    fn malformed_fields() {
        for value in [
            "for",
            "for=",
            "=x",
            "for =x",
            "for= 192.0.2.1",
            r#"for="""#,
            r#"for="192.0.2.1"#,
            r#"for="192.0.2.1\"#,
            r#"for="192.0.2.1"x"#,
            "for=192.0.2.1:80",
            "for=[::1]",
            "for=2001:db8::1",
            r#"for="2001:db8::1""#,
            r#"for="[192.0.2.1]""#,
            r#"for="[::1%lo]""#,
            r#"for="[::1""#,
            r#"for="192.0.2.1:""#,
            r#"for="192.0.2.1:65536""#,
            r#"for="192.0.2.1:080""#,
            "for=192.0.2.256",
            "for=example.org",
            "for=_",
            "for=_a!",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1;FOR=192.0.2.1",
            "proto=ftp",
            "for=192.0.2.1 for=192.0.2.2",
            // One that a proxy has appended its own to.
            r#"for=192.0.2.1;by=", for=192.0.2.2"#,
        ] {
            assert!(parse(value).is_err(), "{value}");
        }
        for text in ["::1", "[::1]", "[::1]:1", "192.0.2.1", "192.0.2.1:1", "unknown"] {
            assert!(bare_node(text).is_ok(), "{text}");
        }
        for text in ["", "\"192.0.2.1\"", "::1%lo", "localhost", "192.0.2.1 ", "1", "0x7f000001", "192.0.2.01"] {
            assert!(bare_node(text).is_err(), "{text}");
        }
    }

    /// Cut at every byte, a field says less or is refused; it never says something else.
    #[test]
    fn fields_that_are_cut() {
        let value = r#"for="[2001:db8::7]:4711";proto=https;host="a.example", for=192.0.2.60;by=_x"#;
        let whole = parse(value).unwrap();
        for cut in 0..value.len() {
            let Ok(hops) = parse(&value[..cut]) else { continue };
            let mut shortened = whole.clone();
            shortened.truncate(hops.len());
            let (Some(last), Some(of)) = (hops.last(), shortened.last_mut()) else { continue };
            if last.https.is_none() {
                of.https = None;
            }
            if last.host.is_none() {
                of.host = None;
            }
            // What is not in quotes has no end of its own: `http` is the beginning of `https`.
            let cut_token = ["https", "192.0.2.60"].into_iter().any(|token| {
                let at = value.find(token).unwrap();
                (at + 1..at + token.len()).contains(&cut)
            });
            assert!(hops == shortened || cut_token, "cut at {cut}: {hops:?}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(value in r#"(for|proto|host|by|=|"|\\|;|,| |\[|\]|:|_|192\.0\.2\.1|::1|https|unknown|.){0,12}"#) {
            let _ = parse(&value);
            let _ = bare_node(&value);
        }

        #[test]
        fn reads_what_proxies_write(ips in prop::collection::vec(any::<std::net::IpAddr>(), 1..5), port in any::<u16>()) {
            let element = |ip: &IpAddr| format!("for=\"{}\"", std::net::SocketAddr::new(*ip, port));
            let value = ips.iter().map(element).collect::<Vec<_>>().join(", ");
            let nodes: Vec<_> = parse(&value).unwrap().into_iter().map(|hop| hop.node).collect();
            let expected: Vec<_> = ips.iter().map(|ip| Some(Node::Address(*ip, Some(port)))).collect();
            prop_assert_eq!(nodes, expected);
        }
    }
}
