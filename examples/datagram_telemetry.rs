//! Telemetry in datagrams: a reading every 20 ms, where old ones are worthless. A lost datagram is
//! not sent again, and a late one does not delay the next.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! ```
//!
//! ```sh
//! cargo run --example datagram_telemetry
//! ```
//!
//! Then open `http://localhost:8080/` in any browser.

use std::{error::Error, time::Duration};

use axum::{Json, Router, response::Html, routing::get};
use h3cast::{Identity, PlainHttp, Server, webtransport::SessionRequest};
use serde_json::json;

/// Sends readings until the session ends. Each has a number, so that the client can count the lost.
async fn telemetry(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = session.closed() => return,
        }
        let celsius = 20.0 + (number as f64 / 50.0).sin();
        let reading = json!({ "number": number, "celsius": celsius }).to_string();
        // Never waits: when the connection is slow, the oldest datagrams make room. It fails when the
        // session has ended, or the client takes no datagrams.
        if session.send_datagram(reading.into()).is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "localhost:4433".into());
    let http = args.next().unwrap_or_else(|| "localhost:8080".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    // The page recognizes the server by the hash of its certificate, so no browser needs a flag.
    let session = json!({ "url": format!("https://{address}/telemetry"), "hash": identity.current().hash().base64() });
    let app =
        Router::new().route("/", get(async || Html(PAGE))).route("/session", get(async move || Json(session.clone())));
    let server = Server::builder(identity)
        .listen(address.parse()?)
        .plain_http(PlainHttp::Near(http.parse()?))
        .http_service(app)
        .webtransport("/telemetry", telemetry)
        .build()
        .await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or_default());
    Ok(server.run(Default::default()).await?)
}

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>telemetry</title><link rel="icon" href="data:,">
<h1 id="celsius"></h1><p>lost: <span id="lost">0</span> of <span id="count">0</span></p>
<script type="module">
const { url, hash } = await (await fetch("/session")).json();
const value = Uint8Array.from(atob(hash), (letter) => letter.charCodeAt(0));
const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
await session.ready;
let received = 0, first, newest = -1;
for await (const bytes of session.datagrams.readable) {
  const reading = JSON.parse(new TextDecoder().decode(bytes));
  received += 1;
  first ??= reading.number;
  if (reading.number < newest) continue;
  newest = reading.number;
  celsius.textContent = `${reading.celsius.toFixed(2)} °C`;
  count.textContent = newest - first + 1;
  lost.textContent = newest - first + 1 - received;
}
</script>"#;
