//! How much of what was written to a TCP connection has not been acknowledged yet.

use std::net::SocketAddr;

/// That many bytes; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(super) async fn length(local: Option<SocketAddr>, remote: SocketAddr) -> Option<u32> {
    let local = local?;
    // It is answered from memory, but the first time the system may load a module for it.
    tokio::task::spawn_blocking(move || linux::length(local, remote)).await.ok()?
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn length(_local: Option<SocketAddr>, _remote: SocketAddr) -> Option<u32> {
    None
}

/// sock_diag(7): what `ioctl(SIOCOUTQ)` says, without the file descriptor and `unsafe`.
#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::{
        SockDiagMessage,
        constants::{AF_INET, AF_INET6, IPPROTO_TCP},
        inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
    };
    use netlink_sys::{Socket, SocketAddr as Netlink, protocols::NETLINK_SOCK_DIAG};

    /// More than one answer has.
    const LONGEST: usize = 8 << 10;

    pub(super) fn length(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let request = InetRequest {
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
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
        let socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
        // The answer is there when the request has been sent.
        socket.set_non_blocking(true).ok()?;
        socket.send_to(&bytes, &Netlink::new(0, 0), 0).ok()?;
        let mut answer = Vec::with_capacity(LONGEST);
        socket.recv(&mut answer, 0).ok()?;
        match NetlinkMessage::<SockDiagMessage>::deserialize(&answer).ok()?.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => Some(response.header.send_queue),
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

        use super::length;

        #[test]
        fn it_falls_as_the_peer_receives() {
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(host).unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut server, remote) = listener.accept().unwrap();
                let local = server.local_addr().unwrap();
                assert_eq!(length(local, remote), Some(0));
                server.set_nonblocking(true).unwrap();
                let mut written = 0;
                while let Ok(more) = server.write(&[b'x'; 64 << 10]) {
                    written += more;
                }
                assert!(length(local, remote).unwrap() > 0);
                client.read_exact(&mut vec![0; written]).unwrap();
                let began = Instant::now();
                while length(local, remote) != Some(0) {
                    assert!(began.elapsed() < Duration::from_secs(20));
                    thread::sleep(Duration::from_millis(5));
                }
                drop((client, server));
            }
            assert_eq!(length("127.0.0.1:9".parse().unwrap(), "127.0.0.1:9".parse().unwrap()), None);
        }
    }
}
