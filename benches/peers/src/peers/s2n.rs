//! HTTP/3 by h3 on s2n-quic, with the `s2n-quic-h3` of its authors, who do not publish it:
//! h3-util holds a copy. The rest is the same as for h3 on quinn.
//!
//! Configured: nothing beyond the certificate, rustls with ring instead of rustls with aws-lc, and
//! the socket. All limits are the defaults of s2n-quic.

use bytes::Bytes;
use h3::server::RequestResolver;
use h3_util::s2n::s2n_quic_h3;
use http::Response;
use s2n_quic::{
    Server,
    provider::{io, tls::rustls},
};

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let mut server = Server::builder()
        .with_tls(rustls::Server::from(setup.identity.server(b"h3")?))?
        .with_io(io::tokio::Builder::default().with_rx_socket(setup.udp()?)?.build()?)?
        .start()?;
    ready(server.local_addr()?)?;
    while let Some(connection) = server.accept().await {
        // A viewer that goes away is no error of the server's.
        tokio::spawn(serve(connection, setup.feed.clone()));
    }
    Ok(())
}

async fn serve(connection: s2n_quic::Connection, feed: Feed) -> anyhow::Result<()> {
    let transport = s2n_quic_h3::Connection::new(connection);
    let mut connection = h3::server::Connection::new(transport).await?;
    while let Some(resolver) = connection.accept().await? {
        tokio::spawn(respond(resolver, feed.clone()));
    }
    Ok(())
}

async fn respond(resolver: RequestResolver<s2n_quic_h3::Connection, Bytes>, feed: Feed) -> anyhow::Result<()> {
    let (_request, mut stream) = resolver.resolve_request().await?;
    stream.send_response(Response::new(())).await?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.send_data(frame).await?;
    }
    Ok(stream.finish().await?)
}
