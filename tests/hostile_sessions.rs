//! A thousand sessions, one after another: nothing stays of them.
#![cfg(feature = "cli")]

mod common;
#[path = "common/raw.rs"]
mod raw;

use common::{TestServer, soon};
use h3cast::{client::Connection, webtransport::SessionRequest};
use raw::*;

const SESSIONS: usize = 1000;

/// How many sessions each connection has, so that connections come and go too.
const SESSIONS_A_CONNECTION: usize = 20;

/// What the program may hold more after the thousand than after the first tenth of them, in bytes.
/// By then the allocator has what it uses again and again; keeping 1 KiB of each session, or 20 KiB
/// of each connection, would show.
const LEAK: u64 = 900 << 10;

/// Opens a session, hears something in it, and closes it.
async fn session(connection: &Connection, uri: &http::Uri) {
    let session = soon("a session", connection.webtransport(uri, Default::default(), &[])).await.unwrap();
    let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
    let mut first = [0];
    soon("a byte", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first)).await.unwrap();
    session.close(7, "enough");
    soon("the end", session.closed()).await;
}

#[tokio::test]
async fn memory_and_descriptors() {
    let program = Program::start();
    let viewer = Viewer::join(&program).await;
    let uri = format!("https://localhost:{}/stream", program.port).parse().unwrap();
    let before = (program.memory(), program.descriptors());
    let mut warm = before;
    for connections in 0..SESSIONS / SESSIONS_A_CONNECTION {
        let connection = program.connect().await;
        for _ in 0..SESSIONS_A_CONNECTION {
            session(&connection, &uri).await;
        }
        if connections == SESSIONS / SESSIONS_A_CONNECTION / 10 {
            warm = (program.memory(), program.descriptors());
        }
    }
    let after = (program.memory(), program.descriptors());
    println!("{SESSIONS} sessions: (bytes, descriptors) {before:?} before, {warm:?} warm, {after:?} after");
    assert!(after.0.saturating_sub(warm.0) < LEAK, "memory grew from {} to {}", warm.0, after.0);
    until("all descriptors are closed", || program.descriptors() <= before.1).await;
    viewer.leave().await;
    program.end();
}

#[tokio::test]
async fn tasks() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(|request: SessionRequest| async {
            let Ok(session) = request.accept().await else { return };
            let Ok(mut stream) = session.open_uni().await else { return };
            let _ = stream.write_bytes("x".into()).await;
            session.closed().await;
        })
    })
    .await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let uri = server.uri("/");
    // The server's own, and those of one connection.
    let one = server.connect().await;
    let with_one = metrics.num_alive_tasks();
    drop(one);
    for _ in 0..SESSIONS / SESSIONS_A_CONNECTION {
        let connection = server.connect().await;
        for _ in 0..SESSIONS_A_CONNECTION {
            session(&connection, &uri).await;
        }
    }
    until("all tasks have ended", || metrics.num_alive_tasks() < with_one).await;
}
