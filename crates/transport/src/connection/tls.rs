//! What TLS has agreed on.

use rustls::{CipherSuite, ProtocolVersion, pki_types::CertificateDer};

use crate::quic;

/// What TLS has agreed on for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The host name that the client asked for ([RFC 6066 §3](https://www.rfc-editor.org/rfc/rfc6066#section-3)).
    /// There is none when it asked for an IP address.
    pub server_name: Option<String>,
    /// The protocol that was chosen (ALPN, [RFC 7301](https://www.rfc-editor.org/rfc/rfc7301)): `h3`, `h2`,
    /// `http/1.1`. There is none when the client offered none.
    pub alpn: Option<Vec<u8>>,
    /// The version of TLS. Over QUIC it is always 1.3.
    pub version: Option<ProtocolVersion>,
    /// The cipher suite. Always `None` over QUIC, whose engine does not report it.
    pub cipher_suite: Option<CipherSuite>,
    /// The certificates that the peer showed and that were verified, its own first. Of a server's clients there
    /// are none unless its TLS configuration asks for them.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

impl TlsInfo {
    /// Of a QUIC connection. A client knows which `server_name` it asked for.
    pub(super) fn of_quic(conn: &quic::Connection, server_name: Option<&str>) -> Self {
        let agreed = conn.handshake();
        Self {
            server_name: agreed.server_name.or_else(|| server_name.map(String::from)),
            alpn: agreed.alpn,
            version: Some(ProtocolVersion::TLSv1_3),
            cipher_suite: None,
            peer_certificates: agreed.certificates,
        }
    }

    /// Of a TCP connection that a server has accepted.
    pub(crate) fn of_tcp(tls: &rustls::ServerConnection) -> Self {
        let certificates = tls.peer_certificates().unwrap_or_default();
        Self {
            server_name: tls.server_name().map(String::from),
            alpn: tls.alpn_protocol().map(Vec::from),
            version: tls.protocol_version(),
            cipher_suite: tls.negotiated_cipher_suite().map(|suite| suite.suite()),
            peer_certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        }
    }
}
