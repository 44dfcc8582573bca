//! The handle of a session's connection.

use h3cast_transport::{
    ConnectionHandle,
    connection::ConnectionEnd,
    webtransport::{Closed, SessionRequest},
};
use tokio::sync::mpsc;

use crate::peers::{serve, soon};

#[tokio::test]
async fn a_session_has_that_of_its_connection_and_closes_it() {
    let (tx, mut handles) = mpsc::unbounded_channel::<ConnectionHandle>();
    let handler = move |request: SessionRequest| {
        let tx = tx.clone();
        async move {
            tx.send(request.connection().clone()).unwrap();
            let session = request.accept().await.unwrap();
            tx.send(session.connection().clone()).unwrap();
            let asked = session.accept_uni().await;
            session.connection().close(77, "no more sessions");
            drop(asked);
        }
    };
    let server = serve(|builder| builder.webtransport("/s", handler)).await;
    let connection = server.connect().await;
    let session = soon("a session", connection.webtransport(&server.uri("/s"), Default::default(), &[])).await;
    let session = session.unwrap();
    let (asked, opened) = (handles.recv().await.unwrap(), handles.recv().await.unwrap());
    assert_eq!(asked, opened);
    assert_eq!(opened.tls().unwrap().server_name.as_deref(), Some("localhost"));
    let stats = opened.stats().await;
    assert!(stats.rtt.is_some_and(|rtt| !rtt.is_zero()) && stats.received_packets > Some(0), "{stats:?}");
    assert_eq!(session.connection(), connection.handle());

    let mut stream = soon("a stream", session.open_uni()).await.unwrap();
    stream.finish().unwrap();
    let closed = soon("the end", session.closed()).await;
    let Closed::ConnectionLost(lost) = closed else { panic!("{closed}") };
    assert!(lost.to_string().contains("no more sessions"), "{lost}");
    let end = soon("the end of the connection", connection.handle().closed()).await;
    assert!(matches!(end, ConnectionEnd::Closed { code: 77, by_peer: true, .. }), "{end}");
}
