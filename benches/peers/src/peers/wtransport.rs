//! WebTransport by wtransport, as in its example server: a task for each session, and in it one
//! unidirectional stream of frames.
//!
//! Configured: keep-alive every 3 s, as in the example; TLS by ring and the socket by us.
//! `write_all` copies the bytes, but it is what the library offers without reaching through to
//! quinn.

use std::time::Duration;

use wtransport::{Endpoint, ServerConfig, endpoint::IncomingSession, tls::WEBTRANSPORT_ALPN};

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let config = ServerConfig::builder()
        .with_bind_socket(setup.udp()?)
        .with_custom_tls(setup.identity.server(WEBTRANSPORT_ALPN)?)
        .keep_alive_interval(Some(Duration::from_secs(3)))
        .build();
    let server = Endpoint::server(config)?;
    ready(server.local_addr()?)?;
    loop {
        let incoming = server.accept().await;
        // A viewer that goes away is no error of the server's.
        tokio::spawn(serve(incoming, setup.feed.clone()));
    }
}

async fn serve(incoming: IncomingSession, feed: Feed) -> anyhow::Result<()> {
    let session = incoming.await?.accept().await?;
    let mut stream = session.open_uni().await?.await?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.write_all(&frame).await?;
    }
    stream.finish().await?;
    // Without it the session would be cut off before the client has the end.
    session.closed().await;
    Ok(())
}
