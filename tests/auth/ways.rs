//! Every route, by every way, with every kind of credentials: what one refuses, all refuse.

use axum::{
    Router,
    routing::{any, get},
};
use h3cast::{
    App,
    app::{self, StatusPage},
    auth::{Access, Authorize, Denied, Tokens},
    feed::{Feed, Lag},
    webtransport::SessionRequest,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};

use crate::{
    clients::{WAYS, Way, ask, headers},
    common::TestServer,
};

const READER: &str = "a-token-that-reads-log";
const WRITER: &str = "a-token-that-writes-log";
const OTHER: &str = "a-token-for-another-feed";
const ALL: &str = "a-token-that-may-do-everything";

/// What the client of a request has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    Nothing,
    Rubbish,
    Reader,
    Writer,
    Other,
    All,
}

const SHOWN: [Shows; 6] = [Shows::Nothing, Shows::Rubbish, Shows::Reader, Shows::Writer, Shows::Other, Shows::All];

impl Shows {
    fn token(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Rubbish => Some("a-token-that-nobody-knows"),
            Self::Reader => Some(READER),
            Self::Writer => Some(WRITER),
            Self::Other => Some(OTHER),
            Self::All => Some(ALL),
        }
    }

    pub(crate) fn headers(self) -> HeaderMap {
        let value = self.token().map(|token| format!("Bearer {token}"));
        value.map_or_else(HeaderMap::new, |value| headers(&[("authorization", &value)]))
    }
}

pub(crate) fn tokens() -> Tokens {
    let lines = format!(
        "read=log name=rita {READER}\npublish=log {WRITER}\nread=other publish=other {OTHER}\nread=* publish=* {ALL}\n"
    );
    Tokens::new().lines(&lines).unwrap()
}

pub(crate) async fn accept(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    let Ok(mut stream) = session.open_uni().await else { return };
    let _ = stream.write_bytes("own".into()).await;
    session.closed().await;
}

/// A server of the feeds `default`, `log` and `other`, with a route and a session handler of its user's own.
async fn serve(decider: impl Authorize) -> TestServer {
    let feeds = ["default", "log", "other"].map(|name| Feed::writable(name, 1 << 20, Lag::Skip));
    for feed in &feeds {
        feed.publisher().unwrap().publish("chunk\n".into()).await.unwrap();
    }
    TestServer::start(|builder, identity| {
        let own = Router::new().route("/own", get(async || "own"));
        let app = App::new(feeds, identity).authorize(decider).routes(own).status_page(StatusPage::Public);
        app.install(builder.webtransport("/session", accept))
    })
    .await
}

/// The status that is due, whatever the way. A route that is new here has none: decide.
fn due(path: &str, method: &Method, shows: Shows) -> u16 {
    let reads_log = matches!(shows, Shows::Reader | Shows::All);
    let writes_log = matches!(shows, Shows::Writer | Shows::All);
    let refused = match shows {
        Shows::Nothing | Shows::Rubbish => 401,
        _ => 403,
    };
    let or = |allowed: bool| if allowed { 200 } else { refused };
    match path {
        "/stream/log" if method == Method::POST || method == Method::PUT => or(writes_log),
        "/stream/log" | "/readyz/log" => or(reads_log),
        "/stream" => or(shows == Shows::All),
        "/stream/nope" if shows == Shows::All => 404,
        "/stream/nope" => refused,
        "/metrics" | "/status/data" => or(shows == Shows::All),
        // Listed is what may be read; a token that is not valid is always refused.
        "/info" | "/feeds" => {
            if shows == Shows::Rubbish {
                401
            } else {
                200
            }
        }
        // Public.
        "/healthz" | "/readyz" | "/" | "/fetch.html" | "/js/page/page.mjs" | "/status" | "/status/status.css" => 200,
        // Whoever may do anything.
        "/own" | "/session" => or(!matches!(shows, Shows::Nothing | Shows::Rubbish)),
        path => panic!("{path} is new: decide who may use it, and write it here and in docs/operations.md"),
    }
}

#[tokio::test]
async fn nothing_is_read_by_one_way_that_another_refuses() {
    let server = serve(tokens()).await;
    let mut paths: Vec<String> =
        app::paths().iter().map(|path| path.replace("{name}", "log").replace("{*file}", "status.css")).collect();
    assert!(paths.len() >= 7);
    paths.extend(["/stream/nope", "/own", "/session", "/", "/fetch.html", "/js/page/page.mjs"].map(String::from));
    let mut asked = 0;
    for path in &paths {
        let is_feed = path.starts_with("/stream");
        for way in WAYS {
            if (way == Way::Session) != (path == "/session") && !(way == Way::Session && is_feed) {
                continue;
            }
            let methods: &[Method] = match way {
                Way::Session => &[Method::CONNECT],
                _ if path == "/stream/log" => &[Method::GET, Method::HEAD, Method::POST, Method::PUT],
                _ => &[Method::GET, Method::HEAD],
            };
            for method in methods {
                for shows in SHOWN {
                    let mut due = due(path, method, shows);
                    let mut at = if is_feed { format!("{path}?from=start") } else { path.clone() };
                    if way == Way::Session && path == "/stream/log" && shows == Shows::Writer {
                        // It may publish in a session that views nothing.
                        at += "&limit=0";
                        due = 200;
                    }
                    let body = if method == Method::POST || method == Method::PUT { "chunk of it\n" } else { "" };
                    let answer = ask(&server, way, method.clone(), &at, &shows.headers(), body).await;
                    let what = format!("{way:?} {method} {at} {shows:?}");
                    assert_eq!(answer.status.as_u16(), due, "{what}: {}", answer.body);
                    let challenge = answer.header("www-authenticate");
                    assert_eq!(due == 401 || due == 403, challenge.starts_with("Bearer"), "{what}: {challenge}");
                    if due != 200 {
                        assert!(!answer.body.contains("chunk"), "{what}: {}", answer.body);
                    } else if is_feed && matches!(*method, Method::GET) {
                        assert!(answer.body.contains("chunk"), "{what}");
                    }
                    let names =
                        ["log", "other", "default"].map(|name| answer.body.contains(&format!("\"name\":\"{name}\"")));
                    match (path.as_str(), shows) {
                        ("/info" | "/feeds", _) if due == 200 && method == Method::GET => {
                            let reads = |one| shows == one || shows == Shows::All;
                            let listed = [reads(Shows::Reader), reads(Shows::Other), reads(Shows::All)];
                            assert_eq!(names, listed, "{what}: {}", answer.body);
                        }
                        _ => {}
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 500, "{asked}");
}

#[tokio::test]
async fn a_feed_that_is_not_there_answers_as_one_that_may_not_be_read() {
    let server = serve(tokens()).await;
    for way in WAYS {
        for shows in [Shows::Nothing, Shows::Other] {
            for method in [Method::GET, Method::POST] {
                let method = if way == Way::Session { Method::CONNECT } else { method };
                let of = async |name: &str| {
                    let path = format!("/stream/{name}");
                    let mut answer = ask(&server, way, method.clone(), &path, &shows.headers(), "").await;
                    for changing in ["date", "content-length"] {
                        answer.headers.remove(changing);
                    }
                    (answer.status, answer.headers, answer.body.replace(name, "NAME"))
                };
                assert_eq!(of("log").await, of("nope").await, "{way:?} {shows:?} {method}");
            }
        }
    }
    // And nothing that may not be read is named to one who mistypes.
    let answer = ask(&server, Way::Http2, Method::GET, "/stream/other?from=start", &Shows::All.headers(), "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let mistyped = ask(&server, Way::Http2, Method::GET, "/stream/nope", &Shows::All.headers(), "").await;
    assert!(mistyped.body.contains("log, other"), "{}", mistyped.body);
}

#[tokio::test]
async fn a_token_comes_by_three_ways_and_by_one_at_a_time() {
    let server = serve(tokens()).await;
    let query = format!("/stream/log?from=start&token={READER}");
    let header = headers(&[("authorization", &format!("Bearer {READER}"))]);
    let cookie = headers(&[("cookie", &format!("a=b; h3cast_token={READER}"))]);
    for way in WAYS {
        let method = if way == Way::Session { Method::CONNECT } else { Method::GET };
        for (path, headers) in [(&*query, HeaderMap::new()), ("/stream/log?from=start", header.clone())] {
            let answer = ask(&server, way, method.clone(), path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way:?} {path}");
        }
        // EventSource, which sends no more than its cookies.
        let mut events = cookie.clone();
        events.extend(headers(&[("accept", "text/event-stream")]));
        let answer = ask(&server, way, method.clone(), "/stream/log?from=start", &events, "").await;
        // The CONNECT of a session counts as writing, for which a cookie needs a page of this server.
        assert_eq!(answer.status, StatusCode::OK, "{way:?}");
        let mut two = header.clone();
        two.extend(cookie.clone());
        for (path, headers) in [(&*query, header.clone()), (&*query, cookie.clone()), ("/stream/log", two)] {
            let answer = ask(&server, way, method.clone(), path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{way:?} {path} {headers:?}");
            assert!(answer.header("www-authenticate").contains("invalid_request"), "{way:?}");
            assert!(!answer.body.contains(READER), "{}", answer.body);
        }
    }
    // A URL with a token is in no Referer.
    let answer = ask(&server, Way::Http2, Method::GET, &query, &HeaderMap::new(), "").await;
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
}

#[tokio::test]
async fn a_cookie_writes_for_pages_of_this_server_only() {
    let server = serve(tokens()).await;
    let own = format!("https://localhost:{}", server.port());
    let plain = format!("http://localhost:{}", server.http_port());
    for way in [Way::Plain, Way::Http1, Way::Http2, Way::Http3] {
        let own = if way == Way::Plain { &plain } else { &own };
        for (name, value, may) in [
            ("origin", own.as_str(), true),
            ("sec-fetch-site", "same-origin", true),
            // Allowed to read, as all pages of this machine are.
            ("origin", "http://localhost:1", false),
            ("sec-fetch-site", "same-site", false),
            ("x-nothing", "x", false),
        ] {
            let mut with = headers(&[("cookie", &format!("h3cast_token={ALL}")), (name, value)]);
            let answer = ask(&server, way, Method::POST, "/stream/log", &with, "chunk\n").await;
            assert_eq!(answer.status.as_u16(), if may { 200 } else { 403 }, "{way:?} {name} {value}: {}", answer.body);
            // Reading is up to CORS.
            let answer = ask(&server, way, Method::GET, "/stream/log?from=start", &with, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way:?} {name} {value}");
            with.remove("cookie");
            with.extend(Shows::All.headers());
            let answer = ask(&server, way, Method::POST, "/stream/log", &with, "chunk\n").await;
            assert_eq!(answer.status, StatusCode::OK, "{way:?} {name} {value}: what a page has to know itself");
        }
    }
}

/// Handlers of the server are asked where no route opens a session: at paths of which the app has other methods, too.
#[tokio::test]
async fn a_session_of_ones_own_needs_a_token_at_every_path() {
    let mut paths: Vec<String> =
        app::paths().iter().map(|path| path.replace("{name}", "log").replace("{*file}", "status.css")).collect();
    assert!(paths.len() >= 7);
    paths.extend(["/", "/own", "/nope", "/fetch.html"].map(String::from));
    let feeds = || ["default", "log"].map(|name| Feed::writable(name, 1 << 20, Lag::Skip));
    let own = || Router::new().route("/own", get(async || "own"));
    let fallback = TestServer::start(|builder, identity| {
        let app = App::new(feeds(), identity).authorize(tokens()).routes(own());
        app.install(builder.webtransport_fallback(accept))
    })
    .await;
    let at_the_page = TestServer::start(|builder, identity| {
        App::new(feeds(), identity).authorize(tokens()).install(builder.webtransport("/", accept))
    })
    .await;
    let asked = paths.iter().map(|path| (&fallback, path.as_str())).chain([(&at_the_page, "/")]);
    for (server, path) in asked {
        for shows in [Shows::Nothing, Shows::Rubbish] {
            let answer = ask(server, Way::Session, Method::CONNECT, path, &shows.headers(), "").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {shows:?}: {}", answer.body);
        }
        // Of anything else, as of a page's theme.
        let cookie = headers(&[("cookie", "a=b")]);
        let answer = ask(server, Way::Session, Method::CONNECT, path, &cookie, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} with a cookie: {}", answer.body);
        if path.starts_with("/stream") {
            continue;
        }
        let answer = ask(server, Way::Session, Method::CONNECT, path, &Shows::Reader.headers(), "").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "own"), "{path}");
    }
}

/// A proxy may ask for a password of its own, and a page can append anything to a URL.
#[tokio::test]
async fn a_cookie_stays_one_beside_other_credentials() {
    let server = serve(tokens()).await;
    let own = TestServer::start(|builder, identity| {
        App::new([Feed::writable("log", 1 << 20, Lag::Skip)], identity).authorize(BySession).install(builder)
    })
    .await;
    let cookie = format!("h3cast_token={ALL}");
    let foreign = ("origin", "http://localhost:1");
    let basic = ("authorization", "Basic dXNlcjpwYXNz");
    let with_basic = headers(&[("cookie", &cookie), foreign, basic]);
    let with_cookie = headers(&[("cookie", &cookie), foreign]);
    // Of someone else, and nothing that lets anyone in.
    let with_another = headers(&[("cookie", "theme=dark"), foreign]);
    for way in [Way::Http1, Way::Http2, Way::Http3] {
        for (server, path, headers, status) in [
            (&server, "/stream/log", &with_basic, 403),
            (&own, "/stream/log", &with_cookie, 403),
            (&own, "/stream/log", &with_basic, 403),
            (&own, "/stream/log?token=x", &with_cookie, 403),
            (&own, "/stream/log?token=x", &with_basic, 403),
            // A token that a page has to know.
            (&server, &format!("/stream/log?token={ALL}"), &with_another, 200),
        ] {
            let answer = ask(server, way, Method::POST, path, headers, "chunk of a foreign page\n").await;
            assert_eq!(answer.status.as_u16(), status, "{way:?} {path} {headers:?}: {}", answer.body);
        }
    }
}

/// Knows its users by a cookie, and looks at nothing else.
struct BySession;

impl Authorize for BySession {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        let all = || ["*".parse().unwrap()];
        Ok(match request.headers.contains_key("cookie") {
            true => Access::granted().read(all()).publish(all()),
            false => Access::anonymous(),
        })
    }
}

/// Browsers send no credentials with it (Fetch §4.8).
#[tokio::test]
async fn a_preflight_of_a_route_of_ones_own_needs_no_token() {
    let server = TestServer::start(|builder, identity| {
        let own = Router::new().route("/own", get(async || "own").post(async || "own"));
        // It answers OPTIONS as it answers everything.
        let own = own.route("/any", any(async || "own"));
        App::new([], identity).authorize(tokens()).routes(own).install(builder)
    })
    .await;
    let preflight = headers(&[
        ("origin", "http://localhost:1"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ]);
    for way in [Way::Plain, Way::Http1, Way::Http2, Way::Http3] {
        for path in ["/own", "/any"] {
            let answer = ask(&server, way, Method::OPTIONS, path, &preflight, "").await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{way:?} {path}: {}", answer.body);
            assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:1", "{way:?} {path}");
            assert!(answer.header("access-control-allow-methods").contains("POST"), "{way:?} {path}");
            assert_eq!(answer.header("access-control-allow-headers"), "authorization", "{way:?} {path}");
            let answer = ask(&server, way, Method::POST, path, &HeaderMap::new(), "").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{way:?} {path}");
        }
        // What is no preflight reaches no handler without a token.
        let answer = ask(&server, way, Method::OPTIONS, "/any", &HeaderMap::new(), "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{way:?}: {}", answer.body);
    }
}

/// Decides nothing, in two ways. One that hangs is tested beside `Decider`.
pub(crate) enum Broken {
    Fails,
    Panics,
}

impl Authorize for Broken {
    async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
        match self {
            Self::Fails => Err(Denied::unavailable("the directory does not answer")),
            Self::Panics => panic!("on purpose"),
        }
    }
}

#[tokio::test]
async fn a_decider_that_fails_lets_no_one_in() {
    for (broken, status) in [(Broken::Fails, 503), (Broken::Panics, 500)] {
        let server = serve(broken).await;
        for way in WAYS {
            let method = if way == Way::Session { Method::CONNECT } else { Method::GET };
            for path in ["/stream/log", "/stream/nope"] {
                let answer = ask(&server, way, method.clone(), path, &Shows::All.headers(), "").await;
                assert_eq!(answer.status.as_u16(), status, "{way:?} {path}");
            }
            if way != Way::Session {
                for path in ["/info", "/feeds", "/metrics", "/own"] {
                    let answer = ask(&server, way, Method::GET, path, &HeaderMap::new(), "").await;
                    assert_eq!(answer.status.as_u16(), status, "{way:?} {path}");
                }
                let answer = ask(&server, way, Method::GET, "/healthz", &HeaderMap::new(), "").await;
                assert_eq!(answer.status, StatusCode::OK, "{way:?}");
            }
        }
    }
}

/// Passes on who the client is.
#[tokio::test]
async fn a_route_of_ones_own_learns_who_asks() {
    let server = TestServer::start(|builder, identity| {
        let who = async |access: axum::Extension<Access>| access.who().unwrap_or("nobody").to_owned();
        let own = Router::new().route("/who", get(who));
        App::new([], identity).authorize(tokens()).routes(own).install(builder)
    })
    .await;
    for (shows, who) in [(Shows::Reader, "rita"), (Shows::All, "nobody")] {
        let answer = ask(&server, Way::Http3, Method::GET, "/who", &shows.headers(), "").await;
        assert_eq!(answer.body, who);
    }
}
