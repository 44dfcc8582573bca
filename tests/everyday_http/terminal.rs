//! What a remote says reaches the terminal as text, never as a command to the terminal.

use axum::{
    Router,
    response::IntoResponse,
    routing::{any, get},
};
use h3cast::{
    feed::{End, Feed, FeedError, Lag},
    webtransport::SessionRequest,
};
use http::{HeaderValue, StatusCode, header};

use crate::{
    common::TestServer,
    program::{Program, Serving, output, text},
};

/// Clears the screen, sets the title, hides the line, and pretends to be a line of our own.
const NASTY: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}1mb\u{8}\r\nh3cast: all is well\u{202e}";

/// Fails unless a text is plain, and has no line that we did not write.
fn plain(told: &str, what: &str) {
    let hidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
    assert!(!told.contains(hidden), "{what}: {told:?}");
    assert!(told.contains("a\\u{1b}[2J"), "{what}: {told:?}");
    assert!(!told.lines().any(|line| line.starts_with("h3cast: all is well")), "{what}: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_what_a_server_says() {
    let dir = tempfile::tempdir().unwrap();
    let problem = async || {
        let body = serde_json::json!({ "detail": NASTY }).to_string();
        (StatusCode::GONE, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    };
    // A field's value has no C0 characters, and may have all others.
    let headers = async || {
        let value = HeaderValue::from_bytes("a\u{9b}2J\u{202e}".as_bytes()).unwrap();
        ([("x-nasty", value)], "hello\n").into_response()
    };
    let session = async |request: SessionRequest| {
        let session = request.accept().await.unwrap();
        let mut stream = session.open_uni().await.unwrap();
        stream.write_bytes("hello\n".into()).await.unwrap();
        stream.reset(1);
        session.close(1, NASTY);
        session.closed().await;
    };
    let router = Router::new().route("/problem", any(problem)).route("/headers", get(headers));
    let server = TestServer::start(|builder, _| builder.http_service(router).webtransport("/session", session)).await;
    let cert = server.certificate();
    let url = |path: &str| format!("{}{path}", server.base);
    for args in [
        &["get", &url("/problem")][..],
        &["get", "-v", "--resume", &url("/problem")],
        &["publish", &url("/problem")],
        &["get", "--webtransport", &url("/session")],
    ] {
        let got = output(dir.path(), &[args, &["--cacert", cert.to_str().unwrap()]].concat()).await;
        plain(&text(&got.stderr), &format!("{args:?}"));
        assert_eq!(got.status.code(), Some(1), "{args:?}");
    }
    let got = output(dir.path(), &["get", "-v", &url("/headers"), "--cacert", cert.to_str().unwrap()]).await;
    let told = text(&got.stderr);
    assert!(told.contains("< x-nasty: a\\u{9b}2J\\u{202e}"), "{told:?}");

    // Why a feed failed; what it carries stays as it is.
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    publisher.publish(NASTY.into()).await.unwrap();
    publisher.end(End::Failed(FeedError(NASTY.into())));
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    for way in [&[][..], &["--resume"], &["--webtransport"]] {
        let got = output(dir.path(), &[&["get", &url, "--cacert", cert.to_str().unwrap()], way].concat()).await;
        plain(&text(&got.stderr), "why a feed failed");
        assert_eq!(text(&got.stdout), NASTY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shows_what_a_command_says() {
    let dir = tempfile::tempdir().unwrap();
    let command = r"exec:printf 'a\033[2J\033]0;title\007b\b\rh3cast: all is well\n' >&2; exec sleep 1000";
    // In bytes, standard error goes to the log.
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "--chunk", "bytes", command];
    let mut serving = Program::start(dir.path(), &args);
    let line = serving.told("[2J").await;
    plain(&line, "the log");
    serving.signal("TERM");
    serving.end().await;
    // A linker's command line.
    let command = r"exec:printf 'begin %s end\n' $(seq 1000 3000 | tr -d '\n') >&2; exec sleep 1000";
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "--stderr", "log", command];
    let mut serving = Program::start(dir.path(), &args);
    let line = serving.told("begin 1000").await;
    assert!(line.contains("29993000 end") && line.contains("feed=\"default\""), "{line}");
    serving.signal("TERM");
    serving.end().await;
    // A name in one of its fields.
    std::fs::write(dir.path().join("a\u{1b}[2J"), "one\n").unwrap();
    let serving = Serving::start(dir.path(), 0, &["tail:a\u{1b}[2J", "--log", "debug"]).await;
    serving.program.signal("TERM");
    let (_, told, _) = serving.program.end().await;
    assert!(!told.contains('\u{1b}'), "{told:?}");
}
