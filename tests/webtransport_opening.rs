//! How sessions are opened: by which path.

#![cfg(feature = "cli")]

mod common;
#[path = "common/sessions.rs"]
mod sessions;

use common::TestServer;
use h3cast::{client::ClientError, webtransport::SessionRequest};
use http::StatusCode;
use sessions::ask;

/// Opens every session, with what its path's wildcards stand for as the subprotocol.
async fn tell_params(request: SessionRequest) {
    let told: Vec<_> = request.params().map(|(name, value)| format!("{name}={value}")).collect();
    assert!(request.params().all(|(name, value)| request.param(name) == Some(value)));
    assert_eq!(request.param("other"), None);
    if let Ok(session) = request.protocol(&told.join(" ")).accept().await {
        session.closed().await;
    }
}

#[tokio::test]
async fn a_path_with_wildcards_finds_its_handler() {
    let server = TestServer::start(|builder, _| {
        builder
            .webtransport("/room/{name}", tell_params)
            .webtransport("/room/lobby", async |request: SessionRequest| request.reject(StatusCode::IM_A_TEAPOT))
            .webtransport("/files/{user}/{*rest}", tell_params)
    })
    .await;
    let connection = server.connect().await;
    for (path, told) in [
        ("/room/7", "name=7"),
        // The query is none of the path's.
        ("/room/7?name=8&/log", "name=7"),
        ("/%72oom/a%20b?%", "name=a b"),
        ("/files/me/a/b?c", "user=me rest=a/b"),
    ] {
        let session = ask(&connection, &server, path, &["other", told]).await.unwrap();
        assert_eq!(session.protocol(), Some(told), "{path}");
    }
    for (path, expected) in [("/room/lobby", 418), ("/room/", 404), ("/room/%FF", 400)] {
        match ask(&connection, &server, path, &[]).await {
            Err(ClientError::Refused { status, .. }) => assert_eq!(status, expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}
