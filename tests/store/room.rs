//! A disk that is full: a small file system of its own.

use std::process::Command;

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
    let args = ["publish", "chat.*=publish", "--store", "store", "--retain", "all"];
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
    let unready = process::get(&place, "/readyz").await;
    assert!(unready.contains(" 503 "), "{unready}");
    let metrics = process::get(&place, "/metrics").await;
    assert!(metrics.contains("\nh3cast_store_writable 0\n"), "{metrics}");
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
    for (feed, all) in [("chat.a", &["hello\n", "more\n"][..]), ("chat.b", &["more\n"])] {
        assert_eq!(post(&place, &format!("/stream/{feed}"), None, "more\n").await.unwrap().0, 200);
        assert_eq!(lines(&place, &format!("/stream/{feed}?from=start"), all.len()).await, all);
    }
    server.stop().await;
}
