//! A response that is written over time: every chunk is sent at once, over any version of HTTP.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! ```
//!
//! ```sh
//! cargo run --example response_stream
//! cargo run -- open chrome https://localhost:4433/     # a window that shows the chunks as they arrive
//! cargo run -- get https://localhost:4433/ -v          # or a terminal
//! ```

use std::{error::Error, time::Duration};

use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::{Router, response::IntoResponse, routing::get};
use h3cast::{Identity, Server, body};

async fn count() -> impl IntoResponse {
    let (tx, body) = body::channel(1);
    tokio::spawn(async move {
        for number in 0..10 {
            // An error means that the client has left.
            tx.send(format!("data chunk #{number}\n")).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tx.finish();
        Ok::<_, body::ClientGone>(())
    });
    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
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
