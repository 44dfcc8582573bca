//! Streams that stay silent, are twice there or in the wrong place.

use std::time::Duration;

use futures_util::future::join_all;
use h3cast_transport::http3::code::*;

use crate::{
    common::{TestServer, process::Viewer, raw::*, sessions::SessionServer, soon},
    server,
};

#[tokio::test]
async fn one_byte_and_then_silence() {
    let program = server::start();
    let viewer = Viewer::join(&program).await;
    // All but the control stream's and one request's worth.
    for bytes in [&[0x01][..], &[0x40], &[0x41]] {
        let before = program.memory();
        let (raw, _control) = program.greeted().await;
        let mut silent = join_all((0..99).map(|_| raw.bi(bytes))).await;
        let mut silent_uni = join_all((0..98).map(|_| raw.uni(&[0x40]))).await;
        // Nobody waits for them.
        raw.assert_alive().await;
        program.assert_budget("silent streams", before);
        if bytes == [0x01] {
            // They are given up in time, all of them, and give their places back.
            for (_, recv) in &mut silent {
                assert_eq!(reset(recv).await, H3_REQUEST_CANCELLED);
            }
            for stream in &mut silent_uni {
                assert_eq!(stopped(stream).await, Some(H3_STREAM_CREATION_ERROR));
            }
            drop((silent, silent_uni));
            join_all((0..100).map(|_| raw.assert_alive())).await;
        }
    }
    viewer.leave().await;
    program.end();
}

#[tokio::test]
async fn a_session_waits_for_settings() {
    let SessionServer { server, mut accepted, .. } = SessionServer::start().await;
    let raw = Raw::to(&server).await;
    let (_send, mut recv) = raw.bi(&connect("/")).await;
    // A request needs none: it is answered while the session waits.
    raw.assert_alive().await;
    let mut head = [0];
    let nothing = tokio::time::timeout(Duration::from_millis(50), recv.read_exact(&mut head)).await;
    assert!(nothing.is_err(), "the session was answered before SETTINGS");
    let _control = raw.settings().await;
    soon("the session is answered", recv.read_exact(&mut head)).await.unwrap();
    let session = soon("the session", accepted.recv()).await.unwrap();
    let mut sent = session.open_uni().await.unwrap();
    let mut stream = soon("its stream", async {
        loop {
            // Past the server's own three.
            let mut stream = raw.conn.accept_uni().await.unwrap();
            let mut ty = [0; 2];
            stream.read_exact(&mut ty[..1]).await.unwrap();
            if ty[0] == 0x40 {
                stream.read_exact(&mut ty).await.unwrap();
                assert_eq!(ty, [WT_UNI as u8, 0]);
                return stream;
            }
        }
    })
    .await;
    sent.write_bytes("first".into()).await.unwrap();
    let mut text = [0; 5];
    soon("the chunk", stream.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"first");

    // Without any it is refused in time, and the connection stays.
    let raw = Raw::to(&server).await;
    let (_send, mut recv) = raw.bi(&connect("/")).await;
    assert_eq!(reset(&mut recv).await, H3_REQUEST_REJECTED);
    raw.assert_alive().await;
}

/// A capsule as it stands in a DATA frame.
fn capsule(ty: u64, payload: &[u8]) -> Vec<u8> {
    frame(DATA, &frame(ty, payload))
}

const CLOSE: u64 = 0x2843;

#[tokio::test]
async fn the_end_of_a_session() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(|request: h3cast_transport::webtransport::SessionRequest| async {
            if let Ok(session) = request.accept().await {
                session.closed().await;
            }
        })
    })
    .await;
    let (raw, _control) = Raw::greeted(&server).await;
    let close = capsule(CLOSE, &[0, 0, 0, 7]);

    // Clean: the server ends its side too.
    let (mut send, mut recv) = raw.bi(&[connect("/"), close.clone()].concat()).await;
    assert_eq!(status(&mut recv).await, 200);
    soon("the end", recv.read_to_end(100)).await.unwrap();
    send.finish().unwrap();

    // Data behind the close: at once, in a frame of its own, and when the server has ended its side.
    let frames = |capsules: &[u8]| [connect("/"), frame(DATA, capsules)].concat();
    let after = [frame(CLOSE, &[0, 0, 0, 7]), frame(UNKNOWN, b"")].concat();
    for bytes in [frames(&after), [connect("/"), close.clone(), capsule(UNKNOWN, b"")].concat()] {
        let (send, mut recv) = raw.bi(&bytes).await;
        assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR);
        assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR));
    }
    let (mut send, mut recv) = raw.bi(&[connect("/"), close].concat()).await;
    assert_eq!(status(&mut recv).await, 200);
    soon("the end", recv.read_to_end(100)).await.unwrap();
    send.write_all(&capsule(UNKNOWN, b"")).await.unwrap();
    assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR));

    // Malformed capsules, and a stream that ends in the middle of one.
    for wrong in [frame(CLOSE, &[0, 0, 0]), [varint(CLOSE), varint(4 + 1025)].concat(), frame(0x78ae, b"?")] {
        let (send, mut recv) = raw.bi(&frames(&wrong)).await;
        assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR, "{wrong:x?}");
        assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR), "{wrong:x?}");
    }
    let (mut send, mut recv) = raw.bi(&frames(&frame(CLOSE, &[0, 0, 0, 7, b'?'])[..6])).await;
    send.finish().unwrap();
    assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR);

    // An empty DATA frame is no end.
    let (mut send, mut recv) = raw.bi(&[connect("/"), frame(DATA, b"")].concat()).await;
    assert_eq!(status(&mut recv).await, 200);
    send.write_all(&capsule(CLOSE, &[0, 0, 0])).await.unwrap();
    assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR);

    // Its streams are gone with it.
    let mut late = raw.bi(&[varint(WT_BI), vec![0]].concat()).await;
    assert_eq!(reset(&mut late.1).await, WT_SESSION_GONE);
    assert_eq!(stopped(&late.0).await, Some(WT_SESSION_GONE));
    let late = raw.uni(&[varint(WT_UNI), vec![0]].concat()).await;
    assert_eq!(stopped(&late).await, Some(WT_SESSION_GONE));
    assert_eq!(raw.get("/").await, 404);
}

/// The server closes a session: code, reason and the end of the stream come together, and only then do the
/// session's streams end. Chromium loses code and reason otherwise.
#[tokio::test]
async fn the_close_of_a_session_comes_whole_and_first() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(|request: h3cast_transport::webtransport::SessionRequest| async {
            let session = request.accept().await.unwrap();
            let mut stream = session.accept_bi().await.unwrap();
            while let Ok(Some(bytes)) = stream.1.read_bytes(100).await {
                match &bytes[..] {
                    b"close" => session.close(7, "bye"),
                    _ => stream.0.write_bytes(bytes).await.unwrap(),
                }
            }
            session.closed().await;
        })
    })
    .await;
    let (raw, _control) = Raw::greeted(&server).await;
    let (mut send, mut recv) = raw.bi(&connect("/")).await;
    assert_eq!(status(&mut recv).await, 200);
    let mut stream = raw.bi(&[varint(WT_BI), vec![0], b"here".to_vec()].concat()).await;
    let mut here = [0; 4];
    soon("the stream", stream.1.read_exact(&mut here)).await.unwrap();

    stream.0.write_all(b"close").await.unwrap();
    let close = soon("the close", recv.read_chunk(usize::MAX, true)).await.unwrap().unwrap();
    let received = raw.conn.stats().frame_rx;
    assert_eq!(close.bytes, capsule(CLOSE, b"\0\0\0\x07bye"));
    assert_eq!((received.reset_stream, received.stop_sending), (0, 0), "the streams of the session end first");
    let end = futures_util::FutureExt::now_or_never(recv.read_chunk(usize::MAX, true)).expect("the end comes later");
    assert_eq!(end.unwrap(), None);
    // The server waits for this side's end.
    send.finish().unwrap();
    assert_eq!(reset(&mut stream.1).await, WT_SESSION_GONE);
    assert_eq!(stopped(&stream.0).await, Some(WT_SESSION_GONE));
}

/// Streams for sessions that never come wait, so many and so long, and are refused.
#[tokio::test]
async fn streams_without_a_session() {
    let program = server::start();
    let viewer = Viewer::join(&program).await;
    let (raw, _control) = program.greeted().await;
    let signal = [varint(WT_BI), vec![40]].concat();
    let mut streams = join_all((0..90).map(|_| raw.bi(&signal))).await;
    raw.assert_alive().await;
    for (send, recv) in &mut streams {
        assert_eq!(reset(recv).await, WT_BUFFERED_STREAM_REJECTED);
        assert_eq!(stopped(send).await, Some(WT_BUFFERED_STREAM_REJECTED));
    }
    raw.assert_alive().await;
    viewer.leave().await;
    program.end();
}
