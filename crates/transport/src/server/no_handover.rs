//! Where no server takes over from another.

use std::{collections::HashMap, net::SocketAddr};

use crate::{listen::Pool, quic::relay::Owner};

#[derive(Debug, Default)]
pub(super) struct Inherited;

impl Inherited {
    pub(super) fn into_parts(self) -> (Pool, HashMap<SocketAddr, Vec<Owner>>) {
        Default::default()
    }
}
