//! How much clients may have of a server at once, in all and each.

use std::{net::IpAddr, time::Duration};

use axum::extract::ConnectInfo;
use http::Extensions;

use crate::feed::Account;

/// How much clients may publish at once, in all and each. A client is an IPv4 address, or the network of an IPv6
/// address (its first 64 bits).
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

/// Whom a request is counted for.
pub(super) fn account(extensions: &Extensions) -> Account {
    match extensions.get::<ConnectInfo<std::net::SocketAddr>>() {
        Some(ConnectInfo(address)) => of_address(address.ip()),
        None => Account::unknown(),
    }
}

fn of_address(address: IpAddr) -> Account {
    match address.to_canonical() {
        IpAddr::V4(address) => Account::new(address.to_string()),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Account::new(format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_addresses_and_networks() {
        for (address, account) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(of_address(address.parse().unwrap()).to_string(), account);
        }
        assert!(!account(&Extensions::new()).is_known());
    }
}
