//! Whose word on clients is believed: proxies that are trusted, and no one else, over every version of HTTP.

use std::net::SocketAddr;

use axum::{Extension, Router, body::Body, extract::ConnectInfo, routing::get};
use h3cast_transport::{
    ConnectionHandle, Limits,
    connection::Incoming,
    proxy::{Forwarded, ProxyProtocol},
    server::{ServerBuilder, StartError},
    webtransport::SessionRequest,
};
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::peers::{H3, Served, Tcp, serve, soon};

/// Tells what a handler sees of its client.
fn router() -> Router {
    let seen = async |ConnectInfo(client): ConnectInfo<SocketAddr>,
                      Extension(connection): Extension<ConnectionHandle>,
                      forwarded: Option<Extension<Forwarded>>| {
        assert_eq!(client, connection.remote_address());
        assert!(connection.peer_address().ip().is_loopback());
        match forwarded {
            Some(Extension(said)) => format!("{} {:?} {:?}", client.ip(), said.https(), said.host()),
            None => client.ip().to_string(),
        }
    };
    Router::new().route("/", get(seen))
}

const SPOOFED: [(&str, &str); 4] = [
    ("forwarded", "for=192.0.2.7;proto=https;host=a.example"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "a.example"),
];

async fn tcp(client: &mut Tcp, base: &str, fields: &[(&str, &str)]) -> (StatusCode, String) {
    let request = match client {
        Tcp::H1(..) => Request::get("/").header("host", "localhost"),
        Tcp::H2(..) => Request::get(format!("{base}/")),
    };
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// What a client hears over HTTP/1.1, HTTP/2, HTTP/1.1 and HTTP/2 over TLS, and HTTP/3.
async fn answers(server: &Served, fields: &[(&str, &str)]) -> Vec<(StatusCode, String)> {
    let mut answers = Vec::new();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let base = format!("http://{}", server.http);
        answers.push(tcp(&mut server.plain(version).await, &base, fields).await);
        answers.push(tcp(&mut server.secure(version).await, "https://localhost", fields).await);
    }
    let request =
        fields.iter().fold(Request::get(server.uri("/")), |request, (name, value)| request.header(*name, *value));
    let connection = server.connect().await;
    let mut response = soon("a response", connection.request(request.body(()).unwrap())).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("its body", response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    answers.push((response.status, String::from_utf8(text).unwrap()));
    answers
}

async fn trusting(trusted: &str) -> Served {
    let trusted = trusted.parse().unwrap();
    serve(|builder| builder.http_service(router()).trust_proxy(trusted)).await
}

#[tokio::test]
async fn fields_of_clients_that_are_not_trusted_are_never_believed() {
    let servers = [serve(|builder| builder.http_service(router())).await, trusting("192.0.2.1").await];
    for server in &servers {
        for (name, value) in SPOOFED {
            for (status, seen) in answers(server, &[(name, value)]).await {
                assert_eq!((status, seen.as_str()), (StatusCode::OK, "127.0.0.1"), "{name}");
            }
        }
        // Nor are they judged.
        for (status, seen) in answers(server, &[("x-forwarded-for", "nonsense\"")]).await {
            assert_eq!((status, seen.as_str()), (StatusCode::OK, "127.0.0.1"));
        }
    }
}

#[tokio::test]
async fn handlers_see_the_client_of_a_trusted_proxy() {
    let server = trusting("loopback,10.0.0.0/8").await;
    let all = r#"192.0.2.7 Some(true) Some("a.example")"#;
    for fields in [&SPOOFED[..1], &SPOOFED[1..], &SPOOFED] {
        for (status, seen) in answers(&server, fields).await {
            assert_eq!((status, seen.as_str()), (StatusCode::OK, all), "{fields:?}");
        }
    }
    // The client's own come before what proxies append.
    for (_, seen) in
        answers(&server, &[("x-forwarded-for", "6.6.6.6, 192.0.2.7"), ("x-forwarded-for", "10.0.0.1")]).await
    {
        assert_eq!(seen, "192.0.2.7 None None");
    }
    for (_, seen) in answers(&server, &[("x-forwarded-for", "unknown")]).await {
        assert_eq!(seen, "127.0.0.1 None None");
    }
    for (_, seen) in answers(&server, &[]).await {
        assert_eq!(seen, "127.0.0.1");
    }
    for fields in [
        &[("x-forwarded-for", "nonsense")][..],
        &[("forwarded", "for=\"192.0.2.7")],
        &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.7")],
    ] {
        for (status, text) in answers(&server, fields).await {
            assert_eq!(status, StatusCode::BAD_REQUEST, "{fields:?}");
            assert!(text.contains("is malformed: see the server's log"), "{text}");
        }
    }
}

fn announcing(builder: ServerBuilder, trusted: &str) -> ServerBuilder {
    let builder = builder.http_service(router()).trust_proxy(trusted.parse().unwrap());
    builder.proxy_protocol(ProxyProtocol::Plain).proxy_protocol(ProxyProtocol::Tls)
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
/// With the TLV about TLS.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x2c\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50\x01\xbb\x20\x00\x05\x01\0\0\0\0";

/// Everything that the server answers to these bytes, which it closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn get_with(header: &[u8], fields: &str) -> Vec<u8> {
    [header, format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n").as_bytes()].concat()
}

#[tokio::test]
async fn proxies_announce_clients_before_anything_else() {
    let (tx, mut seen) = mpsc::unbounded_channel();
    let server = serve(|builder| {
        announcing(builder, "127.0.0.1").on_accept(move |incoming: &Incoming| {
            tx.send(*incoming).unwrap();
            Default::default()
        })
    })
    .await;
    let spoofed = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: http\r\n";
    for (header, fields, expected, remote) in [
        (V1, "", "192.0.2.7 None None", "192.0.2.7:56324"),
        // The client is no proxy: what it says is not believed.
        (V1, spoofed, "192.0.2.7 None None", "192.0.2.7:56324"),
        (V2, spoofed, "2001:db8::7 Some(true) None", "[2001:db8::7]:80"),
        (UNKNOWN, spoofed, "127.0.0.1 None None", ""),
        // The proxy's own request, and that of a proxy before it.
        (LOCAL, "", "127.0.0.1", ""),
        (LOCAL, spoofed, "6.6.6.6 Some(false) None", ""),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", spoofed, "6.6.6.6 Some(false) None", "127.0.0.1:1"),
    ] {
        let answer = raw(server.http, &get_with(header, fields)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("\r\n{expected}")), "{answer}");
        let incoming = seen.recv().await.unwrap();
        assert!(incoming.peer_address.ip().is_loopback());
        let remote = if remote.is_empty() { incoming.peer_address } else { remote.parse().unwrap() };
        assert_eq!(incoming.remote_address, remote);
    }
    // Before TLS.
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = server.secure_after(V1, version).await;
        let (_, seen) = tcp(&mut client, "https://localhost", &[]).await;
        assert_eq!(seen, "192.0.2.7 None None");
    }
}

#[tokio::test]
async fn connections_of_proxies_without_a_header_are_closed() {
    let server = serve(|builder| announcing(builder, "127.0.0.1")).await;
    for begin in [&b""[..], b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n", b"PROXY UNKNOWN\n", b"\x16\x03\x01\0\x05"] {
        for address in [server.http, server.quic] {
            let answer = raw(address, &get_with(begin, "")).await;
            assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
        }
    }
    // The others are served.
    assert!(raw(server.http, &get_with(V1, "")).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_protocol_is_not_taken_from_clients_that_are_not_trusted() {
    let server = serve(|builder| announcing(builder, "192.0.2.1")).await;
    let answer = raw(server.http, &get_with(b"", "")).await.unwrap();
    assert!(answer.ends_with("\r\n127.0.0.1"), "{answer}");
    let answer = raw(server.http, &get_with(V1, "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (_, seen) = tcp(&mut server.secure(Version::HTTP_2).await, "https://localhost", &[]).await;
    assert_eq!(seen, "127.0.0.1");
}

#[tokio::test]
async fn the_protocol_needs_a_proxy_that_is_trusted() {
    let identity = h3cast_transport::Identity::localhost().unwrap();
    let builder = h3cast_transport::Server::builder(identity).listen("127.0.0.1:0".parse().unwrap());
    let error = builder.proxy_protocol(ProxyProtocol::Tls).build().await.unwrap_err();
    assert!(matches!(error, StartError::NoTrustedProxy), "{error}");
}

/// A QUIC connection may take on any address, and is not asked first whether the address is its own.
#[tokio::test]
async fn a_connection_that_has_moved_to_the_address_of_a_proxy_is_not_believed() {
    let server = trusting("127.0.0.1").await;
    let said = Request::get(server.uri("/")).header("x-forwarded-for", "192.0.2.7").body(()).unwrap();
    let believed = "192.0.2.7 None None";
    for (first, before, then, after) in [
        ("127.0.0.2:0", "127.0.0.2", "127.0.0.1:0", "127.0.0.2"),
        ("127.0.0.1:0", believed, "127.0.0.2:0", "127.0.0.1"),
        ("127.0.0.1:0", believed, "127.0.0.1:0", believed),
    ] {
        let client = server.quinn_at(first);
        let connection = soon("a connection", client.connect(server.quic, "localhost").unwrap()).await.unwrap();
        let mut requests = H3::over(connection).await.unwrap();
        assert_eq!(requests.ask(said.clone()).await.unwrap(), before);
        client.rebind(std::net::UdpSocket::bind(then).unwrap()).unwrap();
        assert_eq!(requests.ask(said.clone()).await.unwrap(), after, "from {first} to {then}");
    }
}

/// Over HTTP/3 too, a session has the client's address, and one whose proxy talks nonsense is refused.
#[tokio::test]
async fn sessions_have_the_address_of_the_client_of_a_proxy() {
    let (tx, mut seen) = mpsc::unbounded_channel();
    let server = serve(|builder| {
        builder.trust_proxy("loopback".parse().unwrap()).webtransport("/", move |request: SessionRequest| {
            let tx = tx.clone();
            async move {
                let requested = request.remote_address();
                let session = request.accept().await.unwrap();
                tx.send((requested, session.remote_address(), session.connection().peer_address())).unwrap();
            }
        })
    })
    .await;
    let connection = server.connect().await;
    let uri = server.uri("/");
    let session = |value: &'static str| {
        let headers = [(http::HeaderName::from_static("x-forwarded-for"), http::HeaderValue::from_static(value))];
        connection.webtransport(&uri, headers.into_iter().collect(), &[])
    };
    let _session = soon("a session", session("192.0.2.7:1")).await.unwrap();
    let (requested, opened, peer) = soon("a session", seen.recv()).await.unwrap();
    assert_eq!((requested, opened), ("192.0.2.7:1".parse().unwrap(), requested));
    assert!(peer.ip().is_loopback());
    let refused = soon("an answer", session("nonsense")).await.unwrap_err();
    assert!(refused.to_string().contains("400"), "{refused}");
}

/// Clients of a proxy count one by one, and those that it does not name as the proxy, whose connections do not count.
#[tokio::test]
async fn limits_per_address_are_for_the_clients_of_a_proxy() {
    let endless = async || Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let limits = Limits::default().connections_per_address(1).requests_per_address(1).sessions_per_address(1);
    let server = serve(|builder| {
        let builder = builder.http_service(Router::new().route("/", get(endless))).limits(limits);
        builder.trust_proxy("loopback".parse().unwrap())
    })
    .await;
    let ask = async |client: &mut Tcp, address: &str| {
        let request = match client {
            Tcp::H1(..) => Request::get("/").header("host", "localhost"),
            Tcp::H2(..) => Request::get("http://localhost/"),
        };
        let request = request.header("x-forwarded-for", address).body(Body::empty()).unwrap();
        client.send(request).await.unwrap()
    };
    // More connections than one, each of which would be too many for another address.
    let mut clients = [server.plain(Version::HTTP_2).await, server.secure(Version::HTTP_2).await];
    let mut open = Vec::new();
    for (client, address) in [(0, "192.0.2.7"), (1, "192.0.2.8"), (0, "2001:db8::1")] {
        open.push(ask(&mut clients[client], address).await);
        assert_eq!(open.last().unwrap().status(), StatusCode::OK, "{address}");
    }
    for (client, address) in [(1, "192.0.2.7"), (0, "192.0.2.8"), (0, "2001:db8::2")] {
        assert_eq!(ask(&mut clients[client], address).await.status(), StatusCode::TOO_MANY_REQUESTS, "{address}");
    }
    // Those that it hides share what is the proxy's own.
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS] {
        open.push(ask(&mut clients[open.len() % 2], "unknown").await);
        assert_eq!(open.last().unwrap().status(), status, "{}", open.len());
    }
    let connection = server.connect().await;
    let request = Request::get(server.uri("/")).header("x-forwarded-for", "192.0.2.7").body(()).unwrap();
    let status = soon("an answer", connection.request(request)).await.unwrap().status;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn announced_connections_count_for_their_clients() {
    let limits = Limits::default().connections_per_address(1);
    let server = serve(|builder| announcing(builder, "127.0.0.1").limits(limits)).await;
    let connect = async |header: &[u8]| {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let get = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(&[header, get].concat()).await.unwrap();
        let mut begin = [0; 12];
        let read = soon("an answer", stream.read_exact(&mut begin)).await;
        read.map(|_| (stream, String::from_utf8_lossy(&begin).into_owned()))
    };
    let (_first, begin) = connect(V1).await.unwrap();
    assert_eq!(begin, "HTTP/1.1 200");
    assert_eq!(connect(V1).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let (_other, begin) = connect(V2).await.unwrap();
    assert_eq!(begin, "HTTP/1.1 200");
    // The proxy's own.
    for _ in 0..2 {
        assert_eq!(connect(LOCAL).await.unwrap().1, "HTTP/1.1 200");
    }
}

/// A client whose handshakes are in progress is limited too; its proxy is not.
#[tokio::test]
async fn announced_handshakes_count_for_their_clients() {
    let limits = Limits::default().handshakes_per_address(1);
    let server = serve(|builder| announcing(builder, "127.0.0.1").limits(limits)).await;
    let begin = async |header: &[u8]| {
        let mut stream = TcpStream::connect(server.quic).await.unwrap();
        stream.write_all(header).await.unwrap();
        stream
    };
    let _proxy = [begin(LOCAL).await, begin(LOCAL).await];
    let (mut one, mut other) = (begin(V1).await, begin(V1).await);
    // The one that came second.
    let refused = soon("a refusal", async {
        tokio::select! {
            read = one.read_u8() => read,
            read = other.read_u8() => read,
        }
    });
    assert_eq!(refused.await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    for header in [V2, LOCAL] {
        let mut client = server.secure_after(header, Version::HTTP_2).await;
        assert_eq!(tcp(&mut client, "https://localhost", &[]).await.0, StatusCode::OK);
    }
}
