//! Answers of servers that mean no good, or are broken: none takes much memory, hangs, or reaches the terminal as it is.

use axum::{
    Router,
    body::{Body, Bytes},
    http::Request,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use h3cast::feed::{End, Feed, FeedError, Lag};
use tokio::io::AsyncBufReadExt;

use crate::{
    common::TestServer,
    program::{Program, command, output, soon, text},
};

/// A server that answers every request so, whatever it is for.
async fn answering(answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static) -> TestServer {
    let answer = move |request: Request<Body>| std::future::ready(answer(request.uri().path()));
    TestServer::start(|builder, _| builder.http_service(Router::new().fallback(answer))).await
}

/// A body without an end.
fn endless(piece: &'static str) -> Body {
    let piece = Bytes::from(piece.repeat(4096));
    Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))
}

/// The most memory that a process has had so far, in MiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// As many feeds as fit into the longest list, whose names are short.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_very_many_feeds() {
    const FEED: &str = r#"{"name":"","kind":"","state":"","viewers":0,"chunks":0}"#;
    let number = (16 << 20) / (FEED.len() + 1) - 1;
    let list = format!(r#"{{"feeds":[{FEED}{}]}}"#, format!(",{FEED}").repeat(number - 1));
    let served = Bytes::from(list.clone());
    let server = answering(move |_| served.clone().into_response()).await;
    let dir = tempfile::tempdir().unwrap();
    let cert = server.certificate();
    for (more, lines) in [(None, number + 1), (Some("--json"), 1)] {
        let mut args = vec!["feeds", "--cacert", cert.to_str().unwrap(), &server.base];
        args.extend(more);
        let mut program = Program::start(dir.path(), &args);
        // By then it has read and understood all of it, and it waits for whoever reads what it prints.
        assert!(!soon("something is printed", program.stdout.fill_buf()).await.unwrap().is_empty());
        let peak = peak(program.id());
        // The list twice, where its buffer grew, what the program takes without it, and the buffers of QUIC.
        assert!(peak < 110, "{more:?}: {peak} MiB");
        let (printed, told, code) = program.end().await;
        assert_eq!((printed.iter().filter(|byte| **byte == b'\n').count(), code), (lines, Some(0)), "{told}");
        assert!(more.is_none() || text(&printed).strip_suffix('\n') == Some(&*list));
    }
}

/// What makes no sense, or never ends.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense() {
    let deep = "[".repeat(1 << 20);
    let server = answering(move |path| {
        let problem = [("content-type", "application/problem+json")];
        let frames = [("content-type", "application/vnd.h3cast.frames")];
        match path.split('/').nth(1).unwrap_or_default() {
            "redirect" => (http::StatusCode::FOUND, [("location", "/redirect/stream")]).into_response(),
            "refused" => (http::StatusCode::NOT_FOUND, problem, endless(" \t\n")).into_response(),
            "deep" => format!(r#"{{"feeds":{deep}"#).into_response(),
            "types" => r#"{"feeds":[{"name":1}],"detail":[],"bytes":-1}"#.into_response(),
            // A frame of 2^61 bytes, of which there is no end.
            "frame" => (frames, endless("\0\u{1}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}")).into_response(),
            _ => endless("[[[[[[[[").into_response(),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let cert = server.certificate();
    let run = async |line: &str| {
        let line = line.replace("URL", &server.base);
        let args: Vec<_> = line.split(' ').chain(["--cacert", cert.to_str().unwrap()]).collect();
        let mut program = Program::of(command(dir.path(), &args));
        drop(program.stdin.take());
        let (_, told, code) = program.end().await;
        assert!(matches!(code, Some(1)), "{line}: {told}");
        assert!(told.starts_with("h3cast: ") && told.len() < 1000, "{line}: {told}");
        told
    };
    for (line, expected) in [
        ("feeds URL/redirect/", "302"),
        ("feeds URL/refused/", "404"),
        ("feeds URL/deep/", "is not the list of feeds"),
        ("feeds URL/deep/ --json", "is not the list of feeds"),
        ("feeds URL/types/", "is not the list of feeds"),
        ("feeds URL/endless/", "is not the list of feeds"),
        ("get URL/redirect/stream", "302"),
        ("get URL/refused/stream", "404"),
        ("get URL/frame/stream", "cut short after 0 bytes"),
        ("publish URL/redirect/stream", "302"),
        ("publish URL/refused/stream", "404"),
        ("publish URL/types/stream", "the server sent an invalid answer"),
        ("publish URL/endless/stream", "the answer is longer than 16384 bytes"),
        ("bench URL/redirect/stream -c 1 -d 1 --warm-up 0", "no viewer got the feed"),
        ("bench URL/frame/stream -c 1 -d 1 --warm-up 0", "no viewer got the feed"),
    ] {
        let told = run(line).await;
        assert!(told.contains(expected), "{line}: {told}");
    }
}

/// What a feed says of its failure looks like no line of the program's own, and moves no cursor.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_several_lines() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    publisher.publish("x\n".into()).await.unwrap();
    publisher.end(End::Failed(FeedError("one\nh3cast: two\r\u{1b}[2J\n\tthree\n\n".into())));
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    let other = format!("{url}&x");
    for more in [
        &[][..],
        &["--webtransport"],
        &["--resume"],
        &["--timestamps"],
        &["--format", "raw"],
        &["--format", "raw", "--webtransport"],
        &[&other],
    ] {
        let got = output(dir.path(), &[&["get", "--cacert", cert.to_str().unwrap(), &url], more].concat()).await;
        let told = text(&got.stderr);
        assert!(!told.contains(['\r', '\u{1b}']), "{more:?}: {told:?}");
        let indented = told.lines().skip(1).filter(|line| !line.is_empty()).all(|line| line.starts_with(' '));
        let own = told.lines().filter(|line| line.starts_with("h3cast: ")).count();
        let expected = if more == [&other] { 3 } else { 1 };
        assert!(told.starts_with("h3cast: ") && (indented || expected == 3), "{more:?}: {told}");
        assert!(own <= expected && !told.contains("\nh3cast: two"), "{more:?}: {told}");
    }
    let got = output(dir.path(), &["feeds", "--cacert", cert.to_str().unwrap(), &url]).await;
    let told = text(&got.stdout);
    assert!(told.ends_with("default: one\\nh3cast: two\\r\\u{1b}[2J\\n\tthree\\n\\n\n"), "{told}");
}
