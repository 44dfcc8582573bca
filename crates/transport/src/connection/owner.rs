//! What holds a connection while it lasts.

use std::net::SocketAddr;

use h3cast_proto::{code, proxy::ProxyHeader};

use super::{ConnectionEnd, ConnectionHandle, Hooks, TlsInfo};
use crate::quic;

/// Held by what drives a connection: with it, the handle's connection ends.
#[derive(Debug)]
pub(crate) struct Owner {
    handle: ConnectionHandle,
    /// Over QUIC.
    conn: Option<quic::Connection>,
    hooks: Hooks,
    /// The application knows of it, and is to learn of its end.
    known: bool,
}

impl Owner {
    pub(crate) fn quic(conn: &quic::Connection, server_name: Option<String>, hooks: Hooks) -> Self {
        let handle = ConnectionHandle::quic(conn, server_name);
        Self { handle, conn: Some(conn.clone()), hooks, known: false }
    }

    /// `announced` is what a trusted proxy at `remote` has sent before anything else.
    pub(crate) fn tcp(
        local: Option<SocketAddr>,
        remote: SocketAddr,
        announced: Option<ProxyHeader>,
        tls: Option<TlsInfo>,
        hooks: Hooks,
    ) -> Self {
        Self { handle: ConnectionHandle::tcp(local, remote, announced, tls), conn: None, hooks, known: false }
    }

    pub(crate) fn handle(&self) -> &ConnectionHandle {
        &self.handle
    }

    /// Whether the application wants to see connections before their first request.
    pub(crate) fn is_awaited(&self) -> bool {
        self.hooks.connects()
    }

    /// The handshake is complete.
    pub(crate) fn handshaken(&mut self) {
        self.handle.handshaken();
        self.known = true;
    }

    /// Has the application look at the connection, whose handshake is complete; whether it is to be served.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the application's part in it is.
    pub(crate) async fn admitted(&mut self) -> bool {
        let looked = tokio::select! {
            biased;
            looked = self.hooks.connected(&self.handle) => looked,
            // Closed by the application, or lost.
            () = self.gone() => return false,
        };
        if !looked {
            self.handle.close(code::H3_INTERNAL_ERROR, "");
        }
        !self.is_gone()
    }

    async fn gone(&self) {
        match &self.conn {
            Some(conn) => drop(conn.closed().await),
            None => self.handle.closing().cancelled().await,
        }
    }

    fn is_gone(&self) -> bool {
        match &self.conn {
            Some(conn) => conn.close_reason().is_some(),
            None => self.handle.closing().is_cancelled(),
        }
    }

    /// Ends the handle if the connection is gone, before all that it carried has noticed.
    pub(crate) fn notice(&self) {
        if let Some(conn) = &self.conn
            && let Some(lost) = conn.close_reason()
        {
            self.finish(ConnectionEnd::of_quic(lost, conn.closed_with()));
        }
    }

    /// Ends the handle, whose connection ends so.
    pub(crate) fn finish(&self, end: ConnectionEnd) {
        let end = self.handle.closed_with().unwrap_or(end);
        if self.handle.finish(end.clone()) && self.known {
            self.hooks.closed(&self.handle, &end);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn
            && conn.close_reason().is_none()
        {
            let failed = std::thread::panicking();
            conn.close(if failed { code::H3_INTERNAL_ERROR } else { code::H3_NO_ERROR }, b"");
        }
        self.notice();
        self.finish(ConnectionEnd::Finished);
    }
}
