//! A tower service over HTTP/3, HTTP/2 and HTTP/1.1 on one port, with nothing but the transport: no feeds, no page,
//! no web framework.
//!
//! ```toml
//! [dependencies]
//! h3cast-transport = "0.1"
//! http = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! ```
//!
//! ```sh
//! cargo run -p h3cast-transport --example hello
//! cargo run -- get https://localhost:4433/ -v      # over HTTP/3
//! curl -k https://localhost:4433/                  # over HTTP/2
//! ```

use std::{convert::Infallible, error::Error};

use h3cast_transport::{Identity, Server};
use http::{Request, Response};
use tower::service_fn;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:4433".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let hello = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(Response::new(format!("hello over {:?}\n", request.version())))
    });
    let server = Server::builder(identity).listen(address.parse()?).http_service(hello).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}
