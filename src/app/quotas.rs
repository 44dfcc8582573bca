//! How much clients may have of a server at once, in all and each.

use std::{net::SocketAddr, time::Duration};

use axum::extract::ConnectInfo;
use http::Extensions;

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
    if let Some(who) = access.who() {
        return Account::new(format!("the token of {who}"));
    }
    match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => Account::new(Key::from(address.ip()).to_string()),
        None => Account::unknown(),
    }
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
}
