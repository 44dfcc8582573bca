//! A thousand sessions, one after another: no task of theirs stays.

use h3cast_transport::webtransport::SessionRequest;

use crate::common::{TestServer, raw::until, sessions::visit};

const SESSIONS: usize = 1000;

/// How many sessions each connection has, so that connections come and go too.
const SESSIONS_A_CONNECTION: usize = 20;

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
            visit(&connection, &uri).await;
        }
    }
    until("all tasks have ended", || metrics.num_alive_tasks() < with_one).await;
}
