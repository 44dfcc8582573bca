//! Taking over the stream of a request: after the head, the handler writes what it wants, when it
//! wants, to the HTTP/3 stream itself.
//!
//! ```sh
//! cargo run --example takeover
//! cargo run -- get https://localhost:4433/ -v
//! ```

use std::time::Duration;

use axum::{Router, response::Response, routing::get};
use h3cast::{Identity, Server, TakenStream, Takeover};
use tokio::io::AsyncWriteExt;

/// Over HTTP/2 and HTTP/1.1 there is no such stream, and the client is told (505).
async fn count(takeover: Takeover) -> Response {
    let head = Response::builder().header("content-type", "text/plain; charset=utf-8").body(()).unwrap();
    takeover.respond(head, |stream| async {
        // An error means that the client has gone: there is nobody left to tell.
        let _ = write(stream).await;
    })
}

async fn write(mut stream: TakenStream) -> std::io::Result<()> {
    for number in 0..10 {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It is an ordinary `AsyncWrite`, and each write is sent at once.
        stream.write_all(format!("data chunk #{number}\n").as_bytes()).await?;
    }
    // Without this the client would see the response as cut short.
    stream.finish().await
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
