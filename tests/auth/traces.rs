//! No token is in any log, however it was sent, whatever becomes of the request, and whatever is logged.

use std::time::Duration;

use futures_util::stream;
use h3cast::{
    App,
    auth::Tokens,
    client::{Publication, Token, Trust, Viewer, viewer::Transport},
    feed::{Feed, Lag},
};
use http::{HeaderMap, Method};

use crate::{
    clients::{WAYS, Way, ask, headers},
    common::{TestServer, soon},
    log::{Log, kept},
    ways::{Broken, accept},
};

/// What is in every secret here.
const SECRET: &str = "geheim";
const GOOD: &str = "geheim-and-known-to-the-server";
const BAD: &str = "geheim-and-known-to-no-one";

/// Fails when the log has the secret, in letters or as their numbers. Gives how many lines it has at TRACE.
fn check(log: &Log) -> usize {
    let log = log.take();
    assert!(log.contains(" path=\"/stream/log\""), "no request is in it:\n{log}");
    let join = |by: &str, write: fn(u8) -> String| SECRET.bytes().map(write).collect::<Vec<_>>().join(by);
    let forms = [SECRET.to_owned(), join(", ", |byte| byte.to_string()), join("", |byte| format!("{byte:02x}"))];
    for line in log.lines() {
        assert!(!forms.iter().any(|form| line.contains(form)), "{line}");
    }
    log.lines().filter(|line| line.contains(" TRACE ")).count()
}

async fn panics() {
    // Without its lines in the output of the test.
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// Each way to send that token.
fn sent(token: &str) -> [(String, HeaderMap); 4] {
    let header = |name: &str, value: String| (String::new(), headers(&[(name, &value)]));
    [
        header("authorization", format!("Bearer {token}")),
        header("authorization", format!("Basic {token}")),
        header("cookie", format!("a=b; h3cast_token={token}")),
        (format!("token={token}"), HeaderMap::new()),
    ]
}

#[tokio::test]
async fn no_token_is_logged_at_any_level() {
    let (log, _logging) = kept("trace");
    let feed = Feed::writable("log", 1 << 20, Lag::Skip);
    feed.publisher().unwrap().publish("chunk\n".into()).await.unwrap();
    let tokens = Tokens::new().lines(&format!("read=* publish=* {GOOD}\n")).unwrap();
    let server = TestServer::start(|builder, identity| {
        let own = axum::Router::new().route("/panics", axum::routing::any(panics));
        let app = App::new([feed], identity).authorize(tokens).publish_token(Some("geheim-to-publish")).routes(own);
        app.install(builder.webtransport("/session", accept))
    })
    .await;
    let mut traced = 0;
    for way in WAYS {
        let requests: &[(Method, &str)] = match way {
            Way::Session => &[
                (Method::CONNECT, "/stream/log?from=start&"),
                (Method::CONNECT, "/stream/nope?"),
                (Method::CONNECT, "/stream/log?from=nonsense&"),
                (Method::CONNECT, "/session?"),
            ],
            _ => &[
                (Method::GET, "/stream/log?from=start&"),
                (Method::GET, "/stream/log?from=nonsense&"),
                (Method::POST, "/stream/log?"),
                (Method::GET, "/stream/nope?"),
                (Method::GET, "/info?"),
                (Method::GET, "/metrics?"),
                (Method::GET, "/panics?"),
                // Redirected, or not there.
                (Method::GET, "/stream/?"),
                (Method::GET, "//nope?"),
                (Method::DELETE, "/stream/log?"),
            ],
        };
        for (method, path) in requests {
            for token in [GOOD, if *method == Method::POST { "geheim-to-publish" } else { BAD }] {
                for (query, with) in sent(token) {
                    let answer = ask(&server, way, method.clone(), &format!("{path}{query}"), &with, "chunk\n").await;
                    let shown = format!("{:?} {}", answer.headers, answer.body);
                    assert!(!shown.contains(SECRET), "{way:?} {method} {path}: {shown}");
                }
            }
        }
        traced += check(&log);
    }
    let trust = || Trust::Files(vec![server.certificate()]);
    for token in [GOOD, BAD] {
        for query in [String::new(), format!("&token={token}")] {
            let token = query.is_empty().then(|| Token::fixed(token));
            let uri = server.uri(&format!("/stream/log?from=start{query}"));
            for transport in [Transport::Get, Transport::WebTransport] {
                let viewer = Viewer::new(&uri, trust()).unwrap().token_from(token.clone()).transport(transport);
                let mut viewer = viewer.retry_for(Duration::from_secs(1));
                // The first chunk, or why there is none.
                let seen = format!("{:?} {:?}", soon("an event", viewer.next()).await, viewer);
                assert!(!seen.contains(SECRET), "{seen}");
                viewer.close().await;
            }
            let uri = server.uri(&format!("/stream/log?{}", query.trim_start_matches('&')));
            let mut publication = Publication::new(uri, trust()).token_from(token.clone());
            let pieces = stream::iter([Ok("chunk\n".into())]);
            let ended = soon("the end", publication.run(pieces, drop)).await;
            let seen = format!("{ended:?} {}", ended.as_ref().map_or_else(ToString::to_string, |_| String::new()));
            assert!(!seen.contains(SECRET), "{seen}");
            let seen = format!("{publication:?}");
            assert!(!seen.contains(SECRET), "{seen}");
        }
        traced += check(&log);
    }
    assert!(traced > 1000, "{traced}: libraries log what they send");
}

/// A decider of the user's own that fails in whatever way.
#[tokio::test]
async fn no_token_is_logged_when_deciding_fails() {
    for broken in [Broken::Fails, Broken::Panics] {
        let (log, _logging) = kept("trace");
        let server = TestServer::start(|builder, identity| {
            let feed = Feed::writable("log", 1 << 20, Lag::Skip);
            App::new([feed], identity).authorize(broken).install(builder.webtransport("/session", accept))
        })
        .await;
        for way in WAYS {
            let method = if way == Way::Session { Method::CONNECT } else { Method::POST };
            for (query, with) in sent(GOOD) {
                ask(&server, way, method.clone(), &format!("/stream/log?{query}"), &with, "chunk\n").await;
            }
        }
        assert!(check(&log) > 100);
    }
}
