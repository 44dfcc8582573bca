//! Whether a request comes from this machine.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::{HeaderMap, HeaderName, header, request::Parts};

use super::host;
use crate::{ConnectionHandle, origin::is_loopback, server::Forwarded};

/// Fields by which a proxy states that it forwards a request, in addition to those that begin with `x-forwarded`.
const FORWARDING: [HeaderName; 12] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("fastly-client-ip"),
    HeaderName::from_static("cdn-loop"),
];

/// Whether the client of a request is a program of this machine, as far as can be known.
///
/// A loopback address alone does not show that: a proxy of this machine has one, whoever its clients are. If it is
/// [trusted](crate::server::ServerBuilder::trust_proxy), every client on the way that it names must have a loopback
/// address as well: what is loopback to a proxy on another machine is that machine. A request that an untrusted proxy
/// forwards never counts as local. What a proxy hides cannot be known, but the name by which it was reached may show:
/// here it must be one of this machine.
pub(super) fn is_of_this_machine(request: &Parts) -> bool {
    if !is_from_loopback(request) {
        return false;
    }
    match request.extensions.get::<Forwarded>() {
        Some(forwarded) => forwarded.is_of_loopback(),
        None => !is_forwarded(&request.headers) && is_reached_as_local(request),
    }
}

/// Whether the other end of the connection has an address of loopback, now and when it began.
fn is_from_loopback(request: &Parts) -> bool {
    match request.extensions.get::<ConnectionHandle>() {
        Some(connection) => is_local(connection.peer_address().ip()) && is_local(connection.current_address().ip()),
        // Another server than ours may tell.
        None => {
            request.extensions.get::<ConnectInfo<SocketAddr>>().is_some_and(|ConnectInfo(client)| is_local(client.ip()))
        }
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-forwarded") || FORWARDING.contains(name))
}

fn is_reached_as_local(request: &Parts) -> bool {
    match host::checked(request.version, &request.uri, &request.headers) {
        Ok(Some(authority)) => host::host_in(authority).is_some_and(is_loopback),
        // A client that names no host is not a browser.
        Ok(None) => true,
        Err(_) => false,
    }
}

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// A request that another server than ours has taken.
    fn is_local_from(client: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::get("/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let client: SocketAddr = client.parse().unwrap();
        parts.extensions.insert(ConnectInfo(client));
        is_of_this_machine(&parts)
    }

    #[test]
    fn loopback_addresses_under_names_of_this_machine() {
        for client in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "app.localhost"] {
                assert!(is_local_from(client, &[("host", host)]), "{client} {host}");
            }
        }
        for client in ["192.0.2.1:1", "10.0.0.1:1", "[2001:db8::1]:1", "0.0.0.0:1", "[fe80::1]:1"] {
            assert!(!is_local_from(client, &[("host", "localhost")]), "{client}");
        }
        for host in ["cast.example", "cast.example:8080", "192.0.2.1", "localhost.example", "localhost@cast.example"] {
            assert!(!is_local_from("127.0.0.1:1", &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn what_a_proxy_forwards_is_not_of_this_machine() {
        for name in [
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-server",
            "x-real-ip",
            "cf-connecting-ip",
        ] {
            // Whatever it says.
            for value in ["127.0.0.1", "for=127.0.0.1", "", "1.1 localhost"] {
                assert!(!is_local_from("127.0.0.1:1", &[("host", "localhost"), (name, value)]), "{name}: {value}");
            }
        }
    }

    #[test]
    fn a_client_of_which_nothing_is_known_is_not_of_this_machine() {
        let (parts, ()) = Request::get("/status").header("host", "localhost").body(()).unwrap().into_parts();
        assert!(!is_of_this_machine(&parts));
    }
}
