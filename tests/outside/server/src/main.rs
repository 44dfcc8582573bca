//! The server alone: HTTP/3 over UDP, a certificate of its own, a plain tower service, no axum, nothing made here.
//!
//! Prints its URL and the hash of its certificate, and serves until standard input ends.

use std::convert::Infallible;

use bytes::Bytes;
use h3cast_transport::{Identity, Server, server::Body};
use http::{Request, Response};
use http_body_util::Full;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let identity = Identity::from_der(vec![own.cert.into()], own.signing_key.into())?;
    let hash = identity.current().hash().hex();
    let service = tower::service_fn(async |request: Request<Body>| {
        let text = format!("{:?} {}", request.version(), request.uri().path());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let server = Server::builder(identity).listen("localhost:0".parse()?).http_service(service).build().await?;
    println!("https://{}/hello {hash}", server.addresses().tls[0]);
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        ended = server.run(Default::default()) => ended?,
        _ = tokio::io::copy(&mut input, &mut nowhere) => {}
    }
    Ok(())
}
