//! Feeds on NATS under faults: three nats-servers and three of our own, each with a network of its own, and whatever
//! can go wrong between them. `tests/run python faults` runs it for a minute, `tests/soak` for longer.
//!
//! Each test runs in private network, mount and process namespaces: no packet leaves them, and nothing is left behind.
//! It needs `unshare`, `ip`, `tc` and `bridge` (Debian: util-linux, iproute2), and to be root or to be allowed user
//! namespaces.
#![cfg(all(feature = "nats", feature = "cli", target_os = "linux"))]

#[allow(dead_code, reason = "a part of it")]
#[path = "../nats/cluster.rs"]
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod cut_off;
mod disk;
mod edges;
mod inside;
mod lagging;
mod ledger;
mod nodes;
mod promises;
mod publishers;
mod reading;
mod running;
mod scene;
mod schedule;
#[path = "../common/serving.rs"]
mod serving;
mod viewers;
mod whatever;

use std::time::Duration;

/// How long what takes several elections may take.
const LONG: Duration = Duration::from_secs(120);

/// Whether to take the time that `tests/soak` has.
fn is_long() -> bool {
    std::env::var("H3CAST_FAULTS").is_ok_and(|size| size == "long")
}

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {LONG:?}: {what}"),
    }
}
