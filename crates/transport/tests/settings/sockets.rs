use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use h3cast_transport::{
    PlainHttp,
    listen::ListenError,
    quic::engine::{
        AsyncUdpSocket, UdpPoller,
        udp::{RecvMeta, Transmit},
    },
    server::StartError,
};
use http::HeaderMap;
use tokio::{net::TcpStream, sync::Notify};

use crate::kit::{Serving, ask, ask_h3, builder, loopback, soon, status};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

#[tokio::test]
async fn sockets_that_are_handed_in_serve() {
    let udp = UdpSocket::bind(ANY).unwrap();
    // Another port than that of UDP.
    let (tcp, plain) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
    let at = (udp.local_addr().unwrap(), tcp.local_addr().unwrap(), plain.local_addr().unwrap());
    let serving = Serving::bare(|builder| builder.udp_socket(udp).tcp_listener(tcp).plain_http_listener(plain)).await;
    // And nothing else is bound.
    assert_eq!(serving.addresses.udp, [at.0]);
    assert_eq!((&serving.addresses.tcp[..], &serving.addresses.plain[..]), (&[at.1][..], &[at.2][..]));
    assert_eq!(serving.addresses.tls, [at.0.to_string(), at.1.to_string()]);
    assert_eq!(serving.addresses.http, Some(at.2.to_string()));

    soon("an answer", ask_h3(&serving.quic().await.unwrap(), HeaderMap::new())).await.unwrap();
    let answer = soon("an answer", ask(&mut serving.h1().await, "")).await.unwrap();
    assert_eq!(status(&answer), 200);
    // HTTP/3 is not at that port.
    assert!(!answer.contains("alt-svc"), "{answer}");
    let mut plain = TcpStream::connect(at.2).await.unwrap();
    assert_eq!(status(&soon("an answer", ask(&mut plain, "")).await.unwrap()), 200);
}

#[tokio::test]
async fn sockets_of_one_port_belong_together() {
    let (udp, tcp) = both();
    let address = tcp.local_addr().unwrap();
    let serving = Serving::start(|builder| builder.udp_socket(udp).tcp_listener(tcp)).await;
    // After those that it has bound itself.
    assert_eq!(serving.addresses.tls[1..], [address.to_string()]);
    let mut tls = soon("TLS", serving.trust().tcp(address, "localhost", b"http/1.1")).await.unwrap();
    let answer = soon("an answer", ask(&mut tls, "")).await.unwrap();
    assert!(answer.contains("alt-svc: h3="), "{answer}");
}

/// Sockets of either kind at one port, which no other test has then.
fn both() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind(ANY).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

#[tokio::test]
async fn udp_alone() {
    // What it does not serve is taken, and no hindrance.
    let (udp, _tcp) = both();
    let address = udp.local_addr().unwrap();
    drop(udp);
    let serving = Serving::bare(|builder| builder.listen(address.to_string().parse().unwrap()).udp_only()).await;
    assert_eq!(serving.udp(), address);
    assert_eq!((serving.addresses.tcp.len(), &serving.addresses.tls[..]), (0, &[address.to_string()][..]));
    soon("an answer", ask_h3(&serving.quic().await.unwrap(), HeaderMap::new())).await.unwrap();
}

#[tokio::test]
async fn tcp_alone() {
    let (_udp, tcp) = both();
    let address = tcp.local_addr().unwrap();
    drop(tcp);
    let serving = Serving::bare(|builder| builder.listen(address.to_string().parse().unwrap()).tcp_only()).await;
    assert_eq!(serving.tcp(), address);
    assert!(serving.addresses.udp.is_empty());
    let answer = soon("an answer", ask(&mut serving.h1().await, "")).await.unwrap();
    assert_eq!(status(&answer), 200);
    assert!(!answer.contains("alt-svc"), "{answer}");
}

/// The library knows its settings, and no program's flags.
#[tokio::test]
async fn errors_name_the_address() {
    let taken = TcpListener::bind(ANY).unwrap();
    let address = taken.local_addr().unwrap();
    let start = async |set: fn(h3cast_transport::server::ServerBuilder, String) -> _| {
        let (builder, _certs) = builder();
        let builder: h3cast_transport::server::ServerBuilder = set(builder, address.to_string());
        builder.build().await.unwrap_err()
    };
    let listen = start(|builder, at| builder.listen(at.parse().unwrap())).await;
    assert!(matches!(listen, StartError::Listen(ListenError::InUse { .. })), "{listen:?}");
    let plain = start(|builder, at| builder.listen(loopback()).plain_http(PlainHttp::At(at.parse().unwrap()))).await;
    assert!(matches!(plain, StartError::PlainHttp(ListenError::InUse { .. })), "{plain:?}");
    let reachable = start(|builder, _| {
        builder.listen(loopback()).plain_http_listener(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
    })
    .await;
    assert!(matches!(reachable, StartError::PlainHttp(ListenError::NotLoopback { .. })), "{reachable:?}");
    for error in [listen, plain] {
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && !text.contains("--"), "{text}");
    }
}

/// A socket that counts what passes through it.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn AsyncUdpSocket>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    received: AtomicUsize,
    /// The source that was asked for last.
    source: Mutex<Option<IpAddr>>,
    /// The address that packets are said to have arrived at, instead of the real one.
    arrived: Option<IpAddr>,
    /// Something was sent.
    has_sent: Notify,
}

impl AsyncUdpSocket for Counting {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        *self.counts.source.lock().unwrap() = transmit.src_ip;
        self.counts.has_sent.notify_one();
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &received {
            self.counts.received.fetch_add(*count, Ordering::Relaxed);
            for meta in meta.iter_mut().take(*count).filter(|_| self.counts.arrived.is_some()) {
                meta.dst_ip = self.counts.arrived;
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// What a server's sockets are wrapped in so that packets are counted.
fn counting(counts: &Arc<Counts>) -> impl Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + use<> {
    let counts = counts.clone();
    move |inner| Arc::new(Counting { inner, counts: counts.clone() })
}

/// A server with a socket that is bound to this address.
async fn counted(at: (Ipv4Addr, u16), counts: &Arc<Counts>) -> Serving {
    let udp = UdpSocket::bind(at).unwrap();
    Serving::bare(|builder| builder.udp_socket(udp).wrap_udp(counting(counts))).await
}

#[tokio::test]
async fn packets_pass_through_what_sockets_are_wrapped_in() {
    let (own, given) = (Arc::<Counts>::default(), Arc::<Counts>::default());
    for (counts, serving) in
        [(&own, Serving::start(|builder| builder.wrap_udp(counting(&own))).await), (&given, counted(ANY, &given).await)]
    {
        soon("an answer", ask_h3(&serving.quic().await.unwrap(), HeaderMap::new())).await.unwrap();
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        assert!(count(&counts.sent) > 0 && count(&counts.received) > 0, "{counts:?}");
        // It is the one that they are bound to.
        assert_eq!(*counts.source.lock().unwrap(), None);
    }
}

/// As with `IP_TRANSPARENT`, where a socket gets packets for others than the address that it is bound to.
#[tokio::test]
async fn answers_leave_from_where_packets_arrived() {
    let elsewhere = IpAddr::from([127, 0, 0, 9]);
    let counts = Arc::new(Counts { arrived: Some(elsewhere), ..Counts::default() });
    let serving = counted(ANY, &counts).await;
    // The client gets no answer from the address that it knows.
    tokio::select! {
        _ = serving.quic() => panic!("an answer from elsewhere was taken"),
        () = soon("an answer", counts.has_sent.notified()) => {}
    }
    assert_eq!(*counts.source.lock().unwrap(), Some(elsewhere));
}

/// The system would choose by its routes, and clients do not know that address.
#[tokio::test]
async fn packets_leave_from_the_address_that_the_client_knows() {
    let counts = Arc::default();
    let serving = counted((Ipv4Addr::UNSPECIFIED, 0), &counts).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, serving.udp().port()));
    let conn = soon("a connection", serving.trust().quic(at, "localhost")).await.unwrap();
    soon("an answer", ask_h3(&conn, HeaderMap::new())).await.unwrap();
    assert_eq!(*counts.source.lock().unwrap(), Some(at.ip()));
}
