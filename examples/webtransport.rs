//! A server of your own: an axum router answers requests, and a handler for each path serves
//! sessions. Together they use everything that a session can do.
//!
//! ```toml
//! [dependencies]
//! anyhow = "1"
//! axum = "0.8"
//! bytes = "1"
//! h3cast = { version = "0.1", default-features = false }
//! http = "1"
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal", "sync"] }
//! ```
//!
//! ```sh
//! cargo run --example webtransport     # --origin https://app.example allows pages of that origin
//! ```
//!
//! | session | what happens |
//! |---|---|
//! | `/echo` | every stream and datagram is echoed |
//! | `/push` | the server opens one stream of each kind; what arrives on the second is returned as datagrams |
//! | `/close?code=7&reason=bye` | the server closes the session |
//! | `/closed?id=x` | the client closes it; `GET /last?id=x` shows how |
//! | `/reset?code=7&id=x` | streams are broken off, by either side (see [`break_off`]) |
//! | `/broken?id=x` | streams that the client breaks off at once; `GET /last?id=x` has their codes |
//! | `/drain` | the server asks for an end, and keeps echoing |
//! | `/protocols` | the first subprotocol offered that the server knows is chosen |
//! | `/headers` | the answer has a header that the server sets |
//! | `/status/201` | the answer has another status that opens a session |
//! | `/lost` | the server closes the connection |
//! | any other `?status=403` | no session |

use std::collections::HashMap;

use axum::{
    Json, Router,
    extract::{Query, State},
    response::Html,
    routing::get,
};
use bytes::Bytes;
use h3cast::{
    Identity, PlainHttp, Server,
    identity::Fingerprint,
    webtransport::{Closed, RecvStream, SendStream, Session, SessionRequest, StreamError},
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What sessions have to tell, by the id that their client gave them.
type Reports = watch::Sender<HashMap<String, Value>>;

/// The value of `--NAME`, or what it is without.
fn option(name: &str, otherwise: &str) -> String {
    std::env::args().skip_while(|arg| *arg != format!("--{name}")).nth(1).unwrap_or_else(|| otherwise.into())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let identity = Identity::self_signed(option("certs", "certs").as_ref(), &[], Default::default())?;
    // What a page gives to `new WebTransport` as `serverCertificateHashes`.
    let hash = |hash: &Fingerprint| json!({ "algorithm": "sha-256", "value": hash.base64() });
    let hashes: Vec<_> = identity.hashes().iter().map(hash).collect();
    let reports = Reports::default();
    let (of_closed, of_reset, of_broken) = (reports.clone(), reports.clone(), reports.clone());

    let router = Router::new()
        .route("/", get(|| async { Html("<!doctype html><title>h3cast</title><link rel=icon href=data:,>") }))
        .route("/hashes", get(|| async { Json(hashes) }))
        .route("/last", get(last))
        .with_state(reports);
    let origins = option("origin", "").split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let server = Server::builder(identity)
        .origins(origins)
        .listen(option("listen", "localhost:4433").parse()?)
        .plain_http(PlainHttp::Near(option("http", "localhost:8080").parse()?))
        .http_service(router)
        .webtransport("/echo", echo)
        .webtransport("/push", |request| async { drop(push(request).await) })
        .webtransport("/close", close)
        .webtransport("/closed", move |request| closed(request, of_closed.clone()))
        .webtransport("/reset", move |request| reset(request, of_reset.clone()))
        .webtransport("/broken", move |request| broken(request, of_broken.clone()))
        .webtransport("/drain", drain)
        .webtransport("/protocols", protocols)
        .webtransport("/headers", headers)
        .webtransport("/status/{status}", status)
        .webtransport("/lost", lost)
        .webtransport_fallback(reject)
        .build()
        .await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or("(off)"));

    tokio::select! {
        ended = server.run(Default::default()) => ended?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(())
}

/// A parameter of the URI that the client asked for.
fn parameter<T: std::str::FromStr>(request: &SessionRequest, name: &str) -> Option<T> {
    let Query(mut query) = Query::<HashMap<String, String>>::try_from_uri(request.uri()).ok()?;
    query.remove(name)?.parse().ok()
}

/// Waits for what the session of `?id=` has to tell.
async fn last(State(reports): State<Reports>, Query(mut query): Query<HashMap<String, String>>) -> Json<Value> {
    let id = query.remove("id").unwrap_or_default();
    let mut told = reports.subscribe();
    let report = told.wait_for(|reports| reports.contains_key(&id)).await.expect("`reports` lives");
    Json(report[&id].clone())
}

fn tell(reports: &Reports, id: &str, report: Value) {
    reports.send_modify(|reports| drop(reports.insert(id.to_owned(), report)));
}

/// Pages of this server may open a session, and those of the origin that `--origin` names: others get 403.
async fn echo(request: SessionRequest) {
    // An error means that the client is gone.
    let Ok(session) = request.accept().await else { return };
    echo_everything(&session).await;
}

/// Until the session ends. Streams are echoed side by side, each by a task of its own.
async fn echo_everything(session: &Session) {
    let bidirectional = async {
        while let Ok((send, recv)) = session.accept_bi().await {
            tokio::spawn(copy(recv, send));
        }
    };
    let unidirectional = async {
        while let Ok(recv) = session.accept_uni().await {
            let Ok(send) = session.open_uni().await else { return };
            tokio::spawn(copy(recv, send));
        }
    };
    let datagrams = async {
        while let Ok(datagram) = session.recv_datagram().await {
            // One that does not fit is lost, as datagrams may be.
            let _ = session.send_datagram(datagram);
        }
    };
    tokio::join!(bidirectional, unidirectional, datagrams);
}

/// Everything from one stream to the other. A stream that is dropped before its end is broken off,
/// so that the peer never takes a part for the whole.
async fn copy(mut recv: RecvStream, mut send: SendStream) -> Result<(), StreamError> {
    while let Some(bytes) = recv.read_bytes(usize::MAX).await? {
        send.write_bytes(bytes).await?;
    }
    send.finish()
}

async fn push(request: SessionRequest) -> anyhow::Result<()> {
    let session = request.accept().await?;
    let mut uni = session.open_uni().await?;
    uni.write_bytes(Bytes::from_static(b"a stream of the server's")).await?;
    uni.finish()?;
    let (mut send, mut recv) = session.open_bi().await?;
    send.write_bytes(Bytes::from_static(b"one for both")).await?;
    send.finish()?;
    while let Some(bytes) = recv.read_bytes(session.max_datagram_size().unwrap_or(1000)).await? {
        session.send_datagram(bytes)?;
    }
    session.closed().await;
    Ok(())
}

async fn close(request: SessionRequest) {
    let code = parameter(&request, "code").unwrap_or(0);
    let reason: String = parameter(&request, "reason").unwrap_or_default();
    let Ok(session) = request.accept().await else { return };
    session.close(code, &reason);
}

async fn closed(request: SessionRequest, reports: Reports) {
    let id: String = parameter(&request, "id").unwrap_or_default();
    let Ok(session) = request.accept().await else { return };
    let report = match session.closed().await {
        Closed::Clean { code, reason, by_peer } => json!({ "code": code, "reason": reason, "byPeer": by_peer }),
        other => json!({ "lost": other.to_string() }),
    };
    tell(&reports, &id, report);
}

async fn reset(request: SessionRequest, reports: Reports) {
    let code = parameter(&request, "code").unwrap_or(0);
    let id: String = parameter(&request, "id").unwrap_or_default();
    let Ok(session) = request.accept().await else { return };
    while let Ok((send, recv)) = session.accept_bi().await {
        let report = break_off(&session, send, recv, code).await;
        tell(&reports, &id, report.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    }
}

/// The client's first bytes say what it wants, and come back as soon as it can have it:
///
/// * `reset` — the server's half is reset, once the client has written again: a reset may overtake
///   what was sent before it
/// * `cancel` — the client stops reading that half; the report has its code, or `null` when the
///   client ends its own half first
/// * `reset-uni`, `cancel-uni` — the same with a stream that the server opens
/// * `stop` — the client is asked to stop writing; `stop-uni` — it is on its next stream
/// * `abort` — the client resets its half; the report has its code
async fn break_off(session: &Session, mut send: SendStream, mut recv: RecvStream, code: u32) -> anyhow::Result<Value> {
    let word = recv.read_bytes(16).await?.unwrap_or_default();
    send.write_bytes(word.clone()).await?;
    let mut uni;
    let mut ours = &mut send;
    if let b"reset-uni" | b"cancel-uni" = &word[..] {
        uni = session.open_uni().await?;
        uni.write_bytes(word.clone()).await?;
        ours = &mut uni;
    }
    match &word[..] {
        b"reset" | b"reset-uni" => {
            recv.read_bytes(16).await?;
            ours.reset(code);
        }
        b"cancel" | b"cancel-uni" => tokio::select! {
            biased;
            stopped = ours.stopped() => return Ok(json!({ "stopped": stopped? })),
            _ = recv.read_bytes(16) => return Ok(json!({ "stopped": null })),
        },
        b"stop" => recv.stop(code),
        b"stop-uni" => session.accept_uni().await?.stop(code),
        b"abort" => match recv.read_bytes(16).await {
            Err(StreamError::Reset(code)) => return Ok(json!({ "reset": code })),
            other => anyhow::bail!("no reset, but {other:?}"),
        },
        other => anyhow::bail!("no such word: {other:?}"),
    }
    // What is dropped before its end is broken off with code 0, which was not asked for.
    while recv.read_bytes(16).await.is_ok_and(|bytes| bytes.is_some()) {}
    Ok(json!({ "ended": send.finish().is_ok() }))
}

/// Reports the codes of streams that are broken off, including those of which nothing else arrives.
async fn broken(request: SessionRequest, reports: Reports) {
    let id: String = parameter(&request, "id").unwrap_or_default();
    let Ok(session) = request.accept().await else { return };
    tell(&reports, &id, json!({ "uni": [], "bi": [] }));
    loop {
        let (kind, streams) = tokio::select! {
            recv = session.accept_uni() => ("uni", recv.map(|recv| (None, recv))),
            streams = session.accept_bi() => ("bi", streams.map(|(send, recv)| (Some(send), recv))),
        };
        let Ok((send, mut stream)) = streams else { return };
        let (reports, id) = (reports.clone(), id.clone());
        tokio::spawn(async move {
            // Dropped with the task: the client is to break off its half alone.
            let _send = send;
            while let Ok(Some(_)) = stream.read_bytes(usize::MAX).await {}
            if let Err(StreamError::Reset(code)) = stream.read_bytes(1).await {
                reports.send_modify(|reports| {
                    let codes = reports.get_mut(&id).and_then(|report| report[kind].as_array_mut());
                    codes.into_iter().for_each(|codes| codes.push(code.into()));
                });
            }
        });
    }
}

async fn drain(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    session.drain();
    echo_everything(&session).await;
}

async fn protocols(request: SessionRequest) {
    // The client offers the one that it prefers first.
    let chosen = request.protocols().into_iter().find(|offered| matches!(&**offered, "chat-v2" | "chat-v1"));
    // One that was not offered would not be sent.
    let Ok(session) = request.protocol(&chosen.unwrap_or_default()).accept().await else { return };
    echo_everything(&session).await;
}

async fn headers(request: SessionRequest) {
    let request = request.header(HeaderName::from_static("x-greeting"), HeaderValue::from_static("hello"));
    let Ok(session) = request.accept().await else { return };
    session.closed().await;
}

async fn status(request: SessionRequest) {
    let status = request.param("status").and_then(|status| status.parse().ok()).unwrap_or_default();
    let Ok(session) = request.status(status).accept().await else { return };
    echo_everything(&session).await;
}

async fn lost(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    // The page says when, so that it has seen its session open.
    let _ = session.recv_datagram().await;
    // H3_NO_ERROR.
    session.close_connection(0x100, "on purpose");
}

async fn reject(request: SessionRequest) {
    let status = parameter(&request, "status").unwrap_or(StatusCode::NOT_FOUND);
    request.reject(status);
}
