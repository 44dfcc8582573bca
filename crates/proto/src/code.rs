//! HTTP/3 and QPACK error codes ([RFC 9114 §8.1], [RFC 9204 §6]).
//!
//! [RFC 9114 §8.1]: https://www.rfc-editor.org/rfc/rfc9114#section-8.1
//! [RFC 9204 §6]: https://www.rfc-editor.org/rfc/rfc9204#section-6

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: u64 = $value;)*

        /// The name of an error code, as the specification writes it.
        #[must_use]
        pub fn name(code: u64) -> Option<&'static str> {
            match code {
                $($value => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

codes! {
    /// No error: the end of a connection or stream that needs no reason.
    H3_NO_ERROR = 0x100;
    /// A violation that no other code describes.
    H3_GENERAL_PROTOCOL_ERROR = 0x101;
    /// This endpoint failed.
    H3_INTERNAL_ERROR = 0x102;
    /// The peer made a stream that this endpoint does not accept.
    H3_STREAM_CREATION_ERROR = 0x103;
    /// A stream that the connection needs was closed.
    H3_CLOSED_CRITICAL_STREAM = 0x104;
    /// A frame is not allowed here.
    H3_FRAME_UNEXPECTED = 0x105;
    /// A frame is badly laid out or of the wrong size.
    H3_FRAME_ERROR = 0x106;
    /// The peer asks for more work than this endpoint gives.
    H3_EXCESSIVE_LOAD = 0x107;
    /// A stream or push identifier was used wrongly.
    H3_ID_ERROR = 0x108;
    /// A SETTINGS frame has a wrong value.
    H3_SETTINGS_ERROR = 0x109;
    /// The control stream did not begin with SETTINGS.
    H3_MISSING_SETTINGS = 0x10a;
    /// The request was refused before any of it was handled.
    H3_REQUEST_REJECTED = 0x10b;
    /// The request or its response is no longer wanted.
    H3_REQUEST_CANCELLED = 0x10c;
    /// The request ended before it was complete.
    H3_REQUEST_INCOMPLETE = 0x10d;
    /// The message is malformed.
    H3_MESSAGE_ERROR = 0x10e;
    /// The connection of a CONNECT request was reset or closed abnormally.
    H3_CONNECT_ERROR = 0x10f;
    /// The request should be tried again over HTTP/1.1.
    H3_VERSION_FALLBACK = 0x110;
    /// A field section could not be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x200;
    /// An instruction on the encoder stream is wrong.
    QPACK_ENCODER_STREAM_ERROR = 0x201;
    /// An instruction on the decoder stream is wrong.
    QPACK_DECODER_STREAM_ERROR = 0x202;
    /// A datagram or capsule is malformed ([RFC 9297 §5.2](https://www.rfc-editor.org/rfc/rfc9297#section-5.2)).
    H3_DATAGRAM_ERROR = 0x33;
    /// A WebTransport stream came before its session and could not be kept
    /// (draft-ietf-webtrans-http3 §9.5).
    WT_BUFFERED_STREAM_REJECTED = 0x3994_bd84;
    /// The session of a WebTransport stream has ended (draft-ietf-webtrans-http3 §9.5).
    WT_SESSION_GONE = 0x170d_7b68;
}

/// A code in words for a log line or an error message.
#[must_use]
pub fn describe(code: u64) -> String {
    match name(code) {
        Some(name) => format!("{name} ({code:#x})"),
        None => format!("{code:#x}"),
    }
}
