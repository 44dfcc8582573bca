//! What one connection may cost, and how it behaves.

use std::time::Duration;

use crate::limits::Limits;

/// Bidirectional streams that a peer may have at once. quinn keeps tables of all that are allowed, and most connections
/// need one of these, and three of the others: nine and five are the most that fit into tables of 16.
pub(crate) const FEW_BI_STREAMS: u32 = 9;
/// The same of unidirectional ones. Some clients open a fourth, which says nothing (RFC 9114 §6.2.3).
pub(crate) const FEW_UNI_STREAMS: u32 = 5;
/// A peer that has opened that many bidirectional streams may have as many as any, before it runs out of the few. Of
/// unidirectional ones it is the last of the few: only sessions need more, and they have as many as any.
pub(crate) const SOME_BI_STREAMS: u32 = 4;
/// Unidirectional streams that HTTP/3 itself needs (RFC 9114 §6.2).
pub(crate) const OWN_STREAMS: u32 = 3;
/// How often a connection is kept alive while it carries something, so that a feed may be silent for long.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// What a peer may send on one connection before it is read, in bytes.
const RECEIVE_WINDOW: u32 = 2 << 20;
/// The same on one stream. A page may write 1 MiB before it reads anything.
const STREAM_WINDOW: u32 = 1 << 20;
/// What is kept for a peer that does not read, in bytes a connection.
pub(super) const SEND_WINDOW: u64 = 1 << 20;
/// The same for a client of a server that has acknowledged little yet.
pub(super) const FIRST_SEND_WINDOW: u64 = 256 << 10;
/// Datagrams that wait, each way, in bytes a connection.
const DATAGRAM_BUFFER: usize = 256 << 10;
/// How long a connection lives without a sign of the peer.
const IDLE: Duration = Duration::from_secs(30);

/// The settings of a connection, for a server and a client alike.
pub fn transport(keep_alive: Option<Duration>) -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(FEW_BI_STREAMS.into())
        .max_concurrent_uni_streams(FEW_UNI_STREAMS.into())
        .receive_window(RECEIVE_WINDOW.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // A viewer has one stream: fairness among streams would only cut packets up.
        .send_fairness(false)
        .keep_alive_interval(keep_alive)
        .max_idle_timeout(IDLE.try_into().ok());
    config
}

/// How often a server keeps a connection alive that carries something. Two of the peer's packets may be lost.
pub(crate) fn keep_alive(limits: &Limits) -> Duration {
    KEEP_ALIVE.min(limits.idle_timeout / 5 * 2)
}

/// What a peer may send on a connection before it is read, in bytes. The engine takes that, and has no way to ask for
/// it but this. `None` when it cannot be told, or has no room above it.
pub(crate) fn receive_window(config: &quinn::TransportConfig) -> Option<u64> {
    let shown = format!("{config:?}");
    let (_, rest) = shown.split_once(" receive_window: ")?;
    let window = rest.split(|end: char| !end.is_ascii_digit()).next()?.parse().ok()?;
    (window < quinn::VarInt::MAX.into_inner() / 2).then_some(window)
}

/// Sets the send window to what one that grows comes to.
pub(crate) fn whole_send_window(config: &mut quinn::TransportConfig) {
    config.send_window(SEND_WINDOW);
}

/// The same for a server, which keeps connections alive by itself, while they carry something
/// ([`Connection::keep_alive`](super::Connection::keep_alive)). Its send window is that of a connection whose window
/// grows: see `Connection::grow`.
pub(crate) fn server_transport(limits: &Limits) -> quinn::TransportConfig {
    let mut config = transport(None);
    config
        .max_concurrent_bidi_streams(FEW_BI_STREAMS.min(limits.streams).into())
        .max_concurrent_uni_streams(FEW_UNI_STREAMS.min(limits.streams).max(OWN_STREAMS).into())
        .send_window(FIRST_SEND_WINDOW)
        // What is too long for the wire has no end.
        .max_idle_timeout(limits.idle_timeout.try_into().ok());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_can_be_told() {
        let mut config = server_transport(&Limits::default());
        assert_eq!(receive_window(&config), Some(RECEIVE_WINDOW.into()));
        config.receive_window(123_456_789u32.into());
        assert_eq!(receive_window(&config), Some(123_456_789));
        config.receive_window(quinn::VarInt::MAX);
        assert_eq!(receive_window(&config), None);
    }
}
