//! A client that writes HTTP/2 by hand, over plain TCP.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::kit::soon;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) fn frame(ty: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&[len[1], len[2], len[3], ty, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The field section of a GET, as literals that are not indexed.
pub(crate) fn get(path: &str) -> Vec<u8> {
    let authority = b"\x01\x09localhost";
    [&[0x82, 0x86][..], &[0x04, path.len() as u8], path.as_bytes(), authority].concat()
}

pub(crate) struct Frame {
    pub(crate) ty: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection whose client's system takes little that is not read.
pub(crate) async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

pub(crate) struct H2(pub(crate) TcpStream);

impl H2 {
    /// With its preface and empty SETTINGS written.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn on(stream: TcpStream) -> Self {
        let mut this = Self(stream);
        this.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        this.write(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        this
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        soon("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        soon("its payload", self.0.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { ty: head[3], stream, payload })
    }

    /// The next frame of that type; `None` when there was none before the end.
    pub(crate) async fn until(&mut self, ty: u8) -> Option<Frame> {
        loop {
            let next = self.next().await?;
            if next.ty == ty {
                return Some(next);
            }
        }
    }
}
