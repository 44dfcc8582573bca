//! `FILE.part` of earlier runs, and of feeds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use h3cast::feed::{End, Feed, Lag};

use crate::{
    common::TestServer,
    demo, leave,
    program::{Program, Serving, output, soon, text},
    until_len,
};

/// It may be all that there is of a live feed.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_resumed_is_left_alone() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    publisher.publish("one\n".into()).await.unwrap();
    let get = Program::start(dir.path(), &args);
    until_len(&dir.path().join("out.part"), 4).await;
    get.signal("INT");
    assert_eq!(get.end().await.2, Some(130));
    for more in [&[][..], &["--resume"], &["--webtransport"]] {
        let got = output(dir.path(), &[&args[..], more].concat()).await;
        let told = text(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{more:?}: {told}");
        assert!(
            told.contains("out.part holds 4 bytes of an earlier run") && told.contains("move or delete it"),
            "{told}"
        );
        assert_eq!(std::fs::read(dir.path().join("out.part")).unwrap(), b"one\n");
    }
}

/// What an earlier run has left is kept when the server cannot be reached.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_stays_until_something_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = Serving::start(dir.path(), 0, &["demo", "--count", "2"]).await;
    let url = first.url("/stream");
    first.program.kill().await;
    let port = first.port;
    for flags in [&["-o", "out"][..], &["--resume", "--webtransport", "--retry-for", "0s", "-o", "out"]] {
        let of = serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 99 });
        leave(&dir.path().join("out.part"), Some(b"of an earlier run"), of);
        assert_eq!(output(dir.path(), &[&["get", &url], flags].concat()).await.status.code(), Some(1));
        assert_eq!(std::fs::read(dir.path().join("out.part")).unwrap(), b"of an earlier run");
        assert!(dir.path().join("out.part.json").exists());
    }
    let second = Serving::start(dir.path(), port, &["demo", "--count", "2"]).await;
    assert_eq!(output(dir.path(), &["get", &url, "-o", "out"]).await.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), demo(2));
    assert!(!dir.path().join("out.part").exists() && !dir.path().join("out.part.json").exists());
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_to_a_file() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    let part = dir.path().join("out.part");
    let of = serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 99 });
    leave(&part, Some(b"of an earlier run"), of);
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    publisher.publish("one\n".into()).await.unwrap();
    let starts = |part: PathBuf| async move {
        soon("the first chunk", async {
            while std::fs::read(&part).unwrap_or_default() != b"one\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    // Ctrl-C leaves what has come, with and without --resume.
    for resume in [&[][..], &["--resume"]] {
        let get = Program::start(dir.path(), &[&args[..], resume].concat());
        starts(part.clone()).await;
        // Nobody else writes there meanwhile.
        let got = output(dir.path(), &args).await;
        assert_eq!(got.status.code(), Some(2));
        assert!(text(&got.stderr).contains("another program is writing"), "{}", text(&got.stderr));
        get.signal("INT");
        let (_, told, code) = get.end().await;
        assert_eq!(code, Some(130));
        assert!(told.contains("what has come is in out.part"), "{told}");
        assert_eq!(std::fs::read(&part).unwrap(), b"one\n");
        assert!(!dir.path().join("out").exists());
        std::fs::remove_file(&part).unwrap();
    }
    publisher.end(End::Clean);
    for resume in [&[][..], &["--resume"], &["--webtransport", "--resume"]] {
        let got = output(dir.path(), &[&args[..], resume].concat()).await;
        assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
        assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), b"one\n");
        assert!(!part.exists());
        std::fs::remove_file(dir.path().join("out")).unwrap();
    }
    let got = output(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "-o", "/dev/null", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(!Path::new("/dev/null.part").exists());
}
