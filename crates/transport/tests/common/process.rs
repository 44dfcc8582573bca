//! A server as a child process whose memory is watched, and a viewer beside what is done to it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use h3cast_transport::client::{Connection, Trust};
use quinn::SendStream;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    raw::{Raw, endpoint},
    soon,
};

/// A server in a process of its own, which serves a feed of numbered chunks without end.
pub struct Program {
    child: Child,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Program {
    /// Runs a server that writes `ready` and its URL to standard output, a chunk each 20 ms to `/stream`, and its
    /// certificate into `certs` in the folder in which it is started.
    pub fn run(mut command: Command) -> Self {
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
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let url = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned)).expect("it is ready");
        let port = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        Self { child, dir, port }
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certs/cert.pem")
    }

    pub async fn raw(&self) -> Raw {
        Raw::open(endpoint(&self.certificate(), |_| {}), self.port).await
    }

    /// A raw client that has sent its SETTINGS.
    pub async fn greeted(&self) -> (Raw, SendStream) {
        let raw = self.raw().await;
        let control = raw.settings().await;
        (raw, control)
    }

    pub async fn connect(&self) -> Connection {
        let uri = format!("https://localhost:{}/", self.port).parse().unwrap();
        soon("a connection", Connection::open(&uri, &Trust::Files(vec![self.certificate()]))).await.unwrap()
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Fails when one connection has cost more than it may since the memory was `before`.
    pub fn assert_budget(&self, what: &str, before: u64) {
        let growth = self.memory().saturating_sub(before);
        println!("{what}: {} KiB, grown by {} KiB", before / 1024, growth / 1024);
        assert!(growth < CONNECTION_BUDGET, "{what}: grew by {growth} bytes");
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Ends it, and fails if it has panicked or ended before.
    pub fn end(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the program has ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let stderr = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How much one connection may cost, in bytes: its receive window of 2 MiB and its send window of
/// 1 MiB may be full, its QUIC and TLS state is some 100 KiB, and the allocator keeps about as much
/// again in pages that it does not give back.
pub const CONNECTION_BUDGET: u64 = 6 << 20;

/// The longest that a well-behaved viewer may wait for a chunk of the demo feed, which has one
/// every 20 ms, while the machine is busy with an attack. That the others do not feel one is what these tests are for, and
/// only the time shows it: a hundred times the interval is more than a busy machine takes, and less than any limit of the
/// server that an attack could make them wait for.
const MAX_GAP: Duration = Duration::from_secs(2);

/// A viewer beside an attack, which must not feel it.
pub struct Viewer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<(String, Duration)>,
}

impl Viewer {
    /// Joins, and waits for the first chunk.
    pub async fn join(program: &Program) -> Self {
        let connection = program.connect().await;
        let uri = format!("https://localhost:{}/stream", program.port).parse().unwrap();
        let mut response = soon("the head", connection.get(&uri)).await.unwrap();
        let first = soon("the first chunk", response.body.next()).await.unwrap().unwrap();
        let mut text = String::from_utf8(first.to_vec()).unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            // Dropping the connection would close it.
            let _connection = connection;
            let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
            loop {
                let next = tokio::select! {
                    _ = &mut stopped => return (text, gap.max(last.elapsed())),
                    next = response.body.next() => next,
                };
                text += std::str::from_utf8(&next.unwrap().expect("the feed has no end")).unwrap();
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
        });
        Self { stop, task }
    }

    /// Leaves; fails if a chunk was missing or late.
    pub async fn leave(self) {
        let _ = self.stop.send(());
        let (text, gap) = self.task.await.unwrap();
        let count = text.lines().count();
        let expected: String = (0..count).map(|number| format!("data chunk #{number}\n")).collect();
        assert_eq!(text, expected);
        assert!(gap < MAX_GAP, "a chunk came {gap:?} after the one before");
    }
}
