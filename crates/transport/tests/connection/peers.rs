//! A server that stops when dropped, and clients for each version of HTTP.

use std::{error::Error, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Buf, Bytes};
use h3cast_transport::{
    Identity, Listen, PlainHttp, Server,
    client::{Connection, Connector, Trust},
    server::ServerBuilder,
};
use http::{Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Waits for an event, or fails the test.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen: {what}"),
    }
}

/// A running server.
pub(crate) struct Served {
    pub(crate) quic: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    certs: tempfile::TempDir,
    _stop: DropGuard,
}

pub(crate) async fn serve(make: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Served {
    let certs = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
    let listen = || "127.0.0.1:0".parse::<Listen>().unwrap();
    let builder = Server::builder(identity).listen(listen()).plain_http(PlainHttp::At(listen()));
    let server = make(builder.grace(Duration::from_secs(3))).build().await.unwrap();
    let (quic, http) = (server.addresses().udp[0], server.addresses().http.as_ref().unwrap().parse().unwrap());
    let stop = CancellationToken::new();
    let run = server.run(stop.clone());
    let running = tokio::spawn(async { run.await.unwrap() });
    Served { quic, http, running, certs, _stop: stop.clone().drop_guard(), stop }
}

impl Served {
    /// By its name, which TLS carries.
    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.quic.port()).parse().unwrap()
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.certs.path().join("cert.pem")
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new(&Trust::Files(vec![self.certificate()])).unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        soon("a connection", self.connector().open(&self.uri("/"))).await.unwrap()
    }

    /// What it answers over HTTP/3 to a client that makes a single attempt.
    pub(crate) async fn h3(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let connection = soon("an answer", self.quinn().connect(self.quic, "localhost")?).await?;
        H3::over(connection).await?.text(&self.uri(path)).await
    }

    /// A client of quinn alone, which takes early data.
    pub(crate) fn quinn(&self) -> quinn::Endpoint {
        self.quinn_at("127.0.0.1:0")
    }

    /// One at this address.
    pub(crate) fn quinn_at(&self, address: &str) -> quinn::Endpoint {
        let mut tls = self.tls(b"h3");
        tls.enable_early_data = true;
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut endpoint = quinn::Endpoint::client(address.parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        endpoint
    }

    pub(crate) fn tls(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![protocol.to_vec()];
        tls
    }

    /// A client over plain TCP.
    pub(crate) async fn plain(&self, version: Version) -> Tcp {
        Tcp::over(TcpStream::connect(self.http).await.unwrap(), version, format!("http://{}", self.http)).await
    }

    /// A client over TLS.
    pub(crate) async fn secure(&self, version: Version) -> Tcp {
        self.secure_after(b"", version).await
    }

    /// A client over TLS whose proxy says something first.
    pub(crate) async fn secure_after(&self, first: &[u8], version: Version) -> Tcp {
        let alpn: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
        let mut tcp = TcpStream::connect(self.quic).await.unwrap();
        tcp.write_all(first).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(self.tls(alpn))).connect(name, tcp).await.unwrap();
        Tcp::over(tls, version, format!("https://localhost:{}", self.quic.port())).await
    }
}

/// Gets a text over HTTP/3.
pub(crate) async fn text(connection: &Connection, uri: &Uri) -> String {
    let mut response = soon("a response", connection.get(uri)).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("its body", response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

/// A client of the h3 crate's.
pub(crate) struct H3(h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>);

impl H3 {
    pub(crate) async fn over(connection: quinn::Connection) -> Result<Self, Box<dyn Error>> {
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self(requests))
    }

    pub(crate) async fn text(&mut self, uri: &Uri) -> Result<String, Box<dyn Error>> {
        self.ask(Request::get(uri).body(()).unwrap()).await
    }

    pub(crate) async fn ask(&mut self, request: Request<()>) -> Result<String, Box<dyn Error>> {
        let mut stream = self.0.send_request(request).await?;
        stream.finish().await?;
        soon("a response", stream.recv_response()).await?;
        let mut text = Vec::new();
        while let Some(mut data) = soon("its body", stream.recv_data()).await? {
            text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        Ok(String::from_utf8(text)?)
    }
}

/// A client of hyper's.
pub(crate) enum Tcp {
    H1(conn::http1::SendRequest<Body>, String, JoinHandle<hyper::Result<()>>),
    H2(conn::http2::SendRequest<Body>, String, JoinHandle<hyper::Result<()>>),
}

impl Tcp {
    async fn over<S>(stream: S, version: Version, base: String) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, driver) = conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            return Self::H2(sender, base, tokio::spawn(driver));
        }
        let (sender, driver) = conn::http1::handshake(stream).await.unwrap();
        Self::H1(sender, base, tokio::spawn(driver.with_upgrades()))
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(sender, ..) => soon("a response", sender.send_request(request)).await,
            Self::H2(sender, ..) => soon("a response", sender.send_request(request)).await,
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder();
        let request = match self {
            Self::H1(_, base, _) => request.uri(path).header("host", base.split_once("//").unwrap().1),
            Self::H2(_, base, _) => request.uri(format!("{base}{path}")),
        };
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn text(&mut self, path: &str) -> String {
        let body = self.get(path).await.unwrap().into_body();
        let body: Bytes = soon("a body", body.collect()).await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// How the connection ended.
    pub(crate) async fn ended(self) -> hyper::Result<()> {
        let (Self::H1(.., driver) | Self::H2(.., driver)) = self;
        soon("the end of the connection", driver).await.unwrap()
    }
}
