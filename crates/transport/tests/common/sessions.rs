//! Both ends of WebTransport sessions in the hands of the test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use axum::{Router, routing::get};
use h3cast_transport::{
    client::{ClientError, Connection},
    webtransport::{Session, SessionRequest},
};
use http::HeaderMap;
use tokio::sync::mpsc;

use super::{TestServer, soon};

/// Asks for a session at `path`.
pub async fn ask(
    connection: &Connection,
    server: &TestServer,
    path: &str,
    protocols: &[&str],
) -> Result<Session, ClientError> {
    let uri = server.uri(path);
    soon("an answer", connection.webtransport(&uri, HeaderMap::new(), protocols)).await
}

/// A server that accepts every session and gives it to the test, and a connection to it.
pub struct SessionServer {
    pub server: TestServer,
    pub connection: Connection,
    pub accepted: mpsc::UnboundedReceiver<Session>,
}

impl SessionServer {
    pub async fn start() -> Self {
        let (accepted_tx, accepted) = mpsc::unbounded_channel();
        let router = Router::new().route("/healthz", get(async || "ok"));
        let server = TestServer::start(|builder, _| {
            builder.http_service(router).webtransport_fallback(move |request: SessionRequest| {
                let accepted_tx = accepted_tx.clone();
                async move {
                    if let Ok(session) = request.accept().await {
                        // The test may have ended.
                        let _ = accepted_tx.send(session);
                    }
                }
            })
        })
        .await;
        let connection = server.connect().await;
        Self { server, connection, accepted }
    }

    /// Opens a session: the client's end and the server's.
    pub async fn session(&mut self) -> (Session, Session) {
        let client = ask(&self.connection, &self.server, "/", &[]).await.unwrap();
        let accepted = soon("the server's end of it", self.accepted.recv()).await.unwrap();
        assert_eq!(client.id(), accepted.id());
        (client, accepted)
    }

    /// Drops the connection, which closes it at once, and opens another one.
    pub async fn reconnect(&mut self) {
        self.connection = self.server.connect().await;
    }
}

/// Opens a session, reads a byte of its first stream, and closes it.
pub async fn visit(connection: &Connection, uri: &http::Uri) {
    let session = soon("a session", connection.webtransport(uri, Default::default(), &[])).await.unwrap();
    let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
    let mut first = [0];
    soon("a byte", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first)).await.unwrap();
    session.close(7, "enough");
    soon("the end", session.closed()).await;
}
