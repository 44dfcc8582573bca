//! What the system holds for a client that does not read.

use tokio::net::TcpStream;

/// How much of what was written may wait in the system for the client's window, in bytes, beside what is on its way.
///
/// Without a bound Linux takes up to 4 MiB (`net.ipv4.tcp_wmem`) for a client that reads nothing. `SO_SNDBUF` would
/// bound that and end the system's own choice of a size, so that one that is fast and far away would get no more than
/// that in a round trip: 200 KiB where `net.core.wmem_max` has its usual value. This bounds only what waits. What is on
/// its way (the congestion window) still grows with what the client acknowledges, and a client that stops to do so
/// holds it for [`Limits::send_timeout`](crate::Limits::send_timeout). The price is a
/// wake-up for each 128 KiB at most, where one could have been for megabytes. `docs/operations.md` has what was measured.
#[cfg(any(target_os = "android", target_os = "linux"))]
const NOT_SENT: u32 = 128 << 10;

/// Bounds it, where the system can.
pub(super) fn bound(stream: &TcpStream) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    // Without it, it is as it was.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT);
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = stream;
}
