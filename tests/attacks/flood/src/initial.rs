//! Initial packets that a server can decrypt, made without a QUIC stack: RFC 9000 §17.2.2, RFC 9001 §5.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{ClientConnection, Keys, Version},
};

/// RFC 9000 §14.1: what a datagram with a client's Initial has at least.
pub(crate) const DATAGRAM: usize = 1200;

const PING: u8 = 0x01;
const CRYPTO: u8 = 0x06;
const HANDSHAKE_DONE: u8 = 0x1e;
const TAG: usize = 16;

/// A ClientHello and the source connection id that its transport parameters name.
pub(crate) struct Hello {
    source: [u8; 8],
    crypto: Vec<u8>,
}

impl Hello {
    /// One that no server understands.
    #[allow(dead_code, reason = "tests of the transport use it")]
    pub(crate) fn spoiled(mut self) -> Self {
        self.crypto[0] ^= 0xff;
        self
    }
}

/// Makes hellos. Keys of the key exchange are the costly part, so each is used in many packets.
pub(crate) struct Hellos {
    config: Arc<ClientConfig>,
    random: SystemRandom,
}

impl Hellos {
    pub(crate) fn new() -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        Self { config: Arc::new(config), random: SystemRandom::new() }
    }

    pub(crate) fn hello(&self) -> Hello {
        let source = self.id();
        // initial_source_connection_id; windows and streams as a browser has them.
        let mut parameters = vec![0x0f, source.len() as u8];
        parameters.extend(source);
        for (id, value) in [(0x04u8, 0x80f0_0000u32), (0x05, 0x8060_0000), (0x07, 0x8060_0000)] {
            parameters.extend([id, 4]);
            parameters.extend(value.to_be_bytes());
        }
        for id in [0x08, 0x09] {
            parameters.extend([id, 2, 0x40, 103]);
        }
        let name = "localhost".try_into().expect("a host name");
        let mut connection =
            ClientConnection::new(self.config.clone(), Version::V1, name, parameters).expect("a ClientHello");
        let mut crypto = Vec::new();
        connection.write_hs(&mut crypto);
        Hello { source, crypto }
    }

    pub(crate) fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        self.random.fill(&mut id).expect("the system has random numbers");
        id
    }
}

/// One connection that an attacker begins and never completes.
pub(crate) struct HalfOpen {
    destination: [u8; 8],
    source: [u8; 8],
    keys: Keys,
    next: u32,
}

impl HalfOpen {
    pub(crate) fn new(destination: [u8; 8], hello: &Hello) -> Self {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite()).expect("a suite of QUIC");
        let keys = suite.keys(&destination, rustls::Side::Client, Version::V1);
        Self { destination, source: hello.source, keys, next: 0 }
    }

    /// The first datagram: a whole ClientHello, padded.
    pub(crate) fn first(&mut self, hello: &Hello) -> Vec<u8> {
        self.part(hello, hello.crypto.len(), &[])
    }

    /// One with the first `length` bytes of a ClientHello, and a token (RFC 9000 §8.1).
    pub(crate) fn part(&mut self, hello: &Hello, length: usize, token: &[u8]) -> Vec<u8> {
        let part = &hello.crypto[..length.min(hello.crypto.len())];
        let mut frames = vec![CRYPTO, 0];
        frames.extend((0x4000 | part.len() as u16).to_be_bytes());
        frames.extend(part);
        self.packet(frames, token, DATAGRAM)
    }

    /// A datagram with one PING, of `size` bytes: less than a client may send.
    pub(crate) fn small(&mut self, size: usize) -> Vec<u8> {
        self.packet(vec![PING], &[], size)
    }

    /// A datagram with a frame that an Initial may not have (RFC 9000 §12.4).
    #[allow(dead_code, reason = "tests of the transport use it")]
    pub(crate) fn misplaced(&mut self) -> Vec<u8> {
        self.packet(vec![HANDSHAKE_DONE], &[], DATAGRAM)
    }

    fn packet(&mut self, mut frames: Vec<u8>, token: &[u8], size: usize) -> Vec<u8> {
        // A long header, Initial, with four bytes of packet number.
        let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
        packet.extend(self.destination);
        packet.push(8);
        packet.extend(self.source);
        packet.extend((0x4000 | token.len() as u16).to_be_bytes());
        packet.extend(token);
        let number = packet.len() + 2;
        frames.resize((size - number - 4 - TAG).max(frames.len()), 0);
        packet.extend((0x4000 | (4 + frames.len() + TAG) as u16).to_be_bytes());
        packet.extend(self.next.to_be_bytes());
        let tag = self
            .keys
            .local
            .packet
            .encrypt_in_place(self.next.into(), &packet, &mut frames)
            .expect("a packet can be encrypted");
        packet.extend(frames);
        packet.extend(tag.as_ref());
        let (head, rest) = packet.split_at_mut(number);
        let (bytes, sample) = rest.split_at_mut(4);
        let sample = &sample[..self.keys.local.header.sample_len()];
        self.keys.local.header.encrypt_in_place(sample, &mut head[0], bytes).expect("a header can be protected");
        self.next += 1;
        packet
    }
}
