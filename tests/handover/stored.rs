//! Feeds on disk: the store goes from the old server to the new one, or back.

use std::{fs::File, io::Write, sync::Arc};

use h3cast::{
    chunk::Cursor,
    client::{
        Viewer,
        viewer::{Event, Transport},
    },
};
use tokio::sync::mpsc;

use crate::{
    CHUNKS, piece,
    process::{self, Place, Process, get, publish, soon},
    reaches,
    viewers::{Seen, over_tcp, over_viewer},
    whole,
};

pub(crate) const ARGS: [&str; 4] = ["--store=store", "publish", "log=tail:app.log", "--tail-lines=log=1000"];

fn append(place: &Place, line: &str) {
    let log = File::options().create(true).append(true).open(place.folder().join("app.log"));
    log.unwrap().write_all(line.as_bytes()).unwrap();
}

/// Reads lines of a feed, up to one: each once, with numbers that follow one another.
pub(crate) fn followed(place: &Arc<Place>, feed: &str, last: String) -> tokio::task::JoinHandle<Vec<String>> {
    let (place, path) = (place.clone(), format!("/stream/{feed}?from=start"));
    tokio::spawn(async move {
        let mut viewer = Viewer::new(&place.uri(&path), place.trust()).unwrap();
        let mut lines = Vec::new();
        while lines.last() != Some(&last) {
            match soon("a line", viewer.next()).await.unwrap() {
                Some(Event::Chunk { cursor, bytes, .. }) => {
                    assert_eq!(cursor.seq, lines.len() as u64, "a line was lost, or came twice");
                    lines.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
                Some(Event::Opened { .. } | Event::Lost { .. }) => {}
                other => panic!("{other:?} after {}: {}", lines.len(), process::logs(place.folder())),
            }
        }
        assert_eq!(viewer.restarts(), 0, "cursors stayed valid");
        lines
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_on_disk_move_while_they_are_written_and_viewed() {
    const VIEWERS: usize = 4;
    let (place, mut first) = Process::first(&ARGS).await;
    let (many_tx, mut many) = mpsc::unbounded_channel::<Seen>();
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..VIEWERS {
        for transport in [Transport::Get, Transport::WebTransport] {
            viewers.spawn(over_viewer(place.clone(), transport, many_tx.clone()));
        }
        viewers.spawn(over_tcp(place.clone(), many_tx.clone()));
    }
    let line = |number: u64| format!("line {number}\n");
    let of_log = followed(&place, "log", line(CHUNKS - 1));
    let (published, mut given) = crate::publish(&place);
    let logging = {
        let (place, mut given) = (place.clone(), given.clone());
        tokio::spawn(async move {
            for number in 0..CHUNKS {
                reaches(&mut given, number + 1).await;
                append(&place, &line(number));
            }
        })
    };
    for _ in 0..3 * VIEWERS {
        soon("the viewers", many.recv()).await.unwrap();
    }
    reaches(&mut given, 60).await;

    // It has the store and the feeds, and has not said so: what is published meanwhile has to wait.
    let mut second = place.stopped_at("take-over", &ARGS).await;
    let before = *given.borrow();
    let counted = get(&place, "/metrics").await;
    reaches(&mut given, before + 20).await;
    let chunks = |metrics: &str| {
        let of_feeds = metrics.lines().filter(|line| line.starts_with("h3cast_feed_chunks_total{"));
        of_feeds.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(chunks(&get(&place, "/metrics").await), chunks(&counted), "published by a server without the store");
    second.go_on();
    second.ready().await;
    first.ended(0).await;
    reaches(&mut given, 160).await;
    let mut third = place.next(&ARGS);
    third.ready().await;
    second.ended(0).await;

    let published = tokio::time::timeout(process::PATIENCE, published).await.expect("published").unwrap();
    assert_eq!(published.bytes, (0..CHUNKS).map(|number| piece(number).len() as u64).sum::<u64>());
    let mut epochs = std::collections::BTreeSet::new();
    while let Some(viewed) = soon("the viewers", viewers.join_next()).await {
        let viewed = viewed.unwrap();
        assert_eq!(viewed.hash, whole(), "{viewed:?}");
        epochs.insert(viewed.epoch);
    }
    assert_eq!(epochs.len(), 1, "cursors stayed valid: {epochs:?}");
    logging.await.unwrap();
    assert_eq!(of_log.await.unwrap(), (0..CHUNKS).map(line).collect::<Vec<_>>());
    first.says("has taken over");
    third.stop().await;
    // All of it is on the disk.
    let mut fourth = place.rival(&ARGS);
    fourth.ready().await;
    assert_eq!(followed(&place, "log", line(CHUNKS - 1)).await.unwrap().len() as u64, CHUNKS);
    fourth.stop().await;
}

/// What has been published and logged at one place: lines with numbers from 0 on, to both feeds.
pub(crate) struct Written {
    place: Arc<Place>,
    first: Cursor,
    many: u64,
}

impl Written {
    pub(crate) async fn begin(place: &Arc<Place>) -> Self {
        let first = publish(place, "0").await;
        append(place, "0\n");
        Self { place: place.clone(), first, many: 1 }
    }

    /// The next line: its publication, which may have to wait.
    pub(crate) fn next(&mut self) -> impl Future<Output = ()> + use<> {
        let (place, number) = (self.place.clone(), self.many);
        let expected = Cursor { seq: self.first.seq + number, ..self.first };
        self.many += 1;
        append(&place, &format!("{number}\n"));
        async move { assert_eq!(publish(&place, &number.to_string()).await, expected) }
    }

    /// A server goes on as if nothing had happened.
    pub(crate) async fn continues(&mut self, server: &Process) {
        assert!(server.is_running());
        self.next().await;
        self.is_there().await;
    }

    pub(crate) async fn is_there(&self) {
        let lines: Vec<_> = (0..self.many).map(|number| format!("{number}\n")).collect();
        assert_eq!(followed(&self.place, "log", lines.last().unwrap().clone()).await.unwrap(), lines);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_that_fails_gives_the_store_back() {
    let (place, first) = Process::first(&ARGS).await;
    let mut written = Written::begin(&place).await;
    // The store was released, and opened by the new one, which lacks a port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redirect = format!("--redirect={}", taken.local_addr().unwrap());
    let mut second = place.next(&[&ARGS[..], &[&redirect]].concat());
    second.ended(2).await;
    second.says("is in use by another program");
    assert!(!second.said().contains("storing feeds in"), "it never did: {}", second.said());
    written.continues(&first).await;
    // It was let go of in a moment, which is nothing that a person has to do something about.
    assert!(!first.said().contains("--store: "), "{}", first.said());
    // It has everything, and is killed.
    let mut second = place.stopped_at("take-over", &ARGS).await;
    let waiting = tokio::spawn(written.next());
    soon("the publication is there", async {
        while !get(&place, "/metrics").await.contains("\nh3cast_publications 1\n") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!waiting.is_finished());
    second.kill();
    soon("it is published here", waiting).await.unwrap();
    written.continues(&first).await;
    // Feeds that would not be there.
    std::fs::create_dir_all(place.folder().join("other")).unwrap();
    for (args, why) in [
        (&["publish"][..], "its feeds are on disk: give the new server the same folder, with --store or H3CAST_STORE"),
        (&["publish", "--store=other"], "give the new server that folder, with --store or H3CAST_STORE"),
        (
            &["publish", "--store=nowhere"],
            "there is no folder nowhere. Its feeds are on disk: give the new server the same folder, with --store or H3CAST_STORE",
        ),
    ] {
        let mut second = place.next(args);
        second.ended(1).await;
        second.says(why);
        written.continues(&first).await;
    }
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_whose_successor_is_gone_at_the_last_moment_has_the_store_again() {
    let (place, first) = Process::first_with("hand-over-last=stop", &ARGS).await;
    let mut written = Written::begin(&place).await;
    let mut second = place.next(&ARGS);
    first.until("it is about to say go", Process::is_stopped).await;
    second.kill();
    first.go_on();
    first.until("it says so", |first| first.said().contains("this one keeps serving")).await;
    written.continues(&first).await;
    first.stop().await;
}

#[tokio::test]
async fn feeds_in_memory_are_not_given_up_for_those_on_disk() {
    let (place, mut first) = Process::first(&["publish"]).await;
    publish(&place, "kept").await;
    let mut second = place.next(&["publish", "--store=store"]);
    second.ended(2).await;
    second.says("its feeds are in memory only");
    let why = "this one keeps serving: its feeds are in memory only";
    first.until("it says why", |first| first.said().contains(why)).await;
    assert!(!place.folder().join("store").exists(), "nothing was written");
    let mut second = place.next(&["publish", "--store=store", "--take-over-drop=default"]);
    second.ready().await;
    first.ended(0).await;
    second.stop().await;
}

#[tokio::test]
async fn a_new_server_without_a_feed_on_disk_fails() {
    let sources = ["--store=store", "publish", "news=publish", "chat.*=publish", "silent=publish", "log=tail:app.log"];
    let (place, mut first) = Process::first(&sources).await;
    let cursor = publish(&place, "a").await;
    for path in ["/stream/news", "/stream/chat.rust"] {
        crate::process::publish_to(&place, path, "a").await.unwrap();
    }
    let settings = ["--store=store", "publish", "news=demo"];
    let mut second = place.next(&settings);
    second.ended(2).await;
    second.says("`news` (it has another source here), `chat.rust` (no such feed here).");
    second.says(" Start the new server with the same sources as the old one, or give them up with --take-over-drop news,chat.rust");
    assert!(!second.said().contains("silent"), "one without chunks is no reason: {}", second.said());
    first.says("this one keeps serving: the new server would not have these feeds of the old one: `news`");
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });

    let mut second = place.next(&[&settings[..], &["--take-over-drop=chat.*,news"]].concat());
    second.ready().await;
    first.ended(0).await;
    second.says("stays on disk and is not served (--take-over-drop)");
    second.says("continuing 1 feed on disk");
    second.says("storing feeds in");
    let place_of = |what: &str| second.said().find(what);
    assert!(place_of("storing feeds in") < place_of("took over from process"), "{}", second.said());
    // Those that were given up have their lines.
    second.says("2 stored feeds are not served: log, silent.");
    assert_eq!(publish(&place, "c").await, Cursor { seq: 2, ..cursor });
    let mut third = place.next(&["--store=store", "other=publish", "--take-over-drop=default"]);
    third.ready().await;
    second.ended(0).await;
    third.says("took over from process");
    third.says(": continuing none of its feeds");
    third.stop().await;
}

/// Those that clients created do not fail with it.
#[tokio::test]
async fn a_new_server_that_fails_has_no_feeds_that_fail() {
    let args = ["--store=store", "chat.*=publish", "news=publish"];
    let (place, first) = Process::first(&args).await;
    for path in ["/stream/news", "/stream/chat.rust"] {
        crate::process::publish_to(&place, path, "a").await.unwrap();
    }
    let mut second = place.next(&args[..2]);
    second.ended(2).await;
    second.says("`news` (no such feed here)");
    assert!(!second.said().contains("WARN") && !second.said().contains("storing feeds in"), "{}", second.said());
    first.stop().await;
}

/// What clients write does not become a log that the server reads, nor the other way around.
#[tokio::test]
async fn a_feed_on_disk_keeps_its_kind_of_source() {
    let (place, mut first) = Process::first(&["--store=store", "news=publish", "log=tail:app.log"]).await;
    append(&place, "a line\n");
    crate::process::publish_to(&place, "/stream/news", "a").await.unwrap();
    soon("the line is there", async {
        while !get(&place, "/stream/log?from=start&limit=1").await.contains("a line") {}
    })
    .await;
    let mut second = place.next(&["--store=store", "news=tail:app.log", "log=publish"]);
    second.ended(2).await;
    second.says("`log` (it has another source here), `news` (it has another source here)");
    // Giving it up is not enough: the new server would continue it all the same.
    let mut second = place.next(&["--store=store", "news=tail:app.log", "log=tail:app.log", "--take-over-drop=news"]);
    second.ended(2).await;
    second.says("`news` (it stays on disk, and another source here has its name)");
    second.says("Start the new server with the same sources as the old one, or give its own other names");
    let mut second = place.next(&["--store=store", "news=demo", "log=tail:app.log", "--take-over-drop=news"]);
    second.ready().await;
    second.says("stays on disk and is not served (--take-over-drop)");
    first.ended(0).await;
    second.stop().await;
}

/// The store of a server that is not the one to be taken over.
#[tokio::test]
async fn a_store_of_a_server_that_listens_elsewhere() {
    let (place, first) = Process::first_at(None, "", &ARGS).await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(place.folder()).env("HOME", place.folder()).env("XDG_RUNTIME_DIR", place.folder());
    command.args(["serve", "--take-over", "--listen=localhost:0", "--http=off"]).args(ARGS);
    let done = soon("its end", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    let holder = format!("--store: store is in use by process {}", first.pid());
    let ports = format!("127.0.0.1:{0}, [::1]:{0}", place.port);
    let waits =
        format!("INFO {holder}, which listens elsewhere ({ports}): waiting up to 10 s for that process to exit");
    assert!(said.contains(&waits), "{said}");
    let why = format!(
        "{holder}, which listens elsewhere ({ports}): to take over from it, give the same --listen, or its socket with --control"
    );
    assert!(said.contains(&why), "{said}");
    // Where it is not found, nobody is told to give what they have given.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command
        .current_dir(place.folder())
        .env("HOME", place.folder())
        .env("XDG_RUNTIME_DIR", place.folder().join("other"));
    command.args(["serve", "--take-over", "--listen=localhost:0", "--http=off"]).args(ARGS);
    let done = soon("its end", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains(&format!("{holder}: no server with a control socket was found to have it")), "{said}");
    assert!(!said.contains("--listen"), "{said}");
    first.stop().await;
}

#[tokio::test]
async fn an_old_server_that_is_killed_leaves_the_store() {
    let (place, mut first) = Process::first_with("store-released=stop", &ARGS).await;
    let mut written = Written::begin(&place).await;
    written.continues(&first).await;
    let mut second = place.next(&ARGS);
    first.until("it has released the store", Process::is_stopped).await;
    first.kill();
    second.ready().await;
    second.says("ended before it had handed over");
    written.continues(&second).await;
    second.stop().await;
}
