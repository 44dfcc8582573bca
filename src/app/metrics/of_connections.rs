//! Connections, handshakes, sessions and requests.

use std::fmt;

use super::sheet::{Row, Sheet};
use crate::counts::{Answer, Carrier, HandshakeFailure, Protocol, Snapshot};

/// Those that connections have: sessions of WebTransport are in connections of HTTP/3.
const OF_CONNECTIONS: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Http3];

pub(super) fn write(sheet: &mut Sheet<'_>, now: &Snapshot) -> fmt::Result {
    let by_protocol = |value: fn(&Snapshot, Protocol) -> u64| {
        OF_CONNECTIONS.map(|protocol| ([("protocol", protocol.as_str())], Row::from(value(now, protocol))))
    };
    let help = "Open connections with a completed handshake, by protocol.";
    sheet.family("h3cast_http_connections", help, by_protocol(Snapshot::connections))?;
    let help = "Connections opened, by protocol.";
    sheet.family("h3cast_http_connections_opened_total", help, by_protocol(Snapshot::opened))?;
    sheet.one("h3cast_sessions_opened_total", "WebTransport sessions opened.", now.sessions)?;
    let rows = Carrier::ALL.map(|carrier| ([("carrier", carrier.as_str())], Row::from(now.handshakes(carrier))));
    sheet.family("h3cast_handshakes_total", "Handshakes completed.", rows)?;
    let rows = Carrier::ALL.into_iter().flat_map(|carrier| {
        HandshakeFailure::ALL.map(|reason| {
            let labels = [("carrier", carrier.as_str()), ("reason", reason.as_str())];
            (labels, Row::from(now.failed(carrier, reason)))
        })
    });
    sheet.family("h3cast_handshakes_failed_total", "Handshakes that failed, by reason.", rows)?;
    let rows = Protocol::ALL.into_iter().flat_map(|protocol| {
        Answer::ALL.map(|answer| {
            let labels = [("protocol", protocol.as_str()), ("status", answer.as_str())];
            (labels, Row::from(now.requests(protocol, answer)))
        })
    });
    let help = "Requests by protocol and class of status; `none` if the client gave up before the answer.";
    sheet.family("h3cast_http_requests_total", help, rows)?;
    let quic = &now.quic;
    let help =
        "Smoothed round-trip times of QUIC connections, sampled every 3 s while each is open, and once at its end.";
    sheet.histogram("h3cast_quic_rtt_seconds", help, &quic.rtt.buckets, quic.rtt.sum)?;
    sheet.one(
        "h3cast_quic_sent_packets_total",
        "QUIC packets sent on connections that reached HTTP/3.",
        quic.sent_packets,
    )?;
    sheet.one(
        "h3cast_quic_lost_packets_total",
        "QUIC packets lost, of those sent on connections that reached HTTP/3.",
        quic.lost_packets,
    )?;
    sheet.one(
        "h3cast_quic_sent_bytes_total",
        "Bytes of UDP payload sent on connections that reached HTTP/3.",
        quic.sent_bytes,
    )?;
    sheet.one(
        "h3cast_quic_received_bytes_total",
        "Bytes of UDP payload received on connections that reached HTTP/3.",
        quic.received_bytes,
    )
}
