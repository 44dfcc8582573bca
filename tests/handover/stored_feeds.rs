//! Feeds on disk of every kind, which go to the new server, and what the old one is told meanwhile.

use std::{
    fs::{self, File},
    io::Write,
    process::Command,
};

use crate::{
    process::{Place, Process, about, get, post, soon},
    stored::{ARGS, Written, followed},
};

/// A server whose standard input is a pipe, and the pipe's other end.
fn with_input(place: &Place, name: &str) -> (Command, File) {
    let path = place.folder().join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Neither end waits for the other.
    let pipe = File::options().read(true).write(true).open(&path).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" < {name}"), env!("CARGO_BIN_EXE_h3cast")]);
    (command, pipe)
}

#[tokio::test]
async fn feeds_of_every_kind_continue() {
    const FEEDS: [&str; 6] =
        ["--store=store", "publish", "chat.*=publish", "in=-", "run=exec:cat said; exec sleep 1000", "quiet=publish"];
    let place = Process::place(Some("control.sock".into()));
    let says = |place: &Place, text: &str| fs::write(place.folder().join("said"), text).unwrap();
    says(&place, "one\n");
    let (command, mut input) = with_input(&place, "input-1");
    let (place, mut first) = Process::begin(place, command, &FEEDS).await;
    let feeds = ["in", "run", "chat.a", "default"];
    let write = async |place: &Place, input: &mut File, line: &str, body: &str| {
        input.write_all(line.as_bytes()).unwrap();
        assert_eq!(post(place, "/stream/chat.a", None, line).await.unwrap().0, 200);
        // It publishes all of it again, by its key.
        post(place, "/stream/default?chunk=lines", Some("key"), body).await.unwrap()
    };
    let (status, before) = write(&place, &mut input, "one\n", "one\n").await;
    assert_eq!(status, 200, "{before}");
    for feed in feeds {
        followed(&place, feed, "one\n".into()).await.unwrap();
    }
    let viewers = feeds.map(|feed| followed(&place, feed, "two\n".into()));
    let epoch = async |place: &Place, feed: &str| about(place, feed).await["epoch"].clone();
    let quiet = epoch(&place, "quiet").await;
    assert!(quiet.is_string(), "{quiet}");

    says(&place, "two\n");
    let (command, mut input) = with_input(&place, "input-2");
    let mut second = place.start_by(command, &[&FEEDS[..], &["new=publish", "--take-over"]].concat(), "");
    second.ready().await;
    first.ended(0).await;
    let (status, after) = write(&place, &mut input, "two\n", "one\ntwo\n").await;
    assert_eq!((status, after["chunks"].as_u64()), (200, Some(2)), "{after}");
    assert_eq!((&after["epoch"], &after["first"]), (&before["epoch"], &before["first"]));
    for viewer in viewers {
        assert_eq!(soon("the lines of a feed", viewer).await.unwrap(), ["one\n", "two\n"]);
    }
    // Nothing was published to these, and somebody may wait for it.
    assert_eq!(epoch(&place, "quiet").await, quiet);
    let new = epoch(&place, "new").await;
    let is_stored = || {
        let metas = fs::read_dir(place.folder().join("store/feeds")).unwrap();
        let texts = metas.filter_map(|feed| fs::read_to_string(feed.unwrap().path().join("meta.json")).ok());
        texts.filter(|text| text.contains("\"new\"")).count() == 1
    };
    second.until("the new feed is stored", |_| is_stored()).await;
    second.kill();
    let mut third = place.rival(&["--store=store", "quiet=publish", "new=publish"]);
    third.ready().await;
    assert_eq!((epoch(&place, "quiet").await, epoch(&place, "new").await), (quiet, new));
    third.stop().await;
}

/// The files of the store, with their sizes.
fn files(place: &Place) -> Vec<(std::path::PathBuf, u64)> {
    let feeds = fs::read_dir(place.folder().join("store/feeds")).unwrap();
    let files = feeds.flat_map(|feed| fs::read_dir(feed.unwrap().path()).unwrap());
    let mut files: Vec<_> =
        files.map(|file| file.unwrap()).map(|file| (file.path(), file.metadata().unwrap().len())).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_that_fails_has_written_and_removed_nothing() {
    const MANY: u64 = 10;
    let args = |retain| [&ARGS[..], &["bulk=publish", retain]].concat();
    let (place, first) = Process::first_with("store-released=stop", &args("--retain=1M")).await;
    let mut written = Written::begin(&place).await;
    written.is_there().await;
    // Several files, of which the new server is to keep none but the last.
    let (piece, mut chunks) = ("x".repeat(60 << 10), 0);
    for _ in 0..MANY {
        let (status, answer) = post(&place, "/stream/bulk", None, &piece).await.unwrap();
        assert_eq!((status, answer["bytes"].as_u64()), (200, Some(piece.len() as u64)));
        chunks += answer["chunks"].as_u64().unwrap();
    }
    let mut second = place.next_with("take-over=stop", &args("--retain=32k"));
    first.until("it has released the store", Process::is_stopped).await;
    let released = files(&place);
    assert!(released.len() > 10, "{released:?}");
    // The old server stands still: the new one alone could publish this line of the file, and must not yet.
    let waiting = tokio::spawn(written.next());
    first.go_on();
    second.until("it has the feeds", Process::is_stopped).await;
    assert_eq!(files(&place), released);
    second.kill();
    soon("it is published", waiting).await.unwrap();
    written.continues(&first).await;
    let oldest = get(&place, &format!("/stream/bulk?from=start&limit={chunks}")).await;
    assert_eq!(oldest.split_once("\r\n\r\n").unwrap().1.len(), MANY as usize * piece.len());
    first.stop().await;
}

/// Before the new one has answered: it takes over in the time that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_that_is_told_to_stop_still_hands_the_store_over() {
    let (place, mut first) = Process::first_with("store-released=stop", &ARGS).await;
    let mut written = Written::begin(&place).await;
    written.is_there().await;
    let mut second = place.next(&ARGS);
    first.until("it has released the store", Process::is_stopped).await;
    first.terminate();
    first.go_on();
    second.ready().await;
    first.ended(0).await;
    written.continues(&second).await;
    second.stop().await;
}

/// The new one does not answer in that time: it begins with what is on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_that_stops_leaves_the_store_to_the_new_one() {
    let (place, mut first) = Process::first(&ARGS).await;
    let mut written = Written::begin(&place).await;
    written.is_there().await;
    let mut second = place.stopped_at("take-over", &ARGS).await;
    first.terminate();
    first.ended(0).await;
    second.go_on();
    second.ready().await;
    written.continues(&second).await;
    second.stop().await;
}

/// Those that the old server does not serve, which are on disk from an earlier one.
#[tokio::test]
async fn a_feed_that_the_old_server_does_not_serve_keeps_its_kind_of_source() {
    let (place, first) =
        Process::first(&["--store=store", "log=exec:echo a; exec sleep 1000", "x.a=exec:echo a; exec sleep 1000"])
            .await;
    for feed in ["log", "x.a"] {
        followed(&place, feed, "a\n".into()).await.unwrap();
    }
    first.stop().await;
    let mut old = place.rival(&["--store=store", "news=publish"]);
    old.ready().await;
    for (sources, feeds) in [
        (&["log=publish"][..], "`log` (from `exec:`, and here from `publish`)"),
        (&["x.*=publish"], "`x.a` (from `exec:`, and here from `publish`)"),
        (&["x.*=publish", "log=publish"], "`log` (from `exec:`, and here from `publish`), `x.a` (from"),
    ] {
        let mut new = place.next(&[&["--store=store", "news=publish"], sources].concat());
        new.ended(2).await;
        new.says(&format!(
            "process {} keeps serving: the stored chunks of these feeds are of another kind of source than the new server's: {feeds}",
            old.pid()
        ));
        new.says(". Give each the same kind of source as before, or the new server's source another name");
        assert_eq!(post(&place, "/stream/news", None, "a\n").await.unwrap().0, 200);
    }
    assert!(old.said().contains("this one keeps serving: the stored chunks of these feeds"), "{}", old.said());
    // One that ends before it has said what it has changes nothing about that.
    old.stop().await;
    let mut old = place.start_by(
        Command::new(env!("CARGO_BIN_EXE_h3cast")),
        &["--store=store", "news=publish"],
        "hand-over=stop",
    );
    old.ready().await;
    let mut new = place.next(&["--store=store", "log=publish"]);
    old.until("the new one is ready", Process::is_stopped).await;
    old.kill();
    new.ended(2).await;
    new.says("the stored chunks of these feeds are of another kind of source than the new server's: `log`");
    // Nothing was changed: its source continues it.
    let mut right = place.rival(&["--store=store", "log=exec:echo b; exec sleep 1000"]);
    right.ready().await;
    followed(&place, "log", "b\n".into()).await.unwrap();
    right.stop().await;
}
