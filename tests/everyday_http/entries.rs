//! What an access log is told of each request, session and publication, at its end.

use bytes::Bytes;
use h3cast::{
    App,
    app::{Entry, EntryKind},
    client::Connection,
    exchange::RequestEnd,
    feed::{Feed, Lag},
};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    clients::{ALL, At, Over, ask, raw_tls},
    common::{Hands, TestServer, by_hand, soon},
};

/// A server whose feeds the test makes, and what it is told.
struct Told {
    server: TestServer,
    hands: Hands,
    entries: mpsc::UnboundedReceiver<Entry>,
}

impl Told {
    async fn start() -> Self {
        let (feed, hands) = by_hand();
        let (entries_tx, entries) = mpsc::unbounded_channel();
        let server = TestServer::start(|builder, identity| {
            let writable = Feed::writable("written", 1 << 20, Lag::Skip);
            let app = App::new([feed, writable], identity);
            app.on_request_end(move |entry| drop(entries_tx.send(entry.clone()))).install(builder)
        })
        .await;
        Self { server, hands, entries }
    }

    async fn entry(&mut self) -> Entry {
        soon("an entry", self.entries.recv()).await.unwrap()
    }

    /// Nothing was told that the test has not seen.
    fn assert_none(&mut self) {
        assert!(self.entries.try_recv().is_err(), "one line for each request");
    }
}

fn version(over: Over) -> Version {
    match over {
        Over::Http3 => Version::HTTP_3,
        Over::Http2 => Version::HTTP_2,
        Over::Http1 | Over::PlainHttp1 => Version::HTTP_11,
    }
}

#[tokio::test]
async fn one_for_each_request_with_what_was_really_sent() {
    let mut told = Told::start().await;
    let certificate = told.server.certificate();
    let at = At::of(&told.server, &certificate);
    for over in ALL {
        let headers = [
            ("user-agent", "a \"b\""),
            ("referer", "https://page.example/?token=geheim"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            // Only trusted proxies may say so.
            ("x-request-id", "mine"),
        ];
        let path = "/stream?format=raw&x=token%3Dgeheim&access_token=geheim";
        let making = async {
            let hand = told.hands.next().await;
            hand.make("one").await;
            hand.make("three").await;
            // Dropped, it ends the feed.
        };
        let (answer, ()) = tokio::join!(ask(&at, over, Method::GET, path, &headers), making);
        assert_eq!(answer.text(), "onethree");
        let entry = told.entry().await;
        assert_eq!(
            (entry.kind, entry.status, entry.end),
            (EntryKind::Request, Some(StatusCode::OK), RequestEnd::Complete),
            "{over:?}: {entry:?}"
        );
        assert_eq!((entry.sent, entry.received, entry.version), (8, 0, version(over)), "{entry:?}");
        assert_eq!(entry.target, "/stream?format=raw&x=***&access_token=***");
        assert!(!format!("{entry:?}").contains("geheim"), "{entry:?}");
        assert_eq!(entry.user_agent.as_deref(), Some("a \"b\""));
        assert_eq!(entry.referrer.as_deref(), Some("https://page.example/?token=***"));
        assert_eq!(entry.feed.as_deref(), Some("default"));
        assert!(entry.client.is_some_and(|client| client.ip().is_loopback() && client.port() > 0), "{entry:?}");
        assert_eq!(entry.trace.unwrap().trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let id = entry.request.unwrap().to_string();
        assert_eq!((id.len(), answer.headers["x-request-id"].to_str().unwrap()), (32, id.as_str()));

        let answer = ask(&at, over, Method::HEAD, "/healthz", &[]).await;
        let entry = told.entry().await;
        assert_eq!((entry.status, entry.sent, entry.end), (Some(answer.status), 0, RequestEnd::Complete), "{over:?}");

        let answer = ask(&at, over, Method::GET, "/stream/none", &[]).await;
        let entry = told.entry().await;
        let expected = (Some(StatusCode::NOT_FOUND), answer.body.len() as u64, RequestEnd::Complete);
        assert_eq!((entry.status, entry.sent, entry.end), expected, "{over:?}");
        assert_eq!(entry.feed, None);
        told.assert_none();
    }
}

#[tokio::test]
async fn how_it_ended() {
    let mut told = Told::start().await;
    let certificate = told.server.certificate();
    // A feed that fails breaks the response off.
    let at = At::of(&told.server, &certificate);
    let failing = async {
        let hand = told.hands.next().await;
        hand.make("part").await;
        hand.fail("by hand").await;
    };
    let request = format!("GET /stream?format=raw HTTP/1.1\r\nhost: {}\r\n\r\n", at.authority);
    tokio::join!(raw_tls(&at, &request), failing);
    let entry = told.entry().await;
    assert_eq!((entry.sent, entry.end), (4, RequestEnd::Cut), "{entry:?}");

    let connection = told.server.connect().await;
    let mut response = soon("the head", connection.get(&told.server.uri("/stream?format=raw"))).await.unwrap();
    let hand = told.hands.next().await;
    hand.make("part").await;
    hand.fail("by hand").await;
    assert_eq!(soon("a chunk", response.body.next()).await.unwrap().unwrap(), "part");
    assert!(soon("the cut", response.body.next()).await.is_err());
    let entry = told.entry().await;
    assert_eq!((entry.sent, entry.end), (4, RequestEnd::Cut), "{entry:?}");

    // A client that stops reading, and one whose connection goes.
    for whole in [false, true] {
        let mut response = soon("the head", connection.get(&told.server.uri("/stream?format=raw"))).await.unwrap();
        let hand = told.hands.next().await;
        hand.make("part").await;
        soon("a chunk", response.body.next()).await.unwrap();
        match whole {
            false => drop(response),
            true => connection.handle().close(0x100, ""),
        }
        hand.abandoned().await;
        let entry = told.entry().await;
        assert_eq!((entry.sent, entry.end), (4, RequestEnd::Gone), "{whole}: {entry:?}");
    }
    let mut plain = TcpStream::connect(("127.0.0.1", told.server.http_port())).await.unwrap();
    plain.write_all(b"GET /stream?format=raw HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let hand = told.hands.next().await;
    hand.make("part").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"part\r\n") {
        soon("a chunk", plain.read_buf(&mut seen)).await.unwrap();
    }
    drop(plain);
    let entry = told.entry().await;
    assert_eq!((entry.sent, entry.end), (4, RequestEnd::Gone), "{entry:?}");

    // The server stops.
    let connection = told.server.connect().await;
    let mut response = soon("the head", connection.get(&told.server.uri("/stream?format=raw"))).await.unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", told.server.http_port())).await.unwrap();
    plain.write_all(b"GET /stream?format=raw HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let hands = [told.hands.next().await, told.hands.next().await];
    for hand in &hands {
        hand.make("part").await;
    }
    soon("a chunk", response.body.next()).await.unwrap();
    told.server.stop.cancel();
    for _ in 0..2 {
        let entry = told.entry().await;
        assert_eq!(entry.end, RequestEnd::Cut, "{entry:?}");
    }
}

#[tokio::test]
async fn sessions_and_what_is_published() {
    let mut told = Told::start().await;
    let connection = told.server.connect().await;
    let base = told.server.base.clone();
    let open = async |connection: &Connection, path: &str| {
        let uri = format!("{base}{path}").parse().unwrap();
        soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap()
    };
    let session = open(&connection, "/stream/written?format=raw&token=geheim").await;
    let (mut send, mut recv) = soon("a stream", session.open_bi()).await.unwrap();
    send.write_bytes(Bytes::from_static(b"twelve bytes")).await.unwrap();
    send.finish().unwrap();
    let mut answer = Vec::new();
    soon("the answer", recv.read_to_end(&mut answer)).await.unwrap();
    let published = told.entry().await;
    assert_eq!((published.kind, published.method.as_str()), (EntryKind::Publication, "PUBLISH"));
    assert_eq!((published.received, published.sent, published.end), (12, answer.len() as u64, RequestEnd::Complete));
    assert_eq!((published.status, published.feed.as_deref()), (Some(StatusCode::OK), Some("written")));
    let mut stream = soon("the feed", session.accept_uni()).await.unwrap();
    let mut chunk = [0; 12];
    soon("the chunk", stream.read_exact(&mut chunk)).await.unwrap();
    session.close(0, "");
    let entry = told.entry().await;
    assert_eq!(
        (entry.kind, entry.method.clone(), entry.version),
        (EntryKind::Session, Method::CONNECT, Version::HTTP_3)
    );
    assert_eq!((entry.status, entry.end), (Some(StatusCode::OK), RequestEnd::Complete), "{entry:?}");
    assert_eq!((entry.sent, entry.received), (12 + answer.len() as u64, 12), "{entry:?}");
    assert_eq!((entry.target.as_str(), &entry.request), ("/stream/written?format=raw&token=***", &published.request));

    // A session whose client goes away, and a stream with it.
    let session = open(&connection, "/stream/written").await;
    let mut send = soon("a stream", session.open_uni()).await.unwrap();
    send.write_bytes(Bytes::from_static(b"half")).await.unwrap();
    let mut stream = soon("the feed", session.accept_uni()).await.unwrap();
    // The feed has it: the publication has begun.
    soon("its bytes", stream.read_bytes(100)).await.unwrap();
    connection.handle().close(0x100, "");
    let ends = [told.entry().await, told.entry().await].map(|entry| (entry.kind, entry.end));
    assert!(ends.contains(&(EntryKind::Session, RequestEnd::Gone)), "{ends:?}");
    assert!(ends.contains(&(EntryKind::Publication, RequestEnd::Gone)), "{ends:?}");

    // A session that is refused, and a publication by POST.
    let connection = told.server.connect().await;
    let uri = told.server.uri("/stream/none");
    assert!(connection.webtransport(&uri, HeaderMap::new(), &[]).await.is_err());
    let entry = told.entry().await;
    assert_eq!((entry.kind, entry.status), (EntryKind::Session, Some(StatusCode::NOT_FOUND)));
    let mut plain = TcpStream::connect(("127.0.0.1", told.server.http_port())).await.unwrap();
    let request =
        b"POST /stream/written HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nconnection: close\r\n\r\nbytes";
    plain.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon("the answer", plain.read_to_string(&mut answer)).await.unwrap();
    let entry = told.entry().await;
    assert_eq!((entry.kind, entry.received, entry.end), (EntryKind::Request, 5, RequestEnd::Complete), "{entry:?}");
    assert_eq!(entry.feed.as_deref(), Some("written"));
    told.assert_none();
}

/// Entries are kept for as long as requests last.
#[tokio::test]
async fn long_texts_are_cut_with_their_tokens_hidden() {
    let mut told = Told::start().await;
    let mut plain = TcpStream::connect(("127.0.0.1", told.server.http_port())).await.unwrap();
    let long = "ä".repeat(1100);
    let agent = "x".repeat(Entry::LONGEST);
    let request = format!(
        "GET /none?token=geheim&a={} HTTP/1.1\r\nhost: localhost\r\nuser-agent: {agent}\r\nreferer: https://page.example/x{long}?token=geheim\r\nconnection: close\r\n\r\n",
        "y".repeat(4000)
    );
    plain.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", plain.read_to_string(&mut answer)).await.unwrap();
    let entry = told.entry().await;
    assert_eq!(entry.user_agent, Some(agent), "not longer than what may be kept");
    let referrer = entry.referrer.unwrap();
    assert_eq!((entry.target.len(), referrer.len()), (Entry::LONGEST, Entry::LONGEST - 1), "characters stay whole");
    for text in [entry.target, referrer] {
        assert!(text.ends_with("...") && !text.contains("geheim"), "{text}");
    }
}
