//! How sessions are opened: by which path, with which status; and how one closes the connection under it.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use h3cast_transport::{
    client::ClientError,
    webtransport::{Closed, SessionRequest},
};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use crate::common::{
    TestServer,
    raw::{self, Raw},
    sessions::{SessionServer, ask},
    soon,
};

/// Opens every session, with what its path's wildcards stand for as the subprotocol.
async fn tell_params(request: SessionRequest) {
    let told: Vec<_> = request.params().map(|(name, value)| format!("{name}={value}")).collect();
    assert!(request.params().all(|(name, value)| request.param(name) == Some(value)));
    assert_eq!(request.param("other"), None);
    if let Ok(session) = request.protocol(&told.join(" ")).accept().await {
        session.closed().await;
    }
}

#[tokio::test]
async fn a_path_with_wildcards_finds_its_handler() {
    let server = TestServer::start(|builder, _| {
        builder
            .webtransport("/room/{name}", tell_params)
            .webtransport("/room/lobby", async |request: SessionRequest| request.reject(StatusCode::IM_A_TEAPOT))
            .webtransport("/files/{user}/{*rest}", tell_params)
    })
    .await;
    let connection = server.connect().await;
    for (path, told) in [
        ("/room/7", "name=7"),
        // The query is none of the path's.
        ("/room/7?name=8&/log", "name=7"),
        ("/%72oom/a%20b?%", "name=a b"),
        ("/files/me/a/b?c", "user=me rest=a/b"),
    ] {
        let session = ask(&connection, &server, path, &["other", told]).await.unwrap();
        assert_eq!(session.protocol(), Some(told), "{path}");
    }
    for (path, expected) in [("/room/lobby", 418), ("/room/", 404), ("/room/%FF", 400)] {
        match ask(&connection, &server, path, &[]).await {
            Err(ClientError::Refused { status, .. }) => assert_eq!(status, expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// Any 2xx opens a session, and our client takes it for that (draft-ietf-webtrans-http3 §3.2).
#[tokio::test]
async fn any_status_of_success_opens_a_session() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport("/{status}", async |request: SessionRequest| {
            let status = request.param("status").unwrap().parse().unwrap();
            let header = (HeaderName::from_static("x-greeting"), HeaderValue::from_static("hello"));
            let Ok(session) = request.status(status).header(header.0, header.1).accept().await else { return };
            while let Ok((mut send, recv)) = session.accept_bi().await {
                drop(recv);
                let _ = send.write_bytes("open".into()).await;
                let _ = send.finish();
            }
        })
    })
    .await;
    let (raw, _control) = Raw::greeted(&server).await;
    // 404 opens nothing, so that 200 is answered in its place.
    for (asked, answered) in [(200, 200), (201, 201), (202, 202), (204, 204), (299, 299), (404, 200), (100, 200)] {
        let connection = server.connect().await;
        let session = ask(&connection, &server, &format!("/{asked}"), &[]).await.unwrap();
        let (mut send, mut recv) = session.open_bi().await.unwrap();
        send.finish().unwrap();
        assert_eq!(soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap(), "open", "{asked}");
        let (_send, mut recv) = raw.bi(&raw::connect(&format!("/{asked}"))).await;
        assert_eq!(raw::status(&mut recv).await, answered, "{asked}");
    }
}

/// Chromium answers STOP_SENDING with a reset, and takes its acknowledgement for the end of a session.
#[tokio::test]
async fn a_refused_client_is_told_to_stop_only_after_the_whole_response() {
    let (body_tx, body) = mpsc::channel(1);
    let body = Arc::new(Mutex::new(body));
    let router = Router::new().fallback(async move || {
        let pieces =
            stream::unfold(body.lock_owned().await, async |mut body: OwnedMutexGuard<mpsc::Receiver<Bytes>>| {
                body.recv().await.map(|piece| (Ok::<_, Infallible>(piece), body))
            });
        (StatusCode::FORBIDDEN, Body::from_stream(pieces))
    });
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let (raw, _control) = Raw::greeted(&server).await;
    let (send, mut recv) = raw.bi(&raw::connect("/refused")).await;
    assert_eq!(raw::status(&mut recv).await, 403);
    body_tx.send("no session".into()).await.unwrap();
    let body = soon("the body", recv.read_chunk(100, true)).await.unwrap().unwrap();
    assert_eq!(&body.bytes[..], raw::frame(raw::DATA, b"no session"));
    // Whatever was sent before that has been received, or was lost.
    assert!(send.stopped().now_or_never().is_none(), "the response has not ended");
    drop(body_tx);
    assert!(soon("the end", recv.read_chunk(100, true)).await.unwrap().is_none());
    // H3_NO_ERROR: nothing is wrong with the response (RFC 9114 §4.1).
    assert_eq!(raw::stopped(&send).await, Some(0x100));
}

#[tokio::test]
async fn a_session_closes_its_connection() {
    let mut server = SessionServer::start().await;
    for theirs in [false, true] {
        let (client, accepted) = server.session().await;
        let (other, _other_accepted) = server.session().await;
        let (mut send, _recv) = client.open_bi().await.unwrap();
        let (ours, peers) = if theirs { (&client, &accepted) } else { (&accepted, &client) };
        ours.close_connection(0x1f2, "moved to another server");
        let mut ends = vec![soon("the end here", ours.closed()).await, soon("the end there", peers.closed()).await];
        ends.push(soon("the end of the other session", other.closed()).await);
        let [here, there, beside] = &ends[..] else { unreachable!() };
        assert_eq!(*here, Closed::ConnectionLost(quinn::ConnectionError::LocallyClosed));
        let Closed::ConnectionLost(quinn::ConnectionError::ApplicationClosed(close)) = there else {
            panic!("{there}");
        };
        assert_eq!((close.error_code.into_inner(), &close.reason[..]), (0x1f2, &b"moved to another server"[..]));
        assert!(matches!(beside, Closed::ConnectionLost(_)), "{beside}");
        // What is closed stays so.
        peers.close_connection(0x100, "");
        assert!(soon("a write", send.write_bytes("late".into())).await.is_err());
        assert!(client.open_uni().await.is_err());
        server.reconnect().await;
    }
}
