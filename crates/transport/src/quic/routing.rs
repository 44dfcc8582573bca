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
const NONCE: usize = 3;
/// A hash of what precedes it, which tells an old id of this server from what never was one.
const TAG: usize = 4;
/// An id has at most 20 bytes (RFC 9000 §17.2): one is about the others, one names the process.
const LONGEST: usize = 20 - 1 - NONCE - 1 - TAG;
/// What `Ids` are written as for another process: the layout of that, and of ids.
#[cfg_attr(not(unix), allow(dead_code, reason = "no other process shares the socket there"))]
const LAYOUT: u8 = 1;

/// Which server of several behind a load balancer this one is: 1 to 11 bytes, written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Vec<u8>);

/// A text is no server's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid server id: write 1 to {LONGEST} bytes in hexadecimal, as in 0a or c4605e")]
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

/// Makes connection ids, and recognises those of processes with the same secret: of the one before after a restart, of
/// those that still have connections after a hand-over. Which process it was, only they can read.
#[derive(Clone)]
pub(super) struct Ids {
    /// Which a load balancer reads, if there is one.
    server: Option<ServerId>,
    #[cfg_attr(not(unix), allow(dead_code, reason = "no other process shares the socket there"))]
    secret: [u8; SECRET],
    key: hmac::Key,
    /// Which of the processes that use a socket at the same time.
    process: u8,
    random: SystemRandom,
}

/// The length of the secret by which ids are recognised, in bytes.
const SECRET: usize = 32;

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("server", &self.server).field("process", &self.process).finish_non_exhaustive()
    }
}

#[cfg_attr(not(unix), allow(dead_code, reason = "no other process shares the socket there"))]
impl Ids {
    pub(super) fn new(server: Option<ServerId>, secret: [u8; SECRET], process: u8) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { server, secret, key, process, random: SystemRandom::new() }
    }

    pub(super) fn process(&self) -> u8 {
        self.process
    }

    /// For another process, which must keep it secret.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let server = self.server.as_ref().map_or(&[][..], |server| &server.0);
        [&[LAYOUT, self.process][..], &self.secret, server].concat()
    }

    /// What another process has written; `None` if that is of another version.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([LAYOUT, process], rest) = bytes.split_first_chunk()? else { return None };
        let (secret, server) = rest.split_first_chunk::<SECRET>()?;
        let server = Some(server).filter(|server| !server.is_empty()).map(|server| ServerId(server.to_vec()));
        if server.as_ref().is_some_and(|server| server.0.len() > LONGEST) {
            return None;
        }
        Some(Self::new(server, *secret, *process))
    }

    pub(super) fn len(&self) -> usize {
        self.server.as_ref().map_or(0, |server| 1 + server.0.len()) + NONCE + 1 + TAG
    }

    /// What comes before the random bytes. First, the rotation of the configuration, 0, and how many bytes follow
    /// (§3.1, §3.3).
    fn head(&self) -> Vec<u8> {
        let Some(server) = &self.server else { return Vec::new() };
        [&[(self.len() - 1) as u8], &*server.0].concat()
    }

    /// What hides the process, and the tag, of an id that begins so.
    fn seal(&self, beginning: &[u8]) -> (u8, [u8; TAG]) {
        let hash = hmac::sign(&self.key, beginning);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hash.as_ref()[..TAG]);
        (hash.as_ref()[TAG], tag)
    }

    /// Which process made an id; `None` if none of these has.
    pub(super) fn process_of(&self, id: &[u8]) -> Option<u8> {
        let (rest, tag) = id.split_last_chunk::<TAG>()?;
        let (hidden, beginning) = rest.split_last()?;
        if id.len() != self.len() {
            return None;
        }
        let (mask, expected) = self.seal(beginning);
        (*tag == expected).then_some(hidden ^ mask)
    }

    /// Which process made the id of the connection that a packet is for. Their length is not in packets after the
    /// handshake (RFC 9000 §17.3).
    pub(super) fn process_of_packet(&self, packet: &[u8]) -> Option<u8> {
        let (first, rest) = packet.split_first()?;
        let id = match first & 0x80 {
            0 => rest.get(..self.len())?,
            _ => {
                // After the version.
                let (length, rest) = rest.get(4..)?.split_first()?;
                rest.get(..usize::from(*length))?
            }
        };
        self.process_of(id)
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE];
        // Without randomness there would have been no handshake.
        let _ = self.random.fill(&mut nonce);
        let mut id = self.head();
        id.extend(nonce);
        let (mask, tag) = self.seal(&id);
        id.push(self.process ^ mask);
        id.extend(tag);
        ConnectionId::new(&id)
    }

    /// Those of others with the same key too: what a load balancer sends here because its server is
    /// gone is answered with a stateless reset (RFC 9000 §10.3), so that the client need not time out.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.process_of(id).map(drop).ok_or(InvalidCid)
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

    fn ids(server: &str, secret: u8, process: u8) -> Ids {
        Ids::new(server.parse().ok(), [secret; SECRET], process)
    }

    #[test]
    fn ids_name_their_server() {
        let mut own = ids("c4605e", 1, 7);
        let (one, other) = (own.generate_cid(), own.generate_cid());
        assert_ne!(one, other);
        // As a load balancer reads it.
        assert_eq!((one[0], &one[1..4], one.len()), (11, &[0xc4, 0x60, 0x5e][..], 12));
        assert_eq!(one.len(), own.cid_len());
        assert!(own.validate(&one).is_ok());
        let mut changed = one.to_vec();
        changed[5] ^= 1;
        assert!(own.validate(&ConnectionId::new(&changed)).is_err());
        assert!(own.validate(&ConnectionId::new(&one[..8])).is_err());
        // One that was there before it, and one that is gone.
        assert!(ids("c4605f", 1, 8).validate(&one).is_ok());
        assert!(ids("c460", 1, 7).validate(&one).is_err());
        assert!(ids("c4605e", 2, 7).validate(&one).is_err());
    }

    #[test]
    fn ids_name_their_process_to_those_who_know() {
        for server in ["", "c4605e"] {
            let (mut old, new) = (ids(server, 1, 7), ids(server, 1, 8));
            let id = old.generate_cid();
            assert_eq!(new.process_of(&id), Some(7));
            assert_eq!(ids(server, 2, 7).process_of(&id), None);
            // As written for another process, of another secret too.
            let told = Ids::from_bytes(&old.to_bytes()).unwrap();
            assert_eq!((told.process_of(&id), told.process(), told.len()), (Some(7), 7, id.len()));
            let short = [&[0x40], &*id, b"payload"].concat();
            let long = [&[0xe0, 0, 0, 0, 1, id.len() as u8], &*id, &[0], b"payload"].concat();
            for packet in [&short, &long] {
                assert_eq!(new.process_of_packet(packet), Some(7));
                for length in 0..=id.len() {
                    assert_eq!(new.process_of_packet(&packet[..length]), None);
                }
            }
            // What a client has made up for its first packets.
            let first = [&[0xc0, 0, 0, 0, 1, 8], &[9; 8][..], b"payload"].concat();
            assert_eq!(new.process_of_packet(&first), None);
        }
        assert!(Ids::from_bytes(&[]).is_none());
        assert!(Ids::from_bytes(&[LAYOUT + 1; 40]).is_none());
        assert!(Ids::from_bytes(&[LAYOUT; 60]).is_none());
    }

    /// What an observer could tell processes by would link connections, and show restarts.
    #[test]
    fn the_process_is_hidden() {
        let mut ids = ids("", 1, 7);
        let bytes: std::collections::BTreeSet<u8> = (0..64).map(|_| ids.generate_cid()[NONCE]).collect();
        assert!(bytes.len() > 16);
    }
}
