//! Followed files that are truncated, rewritten and written at an old place, however quickly.

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::io::AsyncBufReadExt;

use crate::{
    common::soon,
    program::{Program, Serving},
};

/// A server that follows `log`, and a viewer that sees where its chunks begin and end.
struct Following {
    dir: tempfile::TempDir,
    serving: Serving,
    viewer: Program,
}

impl Following {
    async fn start(content: &[u8], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), content).unwrap();
        let serving = Serving::start(dir.path(), 0, &[&["tail:log"], more].concat()).await;
        let viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start&format=sse")]);
        Self { dir, serving, viewer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next chunk, without its newline. What keeps the connection alive is none.
    async fn chunk(&mut self) -> String {
        soon("a chunk", self.event()).await
    }

    async fn event(&mut self) -> String {
        let mut data = Vec::new();
        loop {
            let line = self.viewer.line().await;
            match line.trim_end_matches('\n') {
                "" if line.is_empty() => panic!("the feed has ended"),
                "" if !data.is_empty() => return data.join("\n"),
                line => data.extend(line.strip_prefix("data: ").map(str::to_owned)),
            }
        }
    }

    async fn chunks(&mut self, many: usize) -> Vec<String> {
        let mut chunks = Vec::new();
        for _ in 0..many {
            chunks.push(self.chunk().await);
        }
        chunks
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

/// Truncates a file and writes it in one go, as `>` and `std::fs::write` do.
fn rewrite(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}

/// A line that is in no other place of no other round, of its own length.
fn line(round: usize, line: usize) -> String {
    let word = format!("{round:05}-");
    format!("{word}{line:04} {}", word.repeat(1 + (round * 7 + line * 3) % 20))
}

fn lines(round: usize, many: usize) -> Vec<String> {
    (0..many).map(|number| line(round, number)).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Rewritten to its old length or more before anybody looked: the file may never have been seen shorter.
#[tokio::test]
async fn a_file_that_is_rewritten_at_once() {
    let mut following = Following::start(text(&lines(0, 3)).as_bytes(), &[]).await;
    let log = following.path("log");
    assert_eq!(following.chunks(3).await, lines(0, 3));
    for round in 1..200 {
        // It grows and grows, so that the old place is always within it.
        let all = lines(round, 3 + round / 2);
        if round % 2 == 0 {
            rewrite(&log, &text(&all));
        } else {
            let mut file = OpenOptions::new().write(true).open(&log).unwrap();
            file.set_len(0).unwrap();
            file.write_all(text(&all).as_bytes()).unwrap();
        }
        assert_eq!(following.chunks(all.len()).await, all, "round {round}");
        writeln!(append(&log), "appended {round}").unwrap();
        assert_eq!(following.chunk().await, format!("appended {round}"));
    }
}

/// In place, so that it is never shorter, not even for a moment.
#[tokio::test]
async fn a_file_that_is_written_over() {
    let mut following = Following::start(b"first\n", &[]).await;
    assert_eq!(following.chunk().await, "first");
    for chunks in [&["other"][..], &["longer", "and more"], &["the", "last", "in its place"]] {
        let mut file = OpenOptions::new().write(true).open(following.path("log")).unwrap();
        file.write_all((chunks.join("\n") + "\n").as_bytes()).unwrap();
        for chunk in chunks {
            assert_eq!(following.chunk().await, *chunk);
        }
    }
    writeln!(append(&following.path("log")), "appended").unwrap();
    assert_eq!(following.chunk().await, "appended");
}

/// The half line before it is a chunk of its own.
#[tokio::test]
async fn a_file_that_is_rewritten_in_the_middle_of_a_line() {
    let mut following = Following::start(b"", &[]).await;
    let log = following.path("log");
    for round in 0..50 {
        let all = lines(round, 5);
        // What is written whole and then half is seen so, or the half line is never seen.
        rewrite(&log, &format!("{}half {round}", text(&all)));
        assert_eq!(following.chunks(5).await, all);
        let longer = lines(1000 + round, 20);
        rewrite(&log, &text(&longer));
        let first = following.chunk().await;
        let first = if first == format!("half {round}") { following.chunk().await } else { first };
        assert_eq!(first, longer[0], "round {round}");
        assert_eq!(following.chunks(19).await, longer[1..]);
    }
    following.serving.program.told("reading from its start").await;
}

/// What the feed began with is compared, too: nothing of it has been read since.
#[tokio::test]
async fn a_file_that_is_rewritten_after_the_start() {
    for lines_at_first in ["0", "2"] {
        let old = lines(0, 10);
        let mut following = Following::start(text(&old).as_bytes(), &["--tail-lines", lines_at_first]).await;
        let many = lines_at_first.parse().unwrap();
        assert_eq!(following.chunks(many).await, old[10 - many..]);
        let new = lines(1, 30);
        rewrite(&following.path("log"), &text(&new));
        assert_eq!(following.chunks(30).await, new);
    }
}

/// A rotated file is followed by its descriptor, and may be rewritten too.
#[tokio::test]
async fn a_rotated_file_that_is_rewritten() {
    let mut following = Following::start(b"", &[]).await;
    let log = following.path("log");
    append(&log).write_all(text(&lines(0, 3)).as_bytes()).unwrap();
    assert_eq!(following.chunks(3).await, lines(0, 3));
    std::fs::rename(&log, following.path("log.1")).unwrap();
    writeln!(append(&log), "new").unwrap();
    assert_eq!(following.chunk().await, "new");
    for round in 1..10 {
        let all = lines(round, 3 + round);
        rewrite(&following.path("log.1"), &text(&all));
        assert_eq!(following.chunks(all.len()).await, all, "round {round}");
    }
    writeln!(append(&log), "newer").unwrap();
    assert_eq!(following.chunk().await, "newer");
}

/// Keeps both cores busy until it is dropped.
struct Busy(std::sync::Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let stop = stop.clone();
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {});
        }
        Self(stop)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Truncated and rewritten again and again while it is read. A round may go by unseen, or be cut off by
/// the next; but what is seen of it begins at its beginning, has nothing left out, and is nothing but it.
#[tokio::test]
async fn a_file_that_is_rewritten_all_the_time() {
    const ROUNDS: usize = 500;
    let mut following = Following::start(b"", &["--history", "64M"]).await;
    let log = following.path("log");
    let busy = Busy::start();
    let writing = std::thread::spawn(move || {
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        for round in 0..ROUNDS {
            // From a line to some 200 kB.
            let all = text(&lines(round, 1 + round * 37 % 500 * (round % 5)));
            let (first, rest) = all.split_at(all.len() * (round % 4) / 4);
            file.set_len(0).unwrap();
            file.write_all(first.as_bytes()).unwrap();
            if round % 7 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            file.write_all(rest.as_bytes()).unwrap();
            if round % 3 == 0 {
                std::thread::sleep(Duration::from_micros(200 * (round as u64 % 11)));
            }
        }
        file.set_len(0).unwrap();
        file.write_all(text(&lines(ROUNDS, 700)).as_bytes()).unwrap();
    });
    let (mut round, mut next, mut seen) = (usize::MAX, 0, 0);
    loop {
        let chunk = following.chunk().await;
        let its = chunk.get(..5).and_then(|digits| digits.parse::<usize>().ok());
        // It goes on with the next line, or with a part of it, after which another round begins.
        if next > 0
            && round != usize::MAX
            && line(round, next).starts_with(&chunk)
            && its.is_none_or(|its| its == round)
        {
            next = if line(round, next) == chunk { next + 1 } else { 0 };
        } else {
            let its = its.unwrap_or(round);
            let first = line(if its <= ROUNDS { its } else { 0 }, 0);
            assert!(first.starts_with(&chunk), "after line {next} of round {round}: {chunk}");
            assert!(round == usize::MAX || its > round || next == 0 && its >= round, "round {its} after round {round}");
            (round, next) = (its, usize::from(first == chunk));
            seen += 1;
        }
        if (round, next) == (ROUNDS, 700) {
            break;
        }
    }
    writing.join().unwrap();
    drop(busy);
    // That it was a race at all.
    assert!(seen > 20, "{seen} of {ROUNDS} rounds were seen");
    writeln!(append(&following.path("log")), "the last").unwrap();
    assert_eq!(following.chunk().await, "the last");
}

/// Whoever does not append writes at its old place when another has truncated the file, as logrotate's
/// `copytruncate` does: what is before that are NULs, which nobody wrote.
#[tokio::test]
async fn a_writer_that_does_not_append() {
    let mut following = Following::start(b"", &[]).await;
    let log = following.path("log");
    let mut writer = OpenOptions::new().write(true).open(&log).unwrap();
    for round in 0..50 {
        writeln!(writer, "before {round}").unwrap();
        assert_eq!(following.chunk().await, format!("before {round}"));
        OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
        if round == 40 {
            // As if 6 GB had been written.
            writer.seek(SeekFrom::Start(6 << 30)).unwrap();
        }
        writeln!(writer, "after {round}").unwrap();
        assert_eq!(following.chunk().await, format!("after {round}"));
    }
    // Nothing but a hole so far.
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(0).unwrap();
    file.set_len(8 << 30).unwrap();
    writeln!(append(&log), "after the hole").unwrap();
    assert_eq!(following.chunk().await, "after the hole");
    let told = following.serving.program.told("NUL").await;
    assert!(told.contains("INFO") && told.contains("append"), "{told}");
}

/// In bytes, a NUL may be one that was written.
#[tokio::test]
async fn nuls_of_a_feed_of_bytes() {
    let mut following = Following::start(b"", &["--chunk", "bytes"]).await;
    let url = following.serving.url("/stream?from=start");
    let mut raw = Program::start(following.dir.path(), &["get", &url]);
    let log = following.path("log");
    writeln!(append(&log), "before").unwrap();
    assert_eq!(following.chunk().await, "before");
    let mut file = OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all(b"\0\0\0\0\0\0\0\0\0after\n").unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"after\n") {
        soon("more", raw.stdout.read_until(b'\n', &mut got)).await.unwrap();
    }
    assert_eq!(got, b"before\n\0\0\0\0\0\0\0\0\0after\n");
}
