//! The client: requests and WebTransport sessions on one HTTP/3 connection.
//!
//! ```no_run
//! # async fn doc() -> Result<(), h3cast_transport::client::ClientError> {
//! use h3cast_transport::client::{Connection, Trust};
//!
//! let uri = "https://localhost:4433/stream".parse().unwrap();
//! let connection = Connection::open(&uri, &Trust::Files(vec!["certs/cert.pem".into()])).await?;
//! let mut response = connection.get(&uri).await?;
//! while let Some(bytes) = response.body.next().await? {
//!     print!("{}", String::from_utf8_lossy(&bytes));
//! }
//! # Ok(()) }
//! ```

mod connector;
mod request;
pub mod retry;
#[cfg(feature = "webtransport")]
mod session;
#[doc(hidden)]
pub mod trust;
pub mod url;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h3::error::StreamError;
use h3cast_proto::{Role, code};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::task::JoinSet;
use tracing::{debug, error};

pub use connector::Connector;
pub use request::{Body, ClientResponse, RequestBody, ResponseFuture, content_length};
pub use trust::{Expected, Presented, Reason, Refusal, Trust};
pub use url::BadUrl;

use crate::{
    guard::{Backend, BidiStream, Limits, OpenStreams, Shared},
    panics, quic,
    webtransport::Registry,
};

/// Why a request or session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URI is not one that this client can open.
    #[error(transparent)]
    Uri(#[from] BadUrl),
    /// The host name is not known.
    #[error("cannot find the address of `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of certificates cannot be used.
    #[error("cannot use the certificates in {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket cannot be made.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Nobody answers.
    #[error("no answer from {authority} over UDP: is the server running, and does the network let UDP through?")]
    Unreachable {
        /// Host and port.
        authority: String,
    },
    /// The server answered, and no connection came of it.
    #[error("cannot connect to {authority}: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What went wrong, in words.
        reason: String,
        /// Whether it is about certificates in another way than [`Untrusted`](Self::Untrusted): trying
        /// again does not help.
        untrusted: bool,
    },
    /// The server is not trusted: trying again does not help.
    #[error("cannot connect to {authority}: {refusal}")]
    Untrusted {
        /// Host and port.
        authority: String,
        /// Why, what the server has, and what was expected.
        refusal: Box<Refusal>,
    },
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Connection(#[from] quic::ConnectionError),
    /// The server broke the response off.
    #[error("the server broke the stream off: {}", code::describe(*.0))]
    Reset(u64),
    /// The server reads no more of the request. What it answers says why.
    #[error("the server reads no more of the request: {}", code::describe(*.0))]
    Stopped(u64),
    /// The server broke the protocol, or this side did.
    #[error("HTTP/3 failed: {0}")]
    Protocol(String),
    /// The head of the response is malformed (H3_MESSAGE_ERROR): its `content-length` is no number, or there
    /// are two different ones.
    #[error("the server sent a malformed response: {0}")]
    Malformed(String),
    /// The body of the response is malformed (H3_MESSAGE_ERROR): it is not as long as its `content-length`.
    #[error("the server sent a malformed response: content-length: {length}, but {received} bytes came")]
    Length {
        /// What the head says, in bytes.
        length: u64,
        /// What came: all of a body that is shorter, a part of one that is longer.
        received: u64,
    },
    /// The server refused a session.
    #[error("the server refused the session: {status}")]
    Refused {
        /// The status it answered.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
    },
}

impl ClientError {
    /// Whether trying again does not help: it is not the network's fault, nor the moment's.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Uri(_)
            | Self::Certificate { .. }
            | Self::Tls(_)
            | Self::Malformed(_)
            | Self::Untrusted { .. }
            | Self::Connect { untrusted: true, .. } => true,
            Self::Refused { status, .. } => retry::is_final(*status),
            _ => false,
        }
    }

    /// Whether there was no connection.
    pub fn is_unreached(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. }
                | Self::Socket(_)
                | Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Connect { .. }
        )
    }
}

/// How long closing waits for the server.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// The largest field section accepted from a server, in bytes.
const MAX_FIELD_SECTION: u64 = 64 * 1024;
/// Sessions at once on one connection.
const MAX_SESSIONS: usize = 256;

/// An HTTP/3 connection. Dropping it closes it.
pub struct Connection {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    requests: Mutex<h3::client::SendRequest<OpenStreams, Bytes>>,
    /// The connection's driver.
    _driver: JoinSet<()>,
    /// Those of its sessions.
    sessions: Mutex<JoinSet<()>>,
    connector: Connector,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("remote", &self.shared.conn.remote_address()).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.conn.close(code::H3_NO_ERROR, b"");
    }
}

impl Connection {
    /// Connects to the host of `uri`, with a socket of its own: as [`Connector::open`] of a new one.
    ///
    /// # Errors
    ///
    /// When it cannot be found or reached, or is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, no connection stays.
    pub async fn open(uri: &Uri, trust: &Trust) -> Result<Self, ClientError> {
        Connector::new(trust)?.open(uri).await
    }

    /// Speaks HTTP/3 on a connection whose sockets are those of `connector`.
    async fn over(conn: quic::Connection, connector: Connector) -> Result<Self, ClientError> {
        let limits = Limits { max_field_section_size: MAX_FIELD_SECTION, head_timeout: Duration::from_secs(10) };
        let registry = Arc::new(Registry::new(MAX_SESSIONS));
        let shared = Arc::new(Shared::new(conn, Role::Client, limits, registry.clone()));
        let mut builder = h3::client::builder();
        builder.max_field_section_size(MAX_FIELD_SECTION).send_grease(false).enable_datagram(true);
        let (h3, requests) = builder
            .build(Backend::new(shared.clone()))
            .await
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        let mut driver = JoinSet::new();
        let (driven, datagrams) = (shared.clone(), registry.clone());
        driver.spawn(async move {
            if let Err(panic) = panics::caught_async(drive(h3, driven.clone(), datagrams)).await {
                error!("the task of a client's connection panicked: {panic}");
                // Requests on it would wait for what it does not bring any more.
                driven.conn.close(code::H3_INTERNAL_ERROR, b"");
            }
        });
        Ok(Self {
            shared,
            registry,
            requests: Mutex::new(requests),
            _driver: driver,
            sessions: Mutex::default(),
            connector,
        })
    }

    /// Closes the sessions that are still open (code 0) and the connection, and waits a little for
    /// the server to learn of it. Dropping the connection instead closes it at once.
    ///
    /// # Cancel safety
    ///
    /// When dropped, everything is closed at once.
    pub async fn close(self) {
        self.registry.close_all();
        let mut sessions = std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        let told = async { while sessions.join_next().await.is_some() {} };
        // A server that does not answer must not hold us.
        let _ = tokio::time::timeout(CLOSE_WAIT, told).await;
        self.shared.conn.close(code::H3_NO_ERROR, b"");
        let _ = tokio::time::timeout(CLOSE_WAIT, self.connector.told(&self.shared.conn)).await;
    }

    /// The server's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.conn.remote_address()
    }

    /// Sends a GET request and waits for the head of the response.
    ///
    /// # Errors
    ///
    /// When the connection is lost or the server breaks the stream off.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the request is cancelled.
    pub async fn get(&self, uri: &Uri) -> Result<ClientResponse, ClientError> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        self.request(request).await
    }

    /// Sends a request without a body and waits for the head of the response.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the request is cancelled.
    pub async fn request(&self, request: Request<()>) -> Result<ClientResponse, ClientError> {
        let (body, response) = self.send_request(request).await?;
        body.finish().await?;
        response.await
    }

    /// Sends the head of a request whose body is written piece by piece, and gives the body's
    /// writer and the response to wait for. The response may come before the body is at its end.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the request is cancelled.
    pub async fn send_request(&self, request: Request<()>) -> Result<(RequestBody, ResponseFuture), ClientError> {
        let bodiless = *request.method() == Method::HEAD;
        let (send, recv) = self.send(request).await?.split();
        Ok((RequestBody::new(send, self.shared.clone()), ResponseFuture::new(recv, self.shared.clone(), bodiless)))
    }

    async fn send(&self, request: Request<()>) -> Result<h3::client::RequestStream<BidiStream, Bytes>, ClientError> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        requests.send_request(request).await.map_err(|error| self.error(error))
    }

    fn error(&self, error: StreamError) -> ClientError {
        stream_error(&self.shared, error)
    }
}

fn stream_error(shared: &Shared, error: StreamError) -> ClientError {
    if let Some(violation) = shared.violation() {
        return ClientError::Protocol(format!("{} ({})", violation.reason, code::describe(violation.code)));
    }
    match (error, shared.conn.close_reason()) {
        (StreamError::RemoteTerminate { code, .. }, _) => ClientError::Reset(code.value()),
        (_, Some(reason)) => reason.into(),
        (error, None) => ClientError::Protocol(error.to_string()),
    }
}

/// Drives a connection until it ends.
async fn drive(mut h3: h3::client::Connection<Backend, Bytes>, shared: Arc<Shared>, registry: Arc<Registry>) {
    loop {
        tokio::select! {
            closed = std::future::poll_fn(|cx| h3.poll_close(cx)) => {
                return debug!(%closed, "connection ended");
            }
            datagram = shared.conn.read_datagram() => match datagram.map(|datagram| registry.deliver_datagram(&datagram)) {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => shared.violated(violation),
                Err(_) => return,
            },
        }
    }
}
