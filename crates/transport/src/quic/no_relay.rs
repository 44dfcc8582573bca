//! Where no process takes over from another.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    task::{Context, Poll},
};

use quinn::{AsyncUdpSocket, udp::RecvMeta};

use super::routing::Ids;

#[derive(Debug)]
pub(crate) enum Owner {}

impl Owner {
    pub(crate) fn process(&self) -> u8 {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) struct Relay;

impl Relay {
    pub(crate) async fn lost(&self) {
        std::future::pending().await
    }

    pub(super) fn new(_: &UdpSocket, _: Ids, _: Option<Vec<Owner>>) -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn open(&self) {}

    pub(super) fn is_given(&self) -> bool {
        false
    }

    pub(super) fn poll_recv(
        &self,
        socket: &dyn AsyncUdpSocket,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        socket.poll_recv(cx, bufs, meta)
    }
}
