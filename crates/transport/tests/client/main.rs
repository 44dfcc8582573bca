//! The client, against our server and against one on the plain h3 crate.

mod bodies;
mod servers;
mod service;
mod settings;
