//! Sessions from both sides of the public API: how they begin, what they carry beside streams, how
//! they end.

use bytes::Bytes;
use h3cast_transport::{
    client::{ClientError, Connection},
    origin::Origins,
    webtransport::{Closed, DatagramError, SessionError, SessionRequest},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{sync::mpsc, task::JoinSet};

use crate::common::{
    TestServer,
    sessions::{SessionServer, ask},
    soon,
};

fn clean(code: u32, reason: &str, by_peer: bool) -> (u32, String, bool) {
    (code, reason.to_owned(), by_peer)
}

/// How a session was closed, which must have been in an orderly way.
fn parts(closed: Closed) -> (u32, String, bool) {
    match closed {
        Closed::Clean { code, reason, by_peer } => (code, reason, by_peer),
        other => panic!("{other}"),
    }
}

async fn refused(connection: &Connection, server: &TestServer, path: &str) -> (StatusCode, HeaderMap) {
    match ask(connection, server, path, &[]).await {
        Err(ClientError::Refused { status, headers }) => (status, headers),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handler_sees_the_request_and_answers_it() {
    let (seen_tx, mut seen) = mpsc::unbounded_channel();
    let server = TestServer::start(|builder, _| {
        builder.origins(Origins::any()).webtransport("/chat", move |request: SessionRequest| {
            let seen_tx = seen_tx.clone();
            async move {
                let about = (
                    request.uri().to_string(),
                    request.origin().map(str::to_owned),
                    request.authority().to_owned(),
                    request.headers()["x-token"].clone(),
                    request.remote_address().ip().is_loopback(),
                    request.protocols(),
                );
                let header = (HeaderName::from_static("x-greeting"), HeaderValue::from_static("hello"));
                let Ok(session) = request.header(header.0, header.1).protocol("chat-v1").accept().await else { return };
                seen_tx.send((about, session)).unwrap();
            }
        })
    })
    .await;
    let connection = server.connect().await;
    let mut headers = HeaderMap::new();
    headers.insert("origin", HeaderValue::from_static("https://example.com"));
    headers.insert("x-token", HeaderValue::from_static("secret"));
    let uri = server.uri("/chat?room=7");
    let offered = ["chat-v2", "chat-v1", r#"a "quoted" \ one"#];
    let session = soon("a session", connection.webtransport(&uri, headers, &offered)).await.unwrap();
    let (about, accepted) = soon("the request", seen.recv()).await.unwrap();
    let authority = format!("localhost:{}", server.port());
    let origin = Some("https://example.com".to_owned());
    let offered = offered.map(str::to_owned).to_vec();
    assert_eq!(about, (uri.to_string(), origin, authority, HeaderValue::from_static("secret"), true, offered));
    assert_eq!((session.protocol(), accepted.protocol()), (Some("chat-v1"), Some("chat-v1")));
    assert_eq!(session.id(), accepted.id());
    assert_eq!(session.remote_address().port(), server.port());
    assert!(accepted.remote_address().ip().is_loopback());
}

#[tokio::test]
async fn a_subprotocol_that_was_not_offered_is_not_chosen() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(async |request: SessionRequest| {
            if let Ok(session) = request.protocol("other").accept().await {
                session.closed().await;
            }
        })
    })
    .await;
    let connection = server.connect().await;
    for offered in [&[][..], &["chat"]] {
        assert_eq!(ask(&connection, &server, "/", offered).await.unwrap().protocol(), None);
    }
}

#[tokio::test]
async fn refusals() {
    let server = TestServer::start(|builder, _| {
        builder
            .webtransport("/dropped", async |request: SessionRequest| drop(request))
            .webtransport("/panics", async |_: SessionRequest| panic!("on purpose"))
            .webtransport("/status", async |request: SessionRequest| {
                let status = request.uri().query().unwrap().parse().unwrap();
                let why = HeaderValue::from_static("why");
                request.header(HeaderName::from_static("x-reason"), why).reject(status);
            })
    })
    .await;
    let connection = server.connect().await;
    for status in [300, 401, 403, 404, 429, 503] {
        let (refused, headers) = refused(&connection, &server, &format!("/status?{status}")).await;
        assert_eq!((refused.as_u16(), &headers["x-reason"]), (status, &HeaderValue::from_static("why")));
    }
    for accepts_or_waits in [100, 200, 204] {
        let (refused, _) = refused(&connection, &server, &format!("/status?{accepts_or_waits}")).await;
        assert_eq!(refused, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(refused(&connection, &server, "/dropped").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused(&connection, &server, "/nobody").await.0, StatusCode::NOT_FOUND);
    let panicked = ask(&connection, &server, "/panics", &[]).await.unwrap_err();
    assert!(matches!(panicked, ClientError::Reset(_)), "{panicked:?}");
    assert_eq!(refused(&connection, &server, "/status?403").await.0, StatusCode::FORBIDDEN, "the connection goes on");
}

#[tokio::test]
async fn either_side_closes_with_code_and_reason() {
    let mut server = SessionServer::start().await;
    let long = "漢".repeat(400);
    let cut = &long[..1023];
    for (code, reason, read) in [(0, "", ""), (7, "bye", "bye"), (u32::MAX, "ünï — 🌊", "ünï — 🌊"), (1, &long, cut)]
    {
        for theirs in [false, true] {
            let (client, accepted) = server.session().await;
            let (closing, learning) = if theirs { (accepted, client) } else { (client, accepted) };
            closing.close(code, reason);
            closing.close(code.wrapping_add(1), "the first counts");
            assert_eq!(parts(soon("its own close", closing.closed()).await), clean(code, read, false));
            assert_eq!(parts(soon("the other's close", learning.closed()).await), clean(code, read, true));
            // Whoever comes later learns the same.
            assert_eq!(parts(soon("the close again", learning.clone().closed()).await), clean(code, read, true));
        }
    }
}

#[tokio::test]
async fn the_peer_has_taken_a_close_before_the_closer_goes_on() {
    let mut server = SessionServer::start().await;
    for code in 0..20 {
        let (client, accepted) = server.session().await;
        client.close(code, "and away");
        soon("the close", client.closed()).await;
        // Whatever is on its way is lost with the connection.
        server.reconnect().await;
        assert_eq!(parts(soon("the close", accepted.closed()).await), clean(code, "and away", true));
    }
}

#[tokio::test]
async fn the_last_handle_that_is_dropped_closes() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    let clone = client.clone();
    drop(client);
    assert!(clone.open_uni().await.is_ok(), "one handle is left");
    drop(clone);
    assert_eq!(parts(soon("the close", accepted.closed()).await), clean(0, "", true));
    let (client, accepted) = server.session().await;
    drop(accepted);
    assert_eq!(parts(soon("the close", client.closed()).await), clean(0, "", true));
}

#[tokio::test]
async fn a_handler_that_returns_closes_and_one_that_panics_cuts_off() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport("/returns", async |request: SessionRequest| drop(request.accept().await)).webtransport(
            "/panics",
            async |request: SessionRequest| {
                let session = request.accept().await.unwrap();
                let _ = session.accept_uni().await;
                panic!("on purpose");
            },
        )
    })
    .await;
    let connection = server.connect().await;
    let open = async |path| ask(&connection, &server, path, &[]).await.unwrap();
    assert_eq!(parts(soon("the close", open("/returns").await.closed()).await), clean(0, "", true));
    let panics = open("/panics").await;
    panics.open_uni().await.unwrap().finish().unwrap();
    let closed = soon("the end", panics.closed()).await;
    assert!(matches!(closed, Closed::Abrupt { .. }), "{closed:?}");
    assert_eq!(parts(soon("the close", open("/returns").await.closed()).await), clean(0, "", true));
    assert_eq!(soon("a response", connection.get(&server.uri("/"))).await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_lost_connection_is_told_apart() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    server.reconnect().await;
    let lost = soon("the end", accepted.closed()).await;
    assert!(matches!(lost, Closed::ConnectionLost(quinn::ConnectionError::ApplicationClosed(_))), "{lost:?}");
    let lost = soon("the end", client.closed()).await;
    assert!(matches!(lost, Closed::ConnectionLost(quinn::ConnectionError::LocallyClosed)), "{lost:?}");
    assert!(client.open_bi().await.is_err());
}

#[tokio::test]
async fn a_handler_learns_that_its_connection_is_lost() {
    let (told_tx, mut told) = mpsc::unbounded_channel();
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(move |request: SessionRequest| {
            let told_tx = told_tx.clone();
            async move {
                let session = request.accept().await.unwrap();
                told_tx.send(session.closed().await).unwrap();
            }
        })
    })
    .await;
    let connection = server.connect().await;
    let _session = ask(&connection, &server, "/", &[]).await.unwrap();
    drop(connection);
    let lost = soon("the end", told.recv()).await.expect("the handler goes on");
    assert!(matches!(lost, Closed::ConnectionLost(quinn::ConnectionError::ApplicationClosed(_))), "{lost:?}");
}

#[tokio::test]
async fn nothing_begins_after_the_end() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    client.close(7, "over");
    for (session, by_peer) in [(client, false), (accepted, true)] {
        soon("the end", session.closed()).await;
        let error = SessionError(Closed::Clean { code: 7, reason: "over".into(), by_peer });
        assert_eq!(session.open_uni().await.unwrap_err(), error);
        assert_eq!(session.open_bi().await.unwrap_err(), error);
        assert_eq!(session.accept_uni().await.unwrap_err(), error);
        assert_eq!(session.accept_bi().await.unwrap_err(), error);
        assert_eq!(session.recv_datagram().await.unwrap_err(), error);
        assert_eq!(session.send_datagram("late".into()).unwrap_err(), DatagramError::Session(error.clone()));
        assert!(error.to_string().contains("over"), "{error}");
        soon("draining has come as well", session.draining()).await;
    }
}

#[tokio::test]
async fn what_waits_ends_with_the_session() {
    let mut server = SessionServer::start().await;
    for theirs in [false, true] {
        let (client, accepted) = server.session().await;
        // As many streams as the peer allows: the next one waits.
        let mut full = Vec::new();
        for _ in 0..99 {
            full.push(soon("a stream", client.open_bi()).await.unwrap());
        }
        let mut waiting = JoinSet::new();
        let session = client.clone();
        waiting.spawn(async move { while session.open_bi().await.is_ok() {} });
        let session = client.clone();
        waiting.spawn(async move { drop(session.accept_bi().await.unwrap_err()) });
        for _ in 0..2 {
            let session = client.clone();
            waiting.spawn(async move { drop(session.accept_uni().await.unwrap_err()) });
            let session = client.clone();
            waiting.spawn(async move { drop(session.recv_datagram().await.unwrap_err()) });
        }
        // Each of them has begun to wait.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if theirs {
            accepted.close(1, "")
        } else {
            client.close(1, "")
        }
        while let Some(ended) = soon("what waits ends", waiting.join_next()).await {
            ended.unwrap();
        }
        drop(full);
        server.reconnect().await;
    }
}

#[tokio::test]
async fn a_drain_is_seen_and_everything_goes_on() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (asks, learns) in [(&client, &accepted), (&accepted, &client)] {
        asks.drain();
        asks.drain();
        soon("draining", learns.draining()).await;
        let (mut send, _recv) = soon("a stream", asks.open_bi()).await.unwrap();
        send.write_bytes("on".into()).await.unwrap();
        let (_send, mut recv) = soon("the stream", learns.accept_bi()).await.unwrap();
        assert_eq!(soon("bytes", recv.read_bytes(10)).await.unwrap().unwrap(), "on");
    }
}

#[tokio::test]
async fn a_server_that_stops_asks_its_sessions_to_end() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    server.server.stop.cancel();
    soon("draining", client.draining()).await;
    client.close(3, "as you wish");
    assert_eq!(parts(soon("the close", accepted.closed()).await), clean(3, "as you wish", true));
    soon("the server ends", &mut server.server.running).await.unwrap();
}

#[tokio::test]
async fn many_sessions_and_requests_share_a_connection() {
    let mut server = SessionServer::start().await;
    let mut sessions = Vec::new();
    for _ in 0..16 {
        sessions.push(server.session().await);
    }
    for (number, (client, accepted)) in sessions.iter().enumerate() {
        let (mut send, _recv) = soon("a stream", client.open_bi()).await.unwrap();
        send.write_bytes(format!("session {number}").into()).await.unwrap();
        accepted.send_datagram(format!("datagram {number}").into()).unwrap();
        let path = server.server.uri("/");
        assert_eq!(soon("a response", server.connection.get(&path)).await.unwrap().status, 404);
        let (_send, mut recv) = soon("the stream", accepted.accept_bi()).await.unwrap();
        let text = soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap();
        assert_eq!(text, format!("session {number}"));
        assert_eq!(soon("a datagram", client.recv_datagram()).await.unwrap(), format!("datagram {number}"));
    }
    // One too many, and only for this connection.
    let refused = ask(&server.connection, &server.server, "/", &[]).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }), "{refused:?}");
    let other = server.server.connect().await;
    ask(&other, &server.server, "/", &[]).await.unwrap();
    soon("the other's session", server.accepted.recv()).await.unwrap();
    // The end of one makes room for another, and touches none of the rest.
    let (client, _) = sessions.swap_remove(5);
    client.close(0, "");
    soon("the close", client.closed()).await;
    server.session().await;
    for (client, accepted) in &sessions {
        accepted.send_datagram("still here".into()).unwrap();
        assert_eq!(soon("a datagram", client.recv_datagram()).await.unwrap(), "still here");
    }
}

#[tokio::test]
async fn datagrams_both_ways_and_their_limits() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (sends, receives) in [(&client, &accepted), (&accepted, &client)] {
        let max = sends.max_datagram_size().unwrap();
        assert!(max >= 1000, "{max}");
        for size in [0, 1, 1000] {
            sends.send_datagram(vec![7; size].into()).unwrap();
            assert_eq!(soon("a datagram", receives.recv_datagram()).await.unwrap(), vec![7; size]);
        }
        let max = sends.max_datagram_size().unwrap();
        for size in [max + 1, 65_536] {
            let error = sends.send_datagram(vec![7; size].into()).unwrap_err();
            assert!(matches!(error, DatagramError::TooLarge { size: is, .. } if is == size), "{error:?}");
        }
        sends.send_datagram(vec![8; max].into()).unwrap();
        assert_eq!(soon("the longest", receives.recv_datagram()).await.unwrap().len(), max);
        soon("room", sends.send_datagram_wait(Bytes::from_static(b"waited"))).await.unwrap();
        assert_eq!(soon("a datagram", receives.recv_datagram()).await.unwrap(), "waited");
        let (sent, received) = (sends.stats(), receives.stats());
        assert_eq!((sent.datagrams_sent, received.datagrams_received, received.datagrams_dropped), (5, 5, 0));
    }
}

#[tokio::test]
async fn datagrams_reach_every_task_that_waits() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let accepted = accepted.clone();
        tasks.spawn(async move { accepted.recv_datagram().await.unwrap() });
    }
    for number in 0..8_u8 {
        client.send_datagram(vec![number].into()).unwrap();
    }
    let mut came = Vec::new();
    while let Some(datagram) = soon("a datagram", tasks.join_next()).await {
        came.push(datagram.unwrap()[0]);
    }
    came.sort_unstable();
    assert_eq!(came, (0..8).collect::<Vec<_>>());
}
