//! Plain HTTP where there is TLS: it comes to the port of TLS, from a client that was given `http://` or no scheme at
//! all, or to a listener that sends everyone on to HTTPS.

use std::{convert::Infallible, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{control_frames::ControlFrames, settings, unread::Unread};
use crate::{
    admission::Refusal,
    reached::{Advertise, Via, base, base_of},
    response,
    service::{Context, overdue},
};

/// What certificate authorities ask for.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// How long such a connection may take from its request to its end, with what is read of the request's body.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a client begins as in HTTP, whose methods are words (and the preface of HTTP/2 begins with one).
/// TLS begins with the type of a record, 22. Takes nothing of what was sent.
pub(super) async fn is_spoken(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok(read > 0 && (first[0].is_ascii_alphabetic() || matches!(first[0], b'\r' | b'\n')))
}

/// Answers one request with the URL that it meant, and closes the connection.
pub(super) async fn answer(stream: TcpStream, via: Via, context: &Context, stop: &CancellationToken) {
    let answered = CancellationToken::new();
    let advertise = context.advertise.clone();
    let (answers, unread) = (answered.clone(), Unread::default());
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (request, _) = unread.lend(request, None);
        // A client that names no port means 80: that one is not of TLS.
        let used = request.uri().authority().map(http::uri::Authority::as_str).map(str::to_owned);
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let named =
            used.or(host).is_some_and(|host| host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()));
        let base = base(request.uri(), request.headers(), Via { tls: named, ..via }, advertise.as_deref());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let text = format!("this port speaks HTTPS: use {base}{path}");
        answers.cancel();
        std::future::ready(Ok::<_, Infallible>(response::problem(StatusCode::BAD_REQUEST, &text)))
    });
    let (limits, counters) = (context.limits(), context.admission.counters().clone());
    let remote = stream.peer_addr().map_or_else(|_| "?".into(), |remote| remote.to_string());
    let stream =
        ControlFrames::new(stream, limits.control_frames, move || counters.refused(Refusal::ControlFrames, &remote));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(settings::head_buffer(&limits))
        .keep_alive(false);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = answered.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let limit = async {
        answered.run_until_cancelled(overdue(stop, limits.head_timeout)).await;
        // A request may have come in the same moment.
        if answered.is_cancelled() {
            tokio::time::sleep(PATIENCE).await;
        }
    };
    let served = tokio::select! {
        biased;
        served = served => Ok(served),
        () = limit => Err(()),
    };
    match served {
        Ok(Ok(())) => debug!("plain HTTP was sent to the TLS port"),
        Ok(Err(error)) => debug!(%error, "plain HTTP was sent to the TLS port, and broke off"),
        Err(_) => debug!("plain HTTP was sent to the TLS port, and took too long"),
    }
}

/// Where a listener that sends everyone on to HTTPS sends a request; `None` if a certificate authority wants to know
/// whether the name of it leads here (RFC 8555 §8.3), which the service answers.
pub(super) fn redirect(head: &Parts, advertise: Option<&Advertise>) -> Option<Response<String>> {
    if head.uri.path().starts_with(CHALLENGES) {
        return None;
    }
    let is_named = head.uri.authority().is_some() || head.headers.contains_key(header::HOST);
    let base = base_of(&head.uri, &head.headers, &head.extensions).filter(|_| {
        // Otherwise it would be that of this machine.
        is_named || advertise.is_some_and(|at| at.host().is_some())
    });
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let location = base.and_then(|base| HeaderValue::try_from(format!("{base}{path}")).ok());
    let Some(location) = location else {
        let text = "the request names no host that it could be redirected to";
        return Some(response::problem(StatusCode::BAD_REQUEST, text));
    };
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}
