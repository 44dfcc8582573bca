//! Followed files that are renamed, cut, replaced, removed and made again.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use tokio::io::AsyncBufReadExt;

use crate::program::{Program, Serving, command, soon};

/// A server that follows `log`, and a viewer of it.
struct Following {
    dir: tempfile::TempDir,
    serving: Serving,
    viewer: Program,
}

impl Following {
    /// Follows a file that has this to begin with.
    async fn start(content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), content).unwrap();
        Self::of(dir).await
    }

    async fn of(dir: tempfile::TempDir) -> Self {
        let serving = Serving::start(dir.path(), 0, &["tail:log"]).await;
        let viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
        Self { dir, serving, viewer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn line(&mut self) -> String {
        self.viewer.line().await
    }

    async fn lines(&mut self, many: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..many {
            lines.push(self.line().await);
        }
        lines
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

/// The chunks of the feed at `url`, `many` of them, as `sse` has them.
async fn chunks(dir: &Path, url: &str, many: usize) -> Vec<String> {
    let mut viewer = Program::start(dir, &["get", "--no-progress", &format!("{url}&format=sse&limit={many}")]);
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if soon("a line", viewer.stdout.read_line(&mut line)).await.unwrap() == 0 {
            break;
        }
        text += &line;
    }
    text.split("\n\n")
        .filter(|event| event.contains("id: ") && !event.contains("event: end"))
        .map(|event| event.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>().join("\n"))
        .collect()
}

/// logrotate's default: the name has another file at once, and the program writes to the old one until it
/// is told. That takes 2 s here, with a line every 100 ms.
#[tokio::test]
async fn a_writer_that_reopens_late() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    let mut writer = append(&log);
    writeln!(writer, "before").unwrap();
    assert_eq!(following.line().await, "before\n");
    std::fs::rename(&log, following.path("log.1")).unwrap();
    let mut new = append(&log);
    for number in 0..20 {
        writeln!(writer, "late {number}").unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    writeln!(new, "new").unwrap();
    let mut seen = following.lines(21).await;
    // The two files' lines come as they come, those of each in their order.
    let at = seen.iter().position(|line| line == "new\n").expect("the new file's line");
    seen.remove(at);
    assert_eq!(seen, (0..20).map(|number| format!("late {number}\n")).collect::<Vec<_>>());
}

/// Between the rename and the new file there is none for a while.
#[tokio::test]
async fn a_file_that_is_gone_for_a_moment() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    let mut writer = append(&log);
    std::fs::rename(&log, following.path("log.1")).unwrap();
    let told = following.serving.program.told("cannot read the file now").await;
    assert!(told.contains("No such file") && told.contains("waiting"), "{told}");
    writeln!(writer, "late").unwrap();
    assert_eq!(following.line().await, "late\n");
    writeln!(append(&log), "new").unwrap();
    assert_eq!(following.line().await, "new\n");
    following.serving.program.told("the file is back").await;
}

/// Three files within a moment, of which the name shows only the last.
#[tokio::test]
async fn rotations_in_quick_succession() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    writeln!(append(&log), "first").unwrap();
    assert_eq!(following.line().await, "first\n");
    for number in 0..10 {
        std::fs::rename(&log, following.path(&format!("log.{number}"))).unwrap();
        writeln!(append(&log), "file {number}").unwrap();
    }
    assert_eq!(following.lines(10).await, (0..10).map(|number| format!("file {number}\n")).collect::<Vec<_>>());
}

/// A file that comes back under its own name has been read already.
#[tokio::test]
async fn a_file_that_is_moved_away_and_back() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    let mut writer = append(&log);
    writeln!(writer, "one").unwrap();
    assert_eq!(following.line().await, "one\n");
    std::fs::rename(&log, following.path("away")).unwrap();
    writeln!(append(&log), "between").unwrap();
    assert_eq!(following.line().await, "between\n");
    std::fs::rename(following.path("away"), &log).unwrap();
    writeln!(writer, "two").unwrap();
    assert_eq!(following.line().await, "two\n");
}

#[tokio::test]
async fn a_folder_in_the_place_of_the_file() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    writeln!(append(&log), "one").unwrap();
    assert_eq!(following.line().await, "one\n");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    following.serving.program.told("it is a folder").await;
    std::fs::remove_dir(&log).unwrap();
    // One that cannot be opened, whoever we are.
    std::os::unix::fs::symlink("log", &log).unwrap();
    following.serving.program.told("cannot read the file now").await;
    std::fs::remove_file(&log).unwrap();
    writeln!(append(&log), "two").unwrap();
    assert_eq!(following.line().await, "two\n");
}

#[tokio::test]
async fn the_whole_folder_goes_and_comes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    std::fs::create_dir(&folder).unwrap();
    writeln!(append(&folder.join("log")), "one").unwrap();
    let mut serving = Serving::start(dir.path(), 0, &["tail:logs/log"]).await;
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
    assert_eq!(viewer.line().await, "one\n");
    std::fs::remove_dir_all(&folder).unwrap();
    serving.program.told("cannot read the file now").await;
    std::fs::create_dir(&folder).unwrap();
    writeln!(append(&folder.join("log")), "two").unwrap();
    assert_eq!(viewer.line().await, "two\n");
}

/// Logs are often made when they are first written to. A name that is wrong is told at once.
#[tokio::test]
async fn a_file_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path(), 0, &["tail:later/log"]).await;
    let told = serving.program.told("cannot read the file now").await;
    assert!(told.contains("WARN") && told.contains("later/log"), "{told}");
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
    std::fs::create_dir(dir.path().join("later")).unwrap();
    let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
    std::fs::write(dir.path().join("later/log"), lines).unwrap();
    // All of it is new.
    for number in 0..100 {
        assert_eq!(viewer.line().await, format!("line {number}\n"));
    }
}

/// A line that was begun in a file that is cut or replaced is none with the first of the next.
#[tokio::test]
async fn a_line_that_is_cut_off() {
    let mut following = Following::start("").await;
    let log = following.path("log");
    let url = following.serving.url("/stream?from=start");
    let mut writer = append(&log);
    write!(writer, "one\nhalf").unwrap();
    assert_eq!(following.line().await, "one\n");
    // In place: there is no more of it.
    writer.set_len(0).unwrap();
    assert_eq!(chunks(following.dir.path(), &url, 2).await, ["one", "half"]);
    write!(writer, "two\nha").unwrap();
    assert_eq!(chunks(following.dir.path(), &url, 3).await, ["one", "half", "two"]);
    // By another file: the rest of it may come later.
    std::fs::rename(&log, following.path("log.1")).unwrap();
    let mut new = append(&log);
    writeln!(new, "three").unwrap();
    assert_eq!(chunks(following.dir.path(), &url, 4).await[3..], ["three"]);
    writeln!(writer, "lf").unwrap();
    assert_eq!(chunks(following.dir.path(), &url, 5).await[4..], ["half"]);
    write!(writer, "the last").unwrap();
    // Until the old file has been silent.
    assert_eq!(chunks(following.dir.path(), &url, 6).await[5..], ["the last"]);
}

/// Where the system notifies no one, files are looked at.
#[tokio::test]
async fn no_notifications() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), "").unwrap();
    // A user namespace of its own has its own limits.
    let without = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut server = std::process::Command::new("unshare");
    server.args(["--user", "--map-root-user", "sh", "-c", without, "sh", env!("CARGO_BIN_EXE_h3cast")]);
    let allowed = std::process::Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("not tested: no user namespaces here");
        return;
    }
    server.args(["serve", "--listen", "localhost:0", "--http", "off", "tail:log"]).current_dir(dir.path());
    let mut server = tokio::process::Command::from(server);
    server.kill_on_drop(true);
    let mut serving = Serving::of(Program::of(server)).await;
    serving.program.told("no notifications of file changes").await;
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
    let log = dir.path().join("log");
    writeln!(append(&log), "one").unwrap();
    assert_eq!(viewer.line().await, "one\n");
    std::fs::rename(&log, dir.path().join("log.1")).unwrap();
    writeln!(append(&log), "two").unwrap();
    assert_eq!(viewer.line().await, "two\n");
}

/// What has no end that one could wait at.
#[tokio::test]
async fn what_cannot_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    for (source, why) in [("tail:socket", "it is a socket"), ("tail:/proc/meminfo", "cannot be followed")] {
        let got = soon("its end", command(dir.path(), &["serve", "--listen", "localhost:0", source]).output());
        let got = got.await.unwrap();
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{source}: {stderr}");
        assert!(stderr.contains(why), "{source}: {stderr}");
    }
}
