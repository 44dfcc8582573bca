//! Where a server goes on in a file that is followed, and what it does at its start for that.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Process, lines, next};

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn append(path: &Path, text: &str) {
    fs::File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Gives a file another inode, as another file system would.
fn copy(path: &Path) {
    let copy: PathBuf = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    fs::rename(&copy, path).unwrap();
}

/// After a restart, file systems may number their devices in another way, or their files.
#[tokio::test]
async fn a_file_is_known_by_what_was_read_of_it() {
    let args = ["tail:app.log"];
    let place = Process::place(None);
    let log = place.folder().join("app.log");
    write(&log, "one\n");
    let (place, mut server) = Process::begin(place, command(), &[&crate::STORE, &args[..]].concat()).await;
    let mut all = vec!["one\n"];
    for line in ["two\n", "three\n"] {
        append(&log, line);
        all.push(line);
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
        server.kill();
        copy(&log);
        append(&log, "meanwhile\n");
        all.push("meanwhile\n");
        server = next(&place, &args).await;
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    }
    server.kill();
    // Rotated as well.
    append(&log, "four\n");
    copy(&log);
    fs::rename(&log, place.folder().join("app.log.1")).unwrap();
    write(&log, "five\n");
    all.extend(["four\n", "five\n"]);
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.kill();
    // The next one begins as that did, which tells nothing: its own file is there.
    fs::rename(&log, place.folder().join("app.log.2")).unwrap();
    write(&log, "five\nsix\n");
    all.extend(["five\n", "six\n"]);
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.stop().await;
}

/// What the file has already may not fit.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_serves_though_the_disk_is_full_at_its_start() {
    let place = Process::place(None);
    let all: Vec<_> = (0..10).map(|number| format!("{number}{}\n", "x".repeat(60_000))).collect();
    write(&place.folder().join("app.log"), &all.concat());
    let full = crate::room::unshared("size=4m none store && head -c 3800k /dev/zero > store/ballast");
    let (place, server) = Process::begin(place, full, &["tail:app.log", "--store", "store/feeds"]).await;
    server.says("no room on the disk");
    assert_eq!(crate::about(&place, "default").await["stalled"], true);
    fs::remove_file(crate::room::inside(&server, &place, "store/ballast")).unwrap();
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.stop().await;
}

pub(crate) fn command() -> std::process::Command {
    std::process::Command::new(env!("CARGO_BIN_EXE_h3cast"))
}
