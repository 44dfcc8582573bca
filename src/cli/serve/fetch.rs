//! Keys from a URL. Those who serve them, as a rule, have no HTTP/3.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    cli::{Failure, remote},
    client::{Trust, trust},
    origin::is_loopback,
};

/// How long it may take in all.
const WAIT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;

/// The URL that this is, if it is one and not a file.
pub(super) fn url(text: &str) -> Result<Option<Uri>, Failure> {
    let Some((scheme, _)) = text.split_once("://") else { return Ok(None) };
    let wrong = |why: &str| Failure::usage(anyhow!("--auth {text}: {why}, as in https://login.example/jwks.json"));
    let uri: Uri = text.parse().map_err(|_| wrong("not a valid URL: write one"))?;
    let host = uri.host().ok_or_else(|| wrong("the URL has no host: write one"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("a URL of keys has no user and password: write it without"));
    }
    match scheme {
        "https" => Ok(Some(uri)),
        // Between the two nobody can change it.
        "http" if is_loopback(host) => Ok(Some(uri)),
        _ => Err(wrong("keys come over https, so that nobody on the way can exchange them: write an https URL")),
    }
}

/// Asks for the keys at `url`. `ca` is a file of CA certificates to trust as well.
pub(super) fn fetcher(
    url: &Uri,
    ca: Option<&Path>,
) -> Result<impl Fn() -> BoxFuture<'static, io::Result<Vec<u8>>> + Send + Sync + 'static, Failure> {
    let trusted = ca.map_or(Trust::System, |file| Trust::Files(vec![file.to_owned()]));
    let (tls, _) = trust::tls(&trusted, b"http/1.1").map_err(remote::failure)?;
    let (tls, url) = (TlsConnector::from(Arc::new(tls)), url.clone());
    Ok(move || {
        let (tls, url) = (tls.clone(), url.clone());
        let fetched = async move {
            let fetched = timeout(WAIT, fetch(tls, url)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", WAIT.as_secs())));
            fetched.map_err(|error| io::Error::other(format!("{error:#}")))
        };
        let fetched: BoxFuture<'static, _> = Box::pin(fetched);
        fetched
    })
}

async fn fetch(tls: TlsConnector, url: Uri) -> anyhow::Result<Vec<u8>> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| anyhow!("cannot connect: {error}"))?;
    if is_tls { ask(tls.connect(ServerName::try_from(host)?, tcp).await?, &url).await } else { ask(tcp, &url).await }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, url: &Uri) -> anyhow::Result<Vec<u8>> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let host = url.authority().map_or("", http::uri::Authority::as_str);
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answered = async {
        let response = send.send_request(request).await?;
        if response.status() != StatusCode::OK {
            // A redirection too: who follows one asks someone else for the keys.
            anyhow::bail!("it answered {}", response.status());
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|error| anyhow!("{error}"))?.to_bytes().to_vec())
    };
    // The connection is driven beside it, and dropped with it.
    tokio::select! {
        answered = answered => answered,
        ended = async {
            let ended = connection.await;
            match ended {
                // The answer is there, and is read to its end from what has come.
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        } => Err(ended.into()),
    }
}
