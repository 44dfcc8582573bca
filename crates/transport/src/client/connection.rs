//! A connection, and what can be asked for on it.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h3cast_proto::{Role, code};
use http::{Method, Request, Uri, header};
use tokio::task::JoinSet;
use tracing::{debug, error};

use super::{ClientError, ClientResponse, Connector, ProtocolError, RequestBody, ResponseFuture, Trust, send, url};
use crate::{
    connection::{ConnectionHandle, Owner},
    guard::{Backend, BidiStream, OpenStreams, Shared},
    limits::Limits,
    panics, quic,
    webtransport::Registry,
};

/// How long closing waits for the server.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How often a server that is attended is looked at. One that answers is asked every other time.
const ATTEND: Duration = Duration::from_millis(400);
/// Sessions at once on one connection.
pub(super) const MAX_SESSIONS: usize = 256;

/// An HTTP/3 connection. Dropping it closes it.
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    requests: Mutex<h3::client::SendRequest<OpenStreams, Bytes>>,
    /// The connection's driver.
    _driver: JoinSet<()>,
    /// Those of its sessions.
    pub(super) sessions: Mutex<JoinSet<()>>,
    /// Those that send what is left of a request's body after the head of its response.
    uploads: Box<Mutex<JoinSet<()>>>,
    pub(super) handle: ConnectionHandle,
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
    /// ```no_run
    /// # async fn doc() -> Result<(), h3cast_transport::client::ClientError> {
    /// use h3cast_transport::client::{Connection, Trust};
    ///
    /// let uri = "https://localhost:4433/".parse().unwrap();
    /// let connection = Connection::open(&uri, &Trust::System).await?;
    /// println!("{}", connection.get(&uri).await?.status);
    /// connection.close().await;
    /// # Ok(()) }
    /// ```
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

    /// As [`open`](Self::open), of a server that was lost or is not there yet: it is reached within a second of its
    /// start, since attempts begin again as long as it sends nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, no connection stays.
    pub async fn open_again(uri: &Uri, trust: &Trust) -> Result<Self, ClientError> {
        Connector::builder().trust(trust.clone()).eager().build()?.open(uri).await
    }

    /// Speaks HTTP/3 on a connection whose sockets are those of `connector`.
    pub(super) async fn over(conn: quic::Connection, host: &str, connector: &Connector) -> Result<Self, ClientError> {
        let max_field_section_size = connector.settings().max_field_section_size;
        let limits = Limits { head_size: max_field_section_size, ..Limits::default() };
        let registry = Arc::new(Registry::new(MAX_SESSIONS));
        // SNI has no addresses (RFC 6066 §3).
        let server_name = Some(host.to_owned()).filter(|host| host.parse::<IpAddr>().is_err());
        let owner = Owner::quic(&conn, server_name, Default::default());
        let handle = owner.handle().clone();
        let shared = Arc::new(Shared::new(conn, Role::Client, limits, registry.clone()));
        let mut builder = h3::client::builder();
        builder.max_field_section_size(max_field_section_size).send_grease(false).enable_datagram(true);
        let (h3, requests) =
            builder.build(Backend::new(shared.clone())).await.map_err(|error| ProtocolError::Engine(error.into()))?;
        let mut driver = JoinSet::new();
        let (driven, datagrams) = (shared.clone(), registry.clone());
        driver.spawn(async move {
            let _owner = owner;
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
            uploads: Box::default(),
            handle,
        })
    }

    /// Closes the sessions that are still open (code 0) and the connection, and waits until the server has been
    /// sent word of it, a second at most each. Dropping the connection instead closes it at once.
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
        let _ = tokio::time::timeout(CLOSE_WAIT, self.shared.conn.close_and_send(code::H3_NO_ERROR, b"")).await;
    }

    /// Has a server that is silent show that it is there, about once a second, and never completes: select it against
    /// what is read. A server that was restarted answers with a reset, by which the connection is lost at once; without
    /// this, that is noticed with the next packet that this side sends.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn attend(&self) -> Infallible {
        let mut received = self.shared.conn.path().received_packets;
        loop {
            tokio::time::sleep(ATTEND).await;
            let now = self.shared.conn.path().received_packets;
            if now == received {
                self.shared.conn.keep_alive();
            }
            received = now;
        }
    }

    /// The server's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.conn.remote_address()
    }

    /// The connection's handle: how well the server is reached, what TLS has agreed on, and its end. It may be
    /// cloned and kept.
    #[must_use]
    pub fn handle(&self) -> &ConnectionHandle {
        &self.handle
    }

    /// Whether it is lost or closed, so that it takes no more requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.conn.close_reason().is_some()
    }

    /// Waits until it is lost or closed, and gives the reason.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn closed(&self) -> quic::ConnectionError {
        self.shared.conn.closed().await
    }

    pub(super) fn uploads(&self) -> &Mutex<JoinSet<()>> {
        &self.uploads
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

    /// Sends a request with a body, its trailers included, and gives the response as soon as its head is
    /// received; what is left of the request's body is sent while the response is read. A body that knows its
    /// size is sent with a `content-length`.
    ///
    /// ```no_run
    /// # async fn doc(connection: h3cast_transport::client::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use http_body_util::{BodyExt, Full};
    ///
    /// let body = Full::<bytes::Bytes>::from("hello");
    /// let response = connection.send(http::Request::post("https://localhost:4433/echo").body(body)?).await?;
    /// println!("{}: {:?}", response.status, response.body.collect().await?.to_bytes());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get), and [`ClientError::RequestBody`] or [`ClientError::RequestLength`] if the body
    /// fails. A body that fails after the head of the response makes reading the response's body fail with the
    /// same error.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the request is cancelled.
    pub async fn send<B>(&self, request: Request<B>) -> Result<ClientResponse, ClientError>
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let length = send::length(&mut head, &body)?;
        let opened = self.send_request(Request::from_parts(head, ())).await?;
        send::exchange(opened, body, length, &self.uploads).await
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
        let (send, recv) = self.open_request(request).await?.split();
        Ok((RequestBody::new(send, self.shared.clone()), ResponseFuture::new(recv, self.shared.clone(), bodiless)))
    }

    pub(super) async fn open_request(
        &self,
        request: Request<()>,
    ) -> Result<h3::client::RequestStream<BidiStream, Bytes>, ClientError> {
        // h3 would end the connection for either.
        let Some(authority) = request.uri().authority() else {
            return Err(url::target(request.uri()).expect_err("it has no authority").into());
        };
        if request.headers().get(header::HOST).is_some_and(|host| host != authority.as_str()) {
            return Err(ProtocolError::Host.into());
        }
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        requests.send_request(request).await.map_err(|error| ClientError::of_stream(&self.shared, error))
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
