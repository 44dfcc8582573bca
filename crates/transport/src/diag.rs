//! What the system knows of a TCP connection.

use std::{net::SocketAddr, time::Duration};

/// What TCP_INFO tells (tcp(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    pub(crate) rtt: Duration,
    pub(crate) min_rtt: Duration,
    /// In bytes.
    pub(crate) congestion_window: u64,
    /// The longest segment that is sent, in bytes.
    pub(crate) segment: u16,
    pub(crate) sent_segments: u64,
    pub(crate) received_segments: u64,
    pub(crate) retransmitted_segments: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) retransmitted_bytes: u64,
}

/// How much of what was written has not been acknowledged yet, in bytes; `None` where the system does not tell.
#[cfg(all(target_os = "linux", feature = "tcp"))]
pub(crate) async fn unacknowledged(local: Option<SocketAddr>, remote: SocketAddr) -> Option<u32> {
    let local = local?;
    // It is answered from memory, but the first time the system may load a module for it.
    tokio::task::spawn_blocking(move || linux::unacknowledged(local, remote)).await.ok()?
}

/// The same of many connections.
#[cfg(all(target_os = "linux", feature = "tcp"))]
pub(crate) async fn all_unacknowledged(all: Vec<(Option<SocketAddr>, SocketAddr)>) -> Vec<Option<u32>> {
    if all.is_empty() {
        return Vec::new();
    }
    let (count, ask) = (all.len(), move || linux::all_unacknowledged(&all));
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|_| vec![None; count])
}

#[cfg(all(not(target_os = "linux"), feature = "tcp"))]
pub(crate) async fn all_unacknowledged(all: Vec<(Option<SocketAddr>, SocketAddr)>) -> Vec<Option<u32>> {
    vec![None; all.len()]
}

#[cfg(not(all(target_os = "linux", feature = "tcp")))]
pub(crate) async fn unacknowledged(_local: Option<SocketAddr>, _remote: SocketAddr) -> Option<u32> {
    None
}

/// The rest of what it tells; `None` where it does not.
#[cfg(all(target_os = "linux", feature = "tcp"))]
pub(crate) async fn info(local: Option<SocketAddr>, remote: SocketAddr) -> Option<TcpInfo> {
    let local = local?;
    tokio::task::spawn_blocking(move || linux::info(local, remote)).await.ok()?
}

#[cfg(not(all(target_os = "linux", feature = "tcp")))]
pub(crate) async fn info(_local: Option<SocketAddr>, _remote: SocketAddr) -> Option<TcpInfo> {
    None
}

/// sock_diag(7): what `ioctl(SIOCOUTQ)` and `getsockopt(TCP_INFO)` tell, without `unsafe`.
#[cfg(all(target_os = "linux", feature = "tcp"))]
mod linux {
    use std::{net::SocketAddr, time::Duration};

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::{
        SockDiagMessage,
        constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN},
        inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
    };
    use netlink_sys::{Socket, SocketAddr as Netlink, protocols::NETLINK_SOCK_DIAG};

    use super::TcpInfo;

    /// More than one answer has.
    const LONGEST: usize = 8 << 10;

    pub(super) fn unacknowledged(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        send_queue(&open()?, local, remote)
    }

    pub(super) fn all_unacknowledged(all: &[(Option<SocketAddr>, SocketAddr)]) -> Vec<Option<u32>> {
        let socket = open();
        all.iter().map(|(local, remote)| send_queue(socket.as_ref()?, (*local)?, *remote)).collect()
    }

    fn send_queue(socket: &Socket, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        Some(ask(socket, local, remote, ExtensionFlags::empty())?.header.send_queue)
    }

    fn open() -> Option<Socket> {
        let socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
        // The answer is there when the request has been sent.
        socket.set_non_blocking(true).ok()?;
        Some(socket)
    }

    pub(super) fn info(local: SocketAddr, remote: SocketAddr) -> Option<TcpInfo> {
        let answer = ask(&open()?, local, remote, ExtensionFlags::INFO)?;
        answer.nlas.iter().find_map(|nla| if let Nla::TcpInfo(bytes) = nla { parse(bytes) } else { None })
    }

    /// `struct tcp_info` of linux/tcp.h, which only ever grows at its end.
    fn parse(bytes: &[u8]) -> Option<TcpInfo> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let micros = |at| u32_at(at).map(|micros| Duration::from_micros(micros.into()));
        let segment = u32_at(16)?;
        Some(TcpInfo {
            rtt: micros(68)?,
            min_rtt: micros(148)?,
            congestion_window: u64::from(u32_at(80)?) * u64::from(segment),
            segment: segment.try_into().unwrap_or(u16::MAX),
            sent_segments: u32_at(136)?.into(),
            received_segments: u32_at(140)?.into(),
            retransmitted_segments: u32_at(100)?.into(),
            // Since Linux 4.19.
            sent_bytes: u64_at(200)?,
            received_bytes: u64_at(128)?,
            retransmitted_bytes: u64_at(208)?,
        })
    }

    fn ask(socket: &Socket, local: SocketAddr, remote: SocketAddr, extensions: ExtensionFlags) -> Option<InetResponse> {
        let request = InetRequest {
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions,
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: remote.port(),
                source_address: local.ip(),
                destination_address: remote.ip(),
                interface_id: if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 },
                // None is known.
                cookie: [0xff; 8],
            },
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        socket.send_to(&bytes, &Netlink::new(0, 0), 0).ok()?;
        let mut answer = Vec::with_capacity(LONGEST);
        socket.recv(&mut answer, 0).ok()?;
        match NetlinkMessage::<SockDiagMessage>::deserialize(&answer).ok()?.payload {
            // Of a connection that is gone it tells of the listener.
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                (response.header.state != TCP_LISTEN).then_some(*response)
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use std::{
            io::{Read, Write},
            net::{TcpListener, TcpStream},
            thread,
            time::{Duration, Instant},
        };

        use super::{info, unacknowledged};

        #[test]
        fn it_falls_as_the_peer_receives() {
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(host).unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut server, remote) = listener.accept().unwrap();
                let local = server.local_addr().unwrap();
                assert_eq!(unacknowledged(local, remote), Some(0));
                server.set_nonblocking(true).unwrap();
                let mut written = 0;
                while let Ok(more) = server.write(&[b'x'; 64 << 10]) {
                    written += more;
                }
                assert!(unacknowledged(local, remote).unwrap() > 0);
                client.read_exact(&mut vec![0; written]).unwrap();
                let began = Instant::now();
                while unacknowledged(local, remote) != Some(0) {
                    assert!(began.elapsed() < Duration::from_secs(20));
                    thread::sleep(Duration::from_millis(5));
                }
                let info = info(local, remote).unwrap();
                assert!(info.sent_bytes >= written as u64 && info.received_bytes == 0, "{info:?}");
                assert!(info.sent_segments > 0 && info.received_segments > 0, "{info:?}");
                assert!(!info.rtt.is_zero() && info.rtt < Duration::from_secs(1), "{info:?}");
                assert!(info.min_rtt <= info.rtt && info.segment > 500 && info.congestion_window > 500, "{info:?}");
                drop((client, server));
            }
            assert_eq!(unacknowledged("127.0.0.1:9".parse().unwrap(), "127.0.0.1:9".parse().unwrap()), None);
        }
    }
}
