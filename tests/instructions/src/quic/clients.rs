//! Clients: quinn, and HTTP/3 by hand, as each needs the same few bytes.

use std::{
    io,
    net::UdpSocket,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{BufMut, Bytes};
use h3cast::{
    quic::engine::{
        self, AsyncTimer, AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, Runtime,
        TokioRuntime, crypto::rustls::QuicClientConfig,
    },
    rustls::{self, RootCertStore},
};
use h3cast_proto::{frame, settings};

use super::{uncounted, wire::Socket};

/// The largest field section that the clients take, in bytes.
const FIELDS: u64 = 64 << 10;

/// How a feed is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    Get,
    Session,
}

/// A socket of clients that trust a server's certificate.
pub(crate) fn endpoint(socket: Arc<Socket>, certificate: &[u8]) -> Endpoint {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.to_vec().into()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut tls = tls.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a cipher suite for QUIC")));
    config.transport_config(Arc::new(h3cast::quic::transport(None)));
    let mut own = EndpointConfig::default();
    own.rng_seed(Some([7; 32]));
    let mut endpoint = Endpoint::new_with_abstract_socket(own, None, socket, Arc::new(Apart)).expect("an endpoint");
    endpoint.set_default_client_config(config);
    endpoint
}

/// A client.
pub(crate) struct Client {
    connection: Connection,
    received: Arc<AtomicUsize>,
    _control: engine::SendStream,
}

impl Client {
    pub(crate) async fn connect(endpoint: Endpoint, server: std::net::SocketAddr) -> Self {
        let connection = endpoint.connect(server, "localhost").expect("it begins").await.expect("a handshake");
        let mut control = connection.open_uni().await.expect("a stream");
        control.write_chunk(settings::control_stream(FIELDS)).await.expect("it is taken");
        let received = Arc::<AtomicUsize>::default();
        // The server's control stream, those of QPACK, and those of a session.
        let (streams, bytes) = (connection.clone(), received.clone());
        spawn(async move {
            while let Ok(stream) = streams.accept_uni().await {
                spawn(read(stream, bytes.clone()));
            }
        });
        Self { connection, received, _control: control }
    }

    /// Asks for the feed, and waits until the server has answered. What it sends is read from then on.
    pub(crate) async fn ask(&self, by: By) -> Asked {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        send.write_chunk(request(by)).await.expect("it is taken");
        let send = match by {
            By::Get => {
                send.finish().expect("it is open");
                None
            }
            By::Session => Some(send),
        };
        let head = recv.read_chunk(usize::MAX, true).await.expect("an answer").expect("more than an end");
        let (frame, _, header) = frame::parse_header(&head.bytes).expect("a frame");
        // `:status 200` is 25 of the static table; Required Insert Count and Delta Base precede it.
        assert_eq!((frame, &head.bytes[header..header + 3]), (frame::HEADERS, &[0, 0, 0xc0 | 25][..]));
        spawn(read(recv, self.received.clone()));
        Asked { _send: send }
    }

    /// How many bytes have come: chunks, and what frames them.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

/// A request; a session ends when it is dropped.
pub(crate) struct Asked {
    _send: Option<engine::SendStream>,
}

async fn read(mut stream: RecvStream, received: Arc<AtomicUsize>) {
    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
        received.fetch_add(chunk.bytes.len(), Ordering::Relaxed);
    }
}

/// The HEADERS frame that asks for the feed.
fn request(by: By) -> Bytes {
    let (method, protocol) = match by {
        By::Get => ("GET", None),
        By::Session => ("CONNECT", Some((":protocol", "webtransport"))),
    };
    let fields = [(":method", method), (":scheme", "https"), (":authority", "localhost:4433"), (":path", "/stream")];
    // No dynamic table.
    let mut section = vec![0, 0];
    for (name, value) in fields.into_iter().chain(protocol).chain([("user-agent", "guard")]) {
        // Literal names and values, of lengths that fit in one or two bytes (RFC 9204 §4.5.6).
        match name.len() {
            short @ ..7 => section.push(0x20 | short as u8),
            long => section.extend([0x27, (long - 7) as u8]),
        }
        section.extend(name.as_bytes());
        section.push(value.len() as u8);
        section.extend(value.as_bytes());
    }
    let mut out = Vec::new();
    frame::put_header(frame::HEADERS, section.len(), &mut out);
    out.put_slice(&section);
    out.into()
}

/// Runs apart from what is counted.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    Apart.spawn(Box::pin(work));
}

/// Tokio, with every task apart from what is counted.
#[derive(Debug)]
struct Apart;

impl Runtime for Apart {
    fn new_timer(&self, due: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(due)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(ApartFuture(Some(future)));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// What a client does.
struct ApartFuture(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for ApartFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        uncounted(|| {
            let done = self.0.as_mut().is_none_or(|future| future.as_mut().poll(cx).is_ready());
            if done {
                self.0 = None;
                return Poll::Ready(());
            }
            Poll::Pending
        })
    }
}
