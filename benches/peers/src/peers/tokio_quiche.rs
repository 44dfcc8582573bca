//! HTTP/3 by tokio-quiche, as in its example server: a task for each connection's events and for
//! each request.
//!
//! Configured: nothing beyond the certificate and the socket; all settings are the library's
//! defaults. TLS is BoringSSL: quiche knows no other, and reads the certificate from files only.
//! Between a request's task and the connection's, the library has a queue of 16 frames.

use anyhow::{Context, anyhow};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::UdpSocket;
use tokio_quiche::{
    ConnectionParams, ServerH3Controller, ServerH3Driver,
    http3::{
        driver::{OutboundFrame, OutboundFrameSender, ServerH3Event},
        settings::Http3Settings,
    },
    listen,
    metrics::DefaultMetrics,
    quiche::h3::Header,
    settings::{CertificateKind, Hooks, QuicSettings, TlsCertificatePaths},
};

use super::{Setup, ready};
use crate::feed::Feed;

pub(crate) async fn run(setup: Setup) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    setup.identity.write(dir.path())?;
    let path = dir.path().to_str().context("the folder for temporary files is not UTF-8")?;
    let (cert, private_key) = (&*format!("{path}/cert.pem"), &*format!("{path}/key.pem"));
    let tls = TlsCertificatePaths { cert, private_key, kind: CertificateKind::X509 };
    let params = ConnectionParams::new_server(QuicSettings::default(), tls, Hooks::default());
    let socket = UdpSocket::from_std(setup.udp()?)?;
    let address = socket.local_addr()?;
    let mut connections = listen([socket], params, DefaultMetrics)?.pop().context("no listener")?;
    ready(address)?;
    while let Some(connection) = connections.next().await {
        // A viewer that goes away is no error of the server's.
        let Ok(connection) = connection else { continue };
        let (driver, controller) = ServerH3Driver::new(Http3Settings::default());
        connection.start(driver);
        tokio::spawn(serve(controller, setup.feed.clone()));
    }
    Ok(())
}

async fn serve(mut controller: ServerH3Controller, feed: Feed) {
    while let Some(event) = controller.event_receiver_mut().recv().await {
        if let ServerH3Event::Headers { incoming_headers, .. } = event {
            tokio::spawn(respond(incoming_headers.send, feed.clone()));
        }
    }
}

async fn respond(mut stream: OutboundFrameSender, feed: Feed) -> anyhow::Result<()> {
    let gone = |_| anyhow!("the viewer is gone");
    stream.send(OutboundFrame::Headers(vec![Header::new(b":status", b"200")], None)).await.map_err(gone)?;
    let mut viewer = feed.view().await?;
    while let Some(frame) = viewer.next().await? {
        stream.send(OutboundFrame::Body(frame, false)).await.map_err(gone)?;
    }
    stream.send(OutboundFrame::Body(Bytes::new(), true)).await.map_err(gone)
}
