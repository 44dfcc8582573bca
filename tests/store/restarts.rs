//! A server that stops, or is killed, and the next one.

use std::process::Command;

use bytes::Bytes;
use h3cast::{
    chunk::Cursor,
    client::{Viewer, viewer::Event},
    feed::End,
};
use tokio::task::spawn_blocking;

use crate::{
    Place, Process, STORE, about, first, lines, next, post,
    process::{self, soon},
};

#[tokio::test]
async fn cursors_keys_and_created_feeds_survive() {
    let args = ["publish", "chat.*=publish", "--feeds-per-client", "1"];
    let (place, mut server) = first(&args).await;
    let (status, answer) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\n").await.unwrap();
    assert_eq!((status, answer["chunks"].as_u64()), (200, Some(2)));
    assert_eq!(post(&place, "/stream/chat.a", None, "hello\n").await.unwrap().0, 200);
    server.kill();

    let server = next(&place, &args).await;
    // It is answered as if it came for the first time, and nothing is doubled.
    assert_eq!(post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\n").await.unwrap(), (200, answer.clone()));
    let (_, more) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\nthree\n").await.unwrap();
    assert_eq!((&more["first"], more["chunks"].as_u64()), (&answer["first"], Some(3)));
    assert_eq!(more["epoch"], answer["epoch"]);
    assert_eq!(lines(&place, "/stream?from=start", 3).await, ["one\n", "two\n", "three\n"]);
    let after = answer["first"].as_str().unwrap();
    assert_eq!(lines(&place, &format!("/stream?from={after}"), 2).await, ["two\n", "three\n"]);
    let listed = about(&place, "default").await;
    assert_eq!((&listed["oldest"], listed["chunks"].as_u64()), (&answer["first"], Some(3)));
    assert!(listed["stored_bytes"].as_u64().unwrap() > 14, "{listed}");
    // The client has created as many as it may.
    assert_eq!(lines(&place, "/stream/chat.a?from=start", 1).await, ["hello\n"]);
    assert_eq!(post(&place, "/stream/chat.b", None, "x").await.unwrap().0, 429);
    let metrics = process::get(&place, "/metrics").await;
    assert!(metrics.contains("\nh3cast_store_writable 1\n"), "{metrics}");
    server.stop().await;

    let server = next(&place, &args).await;
    // Nothing is in memory, and the list has what is on the disk.
    let listed = about(&place, "default").await;
    assert_eq!(listed["kept_bytes"], 0, "{listed}");
    let url = place.uri("/").to_string();
    let mut feeds = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    feeds.args(["feeds", &url, "--certs", "certs"]).current_dir(place.folder());
    let table = String::from_utf8(spawn_blocking(move || feeds.output().unwrap().stdout).await.unwrap()).unwrap();
    let row = table.lines().find(|line| line.starts_with("default ")).unwrap_or_else(|| panic!("{table}"));
    let columns = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(String::from).collect()
    };
    let (heads, cells) = (columns(table.lines().next().unwrap()), columns(row));
    let at = heads.iter().position(|head| head == "IN MEMORY").unwrap_or_else(|| panic!("{table}"));
    assert_eq!(&heads[at..at + 2], ["IN MEMORY", "ON DISK"], "{table}");
    assert_eq!(cells[at..at + 2], ["0 B".to_owned(), format!("{} B", listed["stored_bytes"])], "{listed}: {table}");
    assert_eq!(lines(&place, "/stream?from=-1", 1).await, ["three\n"]);
    server.stop().await;
}

/// As after a name was mistyped, or a source left out.
#[tokio::test]
async fn stored_feeds_that_are_not_served_are_named() {
    let (place, server) = first(&["log=publish", "chat.*=publish"]).await;
    for path in ["/stream/log", "/stream/chat.a"] {
        assert_eq!(post(&place, path, None, "one\n").await.unwrap().0, 200);
    }
    server.stop().await;
    let server = next(&place, &["lag=publish", "chat.*=publish"]).await;
    server.says("1 stored feed is not served: log. It stays on disk, for");
    server.stop().await;
    let server = next(&place, &["log=publish", "lag=publish", "chat.*=publish"]).await;
    server.says("storing feeds in");
    assert!(!server.said().contains("not served"), "{}", server.said());
    server.stop().await;
    // A pattern does not serve what has a source of its own, which is not on disk here.
    let server = next(&place, &["b=publish", "c=publish", "d=publish", "chat.*=publish", "chat.a=demo"]).await;
    server.says("3 stored feeds are not served: chat.a, lag, log. They stay on disk, for");
    server.stop().await;
    let server = next(&place, &["publish"]).await;
    server.says("6 stored feeds are not served: b, c, chat.a, d, lag, and 1 more. They stay on disk, for");
    server.stop().await;
}

/// What a viewer gets after `from`, up to the end of the feed.
async fn to_the_end(place: &Place, from: &str) -> (Vec<(Cursor, Bytes)>, End) {
    let mut viewer = Viewer::new(&place.uri(&format!("/stream?from={from}")), place.trust()).unwrap();
    let mut chunks = Vec::new();
    loop {
        match soon("more, or the end", viewer.next()).await.unwrap() {
            Some(Event::Chunk { cursor, bytes, .. }) => chunks.push((cursor, bytes)),
            Some(Event::End(end)) => return (chunks, end),
            Some(Event::Opened { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A server whose standard input is the file `input`.
fn with_input() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" < input", env!("CARGO_BIN_EXE_h3cast")]);
    command
}

/// A feed that has ended with its source continues when that runs again, and its viewers get the same end as those of a
/// feed in memory.
async fn continues(source: &str) {
    let place = Process::place(None);
    let run = async |place: &Place, args: &[&str], input: &str| {
        std::fs::write(place.folder().join("input"), input).unwrap();
        let mut server = place.start_by(with_input(), args, "");
        server.ready().await;
        server
    };
    std::fs::write(place.folder().join("input"), "one\ntwo\n").unwrap();
    let (place, server) = Process::begin(place, with_input(), &[source]).await;
    let (chunks, in_memory) = to_the_end(&place, "start").await;
    assert_eq!(chunks.len(), 2);
    server.stop().await;

    let args = [source, STORE[0], STORE[1]];
    let mut all = Vec::<(Cursor, Bytes)>::new();
    for (round, input) in ["one\ntwo\n", "three\n", "four\n"].into_iter().enumerate() {
        let mut server = run(&place, &args, input).await;
        let from = all.last().map_or_else(|| "start".to_owned(), |(last, _)| last.to_string());
        let (chunks, end) = to_the_end(&place, &from).await;
        assert_eq!(end, in_memory, "round {round}");
        assert!(chunks.iter().map(|(_, bytes)| bytes).eq(input.split_inclusive('\n')), "{chunks:?}");
        all.extend(chunks);
        // Those who come after it get all of it, and the end.
        assert_eq!(to_the_end(&place, "start").await, (all.clone(), in_memory.clone()));
        match round {
            0 => server.kill(),
            _ => server.stop().await,
        }
    }
    let epoch = all[0].0.epoch;
    assert!(all.iter().map(|(cursor, _)| *cursor).eq((0..4).map(|seq| Cursor { epoch, seq })), "{all:?}");
}

#[tokio::test]
async fn standard_input_continues_its_feed() {
    continues("-").await;
}

#[tokio::test]
async fn a_command_continues_its_feed() {
    continues("exec:cat input").await;
}

/// Also one that fails.
#[tokio::test]
async fn a_command_that_fails_continues_its_feed() {
    continues("exec:cat input; exit 3").await;
}
