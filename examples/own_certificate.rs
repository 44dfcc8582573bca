//! A server with a certificate of your own, from a CA or self-signed. Clients that trust it
//! need no flag, and browsers move to HTTP/3 by themselves.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
//!     -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost
//! cargo run --example own_certificate cert.pem key.pem
//! curl --cacert cert.pem https://localhost:4433/
//! cargo run -- get --cacert cert.pem https://localhost:4433/
//! ```
//!
//! For a public name, give it the files of your ACME client (such as `fullchain.pem` and
//! `privkey.pem` of certbot) and `0.0.0.0:443`. Renewed files are read within a second.

use std::{env::args, error::Error};

use axum::{Router, routing::get};
use h3cast::{Identity, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (Some(certificate), Some(key)) = (args().nth(1), args().nth(2)) else {
        return Err("usage: own_certificate CERTIFICATE KEY [ADDRESS:PORT]".into());
    };
    let address = args().nth(3).unwrap_or_else(|| "localhost:4433".into());
    let identity = Identity::from_pem(certificate.as_ref(), key.as_ref())?;
    println!("certificate until {}", h3cast::identity::rfc3339(identity.current().not_after()));
    let app = Router::new().route("/", get(async || "hello over HTTP/3, 2 and 1.1\n"));
    let server = Server::builder(identity).listen(address.parse()?).http_service(app).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}
