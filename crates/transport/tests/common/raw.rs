//! A client that writes HTTP/3 by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use quinn::{RecvStream, SendStream, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{TestServer, soon};

pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;
pub const CANCEL_PUSH: u64 = 0x3;
pub const SETTINGS: u64 = 0x4;
pub const PUSH_PROMISE: u64 = 0x5;
pub const GOAWAY: u64 = 0x7;
pub const MAX_PUSH_ID: u64 = 0xd;
/// One of the types that are reserved to be unknown (RFC 9114 §7.2.8).
pub const UNKNOWN: u64 = 0x21;

/// Types of unidirectional streams.
pub const CONTROL: u64 = 0x0;
pub const PUSH: u64 = 0x1;
pub const ENCODER: u64 = 0x2;
pub const DECODER: u64 = 0x3;
/// The signal of a unidirectional WebTransport stream.
pub const WT_UNI: u64 = 0x54;
/// The signal of a bidirectional one.
pub const WT_BI: u64 = 0x41;

pub fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    h3cast_transport::http3::varint::encode(value, &mut out);
    out
}

/// A frame, or a capsule: both are type, length, payload.
pub fn frame(ty: u64, payload: &[u8]) -> Vec<u8> {
    [varint(ty), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// The beginning of a frame that says it is a gigabyte long.
pub fn gigabyte(ty: u64) -> Vec<u8> {
    [varint(ty), varint(1 << 30)].concat()
}

/// An integer with a prefix of `bits` (RFC 9204 §4.1.1).
pub fn prefixed(flags: u8, bits: u32, value: usize) -> Vec<u8> {
    let max = (1 << bits) - 1;
    if value < max {
        return vec![flags | value as u8];
    }
    let (mut out, mut rest) = (vec![flags | max as u8], value - max);
    while rest >= 0x80 {
        out.push(0x80 | rest as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// A field section of plain literals.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        out.extend(prefixed(0x20, 3, name.len()));
        out.extend(name.as_bytes());
        out.extend(prefixed(0, 7, value.len()));
        out.extend(value.as_bytes());
    }
    out
}

/// The pseudo-headers of a request.
pub fn pseudo<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
}

/// The HEADERS frame of a request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, &section(&pseudo(method, path)))
}

/// The HEADERS frame that asks for a session.
pub fn connect(path: &str) -> Vec<u8> {
    frame(HEADERS, &section(&[pseudo("CONNECT", path), vec![(":protocol", "webtransport")]].concat()))
}

/// A client endpoint that trusts one certificate.
pub fn endpoint(certificate: &Path, tune: impl FnOnce(&mut TransportConfig)) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    tune(&mut transport);
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// A QUIC connection to a server of HTTP/3, on which nothing has been said.
pub struct Raw {
    pub conn: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Raw {
    pub async fn open(endpoint: quinn::Endpoint, port: u16) -> Self {
        let connecting = endpoint.connect(SocketAddr::from(([127, 0, 0, 1], port)), "localhost").unwrap();
        Self { conn: soon("a connection", connecting).await.unwrap(), _endpoint: endpoint }
    }

    pub async fn to(server: &TestServer) -> Self {
        Self::open(endpoint(&server.certificate(), |_| {}), server.port()).await
    }

    /// One with a control stream, as a client should begin.
    pub async fn greeted(server: &TestServer) -> (Self, SendStream) {
        let raw = Self::to(server).await;
        let control = raw.settings().await;
        (raw, control)
    }

    /// Opens a control stream with empty SETTINGS.
    pub async fn settings(&self) -> SendStream {
        self.uni(&[varint(CONTROL), frame(SETTINGS, &[])].concat()).await
    }

    pub async fn uni(&self, bytes: &[u8]) -> SendStream {
        let mut stream = soon("a stream", self.conn.open_uni()).await.unwrap();
        soon("a write", stream.write_all(bytes)).await.unwrap();
        stream
    }

    pub async fn bi(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = soon("a stream", self.conn.open_bi()).await.unwrap();
        soon("a write", send.write_all(bytes)).await.unwrap();
        (send, recv)
    }

    /// The code with which the server closes the connection.
    pub async fn closed(&self) -> u64 {
        match soon("the end of the connection", self.conn.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other}"),
        }
    }

    /// Whether the server still answers on this connection.
    pub async fn assert_alive(&self) {
        assert_eq!(self.get("/healthz").await, 200);
    }

    /// The status of a GET.
    pub async fn get(&self, path: &str) -> u16 {
        let (mut send, mut recv) = self.bi(&request("GET", path)).await;
        send.finish().unwrap();
        status(&mut recv).await
    }
}

/// Reads the head of a response, and the status in it.
pub async fn status(recv: &mut RecvStream) -> u16 {
    let mut header = [0; 2];
    soon("a response", recv.read_exact(&mut header)).await.unwrap();
    assert_eq!(u64::from(header[0]), HEADERS);
    let mut rest = match header[1] {
        len @ ..0x40 => vec![0; len.into()],
        len => {
            let mut second = [0];
            recv.read_exact(&mut second).await.unwrap();
            vec![0; usize::from(len & 0x3f) << 8 | usize::from(second[0])]
        }
    };
    soon("a head", recv.read_exact(&mut rest)).await.unwrap();
    // The status comes first: indexed in the static table, or a literal with its name.
    match &rest[2..] {
        [0xd9, ..] => 200,
        [0xdb, ..] => 404,
        [0xff, 0x01, ..] => 204,
        [0xff, 0x04, ..] => 400,
        [0xff, 0x05, ..] => 403,
        [0x5f, 0x09, 0x03, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x5f, 0x09, 0x80..0x84, coded @ ..] => huffman_digits(coded),
        other => panic!("what status is {other:x?}?"),
    }
}

/// Three digits in the Huffman code: 0, 1 and 2 have 5 bits, the others 6.
fn huffman_digits(coded: &[u8]) -> u16 {
    let bits = coded[..3.min(coded.len())].iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * 3.min(coded.len() as u32);
    (0..3).fold(0, |number, _| {
        let (digit, len) = match bits >> (left - 5) & 0x1f {
            digit @ 0..3 => (digit, 5),
            _ => ((bits >> (left - 6) & 0x3f) - 0x19 + 3, 6),
        };
        left -= len;
        number * 10 + digit as u16
    })
}

/// The code with which the server resets its half of a stream, whatever it has sent before; 0 if it
/// finishes it.
pub async fn reset(recv: &mut RecvStream) -> u64 {
    loop {
        match soon("a reset", recv.read_chunk(usize::MAX, true)).await {
            Ok(Some(_)) => {}
            Err(quinn::ReadError::Reset(code)) => return code.into_inner(),
            // An orderly end. No code is 0 in HTTP/3.
            Ok(None) => return 0,
            Err(other) => panic!("{other}"),
        }
    }
}

/// The code with which the server stops the other half.
pub async fn stopped(send: &SendStream) -> Option<u64> {
    soon("a stop", send.stopped()).await.unwrap().map(VarInt::into_inner)
}

/// Waits until `true`: for what gives no notice of itself.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
