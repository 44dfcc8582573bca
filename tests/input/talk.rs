//! Commands that answer what they are sent.

use std::sync::Arc;

use bytes::BytesMut;
use h3cast_proto::{frame, varint};
use http::HeaderMap;
use serde_json::{Value, json};

use h3cast::{
    client::Connection,
    webtransport::{RecvStream, SendStream, Session},
};

use crate::{
    common::{TestServer, soon},
    kit::{View, WAYS, none_runs, server},
};

#[tokio::test]
async fn over_http_bodies_are_input_in_their_order() {
    let (server, commands) =
        server(&["exec:cat", "calc=exec:while read a b; do echo $((a + b)); done"], |app| app).await;
    for way in WAYS {
        let mut view = View::open(&server, way, "/stream").await;
        for number in 0..20 {
            let line = format!("line {number}\n");
            let answer = view.say(&server, way, "/stream", line.clone()).await;
            assert_eq!((answer.status, answer.body), (200, json!({ "feed": "default", "bytes": line.len() })));
            assert_eq!(view.line().await, line);
        }
        // Without a newline, and the rest later: input is bytes.
        view.say(&server, way, "/stream", "a half ").await.is(200, "7");
        view.say(&server, way, "/stream?end", "and the rest").await.is(200, "12");
        assert_eq!(view.rest().await, "a half and the rest");

        let mut sum = View::open(&server, way, "/stream/calc").await;
        sum.say(&server, way, "/stream/calc", "2 3\n4 5\n").await.is(200, "calc");
        assert_eq!((sum.line().await, sum.line().await), ("5\n".into(), "9\n".into()));
        // A switch has two positions.
        for open in ["end=0", "end=false"] {
            sum.say(&server, way, &format!("/stream/calc?{open}"), "1 1\n").await.is(200, "4");
            assert_eq!(sum.line().await, "2\n");
        }
        for wrong in ["end=maybe", "end&end", "end=-1", "end=TRUE"] {
            sum.say(&server, way, &format!("/stream/calc?{wrong}"), "1 1\n").await.is(400, "`end");
        }
        sum.say(&server, way, "/stream/calc?end=maybe", "").await.is(400, "end is true or false");
        // An end without more input.
        sum.say(&server, way, "/stream/calc?end=true", "").await.is(200, "0");
        assert_eq!(sum.rest().await, "");
    }
    none_runs(&commands).await;
}

pub(crate) struct Talk {
    pub(crate) session: Session,
    pub(crate) out: RecvStream,
    _connection: Arc<Connection>,
}

impl Talk {
    pub(crate) async fn open(server: &TestServer, path: &str) -> Self {
        Self::on(server.connect().await.into(), server, path).await
    }

    async fn on(connection: Arc<Connection>, server: &TestServer, path: &str) -> Self {
        let uri = server.uri(path);
        let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
        let out = soon("the feed", session.accept_uni()).await.unwrap();
        Self { session, out, _connection: connection }
    }

    pub(crate) async fn stream(&self, bytes: &'static str) -> (SendStream, RecvStream) {
        let (mut send, recv) = soon("a stream", self.session.open_bi()).await.unwrap();
        soon("the input is taken", send.write_bytes(bytes.into())).await.unwrap();
        (send, recv)
    }

    pub(crate) async fn until(&mut self, text: &str) {
        let mut read = String::new();
        while read != text {
            let more = soon(text, self.out.read_bytes(usize::MAX)).await.unwrap();
            read += std::str::from_utf8(&more.unwrap_or_else(|| panic!("the end after {read:?}"))).unwrap();
            assert!(text.starts_with(&read), "{read:?} is not {text:?}");
        }
    }
}

/// What a stream is answered with.
pub(crate) async fn answer(mut recv: RecvStream) -> Value {
    let mut text = Vec::new();
    while let Some(more) = soon("the answer", recv.read_bytes(usize::MAX)).await.unwrap() {
        text.extend_from_slice(&more);
    }
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
async fn in_a_session_a_stream_is_the_input_and_its_end_the_inputs() {
    let (server, commands) = server(&["exec:cat"], |app| app).await;
    let mut talk = Talk::open(&server, "/stream").await;
    let (mut send, recv) = talk.stream("one\n").await;
    talk.until("one\n").await;
    // Another one has to wait for its end.
    let (mut other, refused) = talk.stream("two\n").await;
    let _ = other.finish();
    assert_eq!(answer(refused).await["status"], 409);
    soon("more is taken", send.write_bytes("three\n".into())).await.unwrap();
    talk.until("three\n").await;
    send.finish().unwrap();
    assert_eq!(answer(recv).await, json!({ "feed": "default", "bytes": 10 }));
    // `cat` ends with its input, and the feed with `cat`.
    assert_eq!(soon("the end", talk.out.read_bytes(1)).await.unwrap(), None);
    none_runs(&commands).await;
    let (_send, late) = talk.stream("four\n").await;
    assert_eq!(answer(late).await["status"], 410);
}

/// Not the one that happens to be accepted first, or whose bytes come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_streams_the_first_is_the_input() {
    const NAMES: [&str; 4] = ["one\n", "two\n", "three\n", "four\n"];
    let (server, commands) = server(&["exec:cat"], |app| app).await;
    let connection = Arc::new(server.connect().await);
    // As many as one client may have commands.
    for round in 0..16 {
        let mut talk = Talk::on(connection.clone(), &server, "/stream").await;
        let mut streams = Vec::new();
        for name in NAMES {
            let (send, recv) = soon("a stream", talk.session.quic().open_bi()).await.unwrap();
            streams.push((name, send, recv));
        }
        assert!(streams.windows(2).all(|pair| pair[0].1.id() < pair[1].1.id()));
        // In another order each time, with what makes each a stream of the session.
        for place in 0..NAMES.len() {
            let (name, send, _) = &mut streams[(NAMES.len() * 2 - 1 - place + round) % NAMES.len()];
            let mut bytes = BytesMut::new();
            varint::encode(frame::WEBTRANSPORT_STREAM, &mut bytes);
            varint::encode(talk.session.id(), &mut bytes);
            bytes.extend_from_slice(name.as_bytes());
            // It may have been refused already.
            let _ = soon("it is written", send.write_all(&bytes)).await;
        }
        talk.until("one\n").await;
        let mut streams = streams.into_iter();
        // Dropped, it would leave the input to the next one.
        let _first = streams.next();
        for (name, _send, mut recv) in streams {
            let answer = soon("the answer", recv.read_chunk(10_000)).await.unwrap().unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["status"], 409, "{name}");
        }
        talk.session.close(0, "");
    }
    none_runs(&commands).await;
}

/// One that is given up does not end the input: another one continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_leaves_the_input_open() {
    let (server, _) = server(&["exec:cat"], |app| app).await;
    let mut talk = Talk::open(&server, "/stream").await;
    let (mut send, recv) = talk.stream("one\n").await;
    talk.until("one\n").await;
    send.reset(7);
    assert_eq!(answer(recv).await["status"], 400);
    // Also one that comes with the reset.
    let mut open = talk.stream("again\n").await;
    for _ in 0..100 {
        talk.until("again\n").await;
        open.0.reset(7);
        open = talk.stream("again\n").await;
    }
    talk.until("again\n").await;
    open.0.reset(7);
    let (mut send, recv) = talk.stream("two\n").await;
    talk.until("two\n").await;
    send.finish().unwrap();
    assert_eq!(answer(recv).await["bytes"], 4);
}
