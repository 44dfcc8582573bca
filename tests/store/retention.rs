//! How much is kept, by size and by age, and a change of that.

use std::{path::Path, process::Command, time::Duration};

use crate::{Place, Process, STORE, about, first, lines, next, post, process::soon};

/// The files of a store's records.
fn files(place: &Place) -> Vec<std::path::PathBuf> {
    let feeds = std::fs::read_dir(place.folder().join("store/feeds")).unwrap();
    let files = feeds.flat_map(|feed| std::fs::read_dir(feed.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).filter(|file| file.extension().is_some_and(|it| it == "records")).collect()
}

fn size(place: &Place) -> u64 {
    files(place).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The number of the oldest chunk that is stored.
async fn oldest(place: &Place, feed: &str) -> u64 {
    let about = about(place, feed).await;
    let (_, seq) = about["oldest"].as_str().unwrap().rsplit_once('-').unwrap();
    seq.parse().unwrap()
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let args = ["publish", "--retain", "128k", "--fsync", "never", "--history", "64k"];
    let (place, server) = first(&args).await;
    let line = format!("{}\n", "x".repeat(999));
    let mut first = None;
    for _ in 0..20 {
        let (status, answer) = post(&place, "/stream?chunk=lines", None, &line.repeat(50)).await.unwrap();
        assert_eq!(status, 200);
        first.get_or_insert(answer["first"].as_str().unwrap().to_owned());
    }
    until("old files are removed", || size(&place) <= 192 << 10).await;
    assert!(oldest(&place, "default").await > 800);
    // It is not the viewer that was too slow.
    let path = format!("/stream?from={}&format=sse&limit=1", first.unwrap());
    assert!(crate::process::get(&place, &path).await.contains("event: gap"));
    server.says("a viewer misses chunks that are no longer stored, or cannot be read");
    // What cannot tell of a gap is refused, and does not break off.
    let answer = crate::process::get(&place, &path.replace("format=sse&", "")).await;
    assert!(answer.contains(" 410 ") && answer.contains("the feed no longer has "), "{answer}");
    assert!(!server.said().contains("fell behind"), "{}", server.said());
    server.stop().await;
}

/// Where memory has more than the disk, viewers get all of it, however they ask.
#[tokio::test]
async fn memory_that_has_more_than_the_disk() {
    let args = ["publish", "--retain", "64k", "--fsync", "never", "--history", "4M"];
    let (place, server) = first(&args).await;
    for part in 0..10 {
        let part: String = (0..50).map(|line| format!("{:0999}\n", part * 50 + line)).collect();
        assert_eq!(post(&place, "/stream?chunk=lines", None, &part).await.unwrap().0, 200);
    }
    until("old files are removed", || size(&place) <= 128 << 10).await;
    let oldest = oldest(&place, "default").await;
    assert!(oldest > 300, "{oldest}");
    for (from, begins) in [("start", 0), ("-1000", 0), ("-500", 0), ("-400", 100), ("-10", 490)] {
        let got = lines(&place, &format!("/stream?from={from}"), 500 - begins).await;
        let expected: Vec<_> = (begins..500).map(|line| format!("{line:0999}\n")).collect();
        assert!(got == expected, "{from}: {} lines from {:?}", got.len(), got.first());
    }
    server.stop().await;
}

fn settings(place: &Path, named: &str, created: &str) {
    let text = format!("retain = {{ log = '{named}', 'chat.*' = '{created}' }}\n");
    std::fs::write(place.join("h3cast.toml"), text).unwrap();
}

#[tokio::test]
async fn a_reload_changes_what_is_kept() {
    let place = Process::place(None);
    settings(place.folder(), "1M", "1M");
    let args = [&STORE[..], &["log=publish", "chat.*=publish", "--history", "4k", "--config", "h3cast.toml"]].concat();
    let (place, server) = Process::begin(place, Command::new(env!("CARGO_BIN_EXE_h3cast")), &args).await;
    let line = format!("{}\n", "x".repeat(999));
    for feed in ["log", "chat.a"] {
        for _ in 0..8 {
            let path = format!("/stream/{feed}?chunk=lines");
            assert_eq!(post(&place, &path, None, &line.repeat(50)).await.unwrap().0, 200);
        }
        assert_eq!(oldest(&place, feed).await, 0);
    }
    for (named, created, feed) in [("64k", "1M", "log"), ("64k", "64k", "chat.a")] {
        let before = size(&place);
        settings(place.folder(), named, created);
        let mut reload = Command::new(env!("CARGO_BIN_EXE_h3cast"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            reload.env_remove(name);
        }
        reload.current_dir(place.folder()).env("HOME", place.folder()).env("XDG_RUNTIME_DIR", place.folder());
        let done = reload.arg("reload").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        // As it can be typed.
        let typed = [format!("log={named};chat.*={created}"), format!("chat.*={created};log={named}")];
        let is_typed = typed.iter().any(|values| said.starts_with(&format!("changed: --retain='{values}'; ")));
        assert!(done.status.success() && is_typed, "{said}");
        until("files beyond it are removed", || size(&place) < before - (200 << 10)).await;
        assert!(oldest(&place, feed).await > 200);
        assert_eq!(oldest(&place, "chat.a").await == 0, feed == "log");
    }
    // The rest is there, and goes on.
    assert_eq!(post(&place, "/stream/log", None, "more\n").await.unwrap().0, 200);
    assert_eq!(lines(&place, "/stream/log?from=-2", 2).await, [line, "more\n".into()]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_too_old_is_removed() {
    let args = ["publish", "--retain", "1s"];
    let (place, mut server) = first(&args).await;
    let (_, old) = post(&place, "/stream", None, "old\n").await.unwrap();
    let is_first = |file: &std::path::PathBuf| file.ends_with("00000000000000000000.records");
    until("it is removed", || !files(&place).iter().any(is_first)).await;
    server.kill();
    let server = next(&place, &args).await;
    let (_, new) = post(&place, "/stream", None, "new\n").await.unwrap();
    assert_eq!((&new["epoch"], oldest(&place, "default").await), (&old["epoch"], 1));
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["new\n"]);
    server.stop().await;
}
