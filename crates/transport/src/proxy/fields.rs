//! Fields in which proxies say whom they forward.

use std::net::SocketAddr;

use h3cast_proto::forwarded::{self, BadForwarded, Hop, Node};
use http::{HeaderMap, HeaderName, header};

use super::{BadFields, Forwarded, TrustedProxies};
use crate::{origin::split_authority, shown::Short};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How much of a value an error repeats, in characters.
const SHOWN: usize = 200;

/// What the fields of a request say whose sender is trusted, if they say anything.
pub(super) fn read(headers: &HeaderMap, trusted: &TrustedProxies) -> Result<Option<Forwarded>, BadFields> {
    Ok(match (standard(headers, trusted)?, extended(headers, trusted)?) {
        (None, said) | (said, None) => said,
        (Some(one), Some(other)) => Some(agreed(one, other)?),
    })
}

fn bad(name: &HeaderName, value: &str, why: BadForwarded) -> BadFields {
    BadFields(format!("`{name}: {}`: {why}", Short(value, SHOWN)))
}

/// A client usually sends one kind, and passes through a proxy that sets the other: which is which cannot be told.
fn agreed(one: Forwarded, other: Forwarded) -> Result<Forwarded, BadFields> {
    fn same<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
        one.is_none() || other.is_none() || one == other
    }
    let ip = |said: &Forwarded| said.client.map(|client| client.ip());
    let lower = |said: &Forwarded| said.host.as_deref().map(str::to_ascii_lowercase);
    let agree = ip(&one) == ip(&other)
        && same(one.https.as_ref(), other.https.as_ref())
        && same(lower(&one).as_ref(), lower(&other).as_ref());
    if !agree {
        let text = "`Forwarded` and `X-Forwarded-…` contradict each other: have the proxy set one kind, and remove the other from what clients send";
        return Err(BadFields(text.into()));
    }
    Ok(Forwarded { https: one.https.or(other.https), host: one.host.or(other.host), ..one })
}

/// Whether the fields state clients, and all of them are loopback addresses.
pub(super) fn are_of_loopback(headers: &HeaderMap) -> bool {
    let is_loopback = |node| address(node).is_some_and(|client| client.ip().is_loopback());
    let mut stated = false;
    let extended = elements(headers, &FOR).all(|text| {
        stated = true;
        forwarded::bare_node(&text).is_ok_and(is_loopback)
    });
    let standard = headers.get_all(header::FORWARDED).into_iter().all(|value| {
        let hops = forwarded::parse(&String::from_utf8_lossy(value.as_bytes()));
        hops.is_ok_and(|hops| {
            let mut nodes = hops.into_iter().map(|hop| hop.node).inspect(|_| stated = true);
            nodes.all(|node| node.is_some_and(is_loopback))
        })
    });
    extended && standard && stated
}

/// `Forwarded`: of the elements, from the last one backwards, the first one whose client is not trusted.
fn standard(headers: &HeaderMap, trusted: &TrustedProxies) -> Result<Option<Forwarded>, BadFields> {
    let mut last = None;
    'fields: for value in headers.get_all(header::FORWARDED).into_iter().rev() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let hops = forwarded::parse(&value).map_err(|why| bad(&header::FORWARDED, &value, why))?;
        for hop in hops.into_iter().rev() {
            let goes_on = matches!(hop.node, Some(Node::Address(ip, _)) if trusted.contains(ip));
            last = Some(hop);
            if !goes_on {
                break 'fields;
            }
        }
    }
    let Some(Hop { node, https, host }) = last else { return Ok(None) };
    let host = host.map(|host| checked(&header::FORWARDED, &host)).transpose()?;
    Ok(Some(Forwarded { client: node.and_then(address), https, host, ..Forwarded::default() }))
}

/// `X-Forwarded-For` in the same way, and what the proxy that this client has reached says with it.
fn extended(headers: &HeaderMap, trusted: &TrustedProxies) -> Result<Option<Forwarded>, BadFields> {
    let (mut proxies, mut client) = (0, None);
    for text in elements(headers, &FOR) {
        proxies += 1;
        let node = forwarded::bare_node(&text).map_err(|why| bad(&FOR, &text, why))?;
        client = address(node);
        if !client.is_some_and(|client| trusted.contains(client.ip())) {
            break;
        }
    }
    // As many proxies are trusted, and each may have appended to these; or the last one has set them.
    let said = |name: &HeaderName| elements(headers, name).take(proxies.max(1)).last();
    let https = said(&PROTO).map(|text| forwarded::is_https(&text).map_err(|why| bad(&PROTO, &text, why)));
    let host = said(&HOST).map(|text| checked(&HOST, &text));
    let (https, host) = (https.transpose()?, host.transpose()?);
    let is_silent = proxies == 0 && https.is_none() && host.is_none();
    Ok((!is_silent).then_some(Forwarded { client, https, host, ..Forwarded::default() }))
}

/// The elements of a list, from the last one backwards.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'a> {
    let lines = headers.get_all(name).into_iter().rev().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let elements = lines.flat_map(|line| line.rsplit(',').map(|text| text.trim().to_owned()).collect::<Vec<_>>());
    elements.filter(|text| !text.is_empty())
}

fn address(node: Node) -> Option<SocketAddr> {
    match node {
        Node::Address(ip, port) => Some(SocketAddr::new(ip.to_canonical(), port.unwrap_or(0))),
        Node::Hidden => None,
    }
}

fn checked(name: &HeaderName, host: &str) -> Result<Box<str>, BadFields> {
    match split_authority(host.strip_suffix(':').unwrap_or(host)) {
        Some(_) => Ok(host.into()),
        None => Err(BadFields(format!("`{name}: {}`: not a host with or without a port", Short(host, SHOWN)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fields: &[(&'static str, &str)]) -> Result<Option<Forwarded>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        read(&headers, &"loopback,10.0.0.0/8".parse().unwrap()).map_err(|error| error.to_string())
    }

    fn client(fields: &[(&'static str, &str)]) -> String {
        match said(fields) {
            Ok(Some(said)) => said.client.map_or("hidden".into(), |client| client.to_string()),
            Ok(None) => "none".into(),
            Err(_) => "malformed".into(),
        }
    }

    #[test]
    fn the_last_client_that_is_not_trusted_counts() {
        const FOR: &str = "x-forwarded-for";
        for (lines, expected) in [
            (&[][..], "none"),
            (&[""], "none"),
            (&["192.0.2.1"], "192.0.2.1:0"),
            (&["192.0.2.1:4711"], "192.0.2.1:4711"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]:80"], "[2001:db8::1]:80"),
            (&["::ffff:192.0.2.1"], "192.0.2.1:0"),
            (&["unknown"], "hidden"),
            // Invented by the client, and what proxies append.
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1:0"),
            (&["6.6.6.6, 192.0.2.1,10.0.0.1 , ,10.0.0.2"], "192.0.2.1:0"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.1, 10.0.0.2"], "192.0.2.1:0"),
            (&["10.0.0.9, 192.0.2.1"], "192.0.2.1:0"),
            (&["6.6.6.6, unknown, 10.0.0.1"], "hidden"),
            (&["nonsense\", 192.0.2.1"], "192.0.2.1:0"),
            (&["nonsense", "192.0.2.1"], "192.0.2.1:0"),
            // Only proxies.
            (&["10.0.0.1, 10.0.0.2"], "10.0.0.1:0"),
            // Said by one that is trusted.
            (&["nonsense"], "malformed"),
            (&["192.0.2.1, nonsense"], "malformed"),
            (&["nonsense, 10.0.0.1"], "malformed"),
            (&["192.0.2.1 10.0.0.1"], "malformed"),
            (&["192.0.2.1;10.0.0.1"], "malformed"),
            (&["\u{fc}"], "malformed"),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| (FOR, *line)).collect();
            assert_eq!(client(&fields), expected, "{lines:?}");
        }
        for (lines, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1:0"),
            (&["for=\"[2001:db8::1]:80\""], "[2001:db8::1]:80"),
            (&["for=6.6.6.6, for=192.0.2.1"], "192.0.2.1:0"),
            (&["for=6.6.6.6, for=192.0.2.1, for=10.0.0.1;by=_x"], "192.0.2.1:0"),
            (&["for=6.6.6.6", "for=192.0.2.1, for=\"10.0.0.1:80\""], "192.0.2.1:0"),
            (&["for=6.6.6.6, for=_secret, for=10.0.0.1"], "hidden"),
            (&["for=6.6.6.6, proto=http, for=10.0.0.1"], "hidden"),
            (&["for=6.6.6.6;by=\"", "for=192.0.2.1"], "192.0.2.1:0"),
            (&["for=6.6.6.6;by=\", for=192.0.2.1"], "malformed"),
            (&["for=nonsense"], "malformed"),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(client(&fields), expected, "{lines:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_those_of_the_proxy_that_the_client_has_reached() {
        let told = |fields: &[(&'static str, &str)]| {
            said(fields).map(|said| said.map(|said| (said.https, said.host.map(String::from)))).unwrap()
        };
        let some = |https, host: &str| Some((Some(https), Some(host.to_owned())));
        let (f, p, h) = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host");
        assert_eq!(told(&[(f, "192.0.2.1"), (p, "https"), (h, "a.example:8443")]), some(true, "a.example:8443"));
        assert_eq!(told(&[(p, "HTTP"), (h, "a.example")]), some(false, "a.example"));
        // The client has sent some as well, and one proxy, or each of two, has appended its own.
        assert_eq!(told(&[(f, "192.0.2.1"), (p, "http, https"), (h, "evil\", a.example")]), some(true, "a.example"));
        let two = [(f, "6.6.6.6, 192.0.2.1, 10.0.0.1"), (p, "http,https"), (p, "http"), (h, "x,a.example,inner")];
        assert_eq!(told(&two), some(true, "a.example"));
        assert_eq!(told(&[(f, "192.0.2.1, 10.0.0.1"), (p, "https")]), Some((Some(true), None)));
        let line =
            "for=6.6.6.6;host=evil, for=192.0.2.1;proto=https;host=a.example, for=10.0.0.1;proto=http;host=inner";
        assert_eq!(told(&[("forwarded", line)]), some(true, "a.example"));
        for (name, value) in [(p, "ftp"), (h, "a b"), (h, "a/b"), (h, "u@a"), ("forwarded", "host=\"a b\"")] {
            assert!(said(&[(name, value)]).is_err(), "{name}: {value}");
        }
    }

    /// A proxy that sets one kind lets the other kind pass, as its client has sent it.
    #[test]
    fn both_kinds_must_say_the_same() {
        let both = |one: &str, other: &str| client(&[("x-forwarded-for", one), ("forwarded", other)]);
        assert_eq!(both("192.0.2.1", "for=\"192.0.2.1:80\""), "192.0.2.1:80");
        assert_eq!(both("192.0.2.1", "for=6.6.6.6"), "malformed");
        assert_eq!(both("6.6.6.6", "for=192.0.2.1"), "malformed");
        assert_eq!(both("192.0.2.1", "for=unknown"), "malformed");
        assert_eq!(client(&[("x-forwarded-proto", "https"), ("forwarded", "for=6.6.6.6")]), "malformed");
        let hosts = [("x-forwarded-host", "a"), ("forwarded", "host=b")];
        assert!(said(&hosts).unwrap_err().contains("contradict"));
    }
}
