//! What one client may have of a server: publications, keys, processes, feeds. The others don't notice.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod created;
mod folder;
mod peers;
#[cfg(unix)]
mod processes;
mod publishing;
#[path = "../common/serving.rs"]
mod serving;
