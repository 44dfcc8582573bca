//! A server with one route, and plain clients for each version of HTTP.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use h3cast_transport::{
    Identity, Listen, PlainHttp, Server,
    admission::{Counters, Refusal},
    server::{Addresses, ServerBuilder, ServerHandle},
};
use http::{HeaderMap, Request, Response, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for an event before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for an event, or fails the test.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {DEADLINE:?}: {what}"),
    }
}

pub(crate) fn router() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// A builder with that route and a certificate in a folder of its own.
pub(crate) fn builder() -> (ServerBuilder, tempfile::TempDir) {
    let certs = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
    (Server::builder(identity).http_service(router()), certs)
}

pub(crate) fn loopback() -> Listen {
    "127.0.0.1:0".parse().unwrap()
}

/// A running server, which stops when this is dropped.
pub(crate) struct Serving {
    pub(crate) addresses: Addresses,
    pub(crate) certs: tempfile::TempDir,
    admission: Counters,
    handle: ServerHandle,
    _stop: DropGuard,
}

impl Serving {
    /// On 127.0.0.1, with what `set` sets.
    pub(crate) async fn start(set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::bare(|builder| set(builder.listen(loopback()).plain_http(PlainHttp::At(loopback())))).await
    }

    /// With nothing but what `set` sets.
    pub(crate) async fn bare(set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (builder, certs) = builder();
        let server = set(builder.grace(Duration::ZERO)).build().await.unwrap();
        let (addresses, stop) = (server.addresses().clone(), CancellationToken::new());
        let (admission, handle) = (server.admission().clone(), server.handle());
        let run = server.run(stop.clone());
        tokio::spawn(async { run.await.unwrap() });
        Self { addresses, certs, admission, handle, _stop: stop.drop_guard() }
    }

    pub(crate) fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.admission
    }

    /// How many connections count.
    pub(crate) fn connections(&self) -> u64 {
        self.admission.snapshot().connections
    }

    /// How often that was the reason to refuse or cut a client.
    pub(crate) fn refused(&self, reason: Refusal) -> u64 {
        self.admission.snapshot().refused(reason)
    }

    pub(crate) fn udp(&self) -> SocketAddr {
        self.addresses.udp[0]
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.addresses.tcp[0]
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.addresses.plain[0]
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.certs.path().join("cert.pem")
    }

    /// A client that trusts it.
    pub(crate) fn trust(&self) -> Trusting {
        Trusting::new(CertificateDer::pem_file_iter(self.certificate()).unwrap().map(Result::unwrap))
    }

    pub(crate) async fn h1(&self) -> TlsStream<TcpStream> {
        soon("a connection", self.trust().tcp(self.tcp(), "localhost", b"http/1.1")).await.unwrap()
    }

    pub(crate) async fn quic(&self) -> Result<quinn::Connection, quinn::ConnectionError> {
        soon("a connection", self.trust().quic(self.udp(), "localhost")).await
    }
}

/// Whom a client trusts, and what it shows of itself.
#[derive(Clone)]
pub(crate) struct Trusting {
    roots: Arc<RootCertStore>,
    pub(crate) own: Option<(CertificateDer<'static>, Arc<PrivateKeyDer<'static>>)>,
}

impl Trusting {
    pub(crate) fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        certificates.into_iter().for_each(|certificate| roots.add(certificate).unwrap());
        Self { roots: Arc::new(roots), own: None }
    }

    pub(crate) fn config(&self, protocols: &[&[u8]]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(self.roots.clone());
        let mut tls = match &self.own {
            Some((certificate, key)) => tls.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        tls
    }

    pub(crate) async fn tcp(
        &self,
        address: SocketAddr,
        name: &str,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls(TcpStream::connect(address).await?, name, protocol).await
    }

    /// TLS on a connection that is there.
    pub(crate) async fn tls(
        &self,
        stream: TcpStream,
        name: &str,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(self.config(&[protocol]))).connect(name, stream).await
    }

    pub(crate) async fn quic(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.endpoint("127.0.0.1").connect(address, name).unwrap().await
    }

    /// From another address of loopback.
    pub(crate) async fn quic_from(
        &self,
        from: &str,
        to: SocketAddr,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.endpoint(from).connect(to, "localhost").unwrap().await
    }

    /// With settings of QUIC.
    pub(crate) async fn quic_with(
        &self,
        to: SocketAddr,
        transport: quinn::TransportConfig,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let tls = QuicClientConfig::try_from(self.config(&[b"h3"])).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        self.endpoint("127.0.0.1").connect_with(config, to, "localhost").unwrap().await
    }

    /// A socket of one address of loopback.
    pub(crate) fn endpoint(&self, from: &str) -> quinn::Endpoint {
        let mut endpoint = quinn::Endpoint::client(format!("{from}:0").parse().unwrap()).unwrap();
        let tls = QuicClientConfig::try_from(self.config(&[b"h3"])).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        endpoint
    }
}

/// Asks over HTTP/1.1; the connection stays. Gives the whole response.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, fields: &str) -> std::io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    // One that is refused early may not be read to its end.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    loop {
        let mut buf = [0; 4096];
        match stream.read(&mut buf).await? {
            0 => return Ok(answer),
            size => answer += std::str::from_utf8(&buf[..size]).unwrap(),
        }
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return Ok(answer);
        }
    }
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// Asks over HTTP/3.
pub(crate) async fn ask_h3(
    connection: &quinn::Connection,
    headers: HeaderMap,
) -> Result<StatusCode, h3::error::StreamError> {
    Ok(head_h3(connection, headers).await?.status())
}

/// The same, and gives the head of the response.
pub(crate) async fn head_h3(
    connection: &quinn::Connection,
    headers: HeaderMap,
) -> Result<Response<()>, h3::error::StreamError> {
    let connection = h3_quinn::Connection::new(connection.clone());
    let (mut driver, mut requests) = h3::client::new(connection).await.unwrap();
    let mut request = Request::get("https://localhost/").body(()).unwrap();
    request.headers_mut().extend(headers);
    // As long as the connection, which the server would close otherwise.
    let keep = requests.clone();
    tokio::spawn(async move {
        std::future::poll_fn(|cx| driver.poll_close(cx)).await;
        drop(keep);
    });
    let mut stream = requests.send_request(request).await?;
    stream.finish().await?;
    stream.recv_response().await
}
