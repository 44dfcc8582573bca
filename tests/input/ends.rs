//! How it ends: viewers that leave, commands that end or do not read, and input without bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h3cast::webtransport::Closed;
use h3cast_proto::feed::session_code;
use http::{HeaderMap, Request};
use tokio::sync::mpsc;

use crate::{
    common::soon,
    kit::{SESSION, View, WAYS, none_runs, post, server},
    revocable::Revocable,
    serving::Serving,
    talk::{Talk, answer},
};

const PIECE: usize = 64 << 10;

/// A body that never ends by itself, and how much of it has been taken.
fn flood() -> (Body, mpsc::UnboundedReceiver<()>) {
    let (taken_tx, taken) = mpsc::unbounded_channel();
    let pieces = stream::repeat_with(move || {
        let _ = taken_tx.send(());
        Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; PIECE]))
    });
    (Body::from_stream(pieces), taken)
}

#[tokio::test]
async fn a_viewer_that_leaves_ends_its_command_and_what_is_sent_to_it() {
    let (server, commands) = server(&["exec:exec sleep 1000"], |app| app).await;
    for way in WAYS {
        let view = View::open(&server, way, "/stream").await;
        let (body, mut taken) = flood();
        let id = view.id.clone();
        let headers = [(SESSION, id.as_str())];
        let sending = post(&server, way, "/stream", &headers, body);
        let leaving = async {
            soon("it begins", taken.recv()).await;
            // Not one after the other.
            soon("another is refused", async {
                while post(&server, way, "/stream", &headers, "x").await.status != 409 {}
            })
            .await;
            drop(view);
        };
        let (answer, ()) = tokio::join!(sending, leaving);
        answer.is(410, "bytes were sent to the command");
        // What a command has not read waits with its client.
        let mut pieces = 1;
        while taken.try_recv().is_ok() {
            pieces += 1;
        }
        assert!(pieces * PIECE < 16 << 20, "{pieces} pieces");
        post(&server, way, "/stream", &headers, "x").await.is(404, "its viewer has left");
        none_runs(&commands).await;
    }
    let talk = Talk::open(&server, "/stream").await;
    let (_send, _recv) = talk.stream("x").await;
    talk.session.close(0, "");
    none_runs(&commands).await;
}

#[tokio::test]
async fn a_command_that_reads_no_more_takes_no_more() {
    let deaf = "exec:read line; exec 0<&-; echo $line; exec sleep 1000";
    let (server, commands) = server(&[deaf, "short=exec:read line; echo $line"], |app| app).await;
    for way in WAYS {
        let mut view = View::open(&server, way, "/stream").await;
        view.say(&server, way, "/stream", "hello\n").await.is(200, "6");
        assert_eq!(view.line().await, "hello\n");
        view.say(&server, way, "/stream", "hello?\n").await.is(410, "closed its input");
        view.say(&server, way, "/stream", "hello?\n").await.is(410, "closed");

        // One that ends while something is being sent.
        let mut view = View::open(&server, way, "/stream/short").await;
        let body = stream::iter([Ok::<_, std::io::Error>("hello\n")]).chain(stream::pending());
        let headers = [(SESSION, view.id.clone())];
        let headers: Vec<_> = headers.iter().map(|(name, id)| (*name, id.as_str())).collect();
        let sending = post(&server, way, "/stream/short", &headers, Body::from_stream(body));
        let reading = async {
            assert_eq!(view.line().await, "hello\n");
            assert_eq!(view.next().await, None);
        };
        let (answer, ()) = tokio::join!(sending, reading);
        answer.is(410, "6 bytes");
        post(&server, way, "/stream/short", &headers, "x").await.is(404, "the command has ended");
    }
    let mut talk = Talk::open(&server, "/stream/short").await;
    let (_send, recv) = talk.stream("hello\n").await;
    talk.until("hello\n").await;
    // Also where nobody sends the next byte.
    assert_eq!(answer(recv).await["status"], 410);
    none_runs(&commands).await;
}

/// A command that cannot be started takes nothing.
#[tokio::test]
async fn a_command_that_is_over_at_once() {
    let (server, commands) = server(&["exec:exit 3"], |app| app).await;
    let talk = Talk::open(&server, "/stream").await;
    let (_send, recv) = talk.stream("x").await;
    assert_eq!(answer(recv).await["status"], 410);
    none_runs(&commands).await;
}

/// 16 MB on their way to a command cost the server no more than what is under way.
#[tokio::test]
async fn much_input_takes_little_memory() {
    const SIZE: usize = 16 << 20;
    let serving = Serving::start(|_| ["exec:wc -c", "--per-viewer", "--input"].to_vec());
    let connection = serving.connect().await;
    let before = serving.memory();
    for webtransport in [false, true] {
        let uri = serving.uri("/stream");
        let pieces = (0..SIZE / PIECE).map(|_| Bytes::from(vec![b'x'; PIECE]));
        let count = if webtransport {
            let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
            let mut out = soon("the feed", session.accept_uni()).await.unwrap();
            let (mut send, _recv) = soon("a stream", session.open_bi()).await.unwrap();
            for piece in pieces {
                soon("it is taken", send.write_bytes(piece)).await.unwrap();
            }
            send.finish().unwrap();
            soon("the count", out.read_bytes(100)).await.unwrap()
        } else {
            let mut view = soon("the head", connection.get(&uri)).await.unwrap();
            let request =
                Request::post(serving.uri("/stream?end")).header(SESSION, &view.headers[SESSION]).body(()).unwrap();
            let (mut body, answer) = soon("the request", connection.send_request(request)).await.unwrap();
            for piece in pieces {
                soon("it is taken", body.send(piece)).await.unwrap();
            }
            soon("the end", body.finish()).await.unwrap();
            assert_eq!(soon("the answer", answer).await.unwrap().status, 200);
            soon("the count", view.body.next()).await.unwrap()
        };
        assert_eq!(String::from_utf8_lossy(&count.unwrap()).trim(), SIZE.to_string());
        let grown = serving.memory().saturating_sub(before);
        assert!(grown < 8 << 20, "webtransport: {webtransport}, {grown} bytes");
    }
    connection.close().await;
    assert!(serving.stop() < Duration::from_secs(4));
}

/// The right to send may end while input is being sent.
#[tokio::test]
async fn a_token_that_ends_ends_the_input() {
    let right = Revocable::default();
    let (server, commands) = server(&["exec:cat"], |app| app.authorize(right.clone())).await;
    for way in WAYS {
        let mut view = View::open(&server, way, "/stream").await;
        let body = stream::iter([Ok::<_, std::io::Error>("hello\n")]).chain(stream::pending());
        let id = view.id.clone();
        let headers = [(SESSION, id.as_str())];
        let sending = post(&server, way, "/stream", &headers, Body::from_stream(body));
        let ending = async {
            assert_eq!(view.line().await, "hello\n");
            right.revoke();
        };
        let (answer, ()) = tokio::join!(sending, ending);
        answer.is(401, "6 bytes were sent to the command");
        none_runs(&commands).await;
    }
    let mut talk = Talk::open(&server, "/stream").await;
    let (_send, recv) = talk.stream("hello\n").await;
    talk.until("hello\n").await;
    right.revoke();
    assert_eq!(answer(recv).await["status"], 401);
    let closed = soon("the end of the session", talk.session.closed()).await;
    assert!(matches!(closed, Closed::Clean { code: session_code::EXPIRED, .. }), "{closed:?}");
    none_runs(&commands).await;
}
