//! A disk that is full: a small file system of its own.

use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{
    Process, about, lines, post,
    process::{self, soon},
};

/// A server that has a file system for its store, in a mount namespace of its own.
pub(crate) fn unshared(mount: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mkdir -p store && mount -t tmpfs -o {mount} && exec \"$0\" \"$@\"");
    command.args(["--mount", "--map-root-user", "sh", "-c", &script, env!("CARGO_BIN_EXE_h3cast")]);
    command
}

/// What is there in its namespace is reached through the process.
pub(crate) fn inside(server: &Process, place: &process::Place, path: &str) -> std::path::PathBuf {
    format!("/proc/{}/root{}", server.pid(), place.folder().join(path).display()).into()
}

#[tokio::test]
async fn publishers_are_told_viewers_stay_and_it_goes_on() {
    let place = Process::place(None);
    let args = ["publish", "quiet=publish", "chat.*=publish", "room.*=publish", "--store", "store", "--retain", "all"];
    let (place, server) = Process::begin(place, unshared("size=8m none store"), &args).await;
    assert_eq!(post(&place, "/stream/chat.a", None, "hello\n").await.unwrap().0, 200);
    let ballast = inside(&server, &place, "store/.room.ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let piece = "x".repeat(64 << 10);
    let (mut stored, mut refused) = (0, None);
    while refused.is_none() {
        let (status, answer) = soon("an answer", post(&place, "/stream", None, &piece)).await.unwrap();
        match status {
            200 => stored += 1,
            _ => refused = Some((status, answer)),
        }
        assert!(stored < 1000);
    }
    let (status, problem) = refused.unwrap();
    assert_eq!(status, 507, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no room on the disk"), "{problem}");
    // Viewers have all that was confirmed, a part of the last body included.
    let part = problem["published"]["bytes"].as_u64().unwrap() as usize;
    let chunks = about(&place, "default").await["chunks"].as_u64().unwrap();
    let answer = process::get(&place, &format!("/stream?from=start&limit={chunks}")).await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), stored * piece.len() + part);
    assert_eq!(about(&place, "default").await["stalled"], true);
    // Also of feeds that nobody has written since.
    for path in ["/readyz", "/readyz/default", "/readyz/quiet", "/readyz/chat.a"] {
        let unready = process::get(&place, path).await;
        assert!(unready.contains(" 503 "), "{path}: {unready}");
    }
    // Nor is the cause another one where no feed of a pattern is in memory.
    let unready = process::get(&place, "/readyz").await;
    assert!(unready.contains("\nfeed room.*: the disk that stores it is full\n"), "{unready}");
    let metrics = process::get(&place, "/metrics").await;
    assert!(metrics.contains("\nh3cast_store_writable 0\n"), "{metrics}");
    server.says("no room on the disk");
    assert_eq!(server.said().matches("no room on the disk").count(), 1, "{}", server.said());
    // Feeds that clients create are no different, nor is one that cannot be created.
    for feed in ["chat.a", "chat.b"] {
        let (status, problem) = post(&place, &format!("/stream/{feed}"), None, &piece).await.unwrap();
        assert_eq!(status, 507, "{feed}: {problem}");
        assert_eq!(problem["published"]["bytes"].as_u64().unwrap_or_default(), 0, "{problem}");
    }
    assert_eq!(lines(&place, "/stream/chat.a?from=start", 1).await, ["hello\n"]);
    // There is room again.
    std::fs::remove_file(&ballast).unwrap();
    soon("it is ready again", async { while !process::get(&place, "/readyz").await.contains(" 200 ") {} }).await;
    assert_eq!(post(&place, "/stream", None, "more\n").await.unwrap().0, 200);
    assert_eq!(lines(&place, "/stream?from=-1", 1).await, ["more\n"]);
    assert_eq!(about(&place, "quiet").await["stalled"], false);
    for (feed, all) in [("chat.a", &["hello\n", "more\n"][..]), ("chat.b", &["more\n"])] {
        assert_eq!(post(&place, &format!("/stream/{feed}"), None, "more\n").await.unwrap().0, 200);
        assert_eq!(lines(&place, &format!("/stream/{feed}?from=start"), all.len()).await, all);
    }
    server.stop().await;
}

/// A publisher prints each cause once, and states at its end what was confirmed.
#[tokio::test]
async fn a_publisher_prints_it_once_and_counts_right() {
    let place = Process::place(None);
    let args = ["publish", "--store", "store", "--retain", "all"];
    let (place, server) = Process::begin(place, unshared("size=8m none store"), &args).await;
    let ballast = inside(&server, &place, "store/.room.ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let publish = |more: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.arg("publish").arg(place.uri("/stream").to_string()).args(more);
        command.args(["--certs", "certs"]).current_dir(place.folder()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // More than there is room for, in several requests.
    let begun = std::time::Instant::now();
    let mut first = publish(&["--retry-for", "8s"]);
    let mut input = first.stdin.take().unwrap();
    let writing = tokio::spawn(async move {
        let line = format!("{}\n", "x".repeat(99_999));
        // It stops reading when it gives up.
        while input.write_all(line.as_bytes()).await.is_ok() {}
    });
    let done = soon("it gives up", first.wait_with_output()).await.unwrap();
    let took = begun.elapsed().as_secs_f64();
    writing.await.unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    let chunks = about(&place, "default").await["chunks"].as_u64().unwrap();
    let answer = process::get(&place, &format!("/stream?from=start&limit={chunks}")).await;
    let stored = answer.split_once("\r\n\r\n").unwrap().1.len();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].contains("answered 507") && lines[0].contains("until there is room (input waits"), "{told}");
    // The last attempt begins a second before the time is over, and is refused.
    let (_, seconds) = lines[1].split_once("gave up after ").unwrap();
    let (seconds, why) = seconds.split_once(" s: ").unwrap();
    assert!((7.0..took).contains(&seconds.parse().unwrap()), "{took}: {told}");
    assert!(why.starts_with("the server answered 507"), "{told}");
    assert!(stored > 1 << 20 && lines[1].ends_with(&format!("({stored} bytes confirmed)")), "{stored}: {told}");
    // It continues once there is room.
    let mut second = publish(&[]);
    let mut input = second.stdin.take().unwrap();
    input.write_all("y".repeat(90_000).as_bytes()).await.unwrap();
    input.shutdown().await.unwrap();
    drop(input);
    let mut told = BufReader::new(second.stderr.take().unwrap()).lines();
    assert!(soon("why", told.next_line()).await.unwrap().unwrap().contains("answered 507"));
    std::fs::remove_file(&ballast).unwrap();
    let line = soon("its end", told.next_line()).await.unwrap().unwrap();
    assert!(line.ends_with("the server accepts it again: 90000 bytes confirmed"), "{line}");
    assert_eq!(soon("its end", told.next_line()).await.unwrap(), None);
    assert!(second.wait().await.unwrap().success());
    server.stop().await;
}
