//! The program as a child process that is fed, watched and stopped.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h3cast::{
    client::{Body, Connection, Trust},
    webtransport::{RecvStream, Session},
};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

use crate::common::soon;

/// How long the program may take to say that it is ready, or to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, serving; killed when dropped.
pub struct Serving {
    child: Child,
    pub stdin: Option<ChildStdin>,
    pub port: u16,
    dir: tempfile::TempDir,
}

impl Serving {
    /// Starts it with what `args` says of a folder of its own, and waits until it is ready.
    pub fn start<T: AsRef<str>>(args: impl FnOnce(&Path) -> Vec<T>) -> Self {
        Self::start_at("localhost:0", args)
    }

    /// The same at an address of the test's.
    pub fn start_at<T: AsRef<str>>(listen: &str, args: impl FnOnce(&Path) -> Vec<T>) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_h3cast")), listen, args)
    }

    /// The same in a shell that gives it no more than so many open files, unless it asks for more.
    pub fn start_limited<T: AsRef<str>>(files: u32, args: impl FnOnce(&Path) -> Vec<T>) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -S -n \"$0\" && exec \"$@\"", &files.to_string(), env!("CARGO_BIN_EXE_h3cast")]);
        Self::run(command, "localhost:0", args)
    }

    /// The same, started by `prefix`, as by `env --ignore-signal=CHLD`.
    pub fn start_by<T: AsRef<str>>(prefix: &[&str], args: impl FnOnce(&Path) -> Vec<T>) -> Self {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_h3cast"));
        Self::run(command, "localhost:0", args)
    }

    fn run<T: AsRef<str>>(mut command: Command, listen: &str, args: impl FnOnce(&Path) -> Vec<T>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stderr = std::fs::File::create(dir.path().join("stderr")).unwrap();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            command.env_remove(name);
        }
        let mut child = command
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_STATE_HOME")
            .args(["serve", "--listen", listen, "--http", "off"])
            .args(args(dir.path()).iter().map(AsRef::as_ref))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let port = ready.trim().trim_end_matches('/').rsplit(':').next().unwrap().parse();
        let port = port.unwrap_or_else(|_| {
            panic!("it did not start: {}", std::fs::read_to_string(dir.path().join("stderr")).unwrap())
        });
        Self { stdin: child.stdin.take(), child, port, dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certs/cert.pem")
    }

    pub fn uri(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.port).parse().unwrap()
    }

    pub async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certificate()]);
        soon("a connection", Connection::open(&self.uri("/"), &trust)).await.unwrap()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> u64 {
        memory(self.child.id())
    }

    /// The processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name, which may contain anything: fields 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// How many processes it has started that run, or have not been waited for.
    #[cfg(target_os = "linux")]
    pub fn children(&self) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
        children.map(|pids| pids.split_whitespace().count()).sum()
    }

    /// What /feeds says.
    pub async fn feeds(&self, connection: &Connection) -> Vec<Value> {
        let mut response = soon("/feeds", connection.get(&self.uri("/feeds"))).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("the feeds", response.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        let Value::Object(mut object) = serde_json::from_slice(&body).unwrap() else { panic!("no object") };
        let Some(Value::Array(feeds)) = object.remove("feeds") else { panic!("no feeds") };
        feeds
    }

    /// Waits until a number that /feeds says of its first feed is as it should be.
    pub async fn until(&self, connection: &Connection, name: &str, holds: impl Fn(u64) -> bool) -> u64 {
        soon(name, async {
            loop {
                let number = self.feeds(connection).await[0][name].as_u64().unwrap();
                if holds(number) {
                    return number;
                }
                // Nobody tells when it changes.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Asks it to stop; fails unless it ends in good order. Gives how long that took.
    pub fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.terminate();
        self.ended(0);
        began.elapsed()
    }

    /// Waits for its end in good order, which it was asked for before.
    pub fn stopped(mut self) {
        self.ended(0);
    }

    /// Tells it to stop now, not only to stop: the second signal.
    pub fn stop_at_once(mut self) {
        self.terminate();
        let told =
            || std::fs::read_to_string(self.dir.path().join("stderr")).unwrap().contains("again to stop immediately");
        let began = Instant::now();
        while !told() {
            assert!(began.elapsed() < PATIENCE, "it does not say that it stops");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.terminate();
        self.ended(130);
    }

    /// Ends it without a word to anybody.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and does not wait.
    pub fn terminate(&self) {
        kill_with("TERM", &[self.child.id().to_string()]);
    }

    /// Waits for its end, which must be a good one.
    fn ended(&mut self, code: i32) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it is still there {PATIENCE:?} after it was told to stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A test that has failed: first asked, so that its commands end with it.
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The memory that a process holds, in bytes. Its code is no part of that: a debug build has some MB of it paged in as it is
/// used.
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of memory");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A feed as it comes over either transport.
pub enum Reading {
    Response(Box<Body>),
    /// The session's handle keeps it open.
    Session(#[expect(dead_code)] Session, RecvStream),
}

impl Reading {
    pub async fn open(connection: &Connection, uri: &Uri, webtransport: bool) -> Self {
        if webtransport {
            let session = soon("the session", connection.webtransport(uri, HeaderMap::new(), &[])).await.unwrap();
            let stream = soon("the stream", session.accept_uni()).await.unwrap();
            return Self::Session(session, stream);
        }
        let response = soon("the head", connection.get(uri)).await.unwrap();
        assert_eq!(response.status, StatusCode::OK, "{uri}");
        Self::Response(Box::new(response.body))
    }

    /// The next bytes; `None` at the clean end, an error in words at another.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Response(body) => soon("more", body.next()).await.map_err(|error| error.to_string()),
            Self::Session(_, stream) => {
                soon("more", stream.read_bytes(usize::MAX)).await.map_err(|error| error.to_string())
            }
        }
    }

    /// All that comes to its clean end.
    pub async fn all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// What comes to the end of the next line.
    pub async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend_from_slice(&self.next().await.unwrap().expect("the feed has ended"));
        }
        String::from_utf8(line).unwrap()
    }
}

/// The processes of those that are still there (and not only waited for), once none is or time is over.
pub fn gone(pids: &[String]) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let alive = |pid: &&String| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    loop {
        let left: Vec<_> = pids.iter().filter(alive).cloned().collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends processes that a test found where none should be, so that none is left behind.
pub fn kill(pids: &[String]) {
    kill_with("KILL", pids);
}

fn kill_with(signal: &str, pids: &[String]) {
    for pid in pids {
        // An error means that it has gone.
        let _ = Command::new("kill").args(["-s", signal, pid]).stderr(Stdio::null()).status();
    }
}
