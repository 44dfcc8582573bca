//! The server that is attacked, in a process of its own: this binary, started again.

use std::{env, path::Path, process::Command, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use h3cast_transport::{Identity, Listen, Server, TakenStream, Takeover, webtransport::SessionRequest};
use http::Response;

use crate::common::process::Program;

/// Set in the process that serves.
const SERVES: &str = "SERVES_FOR_ATTACKS";

pub(crate) fn start() -> Program {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["server::serve", "--exact", "--ignored", "--nocapture"]).env(SERVES, "");
    Program::run(command)
}

/// A chunk each 20 ms.
fn chunk(number: usize) -> Bytes {
    format!("data chunk #{number}\n").into()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn write(mut stream: TakenStream) {
    for number in 0.. {
        if stream.write_bytes(chunk(number)).await.is_err() {
            return;
        }
        pause().await;
    }
}

async fn push(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    let Ok(mut stream) = session.open_uni().await else { return };
    for number in 0.. {
        if stream.write_bytes(chunk(number)).await.is_err() {
            return;
        }
        pause().await;
    }
}

/// Serves without end when [`start`] runs it, and does nothing otherwise.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is the server of the other tests"]
async fn serve() {
    if env::var_os(SERVES).is_none() {
        return;
    }
    let identity = Identity::self_signed(Path::new("certs"), &[], Default::default()).unwrap();
    let router = Router::new()
        .route("/stream", get(async |takeover: Takeover| takeover.respond(Response::new(()), write)))
        .route("/healthz", get(async || "ok"));
    let builder = Server::builder(identity).listen(Listen::localhost(0));
    let server = builder.http_service(router).webtransport("/stream", push).build().await.unwrap();
    println!("\nready https://{}/", server.addresses().tls[0]);
    server.run(Default::default()).await.unwrap();
}
