//! Live feeds as one part of an axum app: under `/live` are the feeds, over every version of HTTP and WebTransport,
//! and the page that shows them.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```sh
//! cargo run --example app_under_prefix
//! ```
//!
//! Then open `http://localhost:8080/` in any browser, and follow the link.

use std::error::Error;
use std::time::Duration;

use axum::{Router, response::Html, routing::get};
use h3cast::{App, Identity, PlainHttp, Server, source::demo};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "localhost:4433".into());
    let http = args.next().unwrap_or_else(|| "localhost:8080".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;

    let live = App::new([demo::feed("default", 10, Duration::from_millis(100))], identity.clone());
    let app = Router::new().route("/", get(async || Html(PAGE))).nest("/live", live.router());
    // Layers around `app` decide about requests and sessions alike. Without this server, `axum::serve(listener, app)`
    // serves the same, but not over HTTP/3 or WebTransport.
    let server = Server::builder(identity)
        .listen(address.parse()?)
        .plain_http(PlainHttp::Near(http.parse()?))
        .http_service(app)
        .build()
        .await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or("(off)"));
    Ok(server.run(Default::default()).await?)
}

const PAGE: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><title>An app</title><link rel="icon" href="data:,">
<p><a href="live">What is live</a></p>
</html>"#;
