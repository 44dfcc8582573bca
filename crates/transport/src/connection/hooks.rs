//! What an application decides about connections before their first request.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use tracing::error;

use super::{ConnectionEnd, ConnectionHandle, Protocol};
use crate::panics;

/// A client that wants to connect: its first packet over QUIC, an accepted connection over TCP. Nothing has been
/// decrypted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// The client's address. Behind a trusted proxy that speaks the
    /// [PROXY protocol](crate::proxy::ProxyProtocol), the one that it states; what proxies state in requests is not
    /// known yet.
    pub remote_address: SocketAddr,
    /// The address at the other end of the connection: the client's, or that of the last proxy before this server.
    pub peer_address: SocketAddr,
    /// The address that it connects to, where the system tells.
    pub local_address: Option<SocketAddr>,
    /// What it connects over.
    pub protocol: Protocol,
    /// Whether the address is known to be the client's own. It always is over TCP; over QUIC after
    /// [`Admit::Retry`], or when the client has a token from an earlier connection
    /// ([RFC 9000 §8.1](https://www.rfc-editor.org/rfc/rfc9000#section-8.1)).
    pub validated: bool,
}

/// What to do with a client that wants to connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admit {
    /// Begin the handshake.
    #[default]
    Accept,
    /// Refuse it: CONNECTION_REFUSED over QUIC, a reset over TCP.
    Refuse,
    /// Do not answer. Over TCP the system has answered already, so that this is a reset too.
    Ignore,
    /// Have the client show that its address is its own, which takes a round trip; then the hook is asked again.
    /// Where that is [known](Incoming::validated) it accepts.
    Retry,
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

type AcceptHook = dyn Fn(&Incoming) -> Admit + Send + Sync;
type ConnectHook = dyn Fn(ConnectionHandle) -> BoxFuture + Send + Sync;
type CloseHook = dyn Fn(&ConnectionHandle, &ConnectionEnd) + Send + Sync;

/// An application's part in the life of connections.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    accept: Option<Arc<AcceptHook>>,
    connect: Option<Arc<ConnectHook>>,
    close: Option<Arc<CloseHook>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("accept", &self.accept.is_some())
            .field("connect", &self.connect.is_some())
            .field("close", &self.close.is_some())
            .finish()
    }
}

impl Hooks {
    pub(crate) fn on_accept(&mut self, hook: impl Fn(&Incoming) -> Admit + Send + Sync + 'static) {
        self.accept = Some(Arc::new(hook));
    }

    pub(crate) fn on_connect<F, R>(&mut self, hook: F)
    where
        F: Fn(ConnectionHandle) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.connect = Some(Arc::new(move |connection| Box::pin(hook(connection))));
    }

    pub(crate) fn on_close(&mut self, hook: impl Fn(&ConnectionHandle, &ConnectionEnd) + Send + Sync + 'static) {
        self.close = Some(Arc::new(hook));
    }

    /// What to do with a client. One whose hook panics is refused.
    pub(crate) fn admit(&self, incoming: &Incoming) -> Admit {
        let Some(hook) = &self.accept else { return Admit::Accept };
        panics::caught(|| hook(incoming)).unwrap_or_else(|panic| {
            error!("the accept hook panicked, and {} is refused: {panic}", incoming.remote_address);
            Admit::Refuse
        })
    }

    /// Whether requests wait for the application.
    pub(super) fn connects(&self) -> bool {
        self.connect.is_some()
    }

    /// Has the application look at a connection. Whether it did so without a panic, which is logged.
    pub(super) async fn connected(&self, connection: &ConnectionHandle) -> bool {
        let Some(hook) = &self.connect else { return true };
        // Its first part runs when it is called.
        let looked = panics::caught_async(async { hook(connection.clone()).await }).await;
        looked.map_err(|panic| error!("the connect hook panicked, and {connection:?} is closed: {panic}")).is_ok()
    }

    pub(super) fn closed(&self, connection: &ConnectionHandle, end: &ConnectionEnd) {
        if let Some(hook) = &self.close
            && let Err(panic) = panics::caught(|| hook(connection, end))
        {
            error!("the close hook panicked: {panic}");
        }
    }
}
