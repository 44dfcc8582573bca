//! A thousand sessions, one after another: no task of theirs stays.

use h3cast_transport::{client::Connection, webtransport::SessionRequest};

use crate::common::{TestServer, raw::until, soon};

const SESSIONS: usize = 1000;

/// How many sessions each connection has, so that connections come and go too.
const SESSIONS_A_CONNECTION: usize = 20;

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
