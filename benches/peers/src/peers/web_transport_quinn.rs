//! WebTransport by web-transport-quinn, as in the example of it that takes an endpoint
//! (`echo-server-advanced`): a task for each connection, and in it one unidirectional stream of
//! frames.
//!
//! Configured: 0-RTT is allowed, as in the example; it sets no transport settings, so they are
//! quinn's defaults.

use quinn::Incoming;
use web_transport_quinn::{ALPN, Request};

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let mut tls = setup.identity.server(ALPN.as_bytes())?;
    tls.max_early_data_size = u32::MAX;
    let endpoint = setup.endpoint(tls)?;
    ready(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        // A viewer that goes away is no error of the server's.
        tokio::spawn(serve(incoming, setup.feed.clone()));
    }
    Ok(())
}

async fn serve(incoming: Incoming, feed: Feed) -> anyhow::Result<()> {
    let session = Request::accept(incoming.await?).await?.ok().await?;
    let mut stream = session.open_uni().await?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.write_chunk(frame).await?;
    }
    stream.finish()?;
    // Without it the session would be cut off before the client has the end.
    session.closed().await;
    Ok(())
}
