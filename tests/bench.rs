//! `h3cast bench` against the program itself.
#![cfg(all(feature = "cli", unix))]

#[path = "common/program.rs"]
mod program;

use std::path::Path;

use program::{Serving, output, text};
use serde_json::Value;

/// Runs a bench and gives its JSON.
async fn bench(dir: &Path, args: &[&str]) -> Value {
    let ran = output(dir, &[&["bench", "--json"], args].concat()).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Of a feed of 30 chunks, each of so many viewers must get each chunk once.
#[tokio::test]
async fn counts_every_chunk_over_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["demo", "--count", "30", "--interval", "10ms"]).await;
    let (url, pid) = (server.url("/stream"), server.program.id().to_string());
    for how in [&["--http", "h3"][..], &["--webtransport"], &["--http", "h2"], &["--http", "h1"], &["--early-data"]] {
        // It ends with the feed, long before the minute is over.
        let args = [&[&url, "-c", "20", "-d", "60", "--warm-up", "0", "--pid", &pid], how].concat();
        let found = bench(dir.path(), &args).await;
        let number =
            |path: &str| found.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {found:#}"));
        assert_eq!(number("/connected"), 20, "{how:?}: {found:#}");
        assert_eq!(number("/chunks"), 20 * 30, "{how:?}: {found:#}");
        let bytes: usize = 20 * (0..30).map(|number| format!("data chunk #{number}\n").len()).sum::<usize>();
        assert_eq!(number("/bytes"), bytes as u64, "{how:?}: {found:#}");
        assert_eq!((number("/gaps"), number("/missing")), (0, 0), "{how:?}: {found:#}");
        assert_eq!(found["errors"], serde_json::json!({}), "{how:?}");
        let spread = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(&format!("/latency_us/{name}")));
        assert!(spread.is_sorted() && spread[4] > 0, "{how:?}: {spread:?}");
        assert!(number("/handshake_us/p50") > 0 && number("/first_chunk_us/p50") > 0, "{how:?}: {found:#}");
        // Memory can be given back while viewers come, so neither figure bounds the other.
        let rss = ["rss_before_bytes", "rss_bytes", "rss_peak_bytes"].map(|name| number(&format!("/server/{name}")));
        assert!(rss.iter().all(|bytes| *bytes > 1 << 20) && rss[2] >= rss[1], "{how:?}: {found:#}");
        assert!(found["seconds"].as_f64().unwrap() < 30.0, "{how:?}: it went on after the feed's end");
    }
}

#[tokio::test]
async fn some_viewers_do_not_read() {
    let dir = tempfile::tempdir().unwrap();
    // One thread, and chunks that wait for each other, bring all of them as well.
    let args = ["demo", "--count", "20", "--interval", "10ms", "--workers", "1", "--coalesce", "25ms"];
    let server = Serving::start(dir.path(), 0, &args).await;
    for how in [&[][..], &["--webtransport"]] {
        let url = server.url("/stream");
        let found =
            bench(dir.path(), &[&[&url, "-c", "10", "-d", "2", "--warm-up", "0", "--stalled", "30"], how].concat())
                .await;
        assert_eq!((&found["stalled"], &found["connected"]), (&3.into(), &10.into()), "{found:#}");
        assert_eq!(found["chunks"], 7 * 20, "{found:#}");
    }
}

#[tokio::test]
async fn tells_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["demo", "--count", "5", "--interval", "1ms"]).await;
    let pid = server.program.id().to_string();
    let args = ["bench", &server.url("/stream"), "-c", "2", "-d", "1m", "--warm-up", "0", "--pid", &pid];
    let said = text(&output(dir.path(), &args).await.stdout);
    for part in
        ["viewers       2 over HTTP/3", "chunks        10 in", "latency       p50", "gaps          0", "a viewer"]
    {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

/// Zeros that are no measurement.
#[tokio::test]
async fn a_feed_that_gives_nothing_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let sources = ["demo", "idle=publish", "--count", "1", "--interval", "1ms"];
    let server = Serving::start(dir.path(), 0, &sources).await;
    for (path, why) in [("/stream", "try --warm-up 0"), ("/stream/idle", "nothing was published")] {
        let url = server.url(path);
        for more in [&[][..], &["--json"]] {
            let args = [&["bench", &url, "-c", "2", "-d", "1", "--warm-up", "0.5"], more].concat();
            let ran = output(dir.path(), &args).await;
            let said = text(&ran.stderr);
            assert!(said.contains("no chunk arrived in the measured time: ") && said.contains(why), "{said}");
            assert_eq!(ran.status.code(), Some(1), "{said}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["demo"]).await;
    let url = server.url("/stream");
    let formatted = format!("{url}?format=raw");
    for (args, code, what) in [
        (vec![formatted.as_str()], 2, "leave `format` out"),
        (vec![&url, "--early-data", "--http", "h2"], 2, "--early-data is for --http h3"),
        (vec![&url, "--webtransport", "--http", "h1"], 2, "cannot be used with"),
        (vec![&url, "--pid", "4294967295"], 2, "process 4294967295"),
        (vec![&url, "-d", "soon"], 2, "write seconds"),
        (vec![&url, "-c", "0"], 2, "`0` is not a whole number from 1"),
        (vec!["http://localhost"], 2, "write the https URL that the server printed"),
        (vec!["https://localhost:1/stream", "-c", "1"], 1, "no viewer could connect"),
        (vec![&server.url("/stream/none"), "-c", "1", "-d", "1"], 1, "404"),
        (vec![&server.url("/"), "-c", "1", "-d", "1"], 1, "the server's web page (text/html), not a feed"),
        (vec![&server.url("/info"), "--http", "h2", "-c", "1", "-d", "1"], 1, "status (application/json), not a feed"),
    ] {
        let ran = output(dir.path(), &[&["bench"], args.as_slice()].concat()).await;
        let said = text(&ran.stderr) + &text(&ran.stdout);
        assert!(said.contains(what), "{args:?}: `{what}` is not in:\n{said}");
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {said}");
    }
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn a_viewer_that_panics_is_reported_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["demo", "--count", "10", "--interval", "10ms"]).await;
    let url = server.url("/stream");
    for (place, connected) in [("bench-connect", 4), ("bench-read", 5)] {
        let args = ["bench", "--json", &url, "-c", "5", "-d", "60", "--warm-up", "0"];
        let mut command = program::command(dir.path(), &args);
        command.env("H3CAST_FAULT", format!("{place}=panic"));
        let ran = program::soon("the bench ends", command.output()).await.unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let error = format!("the viewer panicked: a test asks for a panic at `{place}`");
        assert_eq!(found["errors"], serde_json::json!({ error: 1 }));
        assert_eq!((&found["connected"], &found["chunks"]), (&connected.into(), &40.into()), "{found:#}");
        assert!(text(&ran.stderr).contains("panicked at"), "{}", text(&ran.stderr));
    }
}
