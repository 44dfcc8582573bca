//! Which pages may read what is streamed here.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

/// Origins that are allowed in addition to those that always are. The default is none.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    listed: Arc<[Origin]>,
    any: bool,
}

/// A web origin ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)): scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// A text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid origin: write SCHEME://HOST or SCHEME://HOST:PORT, as in https://example.org")]
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
        let scheme = scheme.to_ascii_lowercase();
        // Browsers leave it out (RFC 6454 §6.2).
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
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
        Self { listed: origins.into_iter().collect(), any: false }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

impl Origins {
    /// Every origin, also that of files and sandboxed frames (`null`).
    #[must_use]
    pub fn any() -> Self {
        Self { listed: Arc::default(), any: true }
    }

    /// Whether a page of `origin` may read what is served as `host`: pages of that host, of this machine and of
    /// these origins may.
    #[must_use]
    pub fn allow(&self, origin: &str, host: &str) -> bool {
        if self.any {
            return true;
        }
        // `null`, the origin of files and sandboxed frames, is none that can be allowed.
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        origin.host.eq_ignore_ascii_case(host) || is_loopback(&origin.host) || self.listed.contains(&origin)
    }

    /// Whether a page of `origin` may open a session with `authority`: one of the same origin, one that
    /// this server gives out over plain HTTP at `plain_port` of this machine, and one of these origins may.
    #[must_use]
    pub fn allow_session(&self, origin: &str, authority: &str, plain_port: Option<u16>) -> bool {
        if self.any {
            return true;
        }
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        let same = format!("https://{authority}").parse().is_ok_and(|own: Origin| own == origin);
        let plain = || {
            let port = origin.port.or(default_port(&origin.scheme));
            origin.scheme == "http" && is_loopback(&origin.host) && port.is_some() && port == plain_port
        };
        same || plain() || self.listed.contains(&origin)
    }

    /// Whether an allowed origin has this host.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        self.listed.iter().any(|origin| origin.host.eq_ignore_ascii_case(host))
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
    const NAME: &str = "localhost";
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A name with the root's dot is the same name, and an IPv4 address may be written as an IPv6 one.
    let host = host.strip_suffix('.').unwrap_or(host);
    let (before, name) = host.split_at_checked(host.len().saturating_sub(NAME.len())).unwrap_or_default();
    let is_name = name.eq_ignore_ascii_case(NAME) && (before.is_empty() || before.ends_with('.'));
    is_name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
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
    fn which_pages_may_open_a_session() {
        let origins: Origins = ["https://good.example:443".parse().unwrap()].into_iter().collect();
        let allowed = |origin| origins.allow_session(origin, "Host.example:4433", Some(8080));
        for origin in
            ["https://host.example:4433", "https://good.example", "http://localhost:8080", "http://127.0.0.1:8080"]
        {
            assert!(allowed(origin), "{origin}");
        }
        for origin in [
            "http://host.example:4433",
            "https://host.example",
            "https://host.example:4434",
            "https://a.host.example:4433",
            "http://host.example:8080",
            "http://localhost:8081",
            "https://localhost:8080",
            "http://good.example",
            "null",
            "",
        ] {
            assert!(!allowed(origin), "{origin}");
            assert!(Origins::any().allow_session(origin, "", None), "{origin}");
        }
        let default = |origin, authority| Origins::default().allow_session(origin, authority, None);
        assert!(default("https://host.example", "host.example:443") && default("https://[::1]", "[::1]"));
        assert!(!default("http://localhost", "localhost") && !default("https://host.example", ""));
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
