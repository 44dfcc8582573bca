//! By which name and port a client reached the server.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request};
use http::{Extensions, HeaderMap, Uri, Version, header};

use crate::{
    origin::split_authority,
    server::{self, Advertise, Forwarded, Via},
};

/// What a request calls this server: `:authority` of HTTP/2 and 3, or `Host`. An HTTP/1.0 client may
/// leave it out.
///
/// # Errors
///
/// Why the request is malformed (RFC 9112 §3.2, RFC 9113 §8.3.1, RFC 9114 §4.3.1).
pub(super) fn checked<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<&'a str>, &'static str> {
    let mut host = None;
    let mut several = false;
    for field in headers.get_all(header::HOST) {
        let text = field.to_str().ok().filter(|host| is_authority(host));
        let text = text.ok_or("the Host header is malformed: it is a host name or address, and a port if needed")?;
        several |= host.is_some_and(|first| version < Version::HTTP_2 || !same(first, text));
        host = host.or(Some(text));
    }
    let target = uri.authority().map(http::uri::Authority::as_str);
    if target.is_some_and(|target| !is_authority(target)) {
        return Err("the request's authority is malformed: it is a host name or address, and a port if needed");
    }
    match (version, host, target) {
        (Version::HTTP_11, None, _) => Err("an HTTP/1.1 request needs a Host header"),
        (Version::HTTP_2 | Version::HTTP_3, None, None) => Err("the request needs an `:authority`"),
        _ if several => Err("a request has one Host header, and this one has several"),
        (Version::HTTP_2 | Version::HTTP_3, Some(host), Some(target)) if !same(host, target) => {
            Err("the Host header and `:authority` name different hosts: leave the Host header out")
        }
        // The target of the request counts where it names the host itself (RFC 9112 §3.2.2).
        (_, host, target) => Ok(target.or(host)),
    }
}

/// Whether two authorities of `https` URLs are the same.
fn same(one: &str, other: &str) -> bool {
    let without_default = |authority: &str| {
        let authority = authority.strip_suffix(":443").or(authority.strip_suffix(':')).unwrap_or(authority);
        authority.to_ascii_lowercase()
    };
    without_default(one) == without_default(other)
}

/// `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 §7.2, RFC 3986 §3.2).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => (&text[..at], &text[at + 1..]),
        _ => (text, ""),
    };
    let port_is_valid =
        port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    let host_is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_reg_name(host.as_bytes()),
    };
    port_is_valid && host_is_valid
}

/// The bytes that may stand in a name as they are (RFC 3986 §3.2.2).
const IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_reg_name(mut name: &[u8]) -> bool {
    // Not by recursion: the name may be as long as a head may be.
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if IN_NAMES[usize::from(*byte)] => rest,
            _ => return false,
        };
    }
}

/// The origin by which the client reaches us over TLS and QUIC: `https://HOST[:PORT]`. Under another server than
/// ours, it is what the client uses, as far as that shows: without TLS, unless the request says `https`.
pub(super) fn base_of(request: &Request) -> String {
    let extensions = request.extensions();
    if let Some(base) = server::base_of(request.uri(), request.headers(), extensions) {
        return base;
    }
    let scheme = request.uri().scheme_str().unwrap_or("http");
    let authority = checked(request.version(), request.uri(), request.headers()).ok().flatten();
    // Only what is plainly a host goes into URLs.
    let authority = authority.filter(|authority| split_authority(authority).is_some()).unwrap_or("localhost");
    format!("{scheme}://{authority}")
}

/// Whether our HTTP/3 is where the client reaches us. A proxy that ends TLS has its own; ours is elsewhere, if anywhere
/// that the client can reach: that must be advertised.
pub(super) fn has_http3(extensions: &Extensions) -> bool {
    let ends_tls = extensions.get::<Forwarded>().is_some_and(|by| by.https() == Some(true));
    extensions.get::<Via>().is_some() && (!ends_tls || extensions.get::<Arc<Advertise>>().is_some())
}

/// Where the app is: the path under which a router has it, as the client writes it.
#[derive(Debug, Clone)]
pub(super) struct Prefix(String);

impl Prefix {
    /// What a router has stripped of the request's path, if it has.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let (original, path) = (original(request), request.uri().path());
        if original.len() == path.len() {
            return None;
        }
        // A router takes `/live` for the root of what is at `/live`.
        let prefix = original.strip_suffix(path).or(Some(original).filter(|_| path == "/"));
        // Letters that no URL has as they are (RFC 3986 §3.3), but that parsers let pass.
        Some(Self(encoded(prefix.unwrap_or_default(), b"/-._~!$&'()*+,;=:@%")))
    }
}

/// A path in which everything but letters, digits and `others` is percent-encoded.
pub(super) fn encoded(path: &str, others: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    let letter = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(letter).collect()
}

/// A prefix for a command: nothing in it means anything to a shell.
pub(super) fn for_shell(prefix: &str) -> String {
    encoded(prefix, b"/-._~+,:@%")
}

/// The path that the client asked for.
pub(super) fn original(request: &Request) -> &str {
    request.extensions().get::<OriginalUri>().map_or(request.uri().path(), |uri| uri.path())
}

/// Where the app is, by what the guard has put into the extensions of a request: a path without a slash at its end.
pub(super) fn prefix_of(extensions: &Extensions) -> &str {
    extensions.get::<Prefix>().map_or("", |prefix| &prefix.0)
}

/// Where the page is, when the request is for it by a path from which its files are not found: `/live` and not
/// `/live/`.
pub(super) fn page_under(request: &Request) -> Option<String> {
    let asked = original(request);
    let at_root = request.uri().path() == "/" && !asked.ends_with('/');
    let last = asked.rsplit('/').next().filter(|_| at_root)?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("./{last}/index.html{query}"))
}

/// The host of an authority that was checked, as it stands in a URL, when it is plainly that.
pub(super) fn host_in(authority: &str) -> Option<&str> {
    split_authority(authority.strip_suffix(':').unwrap_or(authority)).map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for text in ["a", "a:", "a:1", "A.b-c_d.:65535", "127.0.0.1", "[::1]", "[::1]:1", "x~y", "a;b", "a%2Fb"] {
            assert!(is_authority(text), "{text}");
        }
        for text in [
            "", ":1", "a:65536", "a:+1", "a:b", "a b", "a/b", "u@a", "[a]", "[::1", "::1", "[::1]a", "a%2", "ä",
            "a,b:1:2",
        ] {
            assert!(!is_authority(text), "{text}");
        }
    }

    /// A server cannot be brought to its knees by a name, however long.
    #[test]
    fn long_names() {
        assert!(is_authority(&"a".repeat(1 << 20)));
        assert!(!is_authority(&("%2f".repeat(1 << 20) + "%")));
    }

    #[test]
    fn prefixes() {
        for (original, path, prefix, shell) in [
            ("/stream", "/stream", "", ""),
            ("/live", "/", "/live", "/live"),
            ("/live/", "/", "/live", "/live"),
            ("/live/stream/a", "/stream/a", "/live", "/live"),
            ("/a+b/(c)/%C3%BC/stream", "/stream", "/a+b/(c)/%C3%BC", "/a+b/%28c%29/%C3%BC"),
            ("/$(a)'b&c;d/stream", "/stream", "/$(a)'b&c;d", "/%24%28a%29%27b%26c%3Bd"),
            ("/{a}|\"/stream", "/stream", "/%7Ba%7D%7C%22", "/%7Ba%7D%7C%22"),
        ] {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            request.extensions_mut().insert(OriginalUri(original.parse().unwrap()));
            if let Some(found) = Prefix::of(&request) {
                request.extensions_mut().insert(found);
            }
            let found = prefix_of(request.extensions());
            assert_eq!((found, for_shell(found).as_str()), (prefix, shell), "{original}");
        }
    }

    #[test]
    fn a_host_is_needed_once() {
        let check = |version, uri: &'static str, hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            checked(version, &uri.parse().unwrap(), &headers).map(|host| host.map(String::from)).map_err(|_| ())
        };
        let some = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(check(Version::HTTP_10, "/", &["a"]), some("a"));
        assert_eq!(check(Version::HTTP_11, "/", &["a"]), some("a"));
        // RFC 9112 §3.2.2
        assert_eq!(check(Version::HTTP_11, "http://b/", &["a"]), some("b"));
        assert_eq!(check(Version::HTTP_2, "https://a/", &[]), some("a"));
        assert_eq!(check(Version::HTTP_2, "https://a/", &["A:443"]), some("a"));
        assert_eq!(check(Version::HTTP_3, "/", &["a"]), some("a"));
        for (version, uri, hosts) in [
            (Version::HTTP_10, "/", &["a", "a"][..]),
            (Version::HTTP_10, "/", &["a b"]),
            (Version::HTTP_11, "/", &[]),
            (Version::HTTP_11, "/", &[""]),
            (Version::HTTP_11, "/", &["a", "a"]),
            (Version::HTTP_11, "http://a/", &["a", "a"]),
            (Version::HTTP_11, "http://a/", &[]),
            (Version::HTTP_2, "/", &[]),
            (Version::HTTP_2, "https://a/", &["b"]),
            (Version::HTTP_3, "https://a/", &["a", "b"]),
            (Version::HTTP_2, "https://u@a/", &[]),
        ] {
            assert_eq!(check(version, uri, hosts), Err(()), "{version:?} {uri} {hosts:?}");
        }
    }
}
