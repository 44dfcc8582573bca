//! Feeds on real nats-servers: several servers of the same feeds, and what becomes of viewers and
//! publishers when parts of it fail. `tests/run nats` installs nats-server and runs it.
#![cfg(feature = "nats")]

mod balancers;
mod batches;
mod causes;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod consumers;
mod credentials;
mod edge;
mod failures;
mod families;
mod feeds;
mod keeping;
mod large;
mod leaders;
mod live;
mod malformed;
mod past;
mod permissions;
mod presence;
#[path = "../common/program.rs"]
mod program;
mod promises;
mod publishing;
mod readiness;
mod replaced;
#[path = "../common/serving.rs"]
mod serving;
mod stalls;
mod starting;
mod systems;
mod told;

use std::time::Duration;

/// How long what takes several elections may take.
const LONG: Duration = Duration::from_secs(120);

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {LONG:?}: {what}"),
    }
}
