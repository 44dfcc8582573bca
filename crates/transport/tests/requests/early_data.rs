//! Requests in early data: one round trip less, and nothing done twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use h3cast_transport::{
    Identity, Limits, Listen, Server,
    admission::Refusal,
    client::{ClientError, Connection, Connector, Trust},
};
use http::Uri;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::{TestServer, raw, relay::Relay, soon};

/// A server that tells of each request that it handles, and how many there were.
struct Told {
    server: TestServer,
    told: mpsc::UnboundedReceiver<&'static str>,
    asked: Arc<AtomicUsize>,
}

async fn server() -> Told {
    let (tell, told) = mpsc::unbounded_channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let handler = |name: &'static str| {
        let (tell, asked) = (tell.clone(), asked.clone());
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            tell.send(name).unwrap();
            name
        }
    };
    let router = Router::new().route("/", get(handler("get")).post(handler("post")));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    Told { server, told, asked }
}

impl Told {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A relay to the server, and a client that has a ticket from it.
    async fn known(&mut self) -> (Relay, Connector, Uri) {
        let relay = Relay::start(self.server.port()).await;
        let uri: Uri = format!("https://127.0.0.1:{}/", relay.port).parse().unwrap();
        let connector = Connector::new(&Trust::Files(vec![self.server.certificate()])).unwrap();
        get_once(&connector, &uri).await;
        assert_eq!(soon("it", self.told.recv()).await, Some("get"));
        (relay, connector, uri)
    }
}

/// Gets a resource whole, by then with a ticket for the next time, and closes the connection.
async fn get_once(connector: &Connector, uri: &Uri) {
    let (connection, mut response) = soon("a response", connector.get(uri)).await.unwrap();
    assert!(response.status.is_success());
    while soon("its body", response.body.next()).await.unwrap().is_some() {}
    connection.close().await;
}

/// The handler runs before a single packet of the server has come to the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_get_goes_with_the_first_packets() {
    let mut told = server().await;
    let (relay, connector, uri) = told.known().await;
    relay.hold(true);
    let getting = tokio::spawn(async move { connector.get(&uri).await });
    assert_eq!(soon("the request", told.told.recv()).await, Some("get"));
    relay.hold(false);
    let (_connection, mut response) = soon("the response", getting).await.unwrap().unwrap();
    assert_eq!(soon("its body", response.body.next()).await.unwrap().unwrap(), "get");
    assert_eq!(told.asked(), 2);
}

/// A client without a ticket has to wait for the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_ticket_nothing_is_early() {
    let mut told = server().await;
    let (mut relay, _, uri) = told.known().await;
    let stranger = Connector::new(&Trust::Files(vec![told.server.certificate()])).unwrap();
    relay.hold(true);
    let getting = tokio::spawn(async move { stranger.get(&uri).await });
    // Its first packets have been there.
    relay.answered().await;
    assert_eq!(told.asked(), 1);
    relay.hold(false);
    assert!(soon("the response", getting).await.unwrap().is_ok());
    assert_eq!(told.asked(), 2);
}

/// Somebody on the way sends the packets again, when the connection is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_early_data_is_of_no_use() {
    let mut told = server().await;
    let (relay, connector, uri) = told.known().await;
    relay.record();
    get_once(&connector, &uri).await;
    assert_eq!(told.asked(), 2);
    relay.replay().await;
    // What is asked now is answered after whatever the copy has led to.
    let connection = told.server.connect().await;
    let response = soon("another response", connection.get(&told.server.uri("/"))).await.unwrap();
    assert!(response.status.is_success());
    assert_eq!(told.asked(), 3, "the copy was handled");
}

/// A client of quinn alone that takes early data; it offers other protocols too.
fn client(server: &TestServer, protocols: &[Vec<u8>]) -> (quinn::Endpoint, quinn::ClientConfig) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.certificate()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = [protocols, &[b"h3".to_vec()]].concat();
    tls.enable_early_data = true;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    (quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(), config)
}

/// What browsers say first does not fit into one packet.
#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_several_packets() {
    let told = server().await;
    let relay = Relay::start(told.server.port()).await;
    // Long enough for the server to begin with what the first one says.
    relay.apart(Duration::from_millis(50));
    let long: Vec<_> = (b'a'..b'q').map(|letter| vec![letter; 200]).collect();
    let (client, config) = client(&told.server, &long);
    let conn = client.connect_with(config, ([127, 0, 0, 1], relay.port).into(), "localhost").unwrap();
    let conn = soon("a connection", conn).await.unwrap();
    let mut control = soon("the server's control stream", conn.accept_uni()).await.unwrap();
    let mut beginning = [0; 2];
    soon("its SETTINGS", control.read_exact(&mut beginning)).await.unwrap();
    assert_eq!(beginning.map(u64::from), [raw::CONTROL, raw::SETTINGS]);
}

/// What is not safe to do twice waits until the handshake says that it is no copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_in_early_data_waits_for_the_handshake() {
    let mut told = server().await;
    let relay = Relay::start(told.server.port()).await;
    let (client, config) = client(&told.server, &[]);
    let connect = || client.connect_with(config.clone(), ([127, 0, 0, 1], relay.port).into(), "localhost").unwrap();
    let request = |method| {
        let fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
        raw::frame(raw::HEADERS, &raw::section(&fields))
    };
    let ask = async |conn: &quinn::Connection, method| {
        let (mut send, recv) = conn.open_bi().await.unwrap();
        send.write_all(&request(method)).await.unwrap();
        send.finish().unwrap();
        recv
    };

    let first = soon("a connection", connect()).await.unwrap();
    let mut answer = ask(&first, "GET").await;
    soon("an answer", answer.read_to_end(1000)).await.unwrap();
    assert_eq!(soon("it", told.told.recv()).await, Some("get"));
    first.close(0_u8.into(), b"");

    relay.hold(true);
    let (early, _) = connect().into_0rtt().expect("there is a ticket");
    let mut posted = ask(&early, "POST").await;
    let _got = ask(&early, "GET").await;
    // The GET came behind the POST, and is handled before it.
    assert_eq!(soon("the GET", told.told.recv()).await, Some("get"));
    assert_eq!(told.asked(), 2);
    relay.hold(false);
    assert_eq!(soon("the POST", told.told.recv()).await, Some("post"));
    assert!(!soon("its answer", posted.read_to_end(1000)).await.unwrap().is_empty());
}

/// Somebody who has a ticket can put another's address on early data: it does not use up the requests of that address.
/// When the handshake shows that the address is the client's own, it counts like any other.
#[tokio::test(flavor = "multi_thread")]
async fn early_data_counts_for_its_address_when_the_handshake_is_complete() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let hold = async move || {
        tell.send(()).unwrap();
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
    };
    let router = Router::new().route("/", get("here")).route("/hold", get(hold));
    let mut counters = None;
    let server = TestServer::start(|builder, _| {
        counters = Some(builder.admission().clone());
        builder.limits(Limits::default().requests_per_address(1)).http_service(router)
    })
    .await;
    let counters = counters.unwrap();
    let down_to = async |open| {
        while counters.snapshot().requests > open {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let relay = Relay::start(server.port()).await;
    let uri = |path| format!("https://127.0.0.1:{}{path}", relay.port).parse::<Uri>().unwrap();
    let connector = Connector::new(&Trust::Files(vec![server.certificate()])).unwrap();
    get_once(&connector, &uri("/")).await;
    soon("its end", down_to(0)).await;

    relay.hold(true);
    let early = tokio::spawn({
        let uri = uri("/hold");
        async move { connector.get(&uri).await }
    });
    soon("the early request", told.recv()).await;
    // The address has its request, which counts.
    let direct = |path| format!("https://127.0.0.1:{}{path}", server.port()).parse::<Uri>().unwrap();
    let trust = Trust::Files(vec![server.certificate()]);
    let connection = soon("a connection", Connection::open(&direct("/"), &trust)).await.unwrap();
    let proven = soon("an answer", connection.get(&direct("/hold"))).await.unwrap();
    assert!(proven.status.is_success(), "{}", proven.status);
    soon("it", told.recv()).await;
    let refused = soon("an answer", connection.get(&direct("/"))).await.unwrap();
    assert_eq!(refused.status, 429);
    relay.hold(false);
    // It is reset, or asked again by the client if the head was lost with that.
    let whole = async {
        let (_connection, mut response) = early.await.unwrap()?;
        while response.body.next().await?.is_some() {}
        Ok::<_, ClientError>(response.status)
    };
    let whole = soon("the end of the one that is too many", whole).await;
    assert!(whole.as_ref().map_or(true, |status| *status == 429), "{whole:?}");
    assert!(counters.snapshot().refused(Refusal::RequestsPerAddress) >= 2);
    soon("the end of all but one", down_to(1)).await;
}

/// A server that was started again does not know its tickets: the request is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn early_data_that_is_refused_is_sent_again() {
    let certs = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
    let start = async || {
        let router = Router::new().route("/", get("here"));
        let builder = Server::builder(identity.clone()).listen(Listen::localhost(0)).http_service(router);
        let server = builder.build().await.unwrap();
        let (port, stop) = (server.addresses().udp[0].port(), CancellationToken::new());
        (port, stop.clone(), tokio::spawn(async { server.run(stop).await.unwrap() }))
    };
    let (port, stop, running) = start().await;
    let relay = Relay::start(port).await;
    let uri: Uri = format!("https://127.0.0.1:{}/", relay.port).parse().unwrap();
    let connector = Connector::new(&Trust::Files(vec![certs.path().join("cert.pem")])).unwrap();
    get_once(&connector, &uri).await;
    stop.cancel();
    soon("its end", running).await.unwrap();

    let (port, stop, running) = start().await;
    relay.lead_to(port);
    get_once(&connector, &uri).await;
    stop.cancel();
    soon("its end", running).await.unwrap();
}
