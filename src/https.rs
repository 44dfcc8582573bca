//! Requests to servers that, as a rule, have no HTTP/3: those of keys, and certificate authorities.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::client::{ClientError, Reason, Trust, trust};

/// How long an answer may take in all.
pub(crate) const WAIT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;

/// Asks servers over HTTPS, each time over a connection of its own.
#[derive(Clone)]
pub(crate) struct Https {
    tls: TlsConnector,
    verifier: Arc<trust::Verifier>,
    /// How to trust a CA that is not known.
    advice: &'static str,
}

impl Https {
    /// With the CA certificates of the system, and those in the file `ca`; `advice` tells how to name one. Blocks.
    pub(crate) fn new(ca: Option<&Path>, advice: &'static str) -> Result<Self, ClientError> {
        let trusted = ca.map_or(Trust::System, |file| Trust::Files(vec![file.to_owned()]));
        let (tls, verifier) = trust::tls(&trusted, b"http/1.1")?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), verifier, advice })
    }

    /// The answer to a request with an absolute URI of `https` or `http`. Redirections are answers too.
    ///
    /// # Errors
    ///
    /// When there is no answer within 10 s, or one of over 1 MiB.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends the connection; the request may have been answered.
    pub(crate) async fn ask(&self, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
        let asked = timeout(WAIT, self.connect(request)).await;
        let asked = asked.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", WAIT.as_secs()))));
        asked.map_err(|error| {
            // An error of TLS does not say which certificate it was, and why.
            match self.verifier.refusal(&error.to_string()) {
                Some(refusal) if refusal.reason == Reason::Unknown => {
                    io::Error::other(format!("{refusal}; {}", self.advice))
                }
                Some(refusal) => io::Error::other(refusal.to_string()),
                None => error,
            }
        })
    }

    async fn connect(&self, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
        let uri = request.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {host}:{port}: {error}")))?;
        match is_tls {
            true => {
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                exchange(self.tls.connect(name, tcp).await?, request).await
            }
            false => exchange(tcp, request).await,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
) -> io::Result<Response<Bytes>> {
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut request = request.map(Full::new);
    let host = request.uri().authority().map_or("", Authority::as_str);
    let host = HeaderValue::try_from(host).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = Uri::try_from(path).map_err(io::Error::other)?;
    let answered = async {
        let (head, body) = send.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body =
            Limited::new(body, LONGEST).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
                true => io::Error::other(format!("it is longer than {LONGEST} bytes")),
                false => io::Error::other(error),
            })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection is driven beside it, and dropped with it.
    tokio::select! {
        answered = answered => answered,
        ended = async {
            match connection.await {
                // The answer is there, and is read to its end from what has come.
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        } => Err(io::Error::other(ended)),
    }
}
