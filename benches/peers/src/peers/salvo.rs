//! HTTP/3 by salvo with its `quinn` feature: a handler whose response is a stream of frames.
//!
//! Configured: nothing of salvo's. Its `QuinnListener` binds a socket itself, so the acceptor is
//! made from an endpoint of ours instead; the QUIC settings are the same, quinn's defaults.

use salvo::{
    Response, Router, Server,
    conn::quinn::QuinnAcceptor,
    handler,
    http::{StatusCode, StatusError},
};
use tokio_util::sync::CancellationToken;

use super::{Setup, ready};
use crate::feed::Feed;

struct Frames(Feed);

#[handler]
impl Frames {
    async fn handle(&self, response: &mut Response) -> Result<(), StatusError> {
        let frames = self.0.stream().await.map_err(|error| StatusError::internal_server_error().cause(error))?;
        response.status_code(StatusCode::OK);
        response.stream(frames);
        Ok(())
    }
}

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let endpoint = setup.endpoint(setup.identity.server(b"h3")?)?;
    let address = endpoint.local_addr()?;
    let acceptor = QuinnAcceptor::new(endpoint, address, CancellationToken::new());
    ready(address)?;
    let router = Router::with_path("{**path}").get(Frames(setup.feed));
    Server::new(acceptor).serve(router).await;
    Ok(())
}
