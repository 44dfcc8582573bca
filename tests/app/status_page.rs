//! The status page: who may see it, and what it is made of.

use axum::{Router, routing::get as route};
use h3cast::{
    App,
    app::{Page, StatusPage},
    auth::Tokens,
    feed::{Feed, Lag},
    server::ProxyProtocol,
};

use crate::{
    common::{TestServer, soon},
    plain::{get, raw},
};

const DIRECT: &str = "host: localhost\r\n";

fn app(identity: h3cast::Identity) -> App {
    App::new([Feed::writable("log", 1 << 20, Lag::Skip)], identity)
}

/// A server that shows the page so, and trusts these proxies.
async fn serve(to: StatusPage, trusted: Option<&str>) -> TestServer {
    TestServer::start(|builder, identity| {
        app(identity)
            .status_page(to)
            .install(builder)
            .trust_proxy(trusted.map(|list| list.parse().unwrap()).unwrap_or_default())
    })
    .await
}

const PATHS: [&str; 3] = ["/status", "/status/data", "/status/js/page/status.mjs"];

#[tokio::test]
async fn there_is_none_unless_it_is_turned_on() {
    let server = TestServer::start(|builder, identity| {
        let own = Router::new().route("/status", route(async || "one of the user's own"));
        app(identity).routes(own).install(builder)
    })
    .await;
    assert!(get(&server, "/status", DIRECT).await.1.ends_with("one of the user's own"));
    for path in ["/status/data", "/status/js/page/status.mjs", "/status.html"] {
        assert_eq!(get(&server, path, DIRECT).await.0, 404, "{path}");
    }
    assert!(!get(&server, "/info", DIRECT).await.1.contains("\"status\":"));
}

#[tokio::test]
async fn it_is_for_this_machine_and_not_for_clients_of_its_proxies() {
    let strict = serve(StatusPage::Loopback, None).await;
    let trusting = serve(StatusPage::Loopback, Some("loopback")).await;
    let of_another = serve(StatusPage::Loopback, Some("192.0.2.1")).await;
    let chained = serve(StatusPage::Loopback, Some("loopback,192.0.2.1")).await;
    let public = serve(StatusPage::Public, None).await;
    let forwarded = |client: &str| format!("{DIRECT}x-forwarded-for: {client}\r\n");
    for (server, fields, due) in [
        (&strict, DIRECT.to_owned(), 200),
        (&strict, forwarded("192.0.2.7"), 403),
        // Anyone can say so.
        (&strict, forwarded("127.0.0.1"), 403),
        (&strict, format!("{DIRECT}forwarded: for=127.0.0.1\r\n"), 403),
        (&strict, format!("{DIRECT}x-real-ip: 127.0.0.1\r\n"), 403),
        (&strict, format!("{DIRECT}via: 1.1 proxy\r\n"), 403),
        (&of_another, forwarded("127.0.0.1"), 403),
        // A client of the machine that has the trusted proxy before ours.
        (&chained, forwarded("127.0.0.1, 192.0.2.1"), 403),
        (&chained, format!("{DIRECT}forwarded: for=127.0.0.1, for=192.0.2.1\r\n"), 403),
        (&chained, forwarded("127.0.0.1, 127.0.0.1"), 200),
        (&chained, format!("{DIRECT}forwarded: for=127.0.0.1, for=\"[::1]\"\r\n"), 200),
        (&trusting, DIRECT.to_owned(), 200),
        (&trusting, forwarded("192.0.2.7"), 403),
        (&trusting, forwarded("127.0.0.1, 192.0.2.7"), 403),
        (&trusting, forwarded("127.0.0.1"), 200),
        // It names no client.
        (&trusting, format!("{DIRECT}x-forwarded-proto: https\r\n"), 403),
        (&trusting, format!("{DIRECT}via: 1.1 proxy\r\n"), 403),
        (&public, forwarded("192.0.2.7"), 200),
    ] {
        for path in PATHS {
            let (status, answer) = get(server, path, &fields).await;
            assert_eq!(status, due, "{path} {fields}: {answer}");
            if due == 403 {
                assert!(answer.contains("`status`: `public`") && answer.contains("ssh -L"), "{answer}");
                assert!(!answer.to_lowercase().contains("www-authenticate"), "no token would do: {answer}");
            }
        }
        let told = get(server, "/info", &fields).await.1.contains("\"status\":\"/status\"");
        assert_eq!(told, due == 200, "{fields}");
    }
}

#[tokio::test]
async fn nor_for_those_whom_a_proxy_announces() {
    let server = TestServer::start(|builder, identity| {
        let builder = app(identity).status_page(StatusPage::Loopback).install(builder);
        builder.trust_proxy("loopback,192.0.2.1".parse().unwrap()).proxy_protocol(ProxyProtocol::Plain)
    })
    .await;
    // A client of the machine that has the trusted proxy which is announced.
    let request = format!("GET /status HTTP/1.1\r\n{DIRECT}x-forwarded-for: 127.0.0.1\r\nconnection: close\r\n\r\n");
    assert_eq!(raw(&server, &format!("PROXY TCP4 192.0.2.1 192.0.2.1 1 443\r\n{request}")).await.0, 403);
    assert_eq!(raw(&server, &format!("PROXY TCP4 127.0.0.1 127.0.0.1 1 443\r\n{request}")).await.0, 200);
    for (header, due) in [
        ("PROXY TCP4 192.0.2.7 192.0.2.1 1 443", 403),
        ("PROXY UNKNOWN", 403),
        ("PROXY TCP4 127.0.0.1 127.0.0.1 1 443", 200),
    ] {
        for path in PATHS {
            let request = format!("{header}\r\nGET {path} HTTP/1.1\r\n{DIRECT}connection: close\r\n\r\n");
            assert_eq!(raw(&server, &request).await.0, due, "{header} {path}");
        }
    }
}

/// A page elsewhere that makes its own name point here, and a proxy that keeps its clients' and says nothing.
#[tokio::test]
async fn it_is_reached_by_a_name_of_this_machine() {
    let server = serve(StatusPage::Loopback, None).await;
    for path in PATHS {
        let (status, answer) = get(&server, path, "host: rebound.example\r\n").await;
        assert_eq!(status, 421, "{path}: {answer}");
    }
    let named = TestServer::start(|builder, identity| {
        let builder = app(identity).status_page(StatusPage::Loopback).install(builder);
        builder.advertise(Some("cast.example:443".parse().unwrap()))
    })
    .await;
    for path in PATHS {
        let (status, answer) = get(&named, path, "host: cast.example\r\n").await;
        assert_eq!(status, 403, "{path}: {answer}");
        assert_eq!(get(&named, path, DIRECT).await.0, 200, "{path}");
    }
}

/// The page and its files show nothing, so that it can ask for a token.
#[tokio::test]
async fn its_numbers_need_the_right_to_read_all_feeds() {
    for to in [StatusPage::Loopback, StatusPage::Public] {
        let server = TestServer::start(|builder, identity| {
            let lines = "read=log a-token-that-reads-log\nread=* a-token-that-reads-all\n";
            app(identity).authorize(Tokens::new().lines(lines).unwrap()).status_page(to).install(builder)
        })
        .await;
        let with = |token: &str| format!("{DIRECT}authorization: Bearer {token}\r\n");
        for (fields, due) in
            [(DIRECT.to_owned(), 401), (with("a-token-that-reads-log"), 403), (with("a-token-that-reads-all"), 200)]
        {
            let (status, answer) = get(&server, "/status/data", &fields).await;
            assert_eq!(status, due, "{answer}");
            assert_eq!(answer.contains("\"name\":\"log\""), due == 200, "{answer}");
            let told = get(&server, "/info", &fields).await.1.contains("\"status\":\"/status\"");
            assert_eq!(told, due == 200, "{fields}");
        }
        for path in ["/status", "/status/js/page/status.mjs"] {
            let (status, answer) = get(&server, path, DIRECT).await;
            assert_eq!(status, 200, "{answer}");
            assert!(!answer.contains("log\""), "{answer}");
        }
    }
}

#[tokio::test]
async fn it_comes_with_its_files_whatever_page_the_app_has() {
    for page in [Page::none(), Page::built_in()] {
        let server = TestServer::start(|builder, identity| {
            app(identity).page(page.clone()).status_page(StatusPage::Loopback).install(builder)
        })
        .await;
        let (status, answer) = get(&server, "/status", DIRECT).await;
        assert_eq!(status, 200, "{answer}");
        let policy =
            "content-security-policy: default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'";
        assert!(answer.contains(policy), "{answer}");
        assert!(answer.contains("frame-ancestors 'none'"), "{answer}");
        let links = answer.split("=\"status/").skip(1).filter_map(|link| link.split('"').next());
        for name in links {
            assert_eq!(get(&server, &format!("/status/{name}"), DIRECT).await.0, 200, "{name}");
        }
        // Nothing else is served from there.
        for name in ["index.html", "status.html", "js/page/home.mjs", "../info", "js/"] {
            assert_eq!(get(&server, &format!("/status/{name}"), DIRECT).await.0, 404, "{page:?} {name}");
        }
    }
}

#[tokio::test]
async fn numbers_are_of_now() {
    let server = serve(StatusPage::Loopback, None).await;
    let data = async || {
        let (_, answer) = get(&server, "/status/data", DIRECT).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    };
    let before = data().await;
    assert_eq!((&before["viewers"], &before["feeds"]["total"]), (&0.into(), &1.into()));
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(before["certificate"]["kind"], "made");
    assert_eq!(before["unready"], serde_json::json!([]));
    let connection = server.connect().await;
    let uri = server.uri("/stream/log");
    let session = connection.webtransport(&uri, http::HeaderMap::new(), &[]);
    let _session = soon("a session", session).await.unwrap();
    let after = data().await;
    assert_eq!((&after["viewers"], &after["connections"]["sessions"]), (&1.into(), &1.into()));
    assert_eq!(after["feeds"]["list"][0]["viewers"], 1);
    let by = |protocol: &str| {
        let transports = after["transports"].as_array().unwrap();
        let found = transports.iter().find(|one| one["protocol"] == protocol).unwrap();
        (found["open"].as_u64().unwrap(), found["viewers"].as_u64().unwrap())
    };
    assert_eq!((by("webtransport"), by("http3"), by("http2")), ((1, 1), (1, 0), (0, 0)));
    assert!(after["uptime_seconds"].as_f64() > before["uptime_seconds"].as_f64());
    // What was refused is among the refusals at once.
    assert_eq!(get(&server, "/status", &format!("{DIRECT}via: 1.1 proxy\r\n")).await.0, 403);
    assert_eq!(data().await["refused"][0]["count"], 1);
    let (status, answer) = get(&server, "/status/data?sort=size", DIRECT).await;
    assert!(status == 400 && answer.contains("viewers, rate"), "{answer}");
}
