//! How well a connection works.

use std::time::Duration;

use crate::{diag::TcpInfo, quic};

/// How well a connection works, and what it has carried: of QUIC counted by this side, of TCP by the system.
///
/// `None` stands for what is not known: all of it where the system does not report on its TCP connections (Linux
/// does), and of a TCP connection that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The smoothed round-trip time ([RFC 9002 §5.3](https://www.rfc-editor.org/rfc/rfc9002#section-5.3)). Until
    /// QUIC has measured one, it is 333 ms.
    pub rtt: Option<Duration>,
    /// The shortest one.
    pub min_rtt: Option<Duration>,
    /// How much may be on its way to the peer at once, in bytes.
    pub congestion_window: Option<u64>,
    /// The largest packet (QUIC, a UDP payload) or segment (TCP) that is sent now, in bytes.
    pub mtu: Option<u16>,
    /// Packets or segments sent; over QUIC, on the present path.
    pub sent_packets: Option<u64>,
    /// Those of them that were lost (QUIC) or sent again (TCP).
    pub lost_packets: Option<u64>,
    /// Packets or segments received.
    pub received_packets: Option<u64>,
    /// Bytes sent, what was sent again included: UDP payloads over QUIC, payloads of segments over TCP.
    pub sent_bytes: Option<u64>,
    /// Those of them that were lost (QUIC) or sent again (TCP).
    pub lost_bytes: Option<u64>,
    /// Bytes received, counted as those sent.
    pub received_bytes: Option<u64>,
}

impl From<quic::Path> for ConnectionStats {
    fn from(path: quic::Path) -> Self {
        Self {
            rtt: Some(path.rtt),
            min_rtt: Some(path.min_rtt),
            congestion_window: Some(path.congestion_window),
            mtu: Some(path.mtu),
            sent_packets: Some(path.sent_packets),
            lost_packets: Some(path.lost_packets),
            received_packets: Some(path.received_packets),
            sent_bytes: Some(path.sent_bytes),
            lost_bytes: Some(path.lost_bytes),
            received_bytes: Some(path.received_bytes),
        }
    }
}

impl From<TcpInfo> for ConnectionStats {
    fn from(info: TcpInfo) -> Self {
        Self {
            rtt: Some(info.rtt),
            min_rtt: Some(info.min_rtt),
            congestion_window: Some(info.congestion_window),
            mtu: Some(info.segment),
            sent_packets: Some(info.sent_segments),
            lost_packets: Some(info.retransmitted_segments),
            received_packets: Some(info.received_segments),
            sent_bytes: Some(info.sent_bytes),
            lost_bytes: Some(info.retransmitted_bytes),
            received_bytes: Some(info.received_bytes),
        }
    }
}
