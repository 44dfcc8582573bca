//! What goes wrong while one server takes over from another.

use std::os::unix::fs::PermissionsExt;

use h3cast::{
    chunk::Cursor,
    client::{Viewer, viewer::Event},
};

use crate::{
    process::{Process, get, publish, soon},
    stops::{much, unread},
};

/// The next chunk of a viewer that is never lost.
async fn chunk(viewer: &mut Viewer) -> String {
    next_chunk(viewer, false).await
}

async fn next_chunk(viewer: &mut Viewer, may_be_lost: bool) -> String {
    soon("a chunk", async {
        loop {
            match viewer.next().await.unwrap() {
                Some(Event::Lost { .. }) if may_be_lost => {}
                Some(Event::Chunk { bytes, .. }) => return String::from_utf8(bytes.to_vec()).unwrap(),
                Some(Event::Opened { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_port_in_use_stays_an_error() {
    let (place, _first) = Process::first(&["publish"]).await;
    let mut rival = place.rival(&["publish", "--control=off"]);
    rival.ended(2).await;
    rival.says("is in use by another program");
    if cfg!(target_os = "linux") {
        rival.says("take over from it with --take-over");
    }
    let mut blind = place.rival(&["publish", "--control=off", "--take-over"]);
    blind.ended(2).await;
    blind.says("give the socket that the old one has");
    let mode = std::fs::metadata(place.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Also the old one has the UDP port, as long as it drains.
#[tokio::test]
async fn a_port_in_use_is_that_of_the_server_that_serves() {
    let (place, mut first) = Process::first(&["publish", "--grace=60s", "--history=8M"]).await;
    much(&place).await;
    let _viewer = unread(&place).await;
    let mut second = place.next(&["publish"]);
    second.ready().await;
    first.says("has taken over");
    let mut rival = place.rival(&["publish", "--control=off"]);
    rival.ended(2).await;
    if cfg!(target_os = "linux") {
        rival.says(&format!("is in use by another program (h3cast, process {})", second.pid()));
        rival.says("take over from it with --take-over");
    }
    assert!(first.is_running());
    first.kill();
    second.stop().await;
}

#[tokio::test]
async fn with_no_server_there_it_starts_from_scratch() {
    let (place, first) = Process::first(&["publish"]).await;
    first.stop().await;
    let mut second = place.next(&["publish"]);
    second.ready().await;
    second.says("found no running server of this user to take over from");
    assert_eq!(publish(&place, "a").await.seq, 0);
}

#[tokio::test]
async fn a_new_server_that_fails_changes_nothing() {
    let (place, mut first) = Process::first(&["publish"]).await;
    let mut viewer = Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap();
    let cursor = publish(&place, "a").await;
    assert_eq!(chunk(&mut viewer).await, "a\n");
    // Before it has asked for anything, when it has the sockets, and when it has the feeds too.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redirect = format!("--redirect={}", taken.local_addr().unwrap());
    let mut second = place.next(&["publish", "--static=missing"]);
    second.ended(2).await;
    let mut second = place.next(&["publish", &redirect]);
    second.ended(2).await;
    second.says("is in use by another program");
    let mut second = place.stopped_at("take-over", &["publish"]).await;
    let waiting = tokio::spawn({
        let place = place.clone();
        async move { publish(&place, "b").await }
    });
    // It cannot come before the new server has failed: nothing of it is published meanwhile.
    soon("the publication is there", async {
        while !get(&place, "/metrics").await.contains("\nh3cast_publications 1\n") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let published = tokio::time::timeout(std::time::Duration::from_millis(300), viewer.next()).await;
    assert!(published.is_err(), "published by a server whose feeds were taken: {published:?}");
    assert!(!waiting.is_finished());
    second.kill();
    assert_eq!(waiting.await.unwrap(), Cursor { seq: 1, ..cursor });
    assert_eq!(chunk(&mut viewer).await, "b\n");
    first.says("this one keeps serving");
    // And the next one takes over.
    let mut third = place.next(&["publish"]);
    third.ready().await;
    first.ended(0).await;
    assert_eq!(publish(&place, "c").await, Cursor { seq: 2, ..cursor });
    third.stop().await;
}

#[tokio::test]
async fn an_old_server_that_is_killed_leaves_its_ports() {
    for (fault, seq, said) in [
        ("hand-over", 0, "ended before it had handed over: its feeds start over"),
        ("hand-over-last", 1, "ended while it handed over: continuing 1 feed with 1 chunk"),
    ] {
        let (place, mut first) = Process::first_with(&format!("{fault}=stop"), &["publish"]).await;
        let cursor = publish(&place, "a").await;
        let mut second = place.next(&["publish"]);
        first.until("the old server stands still", |first| first.is_stopped()).await;
        assert!(second.is_running());
        first.kill();
        second.ready().await;
        second.says(said);
        let next = publish(&place, "b").await;
        assert_eq!((next.seq, next.epoch == cursor.epoch), (seq, seq == 1));
        second.stop().await;
    }
}

/// A server that took over and is killed, as by the system when memory is short, is started again at once, though the
/// first one still drains: its connections over QUIC get no packets any more.
#[tokio::test]
async fn a_new_server_that_is_killed_leaves_its_ports() {
    let (place, mut first) = Process::first(&["publish", "--grace=60s", "--history=8M"]).await;
    let mut viewer = Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap();
    publish(&place, "a").await;
    assert_eq!(chunk(&mut viewer).await, "a\n");
    let cursor = much(&place).await;
    let slow = unread(&place).await;
    let mut second = place.next(&["publish"]);
    second.ready().await;
    second.kill();
    let begun = std::time::Instant::now();
    let mut third = place.rival(&["publish"]);
    while !third.serves().await {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{}", third.said());
        third = place.rival(&["publish"]);
    }
    assert!(first.is_running());
    assert_ne!(publish(&place, "b").await.epoch, cursor.epoch);
    // It learns that at once, not when its connection has timed out.
    soon("the chunk of the third server", async {
        loop {
            match viewer.next().await.unwrap() {
                Some(Event::Chunk { bytes, .. }) if bytes == "b\n" => break,
                Some(Event::Chunk { .. } | Event::Opened { .. } | Event::Lost { .. } | Event::Gap(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    drop((viewer, slow));
    first.ended(0).await;
    third.stop().await;
}

#[tokio::test]
async fn an_old_server_that_is_told_to_stop_hands_over_first() {
    let (place, mut first) = Process::first(&["publish", "--drain=0s"]).await;
    let mut viewer = Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap();
    let cursor = publish(&place, "a").await;
    assert_eq!(chunk(&mut viewer).await, "a\n");
    let mut second = place.stopped_at("take-over", &["publish"]).await;
    first.terminate();
    first.until("it was told to stop", |first| first.said().contains("shutting down")).await;
    second.go_on();
    second.ready().await;
    first.ended(0).await;
    first.says("has taken over");
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    assert_eq!(next_chunk(&mut viewer, true).await, "b\n");
    drop(viewer);
    second.stop().await;
}

#[tokio::test]
async fn one_that_cannot_wait_for_the_new_server_leaves_its_ports() {
    let (place, mut first) = Process::first(&["publish", "--drain=0s", "--grace=1s"]).await;
    let cursor = publish(&place, "a").await;
    let mut second = place.stopped_at("take-over", &["publish"]).await;
    first.terminate();
    first.ended(0).await;
    first.says("was told to stop");
    assert!(!first.said().contains("has taken over"));
    second.go_on();
    second.ready().await;
    second.says("waiting for its end");
    assert_ne!(publish(&place, "b").await.epoch, cursor.epoch);
    second.stop().await;
}

#[tokio::test]
async fn only_one_of_two_takes_over() {
    let (place, mut first) = Process::first(&["publish"]).await;
    let cursor = publish(&place, "a").await;
    let mut second = place.stopped_at("take-over", &["publish"]).await;
    let mut third = place.next(&["publish"]);
    third.ended(1).await;
    third.says(&format!("process {} is taking over from it now", second.pid()));
    second.go_on();
    second.ready().await;
    first.ended(0).await;
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    second.stop().await;
}

#[tokio::test]
async fn what_can_fail_does_so_while_the_old_server_serves() {
    // As long as the system allows: there is no room for another one beside it.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("x".repeat(105 - folder.path().as_os_str().len() - 1));
    std::fs::create_dir(&folder).unwrap();
    let control = folder.join("c").into_os_string().into_string().unwrap();
    assert_eq!(control.len(), 107);
    let (place, first) = Process::first_at(Some(control), "", &["publish"]).await;
    let cursor = publish(&place, "a").await;
    let mut second = place.next(&["publish"]);
    second.ended(2).await;
    second.says("start both servers with a shorter --control");
    first.until("it keeps serving", |first| first.said().contains("this one keeps serving")).await;
    assert!(first.is_running());
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    first.stop().await;
}

#[tokio::test]
async fn the_old_server_is_found_by_its_addresses() {
    let (place, mut first) = Process::first_at(None, "", &["publish"]).await;
    // One that says nothing is in the same folder.
    let cursor = publish(&place, "a").await;
    let silent = place.folder().join("h3cast/control-1.sock");
    let _silent = std::os::unix::net::UnixListener::bind(silent).unwrap();
    let mut second = place.next(&["publish"]);
    second.ready().await;
    first.ended(0).await;
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    second.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_refuses_connections() {
    let (place, mut first) = Process::first(&["publish", "--grace=60s", "--history=8M"]).await;
    let at = ("127.0.0.1", place.http_port);
    much(&place).await;
    let _viewer = unread(&place).await;
    first.terminate();
    first.until("it was told to stop", |first| first.said().contains("shutting down")).await;
    soon("connections are refused", async {
        while tokio::net::TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // It keeps the UDP port for the connections that it has.
    let mut rival = place.rival(&["publish", "--control=off"]);
    rival.ended(2).await;
    rival.says("use by another program");
    if cfg!(target_os = "linux") {
        rival.says("is still in use by another program (h3cast, process ");
        rival.says("try again in a moment");
    }
    first.kill();
}
