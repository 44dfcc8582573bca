//! Floods of first packets over QUIC, as anyone may send who can forge addresses.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use h3cast_transport::{
    Limits,
    admission::{Counters, Refusal, Snapshot},
};
use tokio::net::{TcpStream, UdpSocket as AsyncUdpSocket};

use crate::{
    common::{TestServer, soon},
    initial::{HalfOpen, Hello, Hellos},
    server,
};

/// What a flood may cost, in bytes: 100 handshakes in progress, what the socket and the engine hold of the packets,
/// and the allocator's share.
const MAY_COST: u64 = 24 << 20;
const PACKETS: usize = 4_000;

/// Sockets of many addresses of loopback.
fn sources(count: u8) -> Vec<UdpSocket> {
    let bind = |i| UdpSocket::bind((Ipv4Addr::new(127, 66, 0, i), 0)).unwrap();
    (1..=count).map(bind).collect()
}

/// Sends such packets, each from the next of the sockets, as fast as they can be made, until `PACKETS` have been
/// sent and `stop` is set.
fn flood(to: SocketAddr, stop: Arc<AtomicBool>, packet: fn(&mut HalfOpen, &Hello, usize) -> Vec<u8>) -> usize {
    let (hellos, sockets) = (Hellos::new(), sources(64));
    let hello = hellos.hello();
    for sent in 0.. {
        if sent >= PACKETS && stop.load(Ordering::Relaxed) {
            return sent;
        }
        let datagram = packet(&mut HalfOpen::new(hellos.id(), &hello), &hello, sent);
        // A full buffer is no reason to wait.
        let _ = sockets[sent % sockets.len()].send_to(&datagram, to);
    }
    unreachable!("it is stopped")
}

fn whole(connection: &mut HalfOpen, hello: &Hello, _: usize) -> Vec<u8> {
    connection.first(hello)
}

fn fragment(connection: &mut HalfOpen, hello: &Hello, sent: usize) -> Vec<u8> {
    connection.part(hello, 1 + sent % 200, &[])
}

/// Some that no server has made, some as long as ours.
fn forged_token(connection: &mut HalfOpen, hello: &Hello, sent: usize) -> Vec<u8> {
    connection.part(hello, usize::MAX, &vec![sent as u8; 1 + sent % 120])
}

/// What cannot be decrypted.
fn garbage(connection: &mut HalfOpen, hello: &Hello, sent: usize) -> Vec<u8> {
    let mut datagram = connection.first(hello);
    let at = 100 + sent % 1000;
    datagram[at] ^= 1;
    datagram
}

#[tokio::test(flavor = "multi_thread")]
async fn first_packets_cost_little_and_keep_nobody_out() {
    let program = server::start();
    drop(program.connect().await);
    let (before, to) = (program.memory(), SocketAddr::from((Ipv4Addr::LOCALHOST, program.port)));
    for (what, packet) in [
        ("whole", whole as fn(&mut HalfOpen, &Hello, usize) -> Vec<u8>),
        ("fragment", fragment),
        ("forged token", forged_token),
        ("garbage", garbage),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let flooding = thread::spawn(move || flood(to, stopped, packet));
        // How long each takes is measured in tests/attacks, beside which nothing else runs.
        for _ in 0..4 {
            drop(program.connect().await);
        }
        stop.store(true, Ordering::Relaxed);
        let sent = flooding.join().unwrap();
        let cost = program.memory().saturating_sub(before);
        println!("{what}: {sent} packets, {} KiB", cost >> 10);
        assert!(cost < MAY_COST, "{what}: {cost} bytes");
    }
    program.end();
}

/// A server with these limits, what it counts, and where it is.
async fn limited(limits: Limits) -> (TestServer, Counters, SocketAddr) {
    let mut counters = None;
    let server = TestServer::start(|builder, _| {
        counters = Some(builder.admission().clone());
        builder.limits(limits)
    })
    .await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    (server, counters.unwrap(), at)
}

/// Waits until the counters show something.
pub(crate) async fn shows(counters: &Counters, what: &str, is: impl Fn(&Snapshot) -> bool) {
    let seen = async {
        while !is(&counters.snapshot()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, seen).await;
}

/// A client that begins connections from one address and port.
pub(crate) struct Attacker {
    socket: AsyncUdpSocket,
    pub(crate) hellos: Hellos,
    pub(crate) hello: Hello,
}

impl Attacker {
    pub(crate) async fn at(server: SocketAddr) -> Self {
        let socket = AsyncUdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        let hellos = Hellos::new();
        Self { socket, hello: hellos.hello(), hellos }
    }

    pub(crate) fn connection(&self) -> HalfOpen {
        HalfOpen::new(self.hellos.id(), &self.hello)
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).await.unwrap();
    }

    async fn begin(&self, connections: usize) {
        for _ in 0..connections {
            self.send(&self.connection().first(&self.hello)).await;
        }
    }

    /// The token of the Retry with which the server answers (RFC 9000 §17.2.5).
    async fn token(&self) -> Vec<u8> {
        self.begin(1).await;
        let mut datagram = [0; 2048];
        let size = soon("a Retry", self.socket.recv(&mut datagram)).await.unwrap();
        assert_eq!(datagram[0] & 0xf0, 0xf0, "an answer that is no Retry");
        let destination = usize::from(datagram[5]);
        let source = usize::from(datagram[6 + destination]);
        datagram[7 + destination + source..size - 16].to_vec()
    }
}

/// The limits of a server that never sends a Retry.
pub(crate) fn trusting() -> Limits {
    Limits::default().retry_handshakes(usize::MAX).retry_initials(u32::MAX)
}

#[tokio::test]
async fn forged_packets_use_up_nothing_of_the_address_that_they_name() {
    let (server, counters, at) = limited(trusting().connections_per_address(2).handshakes_per_address(2)).await;
    Attacker::at(at).await.begin(10).await;
    shows(&counters, "ten handshakes", |now| now.handshakes == 10).await;
    drop(server.connect().await);
    assert_eq!(counters.snapshot().refused(Refusal::ConnectionsPerAddress), 0);
}

#[tokio::test]
async fn small_packets_keep_no_handshake_alive() {
    let (_server, counters, at) = limited(trusting().handshake_timeout(Duration::from_millis(300))).await;
    let attacker = Attacker::at(at).await;
    let (mut whole, mut part) = (attacker.connection(), attacker.connection());
    attacker.send(&whole.first(&attacker.hello)).await;
    attacker.send(&part.part(&attacker.hello, 50, &[])).await;
    // Whether they are still there or not: the time is short.
    shows(&counters, "two handshakes", |now| now.initials == 2).await;
    let ended = shows(&counters, "the end of both", |now| now.refused(Refusal::HandshakeTimeout) == 2);
    let keeping = async {
        loop {
            attacker.send(&whole.small(60)).await;
            attacker.send(&part.small(60)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        // Nothing of them stays in the end.
        () = async { ended.await; shows(&counters, "nothing", |now| now.connections == 0).await } => {}
        () = keeping => {}
    }
}

#[tokio::test]
async fn clients_show_their_address_when_many_handshakes_are_in_progress_or_begin() {
    for limits in [trusting().retry_handshakes(2), trusting().retry_initials(2)] {
        let (server, counters, at) = limited(limits).await;
        Attacker::at(at).await.begin(5).await;
        shows(&counters, "five first packets", |now| now.initials == 5).await;
        let now = counters.snapshot();
        assert_eq!((now.handshakes, now.retries), (2, 3));
        drop(server.connect().await);
        assert!(counters.snapshot().retries > 3);
    }
}

/// A token is for its address and port, and is no way to have more than others.
#[tokio::test]
async fn tokens_that_are_used_again() {
    let (server, counters, at) = limited(trusting().retry_handshakes(0).handshakes_per_address(3)).await;
    let (attacker, other) = (Attacker::at(at).await, Attacker::at(at).await);
    let token = attacker.token().await;
    for _ in 0..10 {
        attacker.send(&attacker.connection().part(&attacker.hello, usize::MAX, &token)).await;
    }
    shows(&counters, "seven refusals", |now| now.refused(Refusal::HandshakesPerAddress) == 7).await;
    let before = counters.snapshot();
    assert_eq!(before.handshakes, 3);
    other.send(&other.connection().part(&other.hello, usize::MAX, &token)).await;
    let mut answer = [0; 2048];
    // CONNECTION_CLOSE with INVALID_TOKEN, from the engine.
    let size = soon("an answer", other.socket.recv(&mut answer)).await.unwrap();
    assert!(size < 100 && answer[0] & 0xf0 == 0xc0, "{:?}", &answer[..size]);
    assert_eq!(counters.snapshot().handshakes, 3);
    drop(server);
}

/// The engine keeps a connection that has failed for a while, and it counts as long.
#[tokio::test]
async fn handshakes_that_fail_at_once_count_for_a_while() {
    let (_server, counters, at) = limited(trusting().retry_handshakes(4)).await;
    for sent in 0..10 {
        let mut attacker = Attacker::at(at).await;
        attacker.hello = attacker.hello.spoiled();
        let mut connection = attacker.connection();
        let mut answer = [0; 2048];
        // What is wrong shows with the second packet.
        for length in [50, usize::MAX] {
            attacker.send(&connection.part(&attacker.hello, length, &[])).await;
            soon("an answer", attacker.socket.recv(&mut answer)).await.unwrap();
            if answer[0] & 0xf0 == 0xf0 {
                break;
            }
        }
        assert_eq!(answer[0] & 0xf0 == 0xf0, sent >= 4, "whether there was a Retry, after {sent} others");
    }
    assert_eq!(counters.snapshot().retries, 6);
    shows(&counters, "the end of all", |now| now.handshakes == 0 && now.connections == 0).await;
}

#[tokio::test]
async fn the_oldest_handshake_makes_room() {
    let (server, counters, at) = limited(trusting().handshakes(3).handshakes_per_address(0)).await;
    Attacker::at(at).await.begin(5).await;
    shows(&counters, "two that made room", |now| now.refused(Refusal::Handshakes) == 2).await;
    drop(server.connect().await);
    // TLS over TCP has as many of its own.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(soon("a connection", TcpStream::connect(at)).await.unwrap());
    }
    for oldest in &mut silent[..2] {
        use tokio::io::AsyncReadExt;
        assert_eq!(soon("the end", oldest.read(&mut [0])).await.unwrap_or(0), 0);
    }
}
