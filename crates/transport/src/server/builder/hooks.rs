//! Hooks: where an application is called in the life of connections and requests.

use http::request::Parts;

use super::ServerBuilder;
use crate::{
    connection::{Admit, ConnectionEnd, ConnectionHandle, Incoming},
    exchange::{AtEnd, Exchanges, RequestKind},
};

impl ServerBuilder {
    /// Decides about each client that wants to connect, over QUIC and TCP alike, before its handshake. Without it
    /// all are accepted.
    ///
    /// The hook runs in the task of that connection, so that it never holds up others that want to connect; like
    /// all that runs on a worker of tokio it must not block. When it panics, that client is refused, and the panic
    /// is logged.
    ///
    /// ```no_run
    /// # use h3cast_transport::{Identity, Server, connection::Admit};
    /// # fn doc(identity: Identity) {
    /// let server = Server::builder(identity).on_accept(|incoming| match incoming.remote_address.ip().is_loopback() {
    ///     true => Admit::Accept,
    ///     false if incoming.validated => Admit::Refuse,
    ///     // Refused when the address is known not to be forged.
    ///     false => Admit::Retry,
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_accept(mut self, hook: impl Fn(&Incoming) -> Admit + Send + Sync + 'static) -> Self {
        self.hooks.on_accept(hook);
        self
    }

    /// Looks at each connection when its handshake is complete and before its first request, which waits for that.
    /// The hook refuses a connection by [closing](ConnectionHandle::close) it: nothing of it reaches a handler then.
    ///
    /// With this hook there is no [early data](crate::EarlyData): such requests wait for the handshake as well.
    ///
    /// The hook's future runs in the task of that connection, and is dropped when the connection is closed: what is
    /// to be done after that is for a task of its own. When it takes longer than
    /// [`handshake_timeout`](crate::Limits::handshake_timeout) (over QUIC, together with the handshake), it is dropped and
    /// the connection closed; when it panics, the connection is closed, and the panic is logged.
    ///
    /// ```no_run
    /// # use h3cast_transport::{ConnectionHandle, Identity, Server, http3::code};
    /// # fn doc(identity: Identity) {
    /// let server = Server::builder(identity).on_connect(async |connection: ConnectionHandle| {
    ///     if connection.tls().is_some_and(|tls| tls.peer_certificates.is_empty()) {
    ///         connection.close(code::H3_REQUEST_REJECTED, "show a certificate");
    ///     }
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_connect<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(ConnectionHandle) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.hooks.on_connect(hook);
        self
    }

    /// Is called at the end of each connection whose handshake was complete, once: also of one that
    /// [`on_connect`](Self::on_connect) has closed.
    ///
    /// The hook must not block. When it panics, that is logged.
    #[must_use]
    pub fn on_close(mut self, hook: impl Fn(&ConnectionHandle, &ConnectionEnd) + Send + Sync + 'static) -> Self {
        self.hooks.on_close(hook);
        self
    }

    /// Calls a hook with the head of each request and session as it begins, over every version of HTTP. What the hook
    /// returns is called with the outcome when the request ends. Access logs are written so.
    ///
    /// Requests that are refused without being handled (429, 503) are among them. What is refused before there is a
    /// request is not: malformed, or without a complete head; a head that is too large (431, unless it arrives in a
    /// single read over HTTP/1.1), and over HTTP/3 an unknown `:protocol` (501).
    ///
    /// The head has the request's extensions: [`ConnectionHandle`], [`RequestId`](crate::exchange::RequestId) and, where
    /// there is one and the request was not refused before that, [`TraceParent`](crate::exchange::TraceParent). Refusals
    /// of a request that is watched have its id as `X-Request-Id`. The hook may add others, for the
    /// [service](Self::http_service) to write to. What it returns is called once, when the response has left (over
    /// HTTP/3: when its client has it) or was broken off; with `None` the request is not watched. Neither must block.
    /// When one panics, that is logged. The last hook counts.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// use h3cast_transport::{Server, exchange::Outcome};
    ///
    /// let server = Server::builder(identity).on_request(|head, _kind| {
    ///     let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    ///     Some(Box::new(move |outcome: &Outcome| {
    ///         println!("{method} {path:?}: {:?}, {} bytes, {}", outcome.status, outcome.sent, outcome.end.as_str());
    ///     }))
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_request<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut Parts, RequestKind) -> Option<AtEnd> + Send + Sync + 'static,
    {
        self.exchanges = Exchanges::new(hook);
        self
    }
}
