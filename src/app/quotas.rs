//! How much clients may have of a server at once, in all and each.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use axum::extract::ConnectInfo;
use http::Extensions;
use sha2::{Digest, Sha256};

use crate::{admission::Key, auth::Access, feed::Account};

/// How much clients may publish at once, in all and each. A client is whom its token names
/// ([`Access::subject`]), and without that an address as [`admission::Key`](Key) counts them.
///
/// Under another server than [`Server`](crate::Server), clients are told apart by axum's
/// `ConnectInfo<SocketAddr>`; without that, only what holds for all of them does.
///
/// ```
/// use std::time::Duration;
/// use h3cast::app::Quotas;
///
/// # fn doc(app: h3cast::App) {
/// let app = app.quotas(Quotas::default().publications(1000, 50).publish_wait(Duration::from_secs(10)));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub(super) publications: (usize, usize),
    pub(super) publish_wait: Duration,
    pub(super) keys: (usize, usize),
}

impl Default for Quotas {
    fn default() -> Self {
        Self { publications: (4096, 256), publish_wait: Duration::from_secs(60), keys: (64 * 1024, 4096) }
    }
}

impl Quotas {
    /// How many publications may run at once, and how many of one client: requests with a body, and streams that
    /// clients open in their sessions. A client that has its share gets 429; when all places are taken, everyone
    /// gets 503. Default 4,096 and 256.
    #[must_use]
    pub fn publications(mut self, all: usize, each: usize) -> Self {
        self.publications = (all, each);
        self
    }

    /// How long a publication may take for its first byte; it is then ended with 408. One that has published
    /// something may be silent for as long as it likes. Zero waits for ever. Default 60 s.
    #[must_use]
    pub fn publish_wait(mut self, time: Duration) -> Self {
        self.publish_wait = time;
        self
    }

    /// How many `Idempotency-Key`s are remembered, and how many of one client for one feed. A client that uses more
    /// loses its own oldest ones. If there are too many in all, those that have most lose their oldest. Some 300
    /// bytes each. Default 65,536 and 4,096.
    #[must_use]
    pub fn keys(mut self, all: usize, each: usize) -> Self {
        self.keys = (all, each);
        self
    }
}

/// Whom a request is counted for: whom its token names, or its address.
pub(super) fn account(extensions: &Extensions, access: &Access) -> Account {
    if let Some((token, who)) = access.named_by() {
        return Account::new(format!("the {token} of {}", short(who)));
    }
    match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => Account::new(Key::from(address.ip()).to_string()),
        None => Account::unknown(),
    }
}

/// A name for logs, and to be kept for each of many things: at most 64 characters, none of which changes the look of
/// other text. What is left out counts in a hash.
fn short(name: &str) -> Cow<'_, str> {
    const LONGEST: usize = 64;
    let is_plain = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if name.chars().all(|c| is_plain(&c)) && name.chars().nth(LONGEST).is_none() {
        return name.into();
    }
    let start: String = name.chars().filter(is_plain).take(LONGEST).collect();
    let hash = Sha256::digest(name).iter().take(8).fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
    format!("{start}… ({hash})").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_names_its_owner_counts_for_them_wherever_they_are() {
        let mut at = Extensions::new();
        at.insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
        let alice = Access::granted().subject("alice");
        assert_eq!(account(&at, &Access::granted()).to_string(), "192.0.2.1");
        assert_eq!(account(&at, &alice), account(&Extensions::new(), &alice));
        assert_ne!(account(&at, &alice), account(&at, &Access::granted().subject("192.0.2.1")));
        assert!(!account(&Extensions::new(), &Access::anonymous()).is_known());
    }

    #[test]
    fn tokens_of_two_kinds_that_name_alike_are_two() {
        let of = |access: Access| account(&Extensions::new(), &access.subject("alice")).to_string();
        assert_eq!(of(Access::granted().by("JSON web token")), "the JSON web token of alice");
        assert_eq!(of(Access::granted().by("static token")), "the static token of alice");
        assert_eq!(of(Access::granted()), "the token of alice");
    }

    #[test]
    fn a_name_is_kept_and_logged_shortened_and_without_control_characters() {
        let of = |subject: &str| account(&Extensions::new(), &Access::granted().subject(subject)).to_string();
        let (one, other) = (of(&"x".repeat(6000)), of(&"x".repeat(6001)));
        assert!(one.len() < 150 && one != other, "{one} {other}");
        assert!(of(&"\u{1f600}".repeat(6000)).len() < 350);
        let forged = of("alice\r\nWARN\u{1b}[31m\u{85}\u{202e}");
        assert!(!forged.contains(|c: char| c.is_control() || c == '\u{202e}'), "{forged:?}");
        assert_ne!(forged, of("aliceWARN[31m"));
        // What says itself is shown as it is.
        assert!(of("alice").ends_with(" alice"), "{}", of("alice"));
        assert!(of(&"y".repeat(64)).ends_with(&format!(" {}", "y".repeat(64))));
    }
}
