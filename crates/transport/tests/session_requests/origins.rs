//! Pages of other origins open no session unless they are let.

use axum::{Extension, Router, routing::any};
use h3cast_transport::{admission::Refusal, origin::Origins};
use http::StatusCode;

use crate::{layers::secret, peer::Peer};

fn app() -> Router {
    let open = Router::new().route("/open", any(secret)).layer(Extension(Origins::any()));
    Router::new().route("/route", any(secret)).merge(open)
}

#[tokio::test]
async fn pages_of_the_same_origin_only() {
    let mut counters = None;
    let peer = Peer::start(|server| {
        counters = Some(server.admission().clone());
        server.http_service(app()).webtransport("/handler", secret)
    })
    .await;
    let own = [
        format!("https://{}", peer.tls),
        format!("http://{}", peer.http),
        format!("http://{}", peer.http).replace("localhost", "127.0.0.1"),
    ];
    let foreign = ["https://evil.example", "https://localhost:1", "http://localhost:1", "https://localhost", "null"];
    for path in ["/handler", "/route"] {
        assert_eq!(peer.status(path, &[]).await, 200, "{path}: not a browser");
        for origin in &own {
            assert_eq!(peer.status(path, &[("origin", origin)]).await, 200, "{path} {origin}");
        }
        for origin in foreign {
            assert_eq!(peer.status(path, &[("origin", origin)]).await, 403, "{path} {origin}");
        }
    }
    assert_eq!(peer.status("/open", &[("origin", "https://evil.example")]).await, 200, "a rule of its own");
    assert_eq!(counters.unwrap().snapshot().refused(Refusal::Origin), 2 * foreign.len() as u64);
}

#[tokio::test]
async fn origins_that_are_named_may_too() {
    let one: Origins = ["https://app.example".parse().unwrap()].into_iter().collect();
    for (origins, other) in [(one, 403), (Origins::any(), 200)] {
        let server = |server: h3cast_transport::server::ServerBuilder| {
            server.http_service(app()).webtransport("/handler", secret).origins(origins)
        };
        let peer = Peer::start(server).await;
        for path in ["/handler", "/route"] {
            assert_eq!(peer.status(path, &[("origin", "https://app.example")]).await, 200, "{path}");
            assert_eq!(peer.status(path, &[("origin", "https://other.example")]).await, other, "{path}");
        }
    }
}

#[tokio::test]
async fn a_rule_of_the_service_holds_for_handlers_as_well() {
    let rule: Origins = ["https://app.example".parse().unwrap()].into_iter().collect();
    let service = Router::new().fallback(async || (StatusCode::NOT_FOUND, Extension(rule)));
    let other: Origins = ["https://other.example".parse().unwrap()].into_iter().collect();
    let peer = Peer::start(|server| server.origins(other).http_service(service).webtransport("/handler", secret)).await;
    for (origin, status) in [("https://app.example", 200), ("https://other.example", 403)] {
        assert_eq!(peer.status("/handler", &[("origin", origin)]).await, status, "{origin}");
    }
}
