//! Streams that are broken off at once: QUIC gives up what was sent before a reset, also what names the session, and
//! the application gets the stream all the same.

use h3cast_transport::webtransport::{RecvStream, SendStream, Session, StreamError, codes::to_http3};
use quinn::VarInt;

use crate::common::{raw::*, sessions::SessionServer, soon};

fn http3(code: u32) -> VarInt {
    VarInt::from_u64(to_http3(code)).unwrap()
}

async fn uni(session: &Session) -> RecvStream {
    soon("a stream", session.accept_uni()).await.unwrap()
}

async fn bi(session: &Session) -> (SendStream, RecvStream) {
    soon("a stream", session.accept_bi()).await.unwrap()
}

async fn code(recv: &mut RecvStream) -> u32 {
    match soon("the reset", recv.read_bytes(100)).await {
        Err(StreamError::Reset(code)) => code,
        other => panic!("{other:?}"),
    }
}

/// What can be there of the header of session 0's streams, and of what follows.
fn beginnings(signal: u64) -> Vec<Vec<u8>> {
    let header = [varint(signal), vec![0], b"text".to_vec()].concat();
    (0..=header.len()).map(|len| header[..len].to_vec()).collect()
}

/// A server, a client that writes by hand, and a session between them.
async fn session() -> (SessionServer, Raw, Session, Vec<quinn::SendStream>) {
    let mut server = SessionServer::start().await;
    let (raw, control) = Raw::greeted(&server.server).await;
    let (send, mut recv) = raw.bi(&connect("/")).await;
    assert_eq!(status(&mut recv).await, 200);
    let session = soon("the session", server.accepted.recv()).await.unwrap();
    tokio::spawn(async move { recv.read_to_end(100).await });
    (server, raw, session, vec![control, send])
}

/// Our own client and server; of each ninety: QUIC allows a hundred at once.
#[tokio::test]
async fn every_reset_at_once_arrives() {
    let mut server = SessionServer::start().await;
    let (client, accepted) = server.session().await;
    for (from, to) in [(&client, &accepted), (&accepted, &client)] {
        for number in 0..90 {
            soon("a stream", from.open_uni()).await.unwrap().reset(number);
            let (mut send, mut recv) = soon("a stream", from.open_bi()).await.unwrap();
            send.reset(number);
            recv.stop(1000 + number);
        }
        let (mut of_uni, mut of_bi) = (vec![], vec![]);
        for _ in 0..90 {
            of_uni.push(code(&mut uni(to).await).await);
            let (send, mut recv) = bi(to).await;
            of_bi.push(code(&mut recv).await);
            assert_eq!(soon("the stop", send.stopped()).await, Ok(Some(1000 + of_bi.last().unwrap())));
        }
        // They are independent of each other, and so is their order.
        of_uni.sort_unstable();
        of_bi.sort_unstable();
        assert_eq!((&of_uni[..], &of_bi[..]), (&(0..90).collect::<Vec<_>>()[..], &(0..90).collect::<Vec<_>>()[..]));
        assert_eq!(to.stats().streams_unreported, 0);
    }
}

#[tokio::test]
async fn a_reset_arrives_wherever_it_cuts_the_header() {
    let (_server, raw, session, _streams) = session().await;
    for whole in [false, true] {
        for begun in beginnings(WT_UNI) {
            let mut send = raw.uni(&begun).await;
            if whole {
                // What was sent has been read by then.
                raw.get("/").await;
            }
            send.reset(http3(7)).unwrap();
            let mut recv = uni(&session).await;
            assert_eq!(recv.id(), u64::from(send.id()));
            while let Ok(Some(_)) = soon("bytes", recv.read_bytes(100)).await {}
            // Again, however often one asks: it must never look whole.
            assert_eq!(code(&mut recv).await, 7, "{begun:x?}");
            assert_eq!(code(&mut recv).await, 7, "{begun:x?}");
        }
        for begun in beginnings(WT_BI) {
            let (mut send, mut there) = raw.bi(&begun).await;
            if whole {
                raw.get("/").await;
            }
            send.reset(http3(u32::MAX)).unwrap();
            let (mut back, mut recv) = bi(&session).await;
            while let Ok(Some(_)) = soon("bytes", recv.read_bytes(100)).await {}
            assert_eq!(code(&mut recv).await, u32::MAX, "{begun:x?}");
            // The other half works.
            back.write_bytes("back".into()).await.unwrap();
            back.finish().unwrap();
            assert_eq!(soon("the other half", there.read_to_end(100)).await.unwrap(), b"back");
        }
    }
}

#[tokio::test]
async fn a_stop_arrives_before_the_header() {
    let (_server, raw, session, _streams) = session().await;
    for begun in beginnings(WT_BI) {
        let (mut send, mut there) = raw.bi(&begun).await;
        there.stop(http3(7)).unwrap();
        let (back, mut recv) = bi(&session).await;
        assert_eq!(soon("the stop", back.stopped()).await, Ok(Some(7)), "{begun:x?}");
        // The header comes after it, and is none of the application's.
        let rest = [&beginnings(WT_BI).pop().unwrap()[begun.len()..], b", and more"].concat();
        for byte in rest {
            send.write_all(&[byte]).await.unwrap();
        }
        send.finish().unwrap();
        let mut all = vec![];
        while let Some(bytes) = soon("bytes", recv.read_bytes(3)).await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        assert_eq!(String::from_utf8(all).unwrap(), "text, and more", "{begun:x?}");
    }
    // A reset in place of the header, and an end.
    for reset in [true, false] {
        let (mut send, mut there) = raw.bi(&[]).await;
        there.stop(http3(7)).unwrap();
        let (_back, mut recv) = bi(&session).await;
        if reset {
            send.reset(http3(8)).unwrap();
            assert_eq!(code(&mut recv).await, 8);
        } else {
            send.finish().unwrap();
            assert_eq!(soon("the end", recv.read_bytes(9)).await, Ok(None));
        }
    }
    // Another session's after all.
    let (mut send, mut there) = raw.bi(&[]).await;
    there.stop(http3(7)).unwrap();
    let (_back, mut recv) = bi(&session).await;
    send.write_all(&[varint(WT_BI), vec![40]].concat()).await.unwrap();
    assert_eq!(
        soon("an error", recv.read_bytes(9)).await,
        Err(StreamError::Http3(h3cast_transport::http3::code::WT_BUFFERED_STREAM_REJECTED))
    );
    assert_eq!(stopped(&send).await, Some(h3cast_transport::http3::code::WT_BUFFERED_STREAM_REJECTED));
}

/// Those of other codes, and of requests, are none of the session's.
#[tokio::test]
async fn other_resets_are_not_reported() {
    let (_server, raw, session, _streams) = session().await;
    for code in [http3(0).into_inner() - 1, http3(30).into_inner() - 1, 0, 0x10c] {
        let code = VarInt::from_u64(code).unwrap();
        raw.uni(&[]).await.reset(code).unwrap();
        let (mut send, mut recv) = raw.bi(&[]).await;
        send.reset(code).unwrap();
        recv.stop(code).unwrap();
    }
    for begun in [&request("GET", "/")[..9], &varint(UNKNOWN), &[0x01]] {
        let (mut send, _recv) = raw.bi(begun).await;
        raw.get("/").await;
        send.reset(http3(7)).unwrap();
    }
    let mut unknown = raw.uni(&varint(UNKNOWN)).await;
    raw.get("/").await;
    let _ = unknown.reset(http3(7));
    let mut last = raw.uni(&[]).await;
    last.reset(http3(9)).unwrap();
    assert_eq!(code(&mut uni(&session).await).await, 9);
    let (mut last, _recv) = raw.bi(&[]).await;
    last.reset(http3(9)).unwrap();
    assert_eq!(code(&mut bi(&session).await.1).await, 9);
    assert_eq!(session.stats().streams_accepted, 2);
}

/// With several sessions nothing shows whose such a stream was: each counts it.
#[tokio::test]
async fn with_several_sessions_they_are_counted() {
    let (mut server, raw, first, mut streams) = session().await;
    let (mut send, mut recv) = raw.bi(&connect("/")).await;
    assert_eq!(status(&mut recv).await, 200);
    let second = soon("the session", server.accepted.recv()).await.unwrap();
    raw.uni(&[]).await.reset(http3(1)).unwrap();
    let (mut broken, _recv) = raw.bi(&[]).await;
    broken.reset(http3(2)).unwrap();
    // One with its header is nobody else's.
    let mut named = raw.uni(&[varint(WT_UNI), varint(second.id()), b"here".to_vec()].concat()).await;
    let mut recv_named = uni(&second).await;
    assert_eq!(soon("bytes", recv_named.read_bytes(100)).await.unwrap().unwrap(), "here");
    named.reset(http3(3)).unwrap();
    assert_eq!(code(&mut recv_named).await, 3);
    until("both count both", || [&first, &second].iter().all(|session| session.stats().streams_unreported == 2)).await;
    assert_eq!((first.stats().streams_accepted, second.stats().streams_accepted), (0, 1));

    // A bidirectional stream that is older than the session is not that session's.
    let (mut older, _recv_older) = raw.conn.open_bi().await.unwrap();
    send.finish().unwrap();
    soon("the end of the second", second.closed()).await;
    streams.remove(1).finish().unwrap();
    soon("the end of the first", first.closed()).await;
    let (_send, mut recv) = raw.bi(&connect("/")).await;
    assert_eq!(status(&mut recv).await, 200);
    let third = soon("the session", server.accepted.recv()).await.unwrap();
    older.reset(http3(4)).unwrap();
    until("it counts", || third.stats().streams_unreported == 1).await;
    // With the others gone, all others are its own again.
    let (mut broken, _recv) = raw.bi(&[]).await;
    broken.reset(http3(5)).unwrap();
    assert_eq!(code(&mut bi(&third).await.1).await, 5);
    raw.uni(&[]).await.reset(http3(6)).unwrap();
    assert_eq!(code(&mut uni(&third).await).await, 6);
}

/// A flood of resets that no one accepts fills no queue without end, and does not crowd out what follows.
#[tokio::test]
async fn a_flood_of_resets_is_bounded() {
    const FLOOD: u64 = 2000;
    let (_server, raw, session, _streams) = session().await;
    for _ in 0..FLOOD {
        // Opening one waits until the server has given a place back.
        raw.uni(&[]).await.reset(http3(1)).unwrap();
    }
    let mut last = raw.uni(&[varint(WT_UNI), vec![0], b"last".to_vec()].concat()).await;
    last.finish().unwrap();
    until("all have come", || session.stats().streams_accepted == FLOOD + 1).await;
    assert_eq!(session.stats().streams_unreported, FLOOD - 128);
    let mut waited = 0;
    loop {
        let mut recv = uni(&session).await;
        match soon("bytes", recv.read_bytes(100)).await {
            Err(StreamError::Reset(1)) => waited += 1,
            other => {
                assert_eq!(other.unwrap().unwrap(), "last");
                break;
            }
        }
    }
    assert!(waited <= 128, "{waited}");
    raw.get("/").await;
}
