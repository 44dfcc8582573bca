//! Standard input as a source, and as what is there by chance.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    common::soon,
    serving::{Reading, Serving},
};

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir).args(args);
    command
}

/// Two sources that would take each other's lines, under all the names that standard input has.
#[test]
fn two_sources_on_standard_input_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/stdin", dir.path().join("link")).unwrap();
    for (one, other) in [
        ("-", "other=-"),
        ("-", "other=tail:/dev/stdin"),
        ("-", "other=file:/dev/stdin"),
        ("tail:/dev/fd/0", "other=-"),
        ("tail:/dev//stdin", "other=file:/proc/self/fd/0"),
        ("-", "other=tail:link"),
    ] {
        let args = ["serve", "--listen", "localhost:0", "--http", "off", one, other];
        let mut child = program(dir.path(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let Output { status, stderr, .. } = ended(child);
        drop(stdin);
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{one} {other}: {said}");
        assert!(said.contains("`default` and `other` both read standard input"), "{one} {other}: {said}");
    }
}

/// Waits for a program that must end by itself.
fn ended(mut child: Child) -> Output {
    let late = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > late {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

const HINT: &str = "`h3cast serve -` serves what comes on standard input";

/// The demo, with its lines of standard error.
struct Demo {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Demo {
    fn start(dir: &Path, stdin: impl Into<Stdio>) -> Self {
        let mut child = program(dir, &["--listen", "localhost:0", "--http", "off"])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready"), "{ready}");
        Self { stderr: BufReader::new(child.stderr.take().unwrap()), child }
    }

    /// Waits for the hint.
    fn hints(&mut self) {
        let mut line = String::new();
        while !line.contains(HINT) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it ended and gave no hint");
        }
    }

    /// Stops it, and gives what it has said on the way.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.stderr, &mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

#[test]
fn who_pipes_into_the_demo_is_told_what_would_serve_it() {
    let dir = tempfile::tempdir().unwrap();
    // At once, later, and from a file.
    let (reader, mut early) = std::io::pipe().unwrap();
    early.write_all(b"early\n").unwrap();
    let mut demo = Demo::start(dir.path(), reader.try_clone().unwrap());
    demo.hints();
    demo.stop();
    // All of it is still there.
    drop(early);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "early\n");

    let (reader, mut late) = std::io::pipe().unwrap();
    let mut demo = Demo::start(dir.path(), reader);
    late.write_all(b"late\n").unwrap();
    demo.hints();
    assert!(!demo.stop().contains(HINT), "once is enough");

    std::fs::write(dir.path().join("input"), "from a file\n").unwrap();
    let mut demo = Demo::start(dir.path(), File::open(dir.path().join("input")).unwrap());
    demo.hints();
    demo.stop();
}

/// Whatever else standard input is, there is nothing to say of it.
#[test]
fn the_demo_takes_any_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, silent) = std::io::pipe().unwrap();
    let (ended, writer) = std::io::pipe().unwrap();
    drop(writer);
    std::fs::write(dir.path().join("empty"), "").unwrap();
    let inputs: [(&str, Stdio); 5] = [
        ("nothing", Stdio::null()),
        ("a silent pipe", reader.into()),
        ("a pipe at its end", ended.into()),
        ("an empty file", File::open(dir.path().join("empty")).unwrap().into()),
        ("a folder", File::open(dir.path()).unwrap().into()),
    ];
    for (what, input) in inputs {
        let said = Demo::start(dir.path(), input).stop();
        assert!(!said.contains("standard input"), "{what}: {said}");
    }
    drop(silent);
}

/// Standard input that cannot be read ends its feed with the reason, and nothing else.
#[tokio::test]
async fn what_cannot_be_read_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "-", "demo=demo"];
    let mut child = program(dir.path(), &args)
        .stdin(File::open(dir.path()).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let failed = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("the feed failed") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without a word");
        }
        line
    });
    let line = soon("the failure", failed).await.unwrap();
    assert!(line.contains("default") && line.contains("directory"), "{line}");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
}

/// Other programs that share a pipe may have made it non-blocking: that is no error.
#[tokio::test]
async fn a_pipe_that_does_not_block_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "-"];
    let mut child = program(dir.path(), &args).stdin(reader).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let url = format!("{}stream?from=start", ready.trim().strip_prefix("ready ").unwrap());
    let mut get = program(dir.path(), &["get", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let got = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(get.stdout.take().unwrap()).lines().map(Result::unwrap);
        writer.write_all(b"one\n").unwrap();
        let one = lines.next().unwrap();
        // The next read finds nothing.
        writer.write_all(b"two\n").unwrap();
        drop(writer);
        ([one].into_iter().chain(lines).collect::<Vec<_>>(), get.wait().unwrap().code())
    });
    let got = soon("its lines", got).await.unwrap();
    assert_eq!(got, (vec!["one".to_owned(), "two".to_owned()], Some(0)));
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

/// What is typed is a feed, and a read that waits for the next line does not hold up the exit.
#[tokio::test]
async fn a_terminal_is_read_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let (pty, pts) = pty_process::blocking::open().unwrap();
    let pty = Arc::new(pty);
    let mut child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .current_dir(dir.path())
        .args(["serve", "--listen", "localhost:0", "--http", "off", "-", "--grace=300s"])
        .spawn(pts)
        .unwrap();
    let (url_tx, url_rx) = tokio::sync::oneshot::channel();
    let reader = pty.clone();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(&*reader).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| Some(line.strip_prefix("ready ")?.trim().to_owned()));
        let _ = url_tx.send(ready);
        // Nobody waits for the rest.
        lines.for_each(drop);
    });
    let url = soon("its address", url_rx).await.unwrap().unwrap();
    (&*pty).write_all(b"typed\n").unwrap();
    let got = tokio::task::spawn_blocking(move || {
        let url = format!("{url}stream?from=start&limit=1");
        program(dir.path(), &["get", &url]).output().unwrap()
    });
    assert_eq!(soon("what was typed", got).await.unwrap().stdout, b"typed\n");
    (&*pty).write_all(b"\x03").unwrap();
    let status = soon("the end", tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap();
    assert!(status.success());
}

/// A writer that stays does not hold up the exit either.
#[tokio::test]
async fn a_silent_pipe_is_left() {
    let serving = Serving::start(|_| vec!["-", "--grace=300s"]);
    let connection = serving.connect().await;
    let reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
    let stopping = tokio::task::spawn_blocking(|| serving.stop());
    soon("the end", stopping).await.unwrap();
    drop(reading);
}
