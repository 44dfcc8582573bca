//! HTTP/3 by h3 and h3-quinn alone, as in the example server of h3: a task for each connection and
//! for each request, one `send_data` for each frame.
//!
//! Configured: 0-RTT is allowed, as in the example; it sets no transport settings, so they are
//! quinn's defaults.
//!
//! The code is that of `examples/plain`, but not shared with it: every peer here serves one feed or
//! file to all viewers, and an example that can be given a feed from outside would be longer and
//! harder to read. `compare` measures the example as it is, as a program of its own.

use bytes::Bytes;
use h3::server::RequestResolver;
use http::Response;
use quinn::Incoming;

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let mut tls = setup.identity.server(b"h3")?;
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
    let transport = h3_quinn::Connection::new(incoming.await?);
    let mut connection = h3::server::Connection::new(transport).await?;
    while let Some(resolver) = connection.accept().await? {
        tokio::spawn(respond(resolver, feed.clone()));
    }
    Ok(())
}

async fn respond(resolver: RequestResolver<h3_quinn::Connection, Bytes>, feed: Feed) -> anyhow::Result<()> {
    let (_request, mut stream) = resolver.resolve_request().await?;
    stream.send_response(Response::new(())).await?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.send_data(frame).await?;
    }
    Ok(stream.finish().await?)
}
