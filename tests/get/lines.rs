//! Lines with times and names in front, and flags that stand for parts of the URL.

use std::path::Path;

use h3cast::feed::{End, Feed, Lag};

use crate::{
    common::TestServer,
    program::{Program, Serving, command, output, soon, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn several_feeds_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let feeds = ["a=exec:printf 'one\\ntwo'", "long=exec:echo three; exit 3"];
    let server = Serving::start(dir.path(), 0, &feeds).await;
    let urls = ["/stream/a?from=start", "/stream/long?from=start"].map(|path| server.url(path));
    for (forced, expected) in [
        ("", ["a    | one", "a    | two", "long | three"]),
        ("1", ["\x1b[33mlong |\x1b[0m three", "\x1b[36ma    |\x1b[0m one", "\x1b[36ma    |\x1b[0m two"]),
    ] {
        let mut command = command(dir.path(), &["get", &urls[0], &urls[1]]);
        command.env_remove("NO_COLOR").env("CLICOLOR_FORCE", forced);
        let got = soon("the end", command.output()).await.unwrap();
        let (out, told) = (text(&got.stdout), text(&got.stderr));
        let mut lines: Vec<_> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{told}");
        assert!(told.contains("h3cast: long: the feed failed: "), "{told}");
        assert!(told.ends_with("h3cast: 1 of 2 feeds failed: long\n"), "{told}");
        assert_eq!(got.status.code(), Some(1), "{told}");
    }
    // No colours for those who want none; what cannot be read does not keep the others.
    let missing = server.url("/stream/missing");
    let mut command = command(dir.path(), &["get", "--webtransport", &urls[0], &missing]);
    command.env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1");
    let got = soon("the end", command.output()).await.unwrap();
    assert_eq!(text(&got.stdout), "a       | one\na       | two\n");
    assert!(text(&got.stderr).contains("missing: the server answered 404"), "{}", text(&got.stderr));
    assert_eq!(got.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_the_last_chunks_and_formats() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["exec:printf 'one\\ntwo\\n'"]).await;
    let url = server.url("/stream");
    let get = async |args: &[&str]| {
        let got = output(dir.path(), &[&["get"], args].concat()).await;
        (text(&got.stdout), text(&got.stderr), got.status.code())
    };
    // The command has ended, and with it the feed.
    let (out, told, code) = get(&["--last", "1", "-o", "-", &url]).await;
    assert_eq!((out.as_str(), told.as_str(), code), ("two\n", "", Some(0)));
    let (out, told, code) = get(&["--timestamps", "--last", "2", "--resume", &url]).await;
    assert_eq!((told.as_str(), code), ("", Some(0)));
    let lines: Vec<_> = out.lines().map(|line| line.split_once("Z ").unwrap()).collect();
    assert_eq!(lines.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["one", "two"]);
    let year = |at: &str| at.len() == "2026-11-27T06:50:01.123".len() && at.starts_with("20") && at.contains('T');
    assert!(lines.iter().all(|(at, _)| year(at)), "{out}");
    let (out, _, code) = get(&["--format", "sse", "--last", "1", &url]).await;
    assert!(out.contains("data: two") && out.contains("event: end") && !out.contains("one"), "{out}");
    assert_eq!(code, Some(0));
    for (args, expected) in [
        (&["--last", "1", "https://localhost/stream?from=start"][..], "--last cannot be used with `from=` in the URL"),
        (
            &["--format", "raw", "https://localhost/stream?format=sse"],
            "--format cannot be used with `format=` in the URL",
        ),
        (&["--timestamps", "https://localhost/stream?format=sse"], "`format=sse` cannot be in the URL"),
        (&["--timestamps", "-o", "out"], "--output FILE takes one feed"),
        (&["--timestamps", "--format", "sse"], "cannot be used with"),
        (&["--format", "sse", "https://localhost/stream", "https://localhost/stream/b"], "--format takes one feed"),
    ] {
        let (_, told, code) = get(args).await;
        assert_eq!(code, Some(2), "{args:?}: {told}");
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}

/// Half a line from before a gap is not the beginning of what follows the gap.
#[tokio::test(flavor = "multi_thread")]
async fn lines_end_at_gaps() {
    let (feed, publisher) = Feed::live("default", 2000, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let dir = tempfile::tempdir().unwrap();
    let (url, cert) = (format!("{}/stream?from=1-7", server.base), server.certificate());
    publisher.publish("one\ntwo\n".into()).await.unwrap();
    let mut get = Program::start(dir.path(), &["get", "-t", "--cacert", cert.to_str().unwrap(), &url]);
    let mut seen = get.line().await;
    seen += &get.line().await;
    get.signal("STOP");
    for number in 0..2000 {
        publisher.publish(format!("{number:01023},").into()).await.unwrap();
    }
    publisher.end(End::Clean);
    get.signal("CONT");
    let (rest, told, code) = get.end().await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("chunks missing, starting at number"), "{told}");
    assert_eq!(seen.lines().map(|line| &line[line.len() - 5..]).collect::<Vec<_>>(), ["Z one", "Z two"]);
    // As many chunks as fit into a line, with nothing missing between them.
    for line in text(&rest).lines() {
        let (_, chunks) = line.split_once("Z ").unwrap();
        let number = |chunk: &[u8]| text(chunk).trim_end_matches(',').parse::<u32>().unwrap();
        let numbers: Vec<_> = chunks.as_bytes().chunks(1024).map(number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}: {told}");
    }
}

/// Whoever interrupts `get` has what came, and the server knows that its viewers have gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_ends_lines_and_viewers() {
    let dir = tempfile::tempdir().unwrap();
    let feeds = ["a=exec:printf 'one\ntwo'; sleep 600", "b=exec:sleep 600", "--chunk", "bytes"];
    let mut server = logging(dir.path(), &feeds).await;
    let urls = ["/stream/a?from=start", "/stream/b"].map(|path| server.url(path));
    for args in [&["get", &urls[0], &urls[1]][..], &["get", "-t", &urls[0]]] {
        let mut get = Program::start(dir.path(), args);
        let first = get.line().await;
        assert!(first.ends_with("one\n"), "{first}");
        get.signal("INT");
        let (rest, told, code) = get.end().await;
        assert!(text(&rest).ends_with("two\n"), "{rest:?}: {told}");
        assert_eq!((told.as_str(), code), ("h3cast: interrupted\n", Some(130)));
    }
    viewers_end(&mut server, 3).await;
}

/// The same where nobody reads any more, as behind `head`: of the feed that shows it, and of the silent one.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_ends_all_viewers() {
    let dir = tempfile::tempdir().unwrap();
    let feeds = ["a=exec:while echo one; do sleep 0.02; done", "b=exec:sleep 600"];
    let mut server = logging(dir.path(), &feeds).await;
    let urls = ["/stream/a", "/stream/b"].map(|path| server.url(path));
    let mut get = Program::start(dir.path(), &["get", &urls[0], &urls[1]]);
    assert_eq!(get.line().await, "a | one\n");
    assert_eq!(get.unread().await, (String::new(), Some(0)));
    viewers_end(&mut server, 2).await;
}

/// A server that prints its access log.
async fn logging(dir: &Path, args: &[&str]) -> Serving {
    let args = [&["serve", "--listen", "localhost:0", "--http", "off", "--access-log", "-"], args].concat();
    let mut program = Program::start(dir, &args);
    let ready = program.told("ready https://").await;
    let port = ready.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    Serving { program, port }
}

/// Waits until so many viewers have ended, which were not found out to be gone by their silence, after 30 s.
async fn viewers_end(server: &mut Serving, viewers: usize) {
    for _ in 0..viewers {
        let line = server.program.line().await;
        let seconds: f64 = line.rsplit("\" ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        assert!(seconds < 20.0, "{line}");
    }
}
