//! A session's streams from both sides of the public API: all four kinds, how each may end, and who
//! learns of it.

use std::{
    future::ready,
    sync::Arc,
    task::{Context, Wake},
    time::Duration,
};

use bytes::Bytes;
use h3cast_transport::webtransport::{RecvStream, SendStream, Session, StreamError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinSet,
};

use crate::common::{sessions::SessionServer, soon};

/// Around the gaps in HTTP/3's numbering, and the ends.
const CODES: [u32; 8] = [0, 1, 29, 30, 31, 255, 65_536, u32::MAX];

fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| (at * 31 + (at >> 8) * 7) as u8).collect()
}

/// A stream that has reached the other side, where its first bytes have been read.
async fn begun(from: &Session, to: &Session) -> (SendStream, RecvStream) {
    let mut send = soon("a stream", from.open_uni()).await.unwrap();
    soon("a write", send.write_bytes("begun".into())).await.unwrap();
    let mut recv = soon("the stream", to.accept_uni()).await.unwrap();
    assert_eq!(send.id(), recv.id());
    assert_eq!(soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap(), "begun");
    (send, recv)
}

async fn whole(mut recv: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("the end of a stream", recv.read_to_end(&mut all)).await.unwrap();
    all
}

#[tokio::test]
async fn all_four_kinds_carry_a_mebibyte() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    let bytes = pattern(1 << 20);
    for (opens, accepts) in [(&client, &accepted), (&accepted, &client)] {
        let uni = async {
            let mut send = opens.open_uni().await.unwrap();
            send.write_bytes(bytes.clone()).await.unwrap();
            send.finish().unwrap();
        };
        let (recv, ()) = tokio::join!(async { whole(accepts.accept_uni().await.unwrap()).await }, soon("written", uni));
        assert!(recv == bytes);

        let there = async {
            let (mut send, recv) = opens.open_bi().await.unwrap();
            // As tokio's traits have it.
            send.write_all(&bytes).await.unwrap();
            send.shutdown().await.unwrap();
            whole(recv).await
        };
        let back = async {
            let (mut send, mut recv) = accepts.accept_bi().await.unwrap();
            soon("a copy", tokio::io::copy(&mut recv, &mut send)).await.unwrap();
            send.finish().unwrap();
            assert_eq!(soon("the peer has all of it", send.stopped()).await, Ok(None));
        };
        let (echo, ()) = tokio::join!(there, back);
        assert!(echo == bytes);
    }
    let (ours, theirs) = (client.stats(), accepted.stats());
    assert_eq!((ours.streams_opened, ours.streams_accepted), (2, 2));
    assert_eq!((theirs.streams_opened, theirs.streams_accepted), (2, 2));
}

#[tokio::test]
async fn streams_are_accepted_in_the_order_in_which_they_came() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (opens, accepts) in [(&client, &accepted), (&accepted, &client)] {
        for number in 0..40_u8 {
            let mut uni = soon("a stream", opens.open_uni()).await.unwrap();
            uni.write_bytes(vec![number].into()).await.unwrap();
            uni.finish().unwrap();
            let (mut send, _recv) = soon("a stream", opens.open_bi()).await.unwrap();
            send.write_bytes(vec![number].into()).await.unwrap();
            send.finish().unwrap();
        }
        // All of one kind before any of the other: neither waits for the other.
        for number in 0..40_u8 {
            let (_send, recv) = soon("a stream", accepts.accept_bi()).await.unwrap();
            assert_eq!(whole(recv).await, [number]);
        }
        for number in 0..40_u8 {
            assert_eq!(whole(soon("a stream", accepts.accept_uni()).await.unwrap()).await, [number]);
        }
    }
}

/// Tells of being woken.
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn an_accept_that_is_dropped_loses_nothing() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for number in 0..30_u8 {
        // Dropped before anything came.
        tokio::select! {
            biased;
            _ = accepted.accept_uni() => panic!("nothing was opened"),
            _ = accepted.accept_bi() => panic!("nothing was opened"),
            () = ready(()) => {}
        }
        // Dropped when something came, before it could take it, with another one behind it.
        let woken = Arc::new(Woken(Notify::new()));
        {
            let waker = woken.clone().into();
            let mut cx = Context::from_waker(&waker);
            let (mut uni, mut bi) = (Box::pin(accepted.accept_uni()), Box::pin(accepted.accept_bi()));
            assert!(uni.as_mut().poll(&mut cx).is_pending() && bi.as_mut().poll(&mut cx).is_pending());
            let behind = accepted.clone();
            let behind = tokio::spawn(async move { (behind.accept_uni().await, behind.accept_bi().await) });
            let mut send = soon("a stream", client.open_uni()).await.unwrap();
            send.write_bytes(vec![number].into()).await.unwrap();
            send.finish().unwrap();
            soon("the accept is woken", woken.0.notified()).await;
            let (mut send, _recv) = soon("a stream", client.open_bi()).await.unwrap();
            send.write_bytes(vec![number, number].into()).await.unwrap();
            send.finish().unwrap();
            soon("the accept is woken", woken.0.notified()).await;
            // Only now do they end, and give way.
            drop((uni, bi));
            let (uni, bi) = soon("those behind", behind).await.unwrap();
            assert_eq!(whole(uni.unwrap()).await, [number]);
            assert_eq!(whole(bi.unwrap().1).await, [number, number]);
        }
    }
}

#[tokio::test]
async fn resets_carry_their_code() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (from, to) in [(&client, &accepted), (&accepted, &client)] {
        for code in CODES {
            let (mut send, mut recv) = begun(from, to).await;
            send.reset(code);
            assert_eq!(soon("the reset", recv.read_bytes(100)).await, Err(StreamError::Reset(code)));
            assert_eq!(send.write_bytes("late".into()).await, Err(StreamError::Ended));
            assert_eq!(send.finish(), Err(StreamError::Ended));
        }
        // One that was finished can still be broken off.
        let (mut send, recv) = begun(from, to).await;
        send.finish().unwrap();
        assert_eq!(send.finish(), Err(StreamError::Ended));
        assert_eq!(whole(recv).await, b"");
    }
}

#[tokio::test]
async fn stops_carry_their_code() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (from, to) in [(&client, &accepted), (&accepted, &client)] {
        for code in CODES {
            let (mut send, mut recv) = begun(from, to).await;
            recv.stop(code);
            assert_eq!(soon("the stop", send.stopped()).await, Ok(Some(code)));
            assert_eq!(send.write_bytes("late".into()).await, Err(StreamError::Stopped(code)));
            assert_eq!(recv.read_bytes(100).await, Err(StreamError::Ended));
            let error = std::io::Error::from(StreamError::Stopped(code));
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_before_its_end_is_broken_off() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (from, to) in [(&client, &accepted), (&accepted, &client)] {
        let (send, mut recv) = begun(from, to).await;
        drop(send);
        assert_eq!(soon("the reset", recv.read_bytes(100)).await, Err(StreamError::Reset(0)));
        let (send, recv) = begun(from, to).await;
        drop(recv);
        assert_eq!(soon("the stop", send.stopped()).await, Ok(Some(0)));
        // After its end there is nothing to break off.
        let (mut send, mut recv) = begun(from, to).await;
        send.write_bytes("the rest".into()).await.unwrap();
        send.finish().unwrap();
        drop(send);
        assert_eq!(soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap(), "the rest");
        assert_eq!(soon("the end", recv.read_bytes(100)).await, Ok(None));
        assert_eq!(soon("the end again", recv.read_bytes(100)).await, Ok(None));
    }
}

#[tokio::test]
async fn an_open_that_is_dropped_leaves_no_stream_behind() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    // More than the peer allows at once: each must have been given back.
    for _ in 0..300 {
        tokio::select! {
            biased;
            opened = client.open_uni() => drop(opened.unwrap()),
            () = ready(()) => {}
        }
    }
    let (mut send, _recv) = soon("a stream", client.open_bi()).await.unwrap();
    send.write_bytes("still".into()).await.unwrap();
    let (_send, mut recv) = soon("the stream", accepted.accept_bi()).await.unwrap();
    assert_eq!(soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap(), "still");
}

#[tokio::test]
async fn bytes_are_taken_as_the_reader_wants_them() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    let mut send = soon("a stream", client.open_uni()).await.unwrap();
    let mut chunks = ["one", "", " two", " three"].map(Bytes::from);
    soon("a write", send.write_chunks(&mut chunks)).await.unwrap();
    assert!(chunks.iter().all(Bytes::is_empty));
    send.write_bytes(Bytes::new()).await.unwrap();
    send.set_priority(7);
    send.flush().await.unwrap();
    send.finish().unwrap();
    send.set_priority(-7);
    let mut recv = soon("the stream", accepted.accept_uni()).await.unwrap();
    assert_eq!(recv.read_bytes(0).await.unwrap().unwrap(), "");
    assert_eq!(recv.read(&mut []).await.unwrap(), 0);
    let mut all = Vec::new();
    while let Some(bytes) = soon("bytes", recv.read_bytes(2)).await.unwrap() {
        assert!((1..=2).contains(&bytes.len()));
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all, b"one two three");
}

#[tokio::test]
async fn the_end_of_a_session_reaches_whoever_waits_on_a_stream() {
    let mut server = SessionServer::start().await;
    for theirs in [false, true] {
        let (client, accepted) = server.session().await;
        let (mut full, unread) = begun(&client, &accepted).await;
        let (idle, mut silent) = begun(&accepted, &client).await;
        let (watched, _watched) = begun(&client, &accepted).await;
        let watched = Arc::new(watched);
        let mut waiting = JoinSet::new();
        // More than the peer takes unread: this waits.
        waiting.spawn(async move { full.write_bytes(pattern(4 << 20)).await.unwrap_err() });
        waiting.spawn(async move { silent.read_bytes(100).await.unwrap_err() });
        for _ in 0..3 {
            let watched = watched.clone();
            waiting.spawn(async move { watched.stopped().await.unwrap_err() });
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
            assert_eq!(ended.unwrap(), StreamError::SessionGone);
        }
        soon("the other side ends", accepted.closed()).await;
        for mut stream in [idle, soon("ended", async { Arc::into_inner(watched) }).await.unwrap()] {
            assert_eq!(stream.write_bytes("late".into()).await, Err(StreamError::SessionGone));
            assert_eq!(stream.finish(), Err(StreamError::SessionGone));
            assert_eq!(stream.stopped().await, Err(StreamError::SessionGone));
        }
        let mut unread = unread;
        assert_eq!(unread.read_bytes(100).await, Err(StreamError::SessionGone));
    }
}

#[tokio::test]
async fn streams_that_nobody_accepted_end_with_their_session() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    // Another session's, whose streams are not touched.
    let (other, other_accepted) = server.session().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(soon("a stream", client.open_bi()).await.unwrap());
    }
    let (mut send, mut recv) = begun(&other, &other_accepted).await;
    accepted.close(0, "");
    soon("the close", client.closed()).await;
    for (send, mut recv) in streams {
        assert_eq!(soon("an end", recv.read_bytes(100)).await, Err(StreamError::SessionGone));
        assert_eq!(soon("an end", send.stopped()).await, Err(StreamError::SessionGone));
    }
    send.write_bytes("on".into()).await.unwrap();
    assert_eq!(soon("bytes", recv.read_bytes(100)).await.unwrap().unwrap(), "on");
    // What the ended session used of the connection has been given back.
    for _ in 0..150 {
        let (mut send, recv) = soon("a stream", other.open_bi()).await.unwrap();
        send.finish().unwrap();
        let (mut back, _recv) = soon("the stream", other_accepted.accept_bi()).await.unwrap();
        back.finish().unwrap();
        assert_eq!(whole(recv).await, b"");
    }
}

/// The beginning of a bidirectional stream of a session.
fn header(session: &Session) -> Bytes {
    let mut header = bytes::BytesMut::new();
    h3cast_proto::varint::encode(h3cast_proto::frame::WEBTRANSPORT_STREAM, &mut header);
    h3cast_proto::varint::encode(session.id(), &mut header);
    header.freeze()
}

/// Waits until so many streams have come.
async fn come(session: &Session, streams: u64) {
    soon("the stream is here", async {
        while session.stats().streams_accepted < streams {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A client that opens several at once means the first, though a later one may come before it.
#[tokio::test]
async fn streams_are_accepted_in_the_order_of_their_ids() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (opens, accepts) in [(&client, &accepted), (&accepted, &client)] {
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(soon("a stream", opens.quic().open_bi()).await.unwrap());
        }
        let ids: Vec<_> = opened.iter().map(|(send, _)| send.id()).collect();
        let mut first = tokio::spawn({
            let accepts = accepts.clone();
            async move { accepts.accept_bi_in_order().await.unwrap() }
        });
        // From the last one.
        for (number, (send, _)) in (1..).zip(opened.iter_mut().rev()) {
            assert!(!first.is_finished());
            soon("a write", send.write_all(&header(opens))).await.unwrap();
            come(accepts, number).await;
        }
        assert_eq!(soon("the first one", &mut first).await.unwrap().1.id(), ids[0]);
        for id in &ids[1..] {
            assert_eq!(soon("a stream", accepts.accept_bi_in_order()).await.unwrap().1.id(), *id);
        }
    }
}

/// One that does not begin is passed over, and comes when it does.
#[tokio::test]
async fn an_earlier_stream_is_not_waited_for_for_ever() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    let (mut silent, _recv) = soon("a stream", client.quic().open_bi()).await.unwrap();
    let (later, _recv) = soon("a stream", client.open_bi()).await.unwrap();
    assert!(silent.id() < later.id());
    come(&accepted, 1).await;
    assert_eq!(soon("the later one", accepted.accept_bi_in_order()).await.unwrap().1.id(), later.id());
    soon("a write", silent.write_all(&header(&client))).await.unwrap();
    assert_eq!(soon("the silent one", accepted.accept_bi_in_order()).await.unwrap().1.id(), silent.id());
}
