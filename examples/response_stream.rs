//! A response that streams: what each `yield`ed piece holds leaves the server at once, over any
//! version of HTTP.
//!
//! ```sh
//! cargo run --example response_stream
//! cargo run -- get https://localhost:4433/ -v
//! ```

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, response::Response, routing::get};
use futures_util::stream;
use h3cast::{Identity, Server};

async fn count() -> Response {
    // Nothing runs ahead of the client: the next piece is made when the last one is on its way.
    // When the client goes away, the stream is dropped.
    let pieces = stream::unfold(0, |number| async move {
        if number == 10 {
            return None;
        }
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((Ok::<_, Infallible>(format!("data chunk #{number}\n")), number + 1))
    });
    Response::new(Body::from_stream(pieces))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let server = Server::builder(identity)
        .listen(std::env::args().nth(1).unwrap_or_else(|| "localhost:4433".into()).parse()?)
        .http_service(Router::new().route("/", get(count)))
        .build()
        .await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    server.run(Default::default()).await?;
    Ok(())
}
