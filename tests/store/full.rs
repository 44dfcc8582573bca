//! A server that starts where the disk is full: nothing at all is free.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Process, about, lines, post,
    process::{self, soon},
};

/// A small file system for several servers, one after another: it is there as long as this process is.
struct Disk {
    holder: Child,
    folder: PathBuf,
}

impl Disk {
    /// On the folder `store`.
    fn mount(place: &process::Place) -> Self {
        std::fs::create_dir(place.folder().join("store")).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=4m none store && echo there && exec sleep 600";
        command.args(["--mount", "--map-root-user", "sh", "-c", script]).current_dir(place.folder());
        let mut holder = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut told = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut told).unwrap();
        let disk = Self { folder: place.folder().to_owned(), holder };
        assert_eq!(told, "there\n");
        disk
    }

    /// A server that has it.
    fn server(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--user", "--preserve-credentials"]);
        // The folder as it is there.
        command.args(["sh", "-c", "cd \"$FOLDER\" && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_h3cast")]);
        command.env("FOLDER", &self.folder);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/root{}", self.holder.id(), self.folder.join("store").join(name).display()).into()
    }

    /// The file of records of a feed.
    fn records(&self, feed: &str) -> PathBuf {
        let feeds = std::fs::read_dir(self.path("feeds/feeds")).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |dir: &PathBuf| {
            let meta = std::fs::read_to_string(dir.join("meta.json")).unwrap();
            meta.contains(&format!("\"name\":\"{feed}\""))
        };
        feeds.into_iter().find(is_it).unwrap().join(format!("{:020}.records", 0))
    }

    /// Leaves no room for a single byte.
    fn fill(&self) {
        // What a server that begins writes to it had its room already.
        File::options().write(true).truncate(true).open(self.path("feeds/lock")).unwrap();
        let mut ballast = File::create(self.path("ballast")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        assert!(std::fs::write(self.path("more"), "x").is_err());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What is sent to a viewer, as it is received.
struct Events {
    stream: TcpStream,
    got: String,
}

impl Events {
    async fn open(place: &process::Place, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", place.http_port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, got: String::new() }
    }

    async fn until(&mut self, what: &str) {
        while !self.got.contains(what) {
            let mut bytes = [0; 4096];
            let len = soon(what, self.stream.read(&mut bytes)).await.unwrap();
            assert!(len > 0, "it ends without {what}: {}", self.got);
            self.got += std::str::from_utf8(&bytes[..len]).unwrap();
        }
    }
}

/// Monitors ask, and are not told.
async fn ready_again(place: &process::Place) {
    let ready = async {
        while !process::get(place, "/readyz").await.contains(" 200 ") {
            // A client may open only so many connections in a moment.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("it is ready again", ready).await;
}

/// All that is there can be read, and all that is published is refused, which is told once.
async fn serves_and_refuses(place: &process::Place, server: &Process) {
    assert_eq!(lines(place, "/stream?from=start", 2).await, ["one\n", "two\n"]);
    assert_eq!(lines(place, "/stream/chat.a?from=start", 1).await, ["hello\n"]);
    assert_eq!(about(place, "default").await["stalled"], true);
    for feed in ["/stream", "/stream/chat.a", "/stream/chat.b"] {
        let (status, problem) = post(place, feed, None, "x\n").await.unwrap();
        assert_eq!((status, &problem["published"]["bytes"]), (507, &0.into()), "{feed}: {problem}");
    }
    let unready = process::get(place, "/readyz").await;
    assert!(unready.contains("feed default: the disk that stores it is full\n"), "{unready}");
    assert_eq!(server.said().matches("no room on the disk").count(), 1, "{}", server.said());
}

/// A disk with two feeds, of which one has a key, that a server of these arguments stored before it was stopped.
async fn stored() -> (std::sync::Arc<process::Place>, Disk, [&'static str; 6]) {
    let place = Process::place(None);
    let disk = Disk::mount(&place);
    let args = ["publish", "chat.*=publish", "--store", "store/feeds", "--retain", "all"];
    let (place, server) = Process::begin(place, disk.server(), &args).await;
    assert_eq!(post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\n").await.unwrap().0, 200);
    assert_eq!(post(&place, "/stream/chat.a", None, "hello\n").await.unwrap().0, 200);
    server.stop().await;
    (place, disk, args)
}

#[tokio::test]
async fn what_is_stored_is_served_and_publishing_works_once_there_is_room() {
    let (place, disk, args) = stored().await;

    // After a clean stop, and after a kill of one that could write nothing.
    for _ in 0..2 {
        disk.fill();
        let mut server = place.start_by(disk.server(), &args, "");
        server.ready().await;
        serves_and_refuses(&place, &server).await;
        server.kill();
        std::fs::remove_file(disk.path("ballast")).unwrap();
    }

    disk.fill();
    let mut server = place.start_by(disk.server(), &args, "");
    server.ready().await;
    std::fs::remove_file(disk.path("ballast")).unwrap();
    ready_again(&place).await;
    // The publication from before is known, and continued.
    let (_, answer) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\nthree\n").await.unwrap();
    assert_eq!(answer["chunks"], 3, "{answer}");
    assert_eq!(post(&place, "/stream/chat.a", None, "more\n").await.unwrap().0, 200);
    assert_eq!(lines(&place, "/stream?from=start", 3).await, ["one\n", "two\n", "three\n"]);
    assert_eq!(lines(&place, "/stream/chat.a?from=start", 2).await, ["hello\n", "more\n"]);
    server.stop().await;
}

/// Neither a start nor a check leaves anything there.
#[tokio::test]
async fn no_store_begins_without_room() {
    let place = Process::place(None);
    let disk = Disk::mount(&place);
    let args = ["publish", "--store", "store/feeds"];
    let (place, server) = Process::begin(place, disk.server(), &args).await;
    server.stop().await;
    disk.fill();
    for more in [&["--check"][..], &[]] {
        let mut command = disk.server();
        command.args(["serve", "publish", "--store", "store/new", "--listen", "localhost:0", "--http", "off"]);
        let done = command.args(more).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains("--store: no room on the disk for store/new: free some space"), "{said}");
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(!disk.path("new").exists());
    }
    // One that has feeds starts, and the check says so.
    let done = disk.server().args(["serve", "--check"]).args(args).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    drop(place);
}

#[tokio::test]
async fn what_a_power_loss_tore_is_served_as_far_as_it_is_whole_until_there_is_room() {
    let (place, disk, args) = stored().await;

    // What was written last has to be moved aside, and there is no room for that.
    let broken = [&b"H3R1\0\0\0\0"[..], &200_000_u32.to_le_bytes(), &[1; 60_000]].concat();
    let records = disk.records("default");
    let whole = std::fs::read(&records).unwrap();
    std::fs::write(&records, [&*whole, &*broken].concat()).unwrap();
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(disk.path("feeds/state.json")).unwrap()).unwrap();
    (state["closed"], state["boot"]) = (false.into(), "another".into());
    std::fs::write(disk.path("feeds/state.json"), state.to_string()).unwrap();
    disk.fill();
    let mut server = place.start_by(disk.server(), &args, "");
    server.ready().await;
    assert!(server.said().contains("the disk is too full to move it aside"), "{}", server.said());
    serves_and_refuses(&place, &server).await;
    assert_eq!(std::fs::read(&records).unwrap(), [&*whole, &*broken].concat());
    // Viewers stay, and get what comes, after a gap.
    let mut viewer = Events::open(&place, "/stream/chat.a?from=start&format=sse").await;
    viewer.until("data: hello\n").await;
    std::fs::remove_file(disk.path("ballast")).unwrap();
    ready_again(&place).await;
    assert_eq!(post(&place, "/stream/chat.a", None, "late\n").await.unwrap().0, 200);
    viewer.until("data: late\n").await;
    assert!(viewer.got.contains("event: gap"), "{}", viewer.got);
    assert_eq!(std::fs::read(records.with_extension("torn")).unwrap(), broken);
    // The publication from before is known, and continued.
    let (_, answer) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\nthree\nfour\n").await.unwrap();
    assert_eq!(answer["chunks"], 4, "{answer}");
    server.stop().await;
}
