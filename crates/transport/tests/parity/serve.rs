//! The router of these tests for clients that are not Rust, right and wrong answers alike:
//! `cargo run -p h3cast-transport --example parity -- --listen localhost:0 --http localhost:0 --certs FOLDER`.

#[allow(dead_code, reason = "the tests use all of it")]
mod router;

use h3cast_transport::{Identity, PlainHttp, Server};
use tokio_util::sync::CancellationToken;

fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| *argument != format!("--{name}")).nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = |name| option(name).unwrap_or_else(|| "localhost:0".into()).parse();
    let certs = option("certs").unwrap_or_else(|| "certs".into());
    let identity = Identity::self_signed(certs.as_ref(), &[], Default::default())?;
    let server = Server::builder(identity).listen(address("listen")?).plain_http(PlainHttp::At(address("http")?));
    let server = server.http_service(router::router()).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or("(off)"));
    let stop = CancellationToken::new();
    let ctrl_c = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        ctrl_c.cancel();
    });
    Ok(server.run(stop).await?)
}
