//! HTTP, EventSource and text as everyday clients use them, and what the program prints about itself.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;

mod accept;
mod clients;
mod codings;
mod ended;
mod entries;
mod events;
mod formats;
mod hosts;
mod interim;
mod paths;
mod plain;
mod ports;
mod queries;
mod startup;
mod terminal;
mod text;
mod urls;
