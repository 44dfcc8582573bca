//! The SETTINGS frame that this endpoint sends.
//!
//! h3 writes a SETTINGS frame without the settings that newer WebTransport drafts need. This one replaces it,
//! byte for byte.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{frame, stream_type, varint};

/// Setting identifiers.
pub mod id {
    /// RFC 9114 §7.2.4.1.
    pub const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
    /// RFC 9220 §5.
    pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
    /// RFC 9297 §5.1.
    pub const H3_DATAGRAM: u64 = 0x33;
    /// draft-ietf-webtrans-http3-02, what Chromium and Firefox ask for.
    pub const ENABLE_WEBTRANSPORT: u64 = 0x2b60_3742;
    /// draft-ietf-webtrans-http3-02 to -06.
    pub const WEBTRANSPORT_MAX_SESSIONS_DRAFT02: u64 = 0x2b60_3743;
    /// draft-ietf-webtrans-http3-07 to -13, what Safari 26.4 asks for.
    pub const WEBTRANSPORT_MAX_SESSIONS_DRAFT07: u64 = 0xc671_706a;
    /// draft-ietf-webtrans-http3-13 and later.
    pub const WT_MAX_SESSIONS: u64 = 0x14e9_cd29;
}

/// The first bytes of the control stream: its type, then SETTINGS.
///
/// Every session limit is 1: browsers do not need more on one connection, and Safari refuses a server that
/// announces more without the flow-control settings of the drafts.
pub fn control_stream(max_field_section_size: u64) -> Bytes {
    written(max_field_section_size, &WEBTRANSPORT)
}

/// The same of an endpoint that takes no WebTransport sessions.
pub fn control_stream_without_sessions(max_field_section_size: u64) -> Bytes {
    written(max_field_section_size, &[])
}

/// What says that sessions are taken.
const WEBTRANSPORT: [u64; 5] = [
    id::H3_DATAGRAM,
    id::ENABLE_WEBTRANSPORT,
    id::WEBTRANSPORT_MAX_SESSIONS_DRAFT02,
    id::WEBTRANSPORT_MAX_SESSIONS_DRAFT07,
    id::WT_MAX_SESSIONS,
];

fn written(max_field_section_size: u64, ones: &[u64]) -> Bytes {
    let mut payload = BytesMut::new();
    let ones = ones.iter().map(|setting| (*setting, 1));
    for (setting, value) in
        [(id::MAX_FIELD_SECTION_SIZE, max_field_section_size), (id::ENABLE_CONNECT_PROTOCOL, 1)].into_iter().chain(ones)
    {
        varint::encode(setting, &mut payload);
        varint::encode(value, &mut payload);
    }
    let mut out = BytesMut::with_capacity(payload.len() + 4);
    varint::encode(stream_type::CONTROL, &mut out);
    frame::put_header(frame::SETTINGS, payload.len(), &mut out);
    out.put(payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Chromium, Firefox and Safari need is here; a change is a change of the wire.
    #[test]
    fn the_exact_bytes() {
        let bytes = control_stream(16 * 1024);
        let expected: &[u8] = &[
            0x00, // control stream
            0x04, 0x21, // SETTINGS, 33 bytes
            0x06, 0x80, 0x00, 0x40, 0x00, // MAX_FIELD_SECTION_SIZE = 16384
            0x08, 0x01, // ENABLE_CONNECT_PROTOCOL
            0x33, 0x01, // H3_DATAGRAM
            0xab, 0x60, 0x37, 0x42, 0x01, // draft 02
            0xab, 0x60, 0x37, 0x43, 0x01, // draft 02, sessions
            0xc0, 0x00, 0x00, 0x00, 0xc6, 0x71, 0x70, 0x6a, 0x01, // draft 07
            0x94, 0xe9, 0xcd, 0x29, 0x01, // draft 13
        ];
        assert_eq!(bytes.len(), expected.len(), "{bytes:02x?}");
        assert_eq!(&bytes[..], expected);
        let none: &[u8] = &[0x00, 0x04, 0x07, 0x06, 0x80, 0x00, 0x40, 0x00, 0x08, 0x01];
        assert_eq!(&control_stream_without_sessions(16 * 1024)[..], none);
    }
}
