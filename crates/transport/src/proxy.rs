//! Proxies in front of a server: which are trusted, and what they say of the clients that they forward.
//!
//! A proxy speaks for its clients in one of two ways. The [PROXY protocol](ProxyProtocol) states the client's address
//! before anything else on a connection. Fields of each request state more: `Forwarded`
//! ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)), or `X-Forwarded-For` with `X-Forwarded-Proto` and
//! `X-Forwarded-Host`. Both are believed from [trusted](crate::server::ServerBuilder::trust_proxy) addresses only.
//!
//! Then [`ConnectionHandle::remote_address`] and axum's `ConnectInfo` are the client's address, and
//! [`ConnectionHandle::peer_address`] stays that of the proxy. The rest is a request's [`Forwarded`], in its
//! extensions.
//!
//! With several proxies in a row, each of which appends the address that it sees, addresses are read from the last
//! one backwards, up to the first one that is not trusted: that is the client. What stands before it was sent by the
//! client, and may be invented. A trusted proxy must therefore set these fields itself, and must set or remove those
//! that it does not append to: `X-Forwarded-Proto` and `X-Forwarded-Host` with one value count as its own.

mod fields;
mod network;

use std::net::SocketAddr;

use h3cast_proto::proxy::Source;
use http::{HeaderMap, header};

pub use self::network::{BadProxy, TrustedProxies};
use crate::connection::ConnectionHandle;

/// A kind of listener on which proxies begin connections with the PROXY protocol
/// ([versions 1 and 2](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// Those of TLS: the header comes before the handshake.
    Tls,
    /// Those of plain HTTP.
    Plain,
}

/// What trusted proxies say of a request. Only a request that one of them forwards has it in its extensions.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use h3cast_transport::{ConnectionHandle, proxy::Forwarded};
///
/// async fn whence(Extension(connection): Extension<ConnectionHandle>, by: Option<Extension<Forwarded>>) -> String {
///     match by {
///         Some(Extension(by)) if by.client().is_none() => "the proxy does not tell\n".into(),
///         _ => format!("from {}\n", connection.remote_address()),
///     }
/// }
/// # let _: Router = Router::new().route("/", get(whence));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    client: Option<SocketAddr>,
    https: Option<bool>,
    host: Option<Box<str>>,
    unforgeable: bool,
    of_loopback: bool,
}

impl Forwarded {
    /// The client's address, with port 0 where only the address is stated. `None` if no proxy states it (`unknown`,
    /// or a name that hides it); then the [connection](ConnectionHandle) has the proxy's.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// Whether the client uses HTTPS, as far as is stated.
    #[must_use]
    pub fn https(&self) -> Option<bool> {
        self.https
    }

    /// What the client calls the server, `HOST` or `HOST:PORT`, if that is stated. By default it is the request's own
    /// authority.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether it cannot come from a page in a browser beside the server, which is trusted when loopback addresses
    /// are: such a page can point its own name at the server (DNS rebinding) and set every field except those that
    /// browsers keep for themselves. `Via` is one; so is all of the PROXY protocol.
    #[must_use]
    pub fn is_unforgeable(&self) -> bool {
        self.unforgeable
    }

    /// Whether each client that is stated, by the proxies that are trusted and by those before them, has a loopback
    /// address, and at least one is stated. What is loopback to a proxy on another machine is that machine: its own
    /// address is then among them.
    #[must_use]
    pub fn is_of_loopback(&self) -> bool {
        self.of_loopback
    }
}

/// What a trusted proxy says is malformed or contradicts itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadFields(String);

impl TrustedProxies {
    /// Whether a trusted proxy has opened a connection.
    ///
    /// It must have begun at such an address, and still be at one. The address to which a QUIC connection has moved may
    /// be forged. While a handshake is not complete, the first address may be forged as well.
    pub(crate) fn opened(&self, connection: &ConnectionHandle) -> bool {
        // A client that the proxy has announced or forwards is not the proxy.
        self.contains(connection.remote_address().ip()) && self.contains(connection.current_address().ip())
    }

    /// What proxies say of a request on a connection; `None` when none that is trusted forwards it.
    pub(crate) fn said(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Result<Option<Forwarded>, BadFields> {
        let announced = connection.announced();
        if self.is_empty() {
            return Ok(None);
        }
        let by_connection = announced.filter(|header| header.source != Source::Proxy).map(|header| Forwarded {
            client: connection.announced_client(),
            https: header.tls,
            host: None,
            unforgeable: true,
            of_loopback: connection.announced_client().is_some_and(|client| client.ip().is_loopback()),
        });
        // A client without an address is not a proxy.
        let is_hidden = announced.is_some_and(|header| header.source == Source::Unknown);
        if is_hidden || !self.opened(connection) {
            return Ok(by_connection);
        }
        let Some(said) = fields::read(headers, self)? else { return Ok(by_connection) };
        Ok(Some(Forwarded {
            of_loopback: by_connection.as_ref().is_none_or(Forwarded::is_of_loopback)
                && fields::are_of_loopback(headers),
            unforgeable: announced.is_some() || headers.contains_key(header::VIA),
            https: said.https.or(by_connection.and_then(|by| by.https)),
            ..said
        }))
    }
}
