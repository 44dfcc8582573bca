//! What a followed file has at first, and the last chunks of a feed.

use std::{fs::OpenOptions, io::Write, path::Path};

use crate::program::{Program, Serving, command, soon};

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("line {number}\n")).collect()
}

async fn read(dir: &Path, serving: &Serving, path: &str, many: u32, more: &[&str]) -> String {
    let url = serving.url(path);
    let mut viewer = Program::start(dir, &[&["get", &url][..], more].concat());
    let mut text = String::new();
    for _ in 0..many {
        text += &viewer.line().await;
    }
    text
}

#[tokio::test]
async fn a_followed_file_begins_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        std::fs::write(dir.path().join(name), lines(0..100)).unwrap();
    }
    let args = [
        "a=tail:a",
        "b=tail:b",
        "c=tail:c",
        "d=tail:d",
        "--tail-lines",
        "b=3",
        "--tail-lines",
        "c=0",
        "--chunk",
        "d=bytes",
    ];
    let serving = Serving::start(dir.path(), 0, &args).await;
    for more in [&[][..], &["--webtransport"]] {
        assert_eq!(read(dir.path(), &serving, "/stream/a?from=start", 10, more).await, lines(90..100));
        assert_eq!(read(dir.path(), &serving, "/stream/b?from=start", 3, more).await, lines(97..100));
    }
    for name in ["a", "b", "c", "d"] {
        let mut log = OpenOptions::new().append(true).open(dir.path().join(name)).unwrap();
        log.write_all(b"line 100\n").unwrap();
    }
    assert_eq!(read(dir.path(), &serving, "/stream/a?from=start", 11, &[]).await, lines(90..101));
    // None were asked for, or there are none in bytes.
    assert_eq!(read(dir.path(), &serving, "/stream/c?from=start", 1, &[]).await, lines(100..101));
    assert_eq!(read(dir.path(), &serving, "/stream/d?from=start", 1, &[]).await, lines(100..101));
}

/// The last line is not whole yet: its beginning waits for its rest.
#[tokio::test]
async fn a_begun_line_waits_for_its_rest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), lines(0..20) + "begun, ").unwrap();
    let serving = Serving::start(dir.path(), 0, &["tail:log"]).await;
    let url = serving.url("/stream?from=start");
    let mut viewer = Program::start(dir.path(), &["get", &url]);
    for number in 10..20 {
        assert_eq!(viewer.line().await, format!("line {number}\n"));
    }
    let mut log = OpenOptions::new().append(true).open(dir.path().join("log")).unwrap();
    log.write_all(b"ended\n").unwrap();
    assert_eq!(viewer.line().await, "begun, ended\n");
}

/// Large files are not read from their beginning, and one long line is not sought to its beginning.
#[tokio::test]
async fn large_files() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(10 << 30).unwrap();
    let mut sparse = OpenOptions::new().append(true).open(dir.path().join("sparse")).unwrap();
    // What is before them is a line of 10 GiB, of which this is the end.
    sparse.write_all(lines(0..3).as_bytes()).unwrap();
    let long = std::fs::File::create(dir.path().join("long")).unwrap();
    long.set_len(10 << 30).unwrap();
    let serving = Serving::start(dir.path(), 0, &["sparse=tail:sparse", "long=tail:long"]).await;
    assert_eq!(read(dir.path(), &serving, "/stream/sparse?from=start", 2, &[]).await, lines(1..3));
    let mut long = OpenOptions::new().append(true).open(dir.path().join("long")).unwrap();
    long.write_all(b"\nnext\n").unwrap();
    assert_eq!(read(dir.path(), &serving, "/stream/long?from=start", 2, &[]).await, "\nnext\n");
}

/// The last chunks of any live feed, on both transports, with and without a client that resumes.
#[tokio::test]
async fn the_last_chunks() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), lines(0..100)).unwrap();
    let serving = Serving::start(dir.path(), 0, &["log=tail:log", "cmd=exec:seq 5; exec sleep 1000", "demo"]).await;
    let read = async |path: &str, many: u32, more: &[&str]| read(dir.path(), &serving, path, many, more).await;
    for more in [&[][..], &["--webtransport"], &["--resume"]] {
        assert_eq!(read("/stream/log?from=-3", 3, more).await, lines(97..100), "{more:?}");
        assert_eq!(read("/stream/log?from=-1000", 10, more).await, lines(90..100), "{more:?}");
        assert_eq!(read("/stream/log?from=-1&format=raw", 1, &[]).await, lines(99..100));
        assert_eq!(read("/stream/cmd?from=-1000", 5, more).await, "1\n2\n3\n4\n5\n", "{more:?}");
        // One that starts over for each viewer has no last chunks yet.
        assert_eq!(read("/stream?from=-2", 2, more).await, "data chunk #0\ndata chunk #1\n", "{more:?}");
    }
    for wrong in ["-", "-x", "--1", "-1.5"] {
        let url = serving.url(&format!("/stream/log?from={wrong}"));
        let got = crate::program::output(dir.path(), &["get", "-v", &url]).await;
        assert_eq!(got.status.code(), Some(1), "{wrong}");
        assert!(String::from_utf8_lossy(&got.stderr).contains("400"), "{wrong}");
    }
}

#[tokio::test]
async fn wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for (args, why) in [
        (&["tail:log", "--tail-lines", "few"][..], "`few` is not a whole number from 0 on"),
        (&["tail:log", "--tail-lines", "-1"], "-1"),
        (&["tail:log", "--tail-lines", "other=1"], "there is no feed `other`"),
    ] {
        let got = soon("its end", command(dir.path(), &[&["serve"], args].concat()).output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(why), "{args:?}: {stderr}");
    }
}
