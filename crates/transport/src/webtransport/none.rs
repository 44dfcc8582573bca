//! No WebTransport: a connection has no sessions, and what comes for one is refused.

use h3cast_proto::{Violation, code, datagram};

use crate::{
    guard::{Begun, Delivery, Sessions},
    quic::{RecvStream, SendStream},
};

/// The sessions of a connection.
#[derive(Debug)]
pub(crate) struct Registry;

impl Registry {
    pub(crate) fn new(_: usize) -> Self {
        Self
    }

    pub(crate) fn drain(&self) {}

    pub(crate) fn close_all(&self) {}

    pub(crate) fn deliver_datagram(&self, datagram: &[u8]) -> Result<(), Violation> {
        datagram::parse(datagram).map(drop)
    }
}

impl Sessions for Registry {
    fn deliver_bi(&self, _: u64, mut send: SendStream, mut recv: RecvStream, _: Begun) -> Delivery<'_> {
        recv.stop(code::H3_STREAM_CREATION_ERROR);
        send.reset(code::H3_STREAM_CREATION_ERROR);
        Box::pin(std::future::ready(()))
    }

    /// RFC 9114 §6.2: of a type that is not known.
    fn deliver_uni(&self, _: u64, mut recv: RecvStream, _: Begun) -> Delivery<'_> {
        recv.stop(code::H3_STREAM_CREATION_ERROR);
        Box::pin(std::future::ready(()))
    }

    fn only(&self, _: u64) -> Option<u64> {
        None
    }

    fn bi_came(&self, _: u64) {}

    fn bi_read(&self, _: u64) {}

    fn unreported(&self) {}
}

/// What answers sessions: nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handlers {}
