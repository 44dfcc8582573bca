//! Where a client reaches the server: what it calls it, or what it is told to call it.

use std::{fmt, str::FromStr, sync::Arc};

use http::{Extensions, HeaderMap, HeaderValue, Uri, header};

use crate::{origin::split_authority, proxy::Forwarded};

/// The address that clients are told, where theirs is not it: behind a proxy that ends TLS, say, or where
/// plain HTTP and HTTPS are mapped to other ports. Written `HOST:PORT`, or `:PORT` for the host that the
/// client uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// As it stands in a URL.
    host: Option<String>,
    port: u16,
}

/// A text is no address to advertise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot advertise `{0}`: write HOST:PORT, as in cast.example:443, or :PORT")]
pub struct BadAdvertise(String);

impl FromStr for Advertise {
    type Err = BadAdvertise;

    fn from_str(text: &str) -> Result<Self, BadAdvertise> {
        let bad = || BadAdvertise(text.to_owned());
        let (host, port) = match text.strip_prefix(':') {
            Some(port) => (None, port.parse().ok()),
            None => split_authority(text).map(|(host, port)| (Some(host.to_owned()), port)).ok_or_else(bad)?,
        };
        port.filter(|port| *port > 0).map(|port| Self { host, port }).ok_or_else(bad)
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.as_deref().unwrap_or_default(), self.port)
    }
}

impl Advertise {
    /// The host, unless it is the one that the client uses.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

/// The way by which a request reached the server. Each request carries it in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Via {
    /// Over TLS (or QUIC), not plain HTTP.
    pub tls: bool,
    /// The port where HTTP/3, HTTP/2 and HTTP/1.1 over TLS are served: of the listener that the
    /// request came to, or of the first one for a request over plain HTTP.
    pub tls_port: u16,
    /// The port where plain HTTP is served, if it is.
    pub plain_port: Option<u16>,
}

/// The port of `https` URLs without one.
const HTTPS: u16 = 443;

/// What a client calls the server, and how.
struct Called<'a> {
    /// The host, as it stands in a URL, and the port, if the client names one.
    authority: Option<(&'a str, Option<u16>)>,
    via: Via,
    advertise: Option<&'a Advertise>,
}

impl<'a> Called<'a> {
    fn by(uri: &'a Uri, headers: &'a HeaderMap, via: Via, advertise: Option<&'a Advertise>) -> Self {
        Self { authority: authority(uri, headers), via, advertise }
    }

    /// The same with what a trusted proxy says of it.
    fn of(uri: &'a Uri, headers: &'a HeaderMap, extensions: &'a Extensions) -> Option<Self> {
        let advertise = extensions.get::<Arc<Advertise>>().map(Arc::as_ref);
        let mut called = Self::by(uri, headers, *extensions.get::<Via>()?, advertise);
        if let Some(forwarded) = extensions.get::<Forwarded>() {
            called.authority = forwarded.host().and_then(split).or(called.authority);
            called.via.tls = forwarded.https().unwrap_or(called.via.tls);
        }
        Some(called)
    }

    /// The host (as it stands in a URL) and the port by which this client reaches us over TLS and QUIC.
    ///
    /// A port mapping does not show in our own port, but in the authority that the client names. That
    /// mappings carry UDP and TCP alike is taken for granted.
    fn reached(&self) -> (&'a str, u16) {
        let (host, port) = match self.authority {
            // Nothing is at port 0, whatever a client calls it.
            Some((host, port)) if self.via.tls => (host, port.filter(|port| *port > 0).unwrap_or(HTTPS)),
            Some((host, _)) => (host, self.via.tls_port),
            None => ("localhost", self.via.tls_port),
        };
        match self.advertise {
            Some(Advertise { host: told, port }) => (told.as_deref().unwrap_or(host), *port),
            None => (host, port),
        }
    }

    fn base(&self) -> String {
        match self.reached() {
            (host, HTTPS) => format!("https://{host}"),
            (host, port) => format!("https://{host}:{port}"),
        }
    }

    fn alt_svc(&self) -> String {
        let (host, port) = self.reached();
        let same = self.authority.is_none_or(|(used, _)| used.eq_ignore_ascii_case(host));
        format!("h3=\"{}:{port}\"; ma=86400", if same { "" } else { host })
    }
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<(&'a str, Option<u16>)> {
    match uri.authority() {
        Some(authority) => split(authority.as_str()),
        None => split(headers.get(header::HOST)?.to_str().ok()?),
    }
}

fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    split_authority(authority.strip_suffix(':').unwrap_or(authority))
}

/// The origin by which this client reaches us over TLS and QUIC: `https://HOST[:PORT]`. Behind a trusted proxy,
/// [`base_of`] is the one to ask.
pub fn base(uri: &Uri, headers: &HeaderMap, via: Via, advertise: Option<&Advertise>) -> String {
    Called::by(uri, headers, via, advertise).base()
}

/// The origin by which the client of a request reaches us over TLS and QUIC: `https://HOST[:PORT]`. Where a trusted
/// proxy forwards a request of HTTPS, it is that of the proxy, unless another one is
/// [advertised](crate::server::ServerBuilder::advertise). `None` for a request of another server.
#[must_use]
pub fn base_of(uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<String> {
    Called::of(uri, headers, extensions).map(|called| called.base())
}

/// Where HTTP/3 is (RFC 7838 §3): at the same port, a day, as is usual. Not for clients of plain HTTP, which could
/// not believe it; a proxy of HTTPS has HTTP/3 of its own, unless we are to tell of ours.
#[cfg(feature = "tcp")]
pub(crate) fn alternative(
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
    has_http3: bool,
) -> Option<HeaderValue> {
    let called = Called::of(uri, headers, extensions)?;
    let is_here = match extensions.get::<Forwarded>().and_then(Forwarded::https) {
        Some(https) => https && called.advertise.is_some(),
        None => has_http3,
    };
    is_here.then(|| HeaderValue::from_str(&called.alt_svc()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_advertise() {
        for text in ["cast.example:443", "127.0.0.1:1", "[::1]:8443", ":65535"] {
            assert_eq!(text.parse::<Advertise>().unwrap().to_string(), text);
        }
        for text in ["", "cast.example", "cast.example:0", ":", ":0", ":x", "a b:1", "https://a:1", "a:65536", "u@a:1"]
        {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_clients_are_told() {
        let told = |host: Option<&str>, tls: bool, advertise: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            let (uri, via) = (Uri::from_static("/"), Via { tls, tls_port: 4433, plain_port: None });
            let advertise = advertise.map(|text| text.parse().unwrap());
            let called = Called::by(&uri, &headers, via, advertise.as_ref());
            (called.base(), called.alt_svc())
        };
        for (host, tls, advertise, expected, alternative) in [
            (Some("localhost:4433"), true, None, "https://localhost:4433", ":4433"),
            (Some("cast.example:8443"), true, None, "https://cast.example:8443", ":8443"),
            (Some("cast.example"), true, None, "https://cast.example", ":443"),
            (Some("cast.example:"), true, None, "https://cast.example", ":443"),
            (Some("[::1]:8443"), true, None, "https://[::1]:8443", ":8443"),
            (Some("localhost:8080"), false, None, "https://localhost:4433", ":4433"),
            (None, true, None, "https://localhost:4433", ":4433"),
            (Some("a;b:1"), true, None, "https://localhost:4433", ":4433"),
            (Some("cast.example:8443"), true, Some(":443"), "https://cast.example", ":443"),
            (Some("Cast.example:1"), true, Some("cast.example:2"), "https://cast.example:2", ":2"),
            (Some("10.0.0.1:1"), true, Some("cast.example:2"), "https://cast.example:2", "cast.example:2"),
            (Some("localhost:8080"), false, Some(":5000"), "https://localhost:5000", ":5000"),
        ] {
            let (base, alt_svc) = told(host, tls, advertise);
            assert_eq!((base.as_str(), alt_svc), (expected, format!("h3=\"{alternative}\"; ma=86400")), "{host:?}");
        }
    }
}
