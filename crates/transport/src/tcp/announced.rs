//! The PROXY protocol: what a trusted proxy sends before anything else.

use std::{io, net::SocketAddr, time::Duration};

use h3cast_proto::proxy::{BadProxyHeader, ProxyHeader, ProxyRead, Source};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    admission::{Handshake, Place},
    service::{Context, overdue},
};

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
enum NoHeader {
    /// As a load balancer does that only checks whether the server is listening.
    #[error("it ended before its first byte")]
    Empty,
    #[error("its first bytes are not a header of the PROXY protocol: {0}")]
    Malformed(#[from] BadProxyHeader),
    #[error("its header of the PROXY protocol was not complete within {0:?}")]
    Late(Duration),
    #[error("it ended within its header of the PROXY protocol")]
    Broken(#[from] io::Error),
}

/// Takes what a connection from `remote` begins with, if it is of a trusted proxy; it and the handshake of TLS that
/// follows count for the client then that is announced. An error means that the connection is to be closed.
pub(super) async fn client(
    stream: &mut (impl AsyncRead + Unpin),
    remote: SocketAddr,
    (place, handshake): (&mut Place, Option<&mut Handshake>),
    context: &Context,
    stop: &CancellationToken,
) -> Result<Option<ProxyHeader>, ()> {
    if !context.proxies().contains(remote.ip()) {
        return Ok(None);
    }
    let limit = context.limits().head_timeout;
    let read = tokio::select! {
        biased;
        read = read(stream, limit) => read,
        () = overdue(stop, limit) => Err(NoHeader::Empty),
    };
    match read {
        Ok(header) => {
            if let Source::Address(client) = header.source {
                let client = context.admission.client(client.ip());
                place.count_for(&client).map_err(|_| ())?;
                if let Some(handshake) = handshake {
                    handshake.count_for(&client).map_err(|_| ())?;
                }
            }
            Ok(Some(header))
        }
        Err(NoHeader::Empty) => {
            debug!(%remote, "a proxy sent nothing");
            Err(())
        }
        Err(error) => {
            warn!(%remote, "closing a connection of a trusted proxy: {error}");
            Err(())
        }
    }
}

/// Takes the header from a connection, and not one byte that follows.
async fn read(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> Result<ProxyHeader, NoHeader> {
    let reading = async {
        let mut header = Vec::new();
        loop {
            let more = match ProxyHeader::read(&header)? {
                ProxyRead::Complete(header) => return Ok(header),
                ProxyRead::More(more) => more,
            };
            // As many as have come: a wrong first byte is to be noticed without the others.
            if stream.take(more as u64).read_buf(&mut header).await? == 0 {
                let broken = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
                return Err(if header.is_empty() { NoHeader::Empty } else { broken() });
            }
        }
    };
    tokio::time::timeout(limit, reading).await.unwrap_or(Err(NoHeader::Late(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use h3cast_proto::proxy::Source;
    use tokio::io::AsyncWriteExt;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Cut at every byte: it waits for the rest, and takes nothing of what follows.
    #[tokio::test(start_paused = true)]
    async fn a_header_in_two_pieces() {
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb";
        for header in [b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".as_slice(), v2] {
            for cut in 0..=header.len() {
                let (mut proxy, mut server) = tokio::io::duplex(1000);
                let sending = async {
                    proxy.write_all(&header[..cut]).await.unwrap();
                    tokio::time::sleep(LIMIT / 2).await;
                    proxy.write_all(&header[cut..]).await.unwrap();
                    proxy.write_all(b"GET / ").await.unwrap();
                    drop(proxy);
                };
                let (read, ()) = tokio::join!(read(&mut server, LIMIT), sending);
                assert_eq!(read.unwrap().source, Source::Address("192.0.2.7:56324".parse().unwrap()));
                let mut rest = String::new();
                server.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "GET / ");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_header_in_time() {
        let sent = async |bytes: &'static [u8], ends: bool| {
            let (mut proxy, mut server) = tokio::io::duplex(1000);
            proxy.write_all(bytes).await.unwrap();
            if ends {
                drop(proxy);
                return read(&mut server, LIMIT).await.unwrap_err();
            }
            read(&mut server, LIMIT).await.unwrap_err()
        };
        assert!(matches!(sent(b"", true).await, NoHeader::Empty));
        assert!(matches!(sent(b"PROXY TCP4 1", true).await, NoHeader::Broken(_)));
        assert!(matches!(sent(b"PROXY TCP4 1", false).await, NoHeader::Late(_)));
        assert!(matches!(sent(b"", false).await, NoHeader::Late(_)));
        // Not only when 15 bytes of it are here.
        assert!(matches!(sent(b"GET", false).await, NoHeader::Malformed(_)));
        assert!(matches!(sent(b"\x16", false).await, NoHeader::Malformed(_)));
        // Announced as longer than is accepted: not waited for.
        assert!(matches!(sent(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", false).await, NoHeader::Malformed(_)));
    }
}
