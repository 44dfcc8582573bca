//! HTTP/1.1 by hyper over plain TCP, chunked: what a reverse proxy has behind it.
//!
//! Configured: TCP_NODELAY, without which the small chunks of a feed wait for acknowledgements.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Response;
use http_body_util::StreamBody;
use hyper::{
    body::{Body, Frame},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let listener = TcpListener::bind(setup.listen).await?;
    ready(listener.local_addr()?)?;
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let feed = setup.feed.clone();
        let service = service_fn(move |_request| respond(feed.clone()));
        // A viewer that goes away is no error of the server's.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
    }
}

async fn respond(feed: Feed) -> io::Result<Response<impl Body<Data = Bytes, Error = io::Error>>> {
    let frames = feed.stream().await?;
    Ok(Response::new(StreamBody::new(frames.map(|frame| frame.map(Frame::data)).boxed())))
}
