//! Connection ids that name their server, so that a load balancer finds it also when the client's
//! address has changed ([draft-ietf-quic-load-balancers], without encryption).
//!
//! [draft-ietf-quic-load-balancers]: https://datatracker.ietf.org/doc/draft-ietf-quic-load-balancers/

use std::{fmt, str::FromStr, time::Duration};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

use crate::crypto::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// What tells ids apart: random bytes.
const NONCE: usize = 4;
/// And a hash of them, so that what was never an id of this server is told from an old one.
const TAG: usize = 4;
/// An id has at most 20 bytes (RFC 9000 §17.2), one of them about the others.
const LONGEST: usize = 20 - 1 - NONCE - TAG;

/// Which server of several behind a load balancer this one is: 1 to 11 bytes, written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Vec<u8>);

/// A text is no server's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no server id: write 1 to {LONGEST} bytes in hexadecimal, as in 0a or c4605e")]
pub struct BadServerId(String);

impl FromStr for ServerId {
    type Err = BadServerId;

    fn from_str(text: &str) -> Result<Self, BadServerId> {
        let bad = || BadServerId(text.to_owned());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()
        };
        let bytes: Option<Vec<_>> = pairs.iter().map(byte).collect();
        let bytes = bytes.filter(|bytes| rest.is_empty() && (1..=LONGEST).contains(&bytes.len()));
        bytes.map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Makes ids that a load balancer can read.
#[derive(Clone)]
pub(super) struct Routable {
    server: ServerId,
    key: hmac::Key,
    random: SystemRandom,
}

impl Routable {
    pub(super) fn new(server: ServerId, key: hmac::Key) -> Self {
        Self { server, key, random: SystemRandom::new() }
    }

    fn len(&self) -> usize {
        1 + self.server.0.len() + NONCE + TAG
    }

    /// The first byte: the rotation of the configuration, 0, and how many bytes follow (§3.1, §3.3).
    fn first(&self) -> u8 {
        (self.len() - 1) as u8
    }

    fn tag(&self, id: &[u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac::sign(&self.key, id).as_ref()[..TAG]);
        tag
    }
}

impl ConnectionIdGenerator for Routable {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE];
        // Without randomness there would have been no handshake.
        let _ = self.random.fill(&mut nonce);
        let mut id = [&[self.first()], &*self.server.0, &nonce].concat();
        id.extend(self.tag(&id));
        ConnectionId::new(&id)
    }

    /// Those of others with the same key too: what the load balancer sends here because its server is
    /// gone is answered with a stateless reset (RFC 9000 §10.3), so that the client need not time out.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (id, tag) = id.split_last_chunk::<TAG>().ok_or(InvalidCid)?;
        if id.len() + TAG == self.len() && *tag == self.tag(id) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        self.len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_ids() {
        assert_eq!("c4605e".parse(), Ok(ServerId(vec![0xc4, 0x60, 0x5e])));
        assert_eq!("0A".parse::<ServerId>().unwrap().to_string(), "0a");
        for text in ["", "c", "xy", "c4605", "+1", "0102030405060708090a0b0c"] {
            assert!(text.parse::<ServerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_name_their_server() {
        let key = |text: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, text);
        let mut ids = Routable::new("c4605e".parse().unwrap(), key(b"a"));
        let (one, other) = (ids.generate_cid(), ids.generate_cid());
        assert_ne!(one, other);
        // As a load balancer reads it.
        assert_eq!((one[0], &one[1..4], one.len()), (11, &[0xc4, 0x60, 0x5e][..], 12));
        assert_eq!(one.len(), ids.cid_len());
        assert!(ids.validate(&one).is_ok());
        let mut changed = one.to_vec();
        changed[5] ^= 1;
        assert!(ids.validate(&ConnectionId::new(&changed)).is_err());
        assert!(ids.validate(&ConnectionId::new(&one[..8])).is_err());
        // One that was there before it, and one that is gone.
        let other = |id: &str| Routable::new(id.parse().unwrap(), key(b"a"));
        assert!(other("c4605f").validate(&one).is_ok());
        assert!(other("c460").validate(&one).is_err());
        assert!(Routable::new("c4605e".parse().unwrap(), key(b"b")).validate(&one).is_err());
    }
}
