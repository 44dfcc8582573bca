//! A program needs no crate but this one to name what its signatures name.

use std::{convert::Infallible, pin::Pin, time::Duration};

use h3cast_transport::{
    Body, CancellationToken, ConnectionHandle, EarlyData, Identity, Listen, Server, Stream, TooEarly,
    bytes::Bytes,
    client::{self, ClientError, Connection, Trust},
    connection::{Admit, ConnectionEnd, TlsInfo},
    http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version},
    http_body,
    quic::{self, engine},
    rustls::{self, CipherSuite, ProtocolVersion, pki_types::CertificateDer},
    tokio::{
        self,
        io::{AsyncRead, AsyncWrite},
        sync::watch,
    },
    tower::{Service, service_fn},
    webtransport::{RecvStream, SendStream, SessionRequest},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that names what it takes and gives.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    if EarlyData::is_in(&request) {
        return Ok(TooEarly.into());
    }
    let connection = request.extensions().get::<ConnectionHandle>().expect("every request has one");
    let version: Option<Version> = connection.version();
    let mut response = Response::new(Body::from(format!("{version:?}")));
    response.headers_mut().insert(HeaderName::from_static("x-answer"), HeaderValue::from_static("yes"));
    Ok(response)
}

fn names_tls(tls: TlsInfo) -> (Option<ProtocolVersion>, Option<CipherSuite>, Vec<CertificateDer<'static>>) {
    (tls.version, tls.cipher_suite, tls.peer_certificates)
}

fn names_errors(error: ClientError) -> Option<quic::ConnectionError> {
    let _: fn(rustls::Error) -> ClientError = ClientError::from;
    let _: fn(quic::SendStream) -> engine::SendStream = quic::SendStream::into_engine;
    match error {
        ClientError::Connection(lost) => Some(lost),
        _ => None,
    }
}

fn is_service<S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>>(service: S) -> S {
    service
}

fn is_body<B: http_body::Body<Data = Bytes, Error = ClientError> + Stream<Item = Result<Bytes, ClientError>>>() {}

fn is_stream<S: AsyncRead, T: AsyncWrite>() {}

async fn serve(stop: CancellationToken) -> Result<(), BoxError> {
    let certs = std::env::temp_dir().join(format!("h3cast-reexports-{}", std::process::id()));
    let identity = Identity::self_signed(&certs, &[], Default::default())?;
    let changes: watch::Receiver<_> = identity.changes();
    let server = Server::builder(identity)
        .listen("127.0.0.1:0".parse::<Listen>()?)
        .http_service(is_service(service_fn(answer)))
        .webtransport("/", |request: SessionRequest| async { request.reject(StatusCode::FORBIDDEN) })
        .on_accept(|_| Admit::Accept)
        .on_close(|_, end: &ConnectionEnd| drop(end.clone()))
        .build()
        .await?;
    let uri: Uri = format!("https://{}/", server.addresses().udp[0]).parse()?;
    let running = tokio::spawn(server.run(stop.clone()));
    let trust = Trust::Files(vec![certs.join("cert.pem")]);
    let connection = Connection::open(&uri, &trust).await?;
    let response = connection.request(Request::get(&uri).body(())?).await?;
    assert_eq!((response.status, &response.headers["x-answer"]), (StatusCode::OK, &HeaderValue::from_static("yes")));
    let (_, suite, certificates) = names_tls(connection.handle().tls().expect("it is over QUIC"));
    assert!(suite.is_none() && !certificates.is_empty());
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await???;
    drop(changes);
    std::fs::remove_dir_all(certs)?;
    Ok(())
}

#[test]
fn all_that_signatures_name_is_here() {
    is_body::<client::Body>();
    is_stream::<RecvStream, SendStream>();
    assert!(names_errors(quic::ConnectionError::TimedOut.into()).is_some());
    let serving: Pin<Box<dyn Future<Output = _>>> = Box::pin(serve(CancellationToken::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(serving).unwrap();
}

#[test]
fn no_other_crate_is_named_here() {
    let lines = include_str!("reexports.rs").lines().map(str::trim_start);
    let used: Vec<_> = lines.filter(|line| line.starts_with("use ")).collect();
    assert_eq!(used.len(), 2);
    assert!(used[0].starts_with("use std::") && used[1].starts_with("use h3cast_transport::"), "{used:?}");
}
