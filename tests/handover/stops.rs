//! Servers that are told to stop while one takes over from the other: one of them serves in the end.

use std::time::Duration;

use h3cast::chunk::Cursor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
};

use crate::process::{Place, Process, publish, soon};

/// More than sockets take, in lines of this many bytes.
const MUCH: usize = 40;
const LINE: usize = 100_000;

/// Publishes that much.
pub(crate) async fn much(place: &Place) -> Cursor {
    publish(place, &vec!["x".repeat(LINE); MUCH].join("\n")).await
}

/// A viewer that has begun to read and reads no more: a server with that much to send does not end before its grace is
/// over, or before this is dropped.
pub(crate) async fn unread(place: &Place) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let connected = socket.connect(([127, 0, 0, 1], place.http_port).into());
    let mut viewer = soon("a connection", connected).await.unwrap();
    viewer.write_all(b"GET /stream?from=start HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    soon("the head", viewer.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    viewer
}

/// The old server cannot say so, as a message is only half written.
#[tokio::test]
async fn one_that_stops_in_the_middle_of_a_history_is_waited_for() {
    let args = ["publish", "--drain=0s", "--grace=60s", "--history=8M"];
    let (place, mut first) = Process::first(&args).await;
    let cursor = much(&place).await;
    let viewer = unread(&place).await;
    // It reads nothing more, and that is more than what a socket takes.
    let mut second = place.stopped_at("take-over-part", &args).await;
    first.terminate();
    first.until("it gives up", |first| first.said().contains("did not take over, and this one stops")).await;
    second.go_on();
    second.until("it waits", |second| second.said().contains("is about to end: waiting for that")).await;
    assert!(first.is_running() && second.is_running());
    drop(viewer);
    first.ended(0).await;
    second.ready().await;
    second.says("its feeds start over");
    assert_ne!(publish(&place, "b").await.epoch, cursor.epoch);
    second.stop().await;
}

#[tokio::test]
async fn a_new_server_that_is_told_to_stop_changes_nothing() {
    let (place, first) = Process::first_with("hand-over=stop", &["publish"]).await;
    let cursor = publish(&place, "a").await;
    let mut second = place.next(&["publish"]);
    first.until("the old server stands still", |first| first.is_stopped()).await;
    second.terminate();
    second.ended(0).await;
    first.go_on();
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    first.says("this one keeps serving: it was told to stop");
    assert!(first.is_running());
    first.stop().await;
}

/// The old server may have said that it is to serve, and drains then.
#[tokio::test]
async fn a_new_server_that_has_taken_everything_serves_before_it_stops() {
    let (place, mut first) = Process::first_with("hand-over-last=stop", &["publish"]).await;
    publish(&place, "a").await;
    let mut second = place.next(&["publish"]);
    first.until("the old server stands still", |first| first.is_stopped()).await;
    second.terminate();
    second.until("it was told to stop", |second| second.said().contains("shutting down")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(second.is_running(), "{}", second.said());
    first.go_on();
    first.ended(0).await;
    first.says("has taken over");
    second.ended(0).await;
    second.says("took over from process");
}

/// A client of the control socket, which need not be h3cast.
async fn says(stream: &mut UnixStream, message: &str) {
    stream.write_u32(message.len() as u32).await.unwrap();
    stream.write_all(message.as_bytes()).await.unwrap();
}

async fn is_told(stream: &mut UnixStream) -> String {
    let length = soon("a message", stream.read_u32()).await.unwrap();
    let mut text = vec![0; length as usize];
    soon("the message", stream.read_exact(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_new_server_is_told_why_it_does_not_take_over() {
    let (place, first) = Process::first(&["publish"]).await;
    let mut stream = UnixStream::connect(place.control()).await.unwrap();
    stream.write_all(b"take-over\n").await.unwrap();
    let about = is_told(&mut stream).await;
    assert!(about.contains(r#""stops":false"#), "{about}");
    says(&mut stream, r#""Chosen""#).await;
    is_told(&mut stream).await;
    says(&mut stream, r#""Taken""#).await;
    let refused = is_told(&mut stream).await;
    assert!(refused.contains("Refused") && refused.contains("another message than that it is ready"), "{refused}");
    first.says("this one keeps serving");
    first.stop().await;
}

/// It has closed its control socket, and has its ports as long as it drains.
#[tokio::test]
async fn the_ports_of_a_server_that_drains_are_waited_for() {
    let (place, mut first) = Process::first(&["publish", "--grace=60s", "--history=8M"]).await;
    let cursor = much(&place).await;
    let viewer = unread(&place).await;
    first.terminate();
    soon("its control socket is closed", async {
        while UnixStream::connect(place.control()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut second = place.next(&["publish"]);
    if cfg!(target_os = "linux") {
        second.until("it waits", |second| second.said().contains("is about to end: waiting for that")).await;
    }
    assert!(first.is_running());
    drop(viewer);
    first.ended(0).await;
    second.ready().await;
    assert_ne!(publish(&place, "b").await.epoch, cursor.epoch);
    second.stop().await;
}

/// As one does that is killed before it has offered anything.
#[tokio::test]
async fn one_that_ends_before_it_hands_over_is_no_server() {
    for words in [0, 1] {
        let (place, first) = Process::first(&["publish"]).await;
        first.stop().await;
        let old = tokio::net::UnixListener::bind(place.control()).unwrap();
        let mut second = place.next(&["publish"]);
        let (mut stream, _) = soon("it asks", old.accept()).await.unwrap();
        drop(old);
        std::fs::remove_file(place.control()).unwrap();
        let mut line = [0; 10];
        soon("what it asks", stream.read_exact(&mut line)).await.unwrap();
        if words > 0 {
            says(&mut stream, r#"{"version":1,"pid":1,"listens":["127.0.0.1:PORT"],"stops":false}"#.replace("PORT", &place.port.to_string()).as_str()).await;
            assert_eq!(is_told(&mut stream).await, r#""Chosen""#);
        }
        drop(stream);
        second.ready().await;
        second.says("found no running server of this user to take over from");
        second.stop().await;
    }
}

/// A server that is followed by others for years does not run out of files.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn nothing_of_servers_that_have_ended_is_handed_on() {
    let (place, mut last) = Process::first(&["publish"]).await;
    // With each hand-over it would be one more at least. What else a server opens may come after it is ready.
    const HANDOVERS: usize = 6;
    const OWN: usize = 3;
    let mut after_first = None;
    for _ in 0..HANDOVERS {
        let mut next = place.next(&["publish"]);
        next.ready().await;
        last.ended(0).await;
        after_first.get_or_insert_with(|| next.sockets());
        last = next;
    }
    let most = after_first.unwrap() + OWN;
    last.until("it has no more sockets than after the first hand-over", |last| last.sockets() <= most).await;
}
