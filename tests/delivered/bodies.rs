//! The body of any response that fails, not only a feed's.

use std::io;

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::{future::join_all, stream};

use crate::{
    busy::Busy,
    common::TestServer,
    viewers::{Audience, Host, Over},
};

const RUNS: usize = 20;
/// More than an HTTP/2 client takes at once.
const PIECES: usize = 200;

/// Gives all that it has at once, and fails.
async fn fails() -> Body {
    let pieces = (0..PIECES).map(|number| Ok(Bytes::from(format!("{number:01000}"))));
    Body::from_stream(stream::iter(pieces.chain([Err(io::Error::other("by hand"))])))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_gave_before_arrives() {
    let router = Router::new().route("/fails", get(fails));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let (host, paths) = (Host::from(&server), vec!["/fails".to_owned(); RUNS]);
    let _busy = Busy::cores();
    let lost = join_all([Over::Http3, Over::Http2, Over::Http1].map(|over| {
        let (host, paths) = (&host, &paths);
        async move {
            let audience = Audience::gather(host, over, paths).await;
            audience
                .judge(|got| {
                    let whole = got.bytes.len() == PIECES * 1000 && got.cut.is_some();
                    (!whole).then(|| format!("{} bytes, {:?}", got.bytes.len(), got.cut))
                })
                .await
        }
    }))
    .await
    .concat();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}
