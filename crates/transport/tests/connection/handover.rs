//! A server that takes over from another one: each packet reaches the server whose connection it is for.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use h3cast_transport::{
    Identity, Listen, PlainHttp, Server, TakenStream, Takeover,
    client::{Body, Connection, Connector, Trust},
    server::{Addresses, Handover, Inherited, ServerBuilder},
};
use http::{Response, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::peers::soon;

/// A server that says its name, and gives the streams of `/stream` to the test.
struct Named {
    handover: Handover,
    addresses: Addresses,
    stop: CancellationToken,
    running: JoinHandle<()>,
    streams: mpsc::UnboundedReceiver<TakenStream>,
}

fn builder(identity: &Identity) -> ServerBuilder {
    // As long as a test may take: connections end by themselves.
    Server::builder(identity.clone()).grace(Duration::from_secs(20))
}

impl Named {
    async fn first(identity: &Identity) -> Self {
        let near = PlainHttp::At(Listen::localhost(0));
        let (server, streams) = named("first", builder(identity).listen(Listen::localhost(0)).plain_http(near)).await;
        Self::run(server, streams)
    }

    fn run(server: Server, streams: mpsc::UnboundedReceiver<TakenStream>) -> Self {
        let (handover, addresses) = (server.handover().unwrap(), server.addresses().clone());
        let stop = CancellationToken::new();
        let run = server.run(stop.clone());
        Self { handover, addresses, stop, running: tokio::spawn(async { run.await.unwrap() }), streams }
    }

    /// One that has its addresses, on what it offers.
    async fn next(
        &self,
        name: &'static str,
        identity: &Identity,
        inherited: Inherited,
    ) -> (Server, mpsc::UnboundedReceiver<TakenStream>) {
        let at = |address: &String| address.parse::<Listen>().unwrap();
        let plain = at(self.addresses.http.as_ref().unwrap());
        let builder = builder(identity).listen(at(&self.addresses.tls[0])).plain_http(PlainHttp::At(plain));
        named(name, builder.inherit(inherited)).await
    }

    /// Hands over to a new server.
    async fn hand_over(&self, name: &'static str, identity: &Identity) -> Self {
        let (offer, inherited) = self.handover.offer().unwrap();
        let (server, streams) = self.next(name, identity, inherited).await;
        offer.accept(&server.addresses().udp).unwrap();
        self.stop.cancel();
        Self::run(server, streams)
    }

    fn uri(&self, path: &str) -> Uri {
        format!("https://{}{path}", self.addresses.tls[0]).parse().unwrap()
    }

    /// A response that a client reads while the test writes it.
    async fn stream(&mut self, connection: &Connection) -> (Body, TakenStream) {
        let response = soon("the head", connection.get(&self.uri("/stream"))).await.unwrap();
        (response.body, soon("the stream", self.streams.recv()).await.unwrap())
    }
}

async fn named(name: &'static str, builder: ServerBuilder) -> (Server, mpsc::UnboundedReceiver<TakenStream>) {
    let (tx, streams) = mpsc::unbounded_channel();
    let stream = async move |takeover: Takeover| {
        let tx = tx.clone();
        takeover.respond(Response::new(()), move |stream| async move {
            let _ = tx.send(stream);
            std::future::pending().await
        })
    };
    let stream = Arc::new(stream);
    let handler = move |takeover: Takeover| {
        let stream = stream.clone();
        async move { stream(takeover).await }
    };
    let router = Router::new().route("/name", get(move || async move { name })).route("/stream", get(handler));
    (builder.http_service(router).build().await.unwrap(), streams)
}

fn trust(identity: &Identity) -> Trust {
    Trust::der([identity.current().der().to_vec()]).unwrap()
}

async fn name(connection: &Connection, uri: &Uri) -> String {
    let mut response = soon("the head", connection.get(uri)).await.unwrap();
    String::from_utf8(soon("the name", response.body.next()).await.unwrap().unwrap().to_vec()).unwrap()
}

/// What is written in one server reaches its client.
async fn passes((body, stream): &mut (Body, TakenStream), text: &'static str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(soon("the chunk", body.next()).await.unwrap().unwrap(), text);
}

async fn ends((mut body, stream): (Body, TakenStream)) {
    soon("the acknowledgment", stream.finish()).await.unwrap();
    assert_eq!(soon("the end", body.next()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_with_their_server_through_two_hand_overs() {
    let identity = Identity::localhost().unwrap();
    let mut first = Named::first(&identity).await;
    // One socket for all connections: the system may hand their packets over together.
    let connector = Connector::new(&trust(&identity)).unwrap();
    let one = soon("a connection", connector.open(&first.uri("/"))).await.unwrap();
    let mut of_first = first.stream(&one).await;
    passes(&mut of_first, "a").await;

    let mut second = first.hand_over("second", &identity).await;
    passes(&mut of_first, "b").await;
    let two = soon("a connection", connector.open(&second.uri("/"))).await.unwrap();
    assert_eq!(name(&two, &second.uri("/name")).await, "second");
    let mut of_second = second.stream(&two).await;

    let third = second.hand_over("third", &identity).await;
    let three = soon("a connection", connector.open(&third.uri("/"))).await.unwrap();
    for text in ["c", "d", "e"] {
        passes(&mut of_first, text).await;
        passes(&mut of_second, text).await;
        assert_eq!(name(&three, &third.uri("/name")).await, "third");
    }
    // The second ends before the first: its packets still find their way.
    ends(of_second).await;
    soon("the second ends", second.running).await.unwrap();
    drop(second.handover);
    passes(&mut of_first, "f").await;
    ends(of_first).await;
    soon("the first ends", first.running).await.unwrap();
    // Plain HTTP is answered by the new one as well.
    let mut plain = TcpStream::connect(third.addresses.plain[0]).await.unwrap();
    plain.write_all(b"GET /name HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("third"), "{answer}");
    third.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_that_does_not_come_to_it_changes_nothing() {
    let identity = Identity::localhost().unwrap();
    let mut first = Named::first(&identity).await;
    let connector = Connector::new(&trust(&identity)).unwrap();
    let one = soon("a connection", connector.open(&first.uri("/"))).await.unwrap();
    let mut of_first = first.stream(&one).await;
    let (offer, inherited) = first.handover.offer().unwrap();
    let (server, _streams) = first.next("second", &identity, inherited).await;
    // It has the sockets, and reads nothing.
    passes(&mut of_first, "a").await;
    let two = soon("a connection", connector.open(&first.uri("/"))).await.unwrap();
    assert_eq!(name(&two, &first.uri("/name")).await, "first");
    drop((offer, server));
    passes(&mut of_first, "b").await;
    assert_eq!(name(&two, &first.uri("/name")).await, "first");
    // Another one does.
    let third = first.hand_over("third", &identity).await;
    passes(&mut of_first, "c").await;
    let three = soon("a connection", connector.open(&third.uri("/"))).await.unwrap();
    assert_eq!(name(&three, &third.uri("/name")).await, "third");
    third.stop.cancel();
}

/// A client of a server that is killed after it was taken over learns so with its next packet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_server_that_is_gone_are_reset() {
    let identity = Identity::localhost().unwrap();
    let mut first = Named::first(&identity).await;
    let connector = Connector::new(&trust(&identity)).unwrap();
    let one = soon("a connection", connector.open(&first.uri("/"))).await.unwrap();
    let (mut body, stream) = first.stream(&one).await;
    let (offer, inherited) = first.handover.offer().unwrap();
    let (server, streams) = first.next("second", &identity, inherited).await;
    // The line to it is cut, as by its end.
    drop(offer);
    let second = Named::run(server, streams);
    let lost = async {
        loop {
            // It has something to send.
            let _ = one.get(&first.uri("/name")).await.map(drop);
            if one.is_closed() {
                return;
            }
        }
    };
    soon("the reset", lost).await;
    assert!(soon("the error", body.next()).await.is_err());
    drop(stream);
    second.stop.cancel();
}
