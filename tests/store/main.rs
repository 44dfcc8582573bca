//! `h3cast serve --store`: feeds survive their server.
#![cfg(all(feature = "cli", feature = "store", unix))]

mod backups;
mod copies;
#[cfg(target_os = "linux")]
mod full;
mod kills;
mod kinds;
#[path = "../handover/overdue.rs"]
mod overdue;
mod places;
#[path = "../handover/process.rs"]
#[allow(dead_code, reason = "it is for servers that take over, too")]
mod process;
mod refusals;
mod restarts;
mod retention;
#[cfg(target_os = "linux")]
mod room;
mod shown;
mod tails;
mod viewer;

use process::{Place, Process, about, post};

/// A folder of its own at the place of the servers.
const STORE: [&str; 2] = ["--store", "store"];

/// Starts a server with a store, at a place of its own.
async fn first(args: &[&str]) -> (std::sync::Arc<Place>, Process) {
    Process::first_at(None, "", &[&STORE, args].concat()).await
}

/// The next one at that place.
async fn next(place: &Place, args: &[&str]) -> Process {
    let mut process = place.rival(&[&STORE, args].concat());
    process.ready().await;
    process
}

/// The first `many` chunks of a feed, as lines.
async fn lines(place: &Place, path: &str, many: usize) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let answer = process::get(place, &format!("{path}{join}limit={many}")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.split_inclusive('\n').map(String::from).collect()
}
