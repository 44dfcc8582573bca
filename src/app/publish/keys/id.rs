//! What keys and their owners are known by: hashes, which no client can make collide.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A hash of a key with its feed and its owner, each of which may be long. Clients without a name have one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::app::publish) struct KeyId([u8; 16]);

impl KeyId {
    pub(in crate::app::publish) fn of(feed: &str, owner: Option<&Owner>, key: &str) -> Self {
        // A key has no zero byte, and neither has a feed's name.
        let hash = Sha256::new().chain_update(feed).chain_update([0]).chain_update(key).chain_update([0]);
        let hash = match owner {
            Some(Owner(owner)) => hash.chain_update(owner),
            None => hash,
        };
        Self(first_half(hash))
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// The client whose keys they are: the one that a token names, the same at every server that takes it. Clients that
/// no token names share theirs, since the address of one that comes back may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::publish) struct Owner([u8; 16]);

impl Owner {
    /// The one of this name, by this kind of token.
    pub(in crate::app::publish) fn new(token: &str, name: &str) -> Self {
        Self(first_half(Sha256::new().chain_update(token).chain_update([0]).chain_update(name)))
    }

    /// What its chunks are known by where the feed is stored. No client without a name has the same: that of a feed,
    /// with which theirs begins, has no slash.
    pub(in crate::app::publish) fn prefix(self) -> String {
        let digits = self.0.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"));
        format!("/{digits}/")
    }
}

/// A number for a feed that no client finds another one for: the same in every process.
pub(super) fn number_of(feed: &str) -> u64 {
    first_half(Sha256::new().chain_update(feed)).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
