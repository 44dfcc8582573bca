//! WebTransport: whatever a client sends on a stream comes back on it, and so do datagrams.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! serde_json = "1"
//! tokio = { version = "1", features = ["io-util", "macros", "rt-multi-thread"] }
//! ```
//!
//! ```sh
//! cargo run --example webtransport_echo
//! ```
//!
//! Then open `http://localhost:8080/` in any browser, and type.

use std::error::Error;

use axum::{Json, Router, response::Html, routing::get};
use h3cast::{Identity, PlainHttp, Server, webtransport::SessionRequest};
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// Accepts a session and serves it until it ends.
async fn echo(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    let streams = async {
        while let Ok((mut send, mut recv)) = session.accept_bi().await {
            // Every stream on its own: none waits for another.
            tokio::spawn(async move {
                tokio::io::copy(&mut recv, &mut send).await?;
                send.shutdown().await
            });
        }
    };
    let datagrams = async {
        while let Ok(datagram) = session.recv_datagram().await {
            let _ = session.send_datagram(datagram);
        }
    };
    tokio::join!(streams, datagrams);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "localhost:4433".into());
    let http = args.next().unwrap_or_else(|| "localhost:8080".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    // The page recognizes the server by the hash of its certificate, so no browser needs a flag.
    let session = json!({ "url": format!("https://{address}/echo"), "hash": identity.current().hash().base64() });
    let app =
        Router::new().route("/", get(async || Html(PAGE))).route("/session", get(async move || Json(session.clone())));
    let server = Server::builder(identity)
        .listen(address.parse()?)
        .plain_http(PlainHttp::Near(http.parse()?))
        .http_service(app)
        .webtransport("/echo", echo)
        .build()
        .await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or_default());
    Ok(server.run(Default::default()).await?)
}

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>echo</title><link rel="icon" href="data:,">
<form><input id="text" autofocus> <button>Send</button></form><pre id="log"></pre>
<script type="module">
const { url, hash } = await (await fetch("/session")).json();
const value = Uint8Array.from(atob(hash), (letter) => letter.charCodeAt(0));
const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  const { readable, writable } = await session.createBidirectionalStream();
  const writer = writable.getWriter();
  writer.write(new TextEncoder().encode(text.value));
  writer.close();
  log.append(await new Response(readable).text(), "\n");
};
</script>"#;
