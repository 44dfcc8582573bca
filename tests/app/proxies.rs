//! The app behind a proxy: under which names it answers over plain HTTP, which pages may publish, and what it tells
//! clients of its addresses.

use h3cast::{
    App,
    feed::{Feed, Lag},
    server::ProxyProtocol,
};

use crate::{
    common::TestServer,
    plain::{get, raw},
};

/// A server that trusts proxies of this machine, if it does, and has an address to tell clients, if it has.
async fn behind(trusted: Option<&str>, advertise: Option<&str>) -> TestServer {
    TestServer::start(|builder, identity| {
        let (feed, _publisher) = Feed::live("default", 1 << 20, Lag::Skip);
        let app =
            App::new([feed], identity).allow_origins(["https://named.example".parse().unwrap()].into_iter().collect());
        let builder = app.install(builder).advertise(advertise.map(|at| at.parse().unwrap()));
        builder.trust_proxy(trusted.map(|list| list.parse().unwrap()).unwrap_or_default())
    })
    .await
}

/// As Caddy forwards a request, and as nginx does by `docs/load-balancing`.
const CADDY: &str = "host: a.example\r\nvia: 1.1 Caddy\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-host: a.example\r\nx-forwarded-proto: https\r\n";
const NGINX: &str =
    "host: localhost:8080\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-host: a.example\r\nx-forwarded-proto: https\r\n";
/// As a page can that makes its own name point here.
const REBOUND: &str = "host: a.example\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-host: localhost\r\nx-forwarded-proto: https\r\nforwarded: for=192.0.2.7\r\n";

#[tokio::test]
async fn names_that_a_trusted_proxy_forwards() {
    let trusting = behind(Some("loopback"), None).await;
    for fields in [CADDY, NGINX] {
        let (status, answer) = get(&trusting, "/healthz", fields).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (status, answer) = get(&trusting, "/healthz", REBOUND).await;
    assert_eq!(status, 421, "{answer}");
    assert!(answer.contains("`Host: localhost` and the name in `X-Forwarded-Host`"), "{answer}");
    // A name that was given to the server needs no proxy.
    for (server, host) in [
        (&behind(None, Some("told.example:443")).await, "told.example"),
        (&behind(None, None).await, "named.example:8080"),
    ] {
        assert_eq!(get(server, "/healthz", &format!("host: {host}\r\n")).await.0, 200, "{host}");
    }
    for server in [behind(None, None).await, behind(Some("192.0.2.1"), None).await] {
        let (status, answer) = get(&server, "/healthz", CADDY).await;
        assert_eq!(status, 421, "{answer}");
        assert!(answer.contains("a.example") && answer.contains("the server must trust it (`trust-proxy`"), "{answer}");
        assert_eq!(get(&server, "/healthz", NGINX).await.0, 200);
    }
}

/// A browser sends no header of the PROXY protocol.
#[tokio::test]
async fn any_name_after_the_proxy_protocol() {
    let server = TestServer::start(|builder, identity| {
        let builder = App::new([], identity).install(builder).trust_proxy("loopback".parse().unwrap());
        builder.proxy_protocol(ProxyProtocol::Plain)
    })
    .await;
    let get = "GET /healthz HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    let (status, answer) = raw(&server, &format!("PROXY TCP4 192.0.2.7 192.0.2.1 1 443\r\n{get}")).await;
    assert_eq!(status, 200, "{answer}");
}

/// Its host and scheme are those that the proxy states.
#[tokio::test]
async fn pages_of_the_proxy_may_publish() {
    let trusting = behind(Some("loopback"), None).await;
    let published = async |server: &TestServer, fields: &str, origin: &str| {
        let request = format!("OPTIONS /stream HTTP/1.1\r\n{fields}origin: {origin}\r\nconnection: close\r\n\r\n");
        raw(server, &request).await.1.contains("access-control-allow-origin")
    };
    for fields in [CADDY, NGINX] {
        assert!(published(&trusting, fields, "https://a.example").await, "{fields}");
        assert!(!published(&trusting, fields, "https://evil.example").await, "{fields}");
        // Without a certificate, any page can be of that name.
        let plain = fields.replace("https", "http");
        assert!(!published(&trusting, &plain, "http://a.example").await, "{fields}");
    }
    assert!(!published(&behind(None, None).await, NGINX, "https://a.example").await);
}

#[tokio::test]
async fn what_clients_of_a_proxy_are_told() {
    let told = async |server: &TestServer, fields: &str| {
        let (_, answer) = get(server, "/info", fields).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let info: serde_json::Value = serde_json::from_str(body).unwrap();
        let alt_svc = head.lines().find_map(|line| line.strip_prefix("alt-svc: ").map(String::from));
        (
            info["feeds"][0]["url"].as_str().unwrap().to_owned(),
            info["webtransport"]["url"].as_str().map(String::from),
            alt_svc,
        )
    };
    let proxied = "https://a.example/stream".to_owned();
    let trusting = behind(Some("loopback"), None).await;
    // HTTP/3 at that address would be the proxy's own.
    for fields in [CADDY, NGINX] {
        assert_eq!(told(&trusting, fields).await, (proxied.clone(), None, None));
    }
    let direct = behind(Some("loopback"), Some(":4433")).await;
    let ours = "https://a.example:4433/stream".to_owned();
    let alt_svc = Some("h3=\":4433\"; ma=86400".to_owned());
    assert_eq!(told(&direct, NGINX).await, (ours.clone(), Some(ours), alt_svc));
    // Not believed.
    let server = behind(None, None).await;
    let local = format!("https://localhost:{}/stream", server.port());
    assert_eq!(told(&server, NGINX).await, (local.clone(), Some(local), None));
}
