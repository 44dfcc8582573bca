use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use h3cast_transport::{PlainHttp, listen::ListenError, server::StartError};
use http::HeaderMap;
use tokio::net::TcpStream;

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
