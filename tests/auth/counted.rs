//! Refusals are counted by their reason, whichever way a client comes by.

use h3cast::{
    App,
    admission::{Counters, Refusal},
    auth::{Access, Authorize, Denied},
    feed::{Feed, Lag},
};
use http::{HeaderMap, Method, request::Parts};

use crate::{
    clients::{Answer, WAYS, Way, ask, headers},
    common::{TestServer, soon},
    ways::{Shows, tokens},
};

/// What may be counted here.
const REASONS: [Refusal; 5] =
    [Refusal::Unauthorized, Refusal::Forbidden, Refusal::Origin, Refusal::Undecided, Refusal::Misdirected];

struct Counted {
    server: TestServer,
    counters: Counters,
}

impl Counted {
    /// A server of the feed `log`, and of a session at `/session`.
    async fn start(decider: impl Authorize) -> Self {
        let feed = Feed::writable("log", 1 << 20, Lag::Skip);
        feed.publisher().unwrap().publish("chunk\n".into()).await.unwrap();
        let mut counters = None;
        let server = TestServer::start(|builder, identity| {
            counters = Some(builder.admission().clone());
            let own = axum::Router::new().route("/own", axum::routing::get(async || "own"));
            let app = App::new([feed], identity).authorize(decider).routes(own);
            app.install(builder.webtransport("/session", crate::ways::accept))
        })
        .await;
        Self { server, counters: counters.unwrap() }
    }

    fn now(&self) -> [u64; REASONS.len()] {
        let now = self.counters.snapshot();
        REASONS.map(|reason| now.refused(reason))
    }

    /// Asks, and checks the status and what was counted.
    async fn check(&self, way: Way, method: Method, path: &str, with: &HeaderMap, due: (u16, Option<Refusal>)) {
        let before = self.now();
        let answer: Answer = ask(&self.server, way, method.clone(), path, with, "").await;
        let what = format!("{way:?} {method} {path} {with:?}: {}", answer.body);
        assert_eq!(answer.status.as_u16(), due.0, "{what}");
        let after = self.now();
        for (at, reason) in REASONS.iter().enumerate() {
            assert_eq!(after[at] - before[at], u64::from(due.1 == Some(*reason)), "{what}: {}", reason.as_str());
        }
    }
}

#[tokio::test]
async fn every_refusal_counts_once_by_its_reason() {
    let counted = Counted::start(tokens()).await;
    let foreign = |shows: Shows| {
        let mut with = shows.headers();
        with.extend(headers(&[("origin", "https://evil.example")]));
        with
    };
    for way in WAYS {
        let (read, write) = match way {
            Way::Session => (Method::CONNECT, Method::CONNECT),
            _ => (Method::GET, Method::POST),
        };
        let check = async |method: &Method, path: &str, with: HeaderMap, status: u16, reason: Option<Refusal>| {
            counted.check(way, method.clone(), path, &with, (status, reason)).await;
        };
        let none = HeaderMap::new;
        check(&read, "/stream/log?from=start", Shows::Reader.headers(), 200, None).await;
        check(&read, "/stream/log", none(), 401, Some(Refusal::Unauthorized)).await;
        check(&read, "/stream/log", Shows::Rubbish.headers(), 401, Some(Refusal::Unauthorized)).await;
        check(&read, "/stream/log", Shows::Other.headers(), 403, Some(Refusal::Forbidden)).await;
        check(&write, "/stream/log?limit=0", foreign(Shows::All), 403, Some(Refusal::Origin)).await;
        if way == Way::Session {
            check(&read, "/session", none(), 401, Some(Refusal::Unauthorized)).await;
            // It may only write, and would view.
            check(&read, "/stream/log", Shows::Writer.headers(), 403, Some(Refusal::Forbidden)).await;
            continue;
        }
        check(&write, "/stream/log", none(), 401, Some(Refusal::Unauthorized)).await;
        check(&write, "/stream/log", Shows::Reader.headers(), 403, Some(Refusal::Forbidden)).await;
        check(&read, "/metrics", none(), 401, Some(Refusal::Unauthorized)).await;
        check(&read, "/metrics", Shows::Reader.headers(), 403, Some(Refusal::Forbidden)).await;
        check(&read, "/own", none(), 401, Some(Refusal::Unauthorized)).await;
        check(&Method::HEAD, "/stream/log", none(), 401, Some(Refusal::Unauthorized)).await;
        check(&read, "/healthz", none(), 200, None).await;
        if way == Way::Plain {
            let named = headers(&[("host", "evil.example")]);
            check(&read, "/healthz", named, 421, Some(Refusal::Misdirected)).await;
        }
    }
    let shown = ask(&counted.server, Way::Http2, Method::GET, "/metrics", &Shows::All.headers(), "").await.body;
    for (reason, count) in REASONS.iter().zip(counted.now()) {
        let line = format!("h3cast_refused_total{{reason=\"{}\"}} {count}", reason.as_str());
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
}

/// Each stream that a client opens in its session is a publication.
#[tokio::test]
async fn a_publication_in_a_session_counts_as_one_by_request() {
    let counted = Counted::start(tokens()).await;
    let connection = counted.server.connect().await;
    let uri = counted.server.uri("/stream/log");
    let session = connection.webtransport(&uri, Shows::Reader.headers(), &[]);
    let session = soon("a session", session).await.unwrap();
    let (mut send, mut receive) = soon("a stream", session.open_bi()).await.unwrap();
    let _ = send.write_bytes("not allowed\n".into()).await;
    let answer = soon("the answer", receive.read_bytes(1 << 16)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"status\":403"), "{answer:?}");
    assert_eq!(counted.now(), [0, 1, 0, 0, 0]);
}

struct Unreachable;

impl Authorize for Unreachable {
    async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
        Err(Denied::unavailable("the directory does not answer"))
    }
}

#[tokio::test]
async fn what_cannot_be_decided_counts() {
    let counted = Counted::start(Unreachable).await;
    for way in WAYS {
        let method = if way == Way::Session { Method::CONNECT } else { Method::GET };
        let due = (503, Some(Refusal::Undecided));
        counted.check(way, method, "/stream/log", &Shows::All.headers(), due).await;
    }
}
