//! One viewer of a bench.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{BenchVersion, tally::Tally};
use crate::{
    cli::{Failure, remote},
    client::{
        self, ClientError, Connection, Connector, Trust, answer,
        trust::{self, Verifier},
    },
    fault,
    format::frames::FrameDecoder,
    panics,
    quic::{self, transport},
    webtransport::{self, Session},
};

/// Viewers that share one UDP socket: each has its own connection, and a machine has not more than
/// 28,000 ports for them all.
const PER_SOCKET: usize = 16;
/// The credit of a viewer that does not read, in bytes.
const STALLED_WINDOW: u32 = 16 << 10;
/// The largest frame that is taken, in bytes.
const LARGEST: u64 = 64 << 20;

/// What all viewers of a bench view, and how.
pub(super) struct Target {
    uri: Uri,
    version: BenchVersion,
    trust: Trust,
    early: bool,
    /// Each for some of the viewers.
    connectors: std::sync::Mutex<Vec<Connector>>,
    tls: Option<(TlsConnector, Arc<Verifier>)>,
    /// Why the server is not trusted.
    untrusted: OnceLock<ClientError>,
}

/// Why a viewer has ended before its feed.
type Lost = anyhow::Error;

impl Target {
    pub(super) fn new(uri: Uri, trust: Trust, version: BenchVersion, early: bool) -> Result<Self, Failure> {
        // An unusable file is reported once, not by every viewer.
        trust::tls(&trust, b"h3").map_err(remote::failure)?;
        let tls = match version {
            BenchVersion::H2 => Some(b"h2".as_slice()),
            BenchVersion::H1 => Some(b"http/1.1".as_slice()),
            BenchVersion::H3 | BenchVersion::Quic | BenchVersion::WebTransport => None,
        };
        let tls = tls.map(|protocol| trust::tls(&trust, protocol)).transpose().map_err(remote::failure)?;
        let tls = tls.map(|(config, verifier)| (TlsConnector::from(Arc::new(config)), verifier));
        let uri = if version == BenchVersion::Quic { uri } else { as_frames(&uri)? };
        Ok(Self { uri, version, trust, early, connectors: Default::default(), tls, untrusted: OnceLock::new() })
    }

    /// Why no viewer could connect, if one knows more than that.
    pub(super) fn untrusted(&self) -> Option<Failure> {
        let Some(ClientError::Untrusted { authority, refusal }) = self.untrusted.get() else { return None };
        let (authority, refusal) = (authority.clone(), refusal.clone());
        Some(remote::failure(ClientError::Untrusted { authority, refusal }))
    }

    /// The connector for the viewer of that number.
    fn connector(&self, viewer: usize) -> Result<Connector, ClientError> {
        let mut connectors = self.connectors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while connectors.len() <= viewer / PER_SOCKET {
            connectors.push(self.new_connector(false)?);
        }
        Ok(connectors[viewer / PER_SOCKET].clone())
    }

    fn new_connector(&self, stalled: bool) -> Result<Connector, ClientError> {
        let mut transport = transport(None);
        if stalled {
            transport.stream_receive_window(STALLED_WINDOW.into()).receive_window(STALLED_WINDOW.into());
        }
        let protocol: &[u8] = if self.version == BenchVersion::Quic { b"h3cast-bare" } else { b"h3" };
        Connector::with(&self.trust, protocol, transport)
    }
}

/// The same with `format=frames`.
fn as_frames(uri: &Uri) -> Result<Uri, Failure> {
    let query = uri.query().unwrap_or_default();
    if query.split('&').any(|pair| pair.starts_with("format=")) {
        return Err(Failure::usage(anyhow::anyhow!("the bench reads frames: leave `format` out of the URL")));
    }
    let separator = if query.is_empty() { "" } else { "&" };
    let text = format!("{}?{query}{separator}format=frames", uri.to_string().split('?').next().unwrap_or_default());
    remote::url(&text)
}

/// Fails when the answer is a page or the like, which has no frames.
fn is_feed(headers: &HeaderMap) -> Result<(), Lost> {
    let what = answer::other_resource(headers);
    what.map_or(Ok(()), |what| {
        Err(anyhow::anyhow!("this URL is {what}, not a feed: feeds are at /stream and /stream/NAME"))
    })
}

/// One viewer.
pub(super) struct BenchViewer {
    pub(super) number: usize,
    pub(super) stalled: bool,
    pub(super) target: Arc<Target>,
    pub(super) tally: Arc<Tally>,
}

/// What is read, and what must stay as long as it is.
enum Reception {
    Response(Box<client::Body>, #[expect(dead_code, reason = "kept open")] Box<Connection>),
    Session(webtransport::RecvStream, #[expect(dead_code, reason = "kept open")] Box<(Session, Connection)>),
    Quic(quic::RecvStream, #[expect(dead_code, reason = "kept open")] Connector),
    Hyper(hyper::body::Incoming),
}

impl Reception {
    async fn next(&mut self) -> Result<Option<Bytes>, Lost> {
        match self {
            Self::Response(body, _) => Ok(body.next().await?),
            Self::Session(stream, _) => Ok(stream.read_bytes(usize::MAX).await?),
            Self::Quic(stream, _) => Ok(stream.read_chunk(usize::MAX).await?),
            Self::Hyper(body) => loop {
                match body.frame().await.transpose()?.map(http_body::Frame::into_data) {
                    Some(Ok(bytes)) => return Ok(Some(bytes)),
                    Some(Err(_)) => {}
                    None => return Ok(None),
                }
            },
        }
    }
}

impl BenchViewer {
    /// Connects, says that it did or could not, and reads until the feed ends. Dropping it closes
    /// its connection.
    pub(super) async fn run(self, arrived: impl FnOnce()) {
        let mut arrived = Some(arrived);
        let mut arrive = || arrived.take().into_iter().for_each(|arrived| arrived());
        let viewed = panics::caught_async(self.view(&mut arrive)).await;
        let viewed = viewed.unwrap_or_else(|panic| Err(anyhow::anyhow!("the viewer panicked: {panic}")));
        if let Err(error) = viewed {
            self.tally.failed(self.number, &error);
            if let Ok(error @ ClientError::Untrusted { .. }) = error.downcast() {
                let _ = self.target.untrusted.set(error);
            }
        }
        arrive();
    }

    async fn view(&self, arrive: &mut impl FnMut()) -> Result<(), Lost> {
        fault::point("bench-connect");
        // Each its own: what it gives credit for is of a connector.
        let connector = match self.stalled {
            true => self.target.new_connector(true)?,
            false => self.target.connector(self.number)?,
        };
        if self.target.early {
            // For the ticket, which comes behind the handshake, and before the response.
            let (_connection, mut response) = connector.get(&self.target.uri).await?;
            response.body.next().await?;
        }
        let start = Instant::now();
        let mut source = self.open(connector, start).await?;
        let mut decoder = FrameDecoder::new(LARGEST);
        let mut first = Some(start);
        loop {
            let Some(piece) = source.next().await? else { return Ok(()) };
            // With an empty feed the first chunk may be long in coming; what begins it comes at once.
            arrive();
            fault::point("bench-read");
            if self.stalled {
                std::future::pending::<()>().await;
            }
            decoder.push(&piece);
            self.tally.take(self.number, || decoder.pop(), &mut first)?;
        }
    }

    async fn open(&self, connector: Connector, start: Instant) -> Result<Reception, Lost> {
        let uri = &self.target.uri;
        let connected = || self.tally.connected(self.number, start.elapsed());
        Ok(match self.target.version {
            BenchVersion::H3 => {
                let (connection, response) = if self.target.early {
                    connector.get(uri).await?
                } else {
                    let connection = connector.open(uri).await?;
                    connected();
                    let response = connection.get(uri).await?;
                    (connection, response)
                };
                if self.target.early {
                    connected();
                }
                anyhow::ensure!(response.status.is_success(), "the server answered {}", response.status);
                is_feed(&response.headers)?;
                Reception::Response(Box::new(response.body), Box::new(connection))
            }
            BenchVersion::WebTransport => {
                let connection = connector.open(uri).await?;
                connected();
                let session = connection.webtransport(uri, HeaderMap::new(), &[]).await?;
                let stream = session.accept_uni().await?;
                Reception::Session(stream, Box::new((session, connection)))
            }
            BenchVersion::Quic => {
                let connection = connector.quic(uri).await?;
                connected();
                Reception::Quic(connection.accept_uni().await?, connector)
            }
            BenchVersion::H2 | BenchVersion::H1 => Reception::Hyper(self.by_tcp(connected).await?),
        })
    }

    /// Over HTTP/2 or HTTP/1.1. The connection lives as long as its response.
    async fn by_tcp(&self, connected: impl FnOnce()) -> Result<hyper::body::Incoming, Lost> {
        let (uri, authority) = (&self.target.uri, self.target.uri.authority());
        let host = authority.map_or("", |authority| authority.host());
        let port = authority.and_then(http::uri::Authority::port_u16).unwrap_or(443);
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        tcp.set_nodelay(true)?;
        let (tls, verifier) = self.target.tls.clone().ok_or_else(|| anyhow::anyhow!("no TLS for this version"))?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let connected_tls = tls.connect(name, tcp).await;
        let io = TokioIo::new(connected_tls.map_err(|error| match verifier.refusal(&error.to_string()) {
            Some(refusal) => {
                let authority = format!("{host}:{port}");
                Lost::from(ClientError::Untrusted { authority, refusal: Box::new(refusal.at_port(port)) })
            }
            None => error.into(),
        })?);
        connected();
        let request = |uri: Uri| {
            let host = authority.map_or("", http::uri::Authority::as_str);
            Request::get(uri).header(header::HOST, host).body(Empty::<Bytes>::new())
        };
        let response = if self.target.version == BenchVersion::H2 {
            let (mut send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            // It ends with its streams and `send`.
            tokio::spawn(driver);
            let mut request = request(uri.clone())?;
            request.headers_mut().remove(header::HOST);
            send.send_request(request).await?
        } else {
            let (mut send, driver) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(driver);
            let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            send.send_request(request(path.parse()?)?).await?
        };
        anyhow::ensure!(response.status().is_success(), "the server answered {}", response.status());
        is_feed(response.headers())?;
        Ok(response.into_body())
    }
}
