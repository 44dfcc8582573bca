//! Sources as the program's users name them.
#![cfg(all(feature = "cli", unix))]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long a test waits for an event before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Killed outright, a server leaves its commands behind.
        let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).stderr(Stdio::null()).status();
        let late = Instant::now() + Duration::from_secs(10);
        while Instant::now() < late && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Serving {
    child: Killed,
    stdin: Option<ChildStdin>,
    base: String,
    dir: tempfile::TempDir,
}

fn h3cast(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir).env("HOME", dir).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    command
}

impl Serving {
    fn start(args: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = h3cast(dir.path())
            .args(["serve", "--listen", "localhost:0", "--http", "off"])
            .args(args(dir.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let base = line.trim().strip_prefix("ready ").unwrap().to_owned();
        Self { stdin: child.stdin.take(), child: Killed(child), base, dir }
    }

    /// A viewer that prints what comes.
    fn get(&self, path: &str, more: &[&str]) -> Viewer {
        let mut command = h3cast(self.dir.path());
        command.args(["get", &format!("{}{path}", self.base)]).args(more).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|size| size > 0) {
                if tx.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Viewer { child: Killed(child), lines }
    }

    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }
}

struct Viewer {
    child: Killed,
    lines: mpsc::Receiver<String>,
}

impl Viewer {
    /// The next line; empty at the end.
    fn line(&mut self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => String::new(),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line within {DEADLINE:?}"),
        }
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        assert_eq!(self.child.0.wait().unwrap().code(), Some(130));
    }

    fn exit(mut self) -> Option<i32> {
        assert_eq!(self.line(), "", "there is more");
        self.child.0.wait().unwrap().code()
    }
}

#[test]
fn standard_input_is_one_feed_for_all() {
    let mut serving = Serving::start(|_| vec!["-".into()]);
    // Sent before anybody views, and kept.
    serving.write("early\n");
    let mut first = serving.get("stream?from=start", &[]);
    assert_eq!(first.line(), "early\n");
    let mut second = serving.get("stream?from=start", &["--webtransport"]);
    assert_eq!(second.line(), "early\n");
    for text in ["one\n", "two\n", "zażółć 🦀\n"] {
        serving.write(text);
        assert_eq!(first.line(), text);
        assert_eq!(second.line(), text);
    }
    serving.write("no newline");
    serving.stdin = None;
    assert_eq!(first.line(), "no newline");
    assert_eq!(second.line(), "no newline");
    assert_eq!(first.exit(), Some(0));
    assert_eq!(second.exit(), Some(0));
}

#[test]
fn several_commands_each_a_feed() {
    let serving =
        Serving::start(|_| ["a=exec:printf 'x\\ny\\n'", "b=exec:echo B=1; sleep 1000"].map(String::from).into());
    let mut a = serving.get("stream/a?from=start", &[]);
    assert_eq!((a.line(), a.line()), ("x\n".into(), "y\n".into()));
    assert_eq!(a.exit(), Some(0));
    let mut b = serving.get("stream/b?from=start", &[]);
    assert_eq!(b.line(), "B=1\n");
}

#[test]
fn a_command_is_killed_with_what_it_started() {
    let mut pids = Vec::new();
    {
        let mut serving = Serving::start(|_| vec!["exec:sleep 1000 & echo $! $$; wait".into()]);
        let mut viewer = serving.get("stream?from=start", &[]);
        pids.extend(viewer.line().split_whitespace().map(String::from));
        let stop = Command::new("kill").args(["-s", "TERM", &serving.child.0.id().to_string()]).status().unwrap();
        assert!(stop.success());
        assert_eq!(serving.child.0.wait().unwrap().code(), Some(0));
        // The feed has not ended, its server has.
        assert_eq!(viewer.exit(), Some(1));
    }
    assert_eq!(pids.len(), 2);
    gone(&pids);
}

#[test]
fn a_command_for_each_viewer_goes_with_its_viewer() {
    let serving = Serving::start(|_| vec!["exec:echo $$; exec sleep 1000".into(), "--per-viewer".into()]);
    let (mut one, mut two) = (serving.get("stream", &[]), serving.get("stream", &["--webtransport"]));
    let pids = [one.line().trim().to_owned(), two.line().trim().to_owned()];
    assert_ne!(pids[0], pids[1]);
    one.interrupt();
    gone(&pids[..1]);
    two.interrupt();
    gone(&pids[1..]);
}

/// Waits until processes have ended (or are only waited for).
fn gone(pids: &[String]) {
    let deadline = Instant::now() + DEADLINE;
    for pid in pids {
        let alive = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        while alive() {
            assert!(Instant::now() < deadline, "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_followed_file_through_rotation_and_truncation() {
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("log"), "old\n").unwrap();
        vec!["tail:log".into()]
    });
    let log = serving.dir.path().join("log");
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut viewer = serving.get("stream?from=start", &[]);
    assert_eq!(viewer.line(), "old\n");
    append("one\n");
    assert_eq!(viewer.line(), "one\n");
    append("last of the old\n");
    std::fs::rename(&log, serving.dir.path().join("log.1")).unwrap();
    append("first of the new\n");
    assert_eq!(viewer.line(), "last of the old\n");
    assert_eq!(viewer.line(), "first of the new\n");
    std::fs::write(&log, "cut\n").unwrap();
    assert_eq!(viewer.line(), "cut\n");
    append("more\n");
    assert_eq!(viewer.line(), "more\n");
}

#[test]
fn a_file_from_its_beginning_for_each_viewer() {
    let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("data"), &text).unwrap();
        vec!["data=file:data".into()]
    });
    for more in [&[][..], &["--webtransport"]] {
        let mut viewer = serving.get("stream/data", more);
        let read: String = (0..1000).map(|_| viewer.line()).collect();
        assert_eq!(read, text);
        assert_eq!(viewer.exit(), Some(0));
    }
}

#[test]
fn what_cannot_be_started_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (vec!["file:nowhere"], "cannot start the feed `default`: cannot read nowhere"),
        (vec!["x=file:."], "cannot start the feed `x`: cannot read ."),
        (vec!["what"], "invalid source `what`"),
        (vec!["a/b=demo"], "invalid feed name `a/b`: a name has up to 100 ASCII letters, digits"),
        (vec!["=demo"], "invalid feed name ``"),
        (vec!["exec:"], "`exec:` lacks its command"),
        (vec!["log=tail:"], "`tail:` lacks its path"),
        (vec!["demo", "-"], "two sources have no name"),
        (vec!["-", "-"], "two sources both read standard input"),
        (vec!["demo", "--history", "many"], "a number of bytes"),
        (vec!["demo", "--lag", "run"], "block"),
    ] {
        let got = h3cast(dir.path())
            .args(["serve", "--listen", "localhost:0", "--http", "off"])
            .args(&args)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
