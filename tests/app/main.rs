//! The app in a program of one's own: as a part of another router, with another page, behind a layer, and who may use it.

#[path = "../common/mod.rs"]
mod common;
mod compression;
mod origins;
mod page;
mod plain;
mod proxies;
mod status_page;
mod under_prefix;
