//! Taking over the stream of a request: after the head, the handler writes to the HTTP/3 stream itself.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["io-util", "macros", "rt-multi-thread", "time"] }
//! ```
//!
//! ```sh
//! cargo run --example takeover
//! cargo run -- open chrome https://localhost:4433/     # a window that shows the chunks as they arrive
//! cargo run -- get https://localhost:4433/ -v          # or a terminal
//! ```

use std::{error::Error, time::Duration};

use axum::http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::{Router, response::Response, routing::get};
use h3cast::{Identity, Server, TakenStream, Takeover};
use tokio::io::AsyncWriteExt;

/// Over HTTP/2 and HTTP/1.1 there is no such stream, and the client gets 505.
async fn count(takeover: Takeover) -> Response {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    head.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A layer that changes or reads bodies, such as `CompressionLayer`, would not see what is written here: under
    // one, the client gets 500 and the reason. `respond_or` takes a body for such layers.
    takeover.respond(head, |stream| async {
        // An error means that the client has left.
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
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:4433".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let app = Router::new().route("/", get(count));
    let server = Server::builder(identity).listen(address.parse()?).http_service(app).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}
