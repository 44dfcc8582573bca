//! No chunk is lost while settings change under load.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use h3cast::client::{Connection, Trust};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::{
    TOKEN,
    common::soon,
    reload, said,
    serving::{Reading, Serving},
    write,
};

/// Of each transport.
const VIEWERS: usize = 4;
const RELOADS: usize = 15;
const EVERY: Duration = Duration::from_millis(200);

/// A certificate of the user's own.
fn certificate(folder: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write(folder, &format!("{name}.pem"), &made.cert.pem());
    write(folder, &format!("{name}.key"), &made.signing_key.serialize_pem());
}

/// Settings that differ each time; every fifth are wrong, in several ways.
fn settings(folder: &Path, round: usize) -> bool {
    let (one, other) = if round.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
    let is_right = round % 5 != 4;
    let good = format!("read=* {TOKEN}\npublish=x another-token-of-round-{round}\n");
    let (key, limit, tokens) = match (is_right, round % 3) {
        (true, _) => (one, "64", good),
        // The key of another certificate, a limit that is none, and a line that is no token. The file of tokens is also
        // read when it changes, whatever the other settings are: an empty one would withdraw all.
        (false, 0) => (other, "64", good),
        (false, 1) => (one, "'many'", good),
        (false, _) => (one, "64", "read=* short\n".to_owned()),
    };
    write(folder, "tokens", &tokens);
    let text = format!(
        "public = 'default'\ntokens = 'tokens'\ncert = '{one}.pem'\nkey = '{key}.key'\nsessions-per-address = {limit}\n\
         requests-per-address = {}\nmax-connections = {}\nmax-tcp-connections = {}\nconnections-per-address = {}\n\
         send-timeout = '{}s'\nidle-timeout = '{}s'\nmemory = '{}M'\ntrust-proxy = '10.0.0.{round}'\n\
         publish-limit = {}\nmax-publications = {}\n",
        40 + round,
        // Fewer than there are, now and then.
        if round % 4 == 3 { 2 } else { 300 + round },
        if round % 4 == 2 { 1 } else { 100 + round },
        50 + round,
        30 + round,
        20 + round,
        400 + round,
        2000 + round,
        10 + round,
    );
    write(folder, "h3cast.toml", &text);
    is_right
}

/// Reads over HTTP/2 to the clean end.
async fn http2(port: u16, trusted: &[PathBuf], path: &str) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    for file in trusted {
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await.unwrap();
    let (mut send, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = http::Request::get(format!("https://localhost:{port}{path}")).body(Empty::<Bytes>::new()).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_viewer_loses_a_chunk() {
    let mut server = Serving::start(|dir| {
        ["a", "b"].iter().for_each(|name| certificate(dir, name));
        assert!(settings(dir, 0));
        // A busy machine may keep viewers from reading for long.
        vec!["-", "--config", "h3cast.toml", "--history=64M"]
    });
    let trusted = ["a.pem", "b.pem"].map(|name| server.dir().join(name));
    let path = format!("/stream?token={TOKEN}");
    let uri = server.uri(&path);
    let trust = Trust::Files(trusted.to_vec());
    let mut viewers = tokio::task::JoinSet::new();
    for number in 0..2 * VIEWERS {
        let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
        let mut reading = Reading::open(&connection, &uri, number % 2 == 1).await;
        viewers.spawn(async move {
            let all = (["HTTP/3", "WebTransport"][number % 2], reading.all().await);
            drop(connection);
            all
        });
    }
    for _ in 0..VIEWERS {
        let (port, trusted, path) = (server.port, trusted.clone(), path.clone());
        viewers.spawn(async move { ("HTTP/2", http2(port, &trusted, &path).await) });
    }
    let watching = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    tokio::select! {
        _ = server.until(&watching, "viewers", |viewers| viewers == 3 * VIEWERS as u64) => {}
        ended = viewers.join_next() => panic!("{:?}", ended.unwrap().map(|(transport, _)| transport)),
    }
    // Feeds it until all is done.
    let (done, mut stdin) = (Arc::new(AtomicBool::new(false)), server.stdin.take().unwrap());
    let is_done = done.clone();
    let feeding = std::thread::spawn(move || {
        let mut all = Vec::new();
        for number in 0u64.. {
            let line = format!("{number} {}\n", "x".repeat((number % 1000) as usize));
            stdin.write_all(line.as_bytes()).unwrap();
            all.extend_from_slice(line.as_bytes());
            // A machine that has much to do may have brought little until then.
            if is_done.load(Ordering::SeqCst) && all.len() > 100_000 {
                break;
            }
            // A load that goes on; how fast does not matter.
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    });
    let (folder, server) = (server.dir().to_owned(), Arc::new(server));
    for round in 1..=RELOADS {
        let due = Instant::now() + EVERY;
        let is_right = settings(&folder, round);
        let asked = server.clone();
        let output = tokio::task::spawn_blocking(move || reload(&asked, &[])).await.unwrap();
        assert_eq!(output.status.success(), is_right, "round {round}: {}", said(&output));
        if is_right {
            let text = said(&output);
            // After a round that was wrong, it is the one of the round before.
            let certificate = ["--cert=", "the certificate"].map(|changed| text.contains(changed));
            assert_eq!(certificate, [round % 5 != 0; 2], "round {round}: {text}");
            assert!(text.contains("--requests-per-address="), "round {round}: {text}");
            if round % 4 != 3 {
                // One who comes now gets the certificate of now, and is let in.
                let trust = Trust::Files(vec![trusted[round % 2].clone()]);
                let connection = soon("a newcomer", Connection::open(&uri, &trust)).await.unwrap();
                let response = soon("its feed", connection.get(&uri)).await.unwrap();
                assert_eq!(response.status, 200, "round {round}");
            }
        }
        tokio::time::sleep_until(due.into()).await;
    }
    done.store(true, Ordering::SeqCst);
    let sent = tokio::task::spawn_blocking(move || feeding.join().unwrap()).await.unwrap();
    let expected = Sha256::digest(&sent);
    let mut seen = 0;
    while let Some(viewer) = soon("the end of the feed", viewers.join_next()).await {
        let (transport, received) = viewer.unwrap();
        assert!(Sha256::digest(&received) == expected, "{transport}: {} of {} bytes", received.len(), sent.len());
        seen += 1;
    }
    assert_eq!(seen, 3 * VIEWERS);
    Arc::into_inner(server).unwrap().stop();
}
