//! Which pages may read what is streamed here.

use std::{fmt, net::IpAddr, str::FromStr};

/// The origins that are allowed beside those of the same host and of this machine.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<Origin>);

/// A web origin ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)): scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// A text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin: write SCHEME://HOST or SCHEME://HOST:PORT, as in https://example.org")]
pub struct BadOrigin(String);

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let bad = || BadOrigin(text.to_owned());
        let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
        let (host, port) = split_authority(authority).ok_or_else(bad)?;
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
            return Err(bad());
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromIterator<Origin> for Origins {
    fn from_iter<T: IntoIterator<Item = Origin>>(origins: T) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Origins {
    /// Whether a page of `origin` may read what is served as `host`.
    #[must_use]
    pub fn allow(&self, origin: &str, host: &str) -> bool {
        // `null`, the origin of files and sandboxed frames, is none that can be allowed.
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        origin.host.eq_ignore_ascii_case(host) || is_loopback(&origin.host) || self.0.contains(&origin)
    }

    /// Whether an allowed origin has this host.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        self.0.iter().any(|origin| origin.host.eq_ignore_ascii_case(host))
    }
}

/// Host (IPv6 in brackets) and port of an authority; `None` unless it is plainly one.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().ok()?),
        None if port.is_empty() => None,
        None => return None,
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(named),
    };
    valid.then_some((host, port))
}

/// Whether a host, as it stands in a URL, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    // A name with the root's dot is the same name, and an IPv4 address may be written as an IPv6 one.
    let host = host.strip_suffix('.').unwrap_or(&host);
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_pages_may_read() {
        let origins: Origins = ["https://good.example".parse().unwrap()].into_iter().collect();
        for origin in [
            "https://host.example",
            "http://HOST.example:1234",
            "http://localhost:8080",
            "http://127.0.0.1",
            "https://[::1]:4433",
            "http://app.localhost:3000",
            "https://good.example",
        ] {
            assert!(origins.allow(origin, "host.example"), "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://good.example",
            "https://good.example:444",
            "https://localhost.evil.example",
            "https://127.0.0.1.evil.example",
            "https://good.example/",
            "https://a@good.example",
        ] {
            assert!(!origins.allow(origin, "host.example"), "{origin}");
        }
    }

    #[test]
    fn this_machine() {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "a.localhost.", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", ".", "localhost..", "localhost.a", "[::ffff:128.0.0.1]", "[::127.0.0.1]", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn authorities() {
        assert_eq!(split_authority("a.b:1"), Some(("a.b", Some(1))));
        assert_eq!(split_authority("[::1]"), Some(("[::1]", None)));
        for wrong in ["", ":1", "a:", "a:b", "a b", "[::1", "[x]", "[::1]x", "a;script", "a/b", "u@h"] {
            assert_eq!(split_authority(wrong), None, "{wrong}");
        }
    }
}
