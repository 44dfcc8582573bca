//! A process that writes a store until it is killed, and what it has written.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use h3cast_feed::Start;
use h3cast_store::{Fsync, Note, Retain};

use crate::common::{feed, new, open, view};

/// Numbers that can be had again: the seed is printed when a test fails.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| h3cast_feed::Epoch::now().0);
        println!("SEED={seed}");
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A chunk that says which it is, of a size that does not.
pub(crate) fn line(seq: u64) -> Vec<u8> {
    let mut bytes = seq.to_be_bytes().to_vec();
    bytes.resize(8 + (seq * 37 % 300) as usize, seq as u8);
    bytes
}

/// Reads everything; gives the number after the last chunk. Nothing may be missing or other than it was.
pub(crate) async fn read_all(dir: &Path, fsync: Fsync) -> u64 {
    let store = open(dir, fsync);
    let (stored, feed, _publisher) = feed(&store, "a", 1000);
    let next = stored.next();
    let got = view(&feed, Start::Start, next).await;
    for (seq, got) in got.iter().enumerate() {
        let (number, bytes) = got.as_ref().expect("no gap");
        assert_eq!((*number, &bytes[..]), (seq as u64, &line(seq as u64)[..]));
    }
    assert_eq!(got.len() as u64, next);
    // A note says which chunk was the last of those that were published together; one alone may have followed.
    if let Some(note) = stored.notes(b"last").first() {
        let noted = u64::from_be_bytes(note.value.as_ref().unwrap()[..].try_into().unwrap());
        assert!(noted < next && next - 1 - noted == u64::from((next - 1) % 7 == 0), "{noted} of {next}");
    }
    next
}

/// Publishes for ever, and prints each number once it is acknowledged. Run by other tests, in a process of its own.
#[tokio::test]
#[ignore = "run by other tests"]
async fn child() {
    let fsync = match std::env::var("FSYNC").as_deref() {
        Ok("always") => Fsync::Always,
        Ok("never") => Fsync::Never,
        _ => Fsync::default(),
    };
    let store = open(&PathBuf::from(std::env::var_os("DIR").expect("run by other tests")), fsync);
    let (stored, _feed, publisher) = feed(&store, "a", 100_000);
    let bytes = std::env::var("RETAIN").ok().and_then(|bytes| bytes.parse().ok());
    stored.set_retain(Retain { bytes, age: None });
    let mut out = std::io::stdout();
    let mut next = stored.next();
    println!("\nready");
    loop {
        let many = next % 7 + 1;
        let published = match many {
            1 => publisher.publish_all(vec![new(line(next))]).await,
            _ => {
                let chunks = (next..next + many).map(|seq| new(line(seq))).collect();
                stored
                    .publish_noted(chunks, |receipts| {
                        let last = receipts.last().map(|receipt| receipt.cursor.seq.to_be_bytes().to_vec());
                        vec![Note { key: "last".into(), value: last.map(Into::into), expires: None }]
                    })
                    .await
            }
        };
        if let Some(error) = published.error {
            writeln!(out, "error {error}").unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        next += many;
        writeln!(out, "{}", next - 1).unwrap();
        if bytes.is_some() && next % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) struct Writing {
    child: std::process::Child,
    /// What it prints. It never waits for whoever reads that.
    lines: mpsc::Receiver<String>,
}

impl Writing {
    pub(crate) fn start(dir: &Path, fsync: &str) -> Self {
        Self::keeping(dir, fsync, "all")
    }

    /// One that keeps so many bytes, in files of a sixteenth of that. It writes some MB a second.
    pub(crate) fn keeping(dir: &Path, fsync: &str, bytes: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writing::child", "--exact", "--ignored", "--nocapture"])
            .env("DIR", dir)
            .env("FSYNC", fsync)
            .env("RETAIN", bytes)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let (lines_tx, lines) = mpsc::channel();
        std::thread::spawn(move || out.map_while(Result::ok).try_for_each(|line| lines_tx.send(line)));
        while lines.recv().expect("it starts") != "ready" {}
        Self { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The number that it acknowledges `many` lines from here.
    pub(crate) fn acknowledged(&mut self, many: u64) -> u64 {
        // The harness adds a line of its own if it takes long.
        let mut numbers = self.lines.iter().filter_map(|line| line.parse().ok());
        let last = (0..=many).map(|_| numbers.next().expect("it goes on")).last().unwrap_or_default();
        self.lines.try_iter().filter_map(|line| line.parse().ok()).last().unwrap_or(last)
    }

    /// Kills it; gives the last number that it acknowledged.
    pub(crate) fn kill(mut self, last: u64) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().filter_map(|line| line.parse().ok()).max().unwrap_or(0).max(last)
    }
}
