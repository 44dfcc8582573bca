//! A server with a client beside it.

use std::time::Duration;

use h3cast_transport::{
    Identity, Listen, PlainHttp, Server,
    client::{ClientError, Connection, Trust},
    server::ServerBuilder,
    webtransport::Session,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Waits for an event, or fails the test.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in time: {what}"),
    }
}

/// A running server that stops when dropped, and a connection to it.
pub(crate) struct Peer {
    /// `localhost:PORT` over TLS.
    pub(crate) tls: String,
    /// The same over plain HTTP.
    pub(crate) http: String,
    pub(crate) connection: Connection,
    _stop: DropGuard,
    _certs: tempfile::TempDir,
}

impl Peer {
    pub(crate) async fn start(make: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
        let builder = Server::builder(identity)
            .listen(Listen::localhost(0))
            .plain_http(PlainHttp::At(Listen::localhost(0)))
            .grace(Duration::from_secs(1));
        let server = make(builder).build().await.unwrap();
        let (tls, http) = (server.addresses().tls[0].clone(), server.addresses().http.clone().unwrap());
        let stop = CancellationToken::new();
        let run = server.run(stop.clone());
        tokio::spawn(async { run.await.unwrap() });
        let trust = Trust::Files(vec![certs.path().join("cert.pem")]);
        let uri = format!("https://{tls}/").parse().unwrap();
        let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
        Self { tls, http, connection, _stop: stop.drop_guard(), _certs: certs }
    }

    /// Asks for a session: what opened, or the status and the headers of the refusal.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Session, (StatusCode, HeaderMap)> {
        let uri = format!("https://{}{path}", self.tls).parse().unwrap();
        let field =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let headers = HeaderMap::from_iter(headers.iter().map(field));
        match soon("an answer", self.connection.webtransport(&uri, headers, &[])).await {
            Ok(session) => Ok(session),
            Err(ClientError::Refused { status, headers }) => Err((status, headers)),
            Err(other) => panic!("{path}: {other:?}"),
        }
    }

    /// The status of the refusal, or 200.
    pub(crate) async fn status(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.ask(path, headers).await.map_or_else(|(status, _)| status.as_u16(), |_| 200)
    }

    /// What a session gets on its first stream.
    pub(crate) async fn read(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let session = self.ask(path, headers).await.unwrap();
        let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
        let mut text = Vec::new();
        while let Some(bytes) = soon("more", stream.read_bytes(usize::MAX)).await.unwrap() {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    }
}
