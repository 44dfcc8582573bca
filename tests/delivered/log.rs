//! A feed that fails or ends is one line of the log.

use std::process::Command;

use crate::{
    common::soon,
    serving::Serving,
    viewers::{Host, Link, Over},
};

/// Waits until the log has that many lines with `what`, and gives them.
async fn lines(server: &Serving, what: &str, count: usize) -> Vec<String> {
    soon(what, async {
        loop {
            let log = std::fs::read_to_string(server.dir().join("stderr")).unwrap();
            let lines: Vec<_> = log.lines().filter(|line| line.contains(what)).map(String::from).collect();
            if lines.len() >= count {
                return lines;
            }
            // A file tells nobody when it grows.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_feed_that_ends_or_fails_is_one_line() {
    let mut server = Serving::start(|dir| {
        assert!(Command::new("mkfifo").arg(dir.join("gate")).status().unwrap().success());
        vec!["good=exec:echo a", "bad=exec:echo b; exit 3", "input=-"]
    });
    drop(server.stdin.take());
    let ended = lines(&server, "the feed ended", 2).await;
    let failed = lines(&server, "the feed failed", 1).await;
    assert!(ended.iter().all(|line| line.contains("INFO")), "{ended:?}");
    assert!(ended.iter().any(|line| line.contains("good")) && ended.iter().any(|line| line.contains("input")));
    assert!(failed[0].contains("WARN") && failed[0].contains("bad") && failed[0].contains("3"), "{failed:?}");
    let dir = server.dir().to_owned();
    let log = move || std::fs::read_to_string(dir.join("stderr")).unwrap();
    let before = log();
    assert_eq!(
        (before.matches("the feed ended").count(), before.matches("the feed failed").count()),
        (2, 1),
        "{before}"
    );
    server.stop();
}

/// The feeds that run do not end when the server stops, and the log does not say so.
#[tokio::test]
async fn a_feed_that_its_server_stops_has_not_ended() {
    let server = Serving::start(|_| vec!["-", "busy=exec:sleep 100"]);
    let log = server.dir().join("stderr");
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::hard_link(&log, kept.path().with_extension("log")).unwrap();
    server.stop();
    let log = std::fs::read_to_string(kept.path().with_extension("log")).unwrap();
    std::fs::remove_file(kept.path().with_extension("log")).unwrap();
    assert!(!log.contains("the feed"), "{log}");
}

/// An on-demand feed may fail for as many viewers as there are: one line for all of them.
#[tokio::test]
async fn a_feed_that_fails_for_many_viewers_is_one_line() {
    let server = Serving::start(|_| vec!["--per-viewer", "exec:echo a; exit 3"]);
    let host = Host::from(&server);
    let mut link = Link::open(&host, Over::Http2).await;
    for _ in 0..5 {
        let got = link.view(&host, "/stream").await.rest().await;
        assert_eq!((got.bytes, got.cut.is_some()), (b"a\n".to_vec(), true));
    }
    let failed = lines(&server, "the feed failed for a viewer", 1).await;
    assert!(failed.len() == 1 && failed[0].contains("WARN") && failed[0].contains("status 3"), "{failed:?}");
    server.stop();
}
