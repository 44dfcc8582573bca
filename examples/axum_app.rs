//! An axum app moved to h3cast: three lines instead of two add HTTP/3 and WebTransport. Handlers,
//! state, extractors and layers stay as they are.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```sh
//! cargo run --example axum_app
//! cargo run -- open chrome https://localhost:4433/hello/world
//! curl --cacert certs/cert.pem https://localhost:4433/visits      # HTTP/2, on the same port
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, Request, State};
use axum::http::Version;
use axum::middleware::{Next, from_fn};
use axum::{Json, Router, response::Response, routing::get};
use h3cast::{Identity, Server};

type Visits = Arc<AtomicU64>;

async fn hello(State(visits): State<Visits>, Path(name): Path<String>, version: Version) -> String {
    visits.fetch_add(1, Ordering::Relaxed);
    format!("hello {name} over {version:?}\n")
}

async fn count(State(visits): State<Visits>) -> Json<u64> {
    Json(visits.load(Ordering::Relaxed))
}

async fn name_the_server(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("server", "axum".parse().expect("it is a valid value"));
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:4433".into());
    let app = Router::new()
        .route("/hello/{name}", get(hello))
        .route("/visits", get(count))
        .layer(from_fn(name_the_server))
        .with_state(Visits::default());

    // Before:
    //     let listener = tokio::net::TcpListener::bind(address).await?;
    //     Ok(axum::serve(listener, app).await?)
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let server = Server::builder(identity).listen(address.parse()?).http_service(app).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}
