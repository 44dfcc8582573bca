//! Bodies both ways: `http_body::Body` and `Stream`, trailers, lengths, and what happens to a request that is
//! given up.

use std::{convert::Infallible, error::Error, sync::Arc};

use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use h3cast_transport::client::{Body, ClientError};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::mpsc;

use crate::servers::{Ours, Plain, Stream, soon};

fn trailers(value: &'static str) -> HeaderMap {
    [(header::HeaderName::from_static("x-sum"), HeaderValue::from_static(value))].into_iter().collect()
}

/// Answers with five bytes in two pieces, and trailers.
async fn five(_: Request<()>, mut stream: Stream) {
    let head = Response::builder().header(header::CONTENT_LENGTH, 5).body(()).unwrap();
    stream.send_response(head).await.unwrap();
    stream.send_data("he".into()).await.unwrap();
    stream.send_data("llo".into()).await.unwrap();
    stream.send_trailers(trailers("7")).await.unwrap();
    stream.finish().await.unwrap();
}

/// Sends back what it receives, as it receives it, with the length that the head says and the trailers.
async fn echo(request: Request<axum::body::Body>) -> Response<axum::body::Body> {
    let length = request.headers().get(header::CONTENT_LENGTH).cloned();
    let mut response = Response::new(request.into_body());
    response.headers_mut().insert("x-length", length.unwrap_or(HeaderValue::from_static("none")));
    response
}

#[tokio::test]
async fn a_response_is_an_http_body_and_a_stream() {
    let server = Plain::start(five);
    let connection = server.connect().await;
    let get = async || -> Body { soon("the head", connection.get(&server.uri("/"))).await.unwrap().body };

    let body = get().await;
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
    let collected = soon("the body", body.collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers("7")));
    assert_eq!(collected.to_bytes(), "hello");

    let mut body = get().await;
    let first = soon("data", body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(body.size_hint().exact(), Some(5 - first.len() as u64));
    let mut last = soon("a frame", body.frame()).await.unwrap().unwrap();
    while last.is_data() {
        last = soon("a frame", body.frame()).await.unwrap().unwrap();
    }
    assert_eq!(last.into_trailers().unwrap(), trailers("7"));
    assert!(body.is_end_stream() && body.frame().await.is_none());

    let pieces: Vec<Bytes> = soon("the stream", get().await.try_collect()).await.unwrap();
    assert_eq!(pieces.concat(), b"hello");

    // Piece by piece, the trailers stay until they are asked for.
    let mut body = get().await;
    while soon("a piece", body.next()).await.unwrap().is_some() {}
    assert_eq!(soon("the trailers", body.trailers()).await.unwrap(), Some(trailers("7")));
    assert_eq!(soon("no others", body.trailers()).await.unwrap(), None);
    assert!(body.is_end_stream());
}

/// What a task of the server is told of its request's end.
type Told = mpsc::UnboundedSender<Option<u64>>;

/// Sends a head and a byte, and reports the code with which the client stops it.
async fn endless(told: Told, mut stream: Stream) {
    stream.send_response(Response::new(())).await.unwrap();
    loop {
        if let Err(error) = stream.send_data(Bytes::from_static(&[0; 1024])).await {
            let code = match error {
                h3::error::StreamError::RemoteTerminate { code, .. } => Some(code.value()),
                _ => None,
            };
            return told.send(code).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_body_cancels_its_request() {
    let (told, mut codes) = mpsc::unbounded_channel();
    let server = Plain::start(move |_, stream| endless(told.clone(), stream));
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    assert!(soon("data", response.body.next()).await.unwrap().is_some());
    drop(response);
    // RFC 9114 §4.1.1: H3_REQUEST_CANCELLED.
    assert_eq!(soon("the code", codes.recv()).await, Some(Some(0x10c)));
    // The connection goes on.
    soon("the head", connection.get(&server.uri("/"))).await.unwrap();
}

/// Answers with five bytes and says another number.
async fn liar(request: Request<()>, mut stream: Stream) {
    let length = request.uri().path().trim_start_matches('/').to_owned();
    let head = Response::builder().header(header::CONTENT_LENGTH, length).body(()).unwrap();
    stream.send_response(head).await.unwrap();
    let _ = stream.send_data("hello".into()).await;
    let _ = stream.finish().await;
}

#[tokio::test]
async fn a_body_of_another_length_is_an_error_however_it_is_read() {
    let server = Plain::start(liar);
    let connection = server.connect().await;
    for (path, length) in [("/4", 4), ("/9", 9)] {
        let get = async || -> Body { soon("the head", connection.get(&server.uri(path))).await.unwrap().body };
        let is_length =
            |error: &ClientError| matches!(error, ClientError::Length { length: said, .. } if *said == length);
        let error = soon("the error", get().await.collect()).await.unwrap_err();
        assert!(is_length(&error), "{path}: {error}");
        let mut pieces: Vec<_> = soon("the stream", futures_util::StreamExt::collect(get().await)).await;
        let last: Result<Bytes, _> = pieces.pop().unwrap();
        assert!(is_length(&last.unwrap_err()) && pieces.iter().all(Result::is_ok), "{path}");
        let mut body = get().await;
        let error = soon("the error", body.trailers()).await.unwrap_err();
        let again = soon("the error again", body.next()).await.unwrap_err();
        assert!(is_length(&error) && is_length(&again), "{path}: {error}, {again}");
    }
}

#[tokio::test]
async fn any_body_can_be_sent() {
    let server = Ours::start(Router::new().route("/", any(echo))).await;
    let connection = server.connect().await;
    let post = |method| Request::builder().method(method).uri(server.uri("/"));

    let request = post(Method::POST).body(Full::<Bytes>::from("hello")).unwrap();
    let response = soon("the head", connection.send(request)).await.unwrap();
    assert_eq!(response.headers["x-length"], "5");
    assert_eq!(soon("the echo", response.body.collect()).await.unwrap().to_bytes(), "hello");

    for (method, length) in [(Method::POST, "0"), (Method::GET, "none")] {
        let response =
            soon("the head", connection.send(post(method).body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
        assert_eq!(response.headers["x-length"], length);
        assert_eq!(soon("the echo", response.body.collect()).await.unwrap().to_bytes(), "");
    }

    // A body of unknown length, with trailers, whose data is not even `Bytes`.
    let frames = [Frame::data(&b"ab"[..]), Frame::data(&b"c"[..]), Frame::trailers(trailers("3"))];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let response = soon("the head", connection.send(post(Method::PUT).body(body).unwrap())).await.unwrap();
    assert_eq!(response.headers["x-length"], "none");
    let echo = soon("the echo", response.body.collect()).await.unwrap();
    assert_eq!(echo.trailers(), Some(&trailers("3")));
    assert_eq!(echo.to_bytes(), "abc");

    // A body that is written while the response is read.
    let (tx, body) = channel();
    let mut response = soon("the head", connection.send(post(Method::POST).body(body).unwrap())).await.unwrap();
    for piece in ["one", "two", "three"] {
        tx.send(Ok(Frame::data(piece.into()))).await.unwrap();
        assert_eq!(soon("the echo", response.body.next()).await.unwrap().unwrap(), piece);
    }
    drop(tx);
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
}

/// What a server has seen of a request's body.
#[derive(Debug, PartialEq)]
enum Seen {
    Begun,
    Complete,
    Reset(u64),
}

type Piece = Result<Frame<Bytes>, std::io::Error>;

/// A body of what is sent.
fn channel() -> (mpsc::Sender<Piece>, impl http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static) {
    let (tx, rx) = mpsc::channel(1);
    (tx, StreamBody::new(stream::unfold(rx, async |mut rx: mpsc::Receiver<Piece>| Some((rx.recv().await?, rx)))))
}

#[tokio::test]
async fn a_request_whose_body_fails_is_cancelled() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let reads = move |_, mut stream: Stream| {
        let told = told.clone();
        async move {
            told.send(Seen::Begun).unwrap();
            let end = loop {
                match stream.recv_data().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Seen::Complete,
                    Err(h3::error::StreamError::RemoteTerminate { code, .. }) => break Seen::Reset(code.value()),
                    Err(error) => panic!("{error}"),
                }
            };
            told.send(end).unwrap();
            let _ = stream.finish().await;
        }
    };
    let server = Plain::start(reads);
    let connection = server.connect().await;
    // RFC 9114 §4.1.1: H3_REQUEST_CANCELLED.
    const CANCELLED: Seen = Seen::Reset(0x10c);

    let (tx, body) = channel();
    let request = Request::post(server.uri("/")).body(body).unwrap();
    let fails = async {
        assert_eq!(seen.recv().await, Some(Seen::Begun));
        tx.send(Err(std::io::Error::other("out of data"))).await.unwrap();
    };
    let (response, ()) = soon("the failure", async { tokio::join!(connection.send(request), fails) }).await;
    let error = response.unwrap_err();
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    assert_eq!(source.map(ToString::to_string).as_deref(), Some("out of data"), "{error:?}");
    assert_eq!(soon("the code", seen.recv()).await, Some(CANCELLED));

    // The length is checked both ways.
    for (length, sent) in [(1, None), (3, Some(2))] {
        let (tx, body) = channel();
        let request = Request::post(server.uri("/")).header(header::CONTENT_LENGTH, length).body(body).unwrap();
        let writes = async {
            assert_eq!(seen.recv().await, Some(Seen::Begun));
            tx.send(Ok(Frame::data("ab".into()))).await.unwrap();
            drop(tx);
        };
        let (response, ()) = soon("the failure", async { tokio::join!(connection.send(request), writes) }).await;
        let error = response.unwrap_err();
        assert!(
            matches!(error, ClientError::RequestLength { length: said, sent: has } if said == length && has == sent),
            "{error}"
        );
        assert_eq!(soon("the code", seen.recv()).await, Some(CANCELLED));
    }

    // One that is none is the caller's mistake.
    let request = Request::post(server.uri("/")).header(header::CONTENT_LENGTH, "x").body(Full::<Bytes>::default());
    let error = soon("the refusal", connection.send(request.unwrap())).await.unwrap_err();
    assert_eq!(error.to_string(), "the request's content-length is not a valid length in bytes: x");
    assert!(error.is_final());
}

#[tokio::test]
async fn a_request_s_body_ends_with_its_response() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let answers = move |_, mut stream: Stream| {
        let told = told.clone();
        async move {
            stream.send_response(Response::new(())).await.unwrap();
            told.send(match stream.recv_data().await {
                Err(h3::error::StreamError::RemoteTerminate { code, .. }) => Seen::Reset(code.value()),
                _ => Seen::Complete,
            })
            .unwrap();
            stream.stop_stream(h3::error::Code::H3_REQUEST_INCOMPLETE);
        }
    };
    let server = Plain::start(answers);
    let connection = server.connect().await;

    // Given up, the response takes the request's body with it.
    let (tx, body) = channel();
    let response = soon("the head", connection.send(Request::post(server.uri("/")).body(body).unwrap())).await.unwrap();
    drop(response);
    assert_eq!(soon("the code", seen.recv()).await, Some(Seen::Reset(0x10c)));
    soon("the body's drop", tx.closed()).await;

    // When the body fails, its error is the response's as well, and not the server's answer to that.
    let (tx, body) = channel();
    let mut response =
        soon("the head", connection.send(Request::post(server.uri("/")).body(body).unwrap())).await.unwrap();
    tx.send(Err(std::io::Error::other("out of data"))).await.unwrap();
    assert_eq!(soon("the code", seen.recv()).await, Some(Seen::Reset(0x10c)));
    let error = soon("the end", response.body.next()).await.unwrap_err();
    assert!(matches!(&error, ClientError::RequestBody(_)), "{error}");
}

#[tokio::test]
async fn a_wrong_request_leaves_the_connection_alone() {
    let server = Ours::start(Router::new().route("/", any(echo))).await;
    let connection = Arc::new(server.connect().await);
    let error = soon("the error", connection.get(&"/".parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, ClientError::Uri(_)), "{error}");
    let request = Request::get(server.uri("/")).header(header::HOST, "other.example").body(Empty::<Bytes>::new());
    let error = soon("the error", connection.send(request.unwrap())).await.unwrap_err();
    assert!(error.is_final(), "{error}");
    assert_eq!(soon("the head", connection.get(&server.uri("/"))).await.unwrap().status, 200);
}
