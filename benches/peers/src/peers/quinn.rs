//! The floor: QUIC alone, without HTTP. Each connection gets one unidirectional stream of frames.
//!
//! Configured: nothing beyond the certificate and the socket. Transport settings are quinn's
//! defaults, as in its examples.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use quinn::{Endpoint, Incoming, crypto::rustls::QuicClientConfig};

use super::{Setup, ready};
use crate::{
    feed::{Count, Feed},
    tls,
};

const ALPN: &[u8] = b"h3cast-bare";

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let endpoint = setup.endpoint(setup.identity.server(ALPN)?)?;
    ready(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        // A viewer that goes away is no error of the server's.
        tokio::spawn(serve(incoming, setup.feed.clone()));
    }
    Ok(())
}

async fn serve(incoming: Incoming, feed: Feed) -> anyhow::Result<()> {
    let connection = incoming.await?;
    let mut stream = connection.open_uni().await?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.write_chunk(frame).await?;
    }
    stream.finish()?;
    // The client closes when it has all; dropping the connection now would cut off the rest.
    connection.closed().await;
    Ok(())
}

/// The client of the above: reads until the end or for that many bytes.
pub(crate) async fn view(server: SocketAddr, limit: u64) -> anyhow::Result<Count> {
    let any = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let mut endpoint = Endpoint::client(any.parse()?)?;
    let crypto = QuicClientConfig::try_from(tls::client(ALPN)?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connection = endpoint.connect(server, "localhost")?.await.context("cannot connect")?;
    let mut stream = connection.accept_uni().await?;
    let mut count = Count::default();
    while let Some(chunk) = stream.read_chunk(64 << 10, true).await? {
        count.push(&chunk.bytes);
        if count.bytes >= limit {
            break;
        }
    }
    connection.close(0_u8.into(), b"");
    endpoint.wait_idle().await;
    Ok(count)
}
