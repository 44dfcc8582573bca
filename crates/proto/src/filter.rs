//! The frame filter: which bytes of a peer's stream an HTTP/3 implementation gets to see.
//!
//! h3 0.0.8 buffers every frame except DATA whole, whatever length it declares, and holds frames of unknown
//! types in memory until they end. This filter sits in front of it. It drops frames of unknown types as they
//! arrive ([RFC 9114 §9]), and empty DATA frames, which h3 takes for the end of a body. It refuses a frame
//! that h3 would have to hold as soon as the declared length exceeds the limit, and it checks what h3 does
//! not check.
//!
//! [RFC 9114 §9]: https://www.rfc-editor.org/rfc/rfc9114#section-9

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::{
    Role, Violation, code,
    control::{self, ControlFrames},
    frame,
    message::{self, Head},
    qpack,
};

/// Why nothing more of a stream may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends.
    Connection(Violation),
    /// The message is malformed and only its stream ends (RFC 9114 §4.1.2).
    Message(&'static str),
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Connection(violation)
    }
}

/// Which frames may come where.
#[derive(Debug)]
enum Order {
    Control(ControlFrames),
    /// What has come of a request.
    Request(MessagePart),
    /// h3's own checks.
    Any,
}

/// The last part of a request that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessagePart {
    Start(Head),
    /// HEADERS, and then DATA.
    Body(Head),
    Trailers,
}

/// Where a stream is within its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FrameState {
    /// Between frames, or inside a type and length that are still incomplete.
    Header,
    /// Inside a payload that is passed on.
    Pass(u64),
    /// Inside a payload that is dropped.
    Skip(u64),
    /// Inside a payload that is passed on when it is whole and has been checked.
    Gather { ty: u64, header: Bytes, payload: BytesMut, left: u64 },
}

/// Filters the frames of one stream, piece by piece; see the [module](self).
#[derive(Debug)]
pub struct FrameFilter {
    state: FrameState,
    /// The bytes of an incomplete frame header, at most 16.
    header: BytesMut,
    /// The largest payload, in bytes, of a frame other than DATA that is passed on.
    limit: u64,
    order: Order,
    /// Frames that brought nothing, or not more than their own type.
    idle: u32,
}

impl FrameFilter {
    /// A filter at the start of a stream. `limit` is the largest payload, in bytes, of a frame
    /// other than DATA.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { state: FrameState::Header, header: BytesMut::new(), limit, order: Order::Any, idle: 0 }
    }

    /// A filter at the start of a request whose head has been checked and is of this kind.
    #[must_use]
    pub fn request(limit: u64, head: Head) -> Self {
        Self { order: Order::Request(MessagePart::Start(head)), ..Self::new(limit) }
    }

    /// A filter at the start of a control stream, after its type.
    #[must_use]
    pub fn control(role: Role) -> Self {
        Self { order: Order::Control(ControlFrames::new(role)), ..Self::new(control::MAX_FRAME) }
    }

    /// Whether this is a control stream that has delivered its SETTINGS.
    #[must_use]
    pub fn settings_came(&self) -> bool {
        matches!(&self.order, Order::Control(frames) if frames.settings_came())
    }

    /// How many frames have begun since this was called last that bring no part of a message: those of unknown types, empty
    /// DATA, and all on a control stream. Each costs its sender two bytes.
    #[must_use]
    pub fn take_idle(&mut self) -> u32 {
        std::mem::take(&mut self.idle)
    }

    /// Takes the next bytes of the stream and appends to `out` the ones that may pass.
    ///
    /// A payload is never copied; a frame header that is split over several chunks is.
    ///
    /// # Errors
    ///
    /// H3_EXCESSIVE_LOAD if a frame other than DATA declares more than the limit; otherwise the code that the
    /// specification names for a malformed or misplaced frame. The filter must not be used afterwards.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        while !chunk.is_empty() {
            match &mut self.state {
                FrameState::Pass(left) => {
                    let piece = take(&mut chunk, left);
                    out.push_back(piece);
                    self.end_of_payload();
                }
                FrameState::Skip(left) => {
                    take(&mut chunk, left);
                    self.end_of_payload();
                }
                FrameState::Gather { payload, left, .. } => {
                    let piece = take(&mut chunk, left);
                    payload.extend_from_slice(&piece);
                    self.end_of_gathering(out)?;
                }
                FrameState::Header => self.header(&mut chunk, out)?,
            }
        }
        Ok(())
    }

    /// Whether the stream may end here, that is, not inside a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.state == FrameState::Header && self.header.is_empty()
    }

    fn end_of_payload(&mut self) {
        if matches!(self.state, FrameState::Pass(0) | FrameState::Skip(0)) {
            self.state = FrameState::Header;
        }
    }

    fn end_of_gathering(&mut self, out: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        let FrameState::Gather { ty, header, payload, left: 0 } = &mut self.state else { return Ok(()) };
        self.order.check(*ty, payload, self.limit)?;
        out.push_back(std::mem::take(header));
        out.push_back(payload.split().freeze());
        self.state = FrameState::Header;
        Ok(())
    }

    fn header(&mut self, chunk: &mut Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        let (ty, len, header) = if self.header.is_empty() {
            match frame::parse_header(chunk) {
                // The common case: the header lies in one chunk and is passed on uncopied.
                Some((ty, len, size)) => (ty, len, chunk.split_to(size)),
                None => {
                    self.header.extend_from_slice(&chunk.split_off(0));
                    return Ok(());
                }
            }
        } else {
            // At most 16 bytes make a header: byte by byte is simplest and cannot be abused.
            self.header.extend_from_slice(&chunk.split_to(1));
            match frame::parse_header(&self.header) {
                Some((ty, len, _)) => (ty, len, self.header.split().freeze()),
                None => return Ok(()),
            }
        };
        let gather = self.order.begin(ty)?;
        if !frame::is_known(ty) || (ty == frame::DATA && len == 0) || matches!(self.order, Order::Control(_)) {
            self.idle = self.idle.saturating_add(1);
        }
        if !frame::is_known(ty) || (ty == frame::DATA && len == 0) {
            self.state = FrameState::Skip(len);
        } else if ty != frame::DATA && len > self.limit {
            return Err(Fault::Connection(Violation {
                code: code::H3_EXCESSIVE_LOAD,
                reason: "a frame is longer than this endpoint accepts",
            }));
        } else if gather {
            self.state = FrameState::Gather { ty, header, payload: BytesMut::new(), left: len };
            return self.end_of_gathering(out);
        } else {
            out.push_back(header);
            self.state = FrameState::Pass(len);
        }
        self.end_of_payload();
        Ok(())
    }
}

impl Order {
    /// Whether a frame of this type may begin now, and must be whole before it is passed on.
    fn begin(&mut self, ty: u64) -> Result<bool, Violation> {
        let place = match self {
            Self::Control(frames) => return frames.begin(ty).map(|()| true),
            Self::Any => return Ok(false),
            Self::Request(place) => place,
        };
        match (ty, *place) {
            (frame::HEADERS, MessagePart::Start(head)) => *place = MessagePart::Body(head),
            (frame::DATA, MessagePart::Body(_)) => {}
            (frame::HEADERS, MessagePart::Body(Head::Request)) => {
                *place = MessagePart::Trailers;
                return Ok(true);
            }
            (frame::WEBTRANSPORT_STREAM, _) => {
                return Err(Violation {
                    code: code::H3_FRAME_ERROR,
                    reason: "the WebTransport stream signal is not at the beginning of its stream",
                });
            }
            _ if frame::is_known(ty) => {
                return Err(Violation {
                    code: code::H3_FRAME_UNEXPECTED,
                    reason: "a frame does not belong there in a request",
                });
            }
            _ => {}
        }
        Ok(false)
    }

    /// Checks a whole payload.
    fn check(&mut self, ty: u64, payload: &[u8], limit: u64) -> Result<(), Fault> {
        match self {
            Self::Control(frames) => Ok(frames.take(ty, payload)?),
            // Only trailers are gathered of a request.
            Self::Request(_) => match qpack::decode(payload, limit) {
                Ok(fields) => message::check_trailers(&fields).map_err(Fault::Message),
                Err(qpack::FieldsError::TooLarge) => {
                    Err(Fault::Message("trailers are larger than this endpoint accepts"))
                }
                Err(qpack::FieldsError::Undecodable) => Err(Fault::Connection(qpack::UNDECODABLE)),
            },
            Self::Any => Ok(()),
        }
    }
}

/// Splits off the front of `chunk` up to `left` bytes and counts them off.
fn take(chunk: &mut Bytes, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
    *left -= size as u64;
    chunk.split_to(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint;
    use proptest::prelude::*;

    fn encode(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (ty, payload) in frames {
            varint::encode(*ty, &mut out);
            varint::encode(payload.len() as u64, &mut out);
            out.extend_from_slice(payload);
        }
        out
    }

    fn run(bytes: &[u8], cuts: &[usize], limit: u64) -> Result<(Vec<u8>, bool), Fault> {
        filter(FrameFilter::new(limit), bytes, cuts)
    }

    fn filter(mut filter: FrameFilter, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool), Fault> {
        let mut out = VecDeque::new();
        let mut rest = Bytes::copy_from_slice(bytes);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let size = cut.min(rest.len());
            filter.push(rest.split_to(size), &mut out)?;
        }
        Ok((out.into_iter().flatten().collect(), filter.at_boundary()))
    }

    fn is_kept((ty, payload): &(u64, Vec<u8>)) -> bool {
        frame::is_known(*ty) && (*ty != frame::DATA || !payload.is_empty())
    }

    fn request(frames: &[(u64, &[u8])]) -> Result<(Vec<u8>, bool), Fault> {
        let frames: Vec<_> = frames.iter().map(|(ty, payload)| (*ty, payload.to_vec())).collect();
        filter(FrameFilter::request(1000, Head::Request), &encode(&frames), &[1; 20])
    }

    fn frames() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let ty = prop_oneof![Just(0), Just(1), Just(4), Just(0x21), Just(0x40), Just(varint::MAX)];
        prop::collection::vec((ty, prop::collection::vec(any::<u8>(), 0..80)), 0..8)
    }

    proptest! {
        /// However the stream is cut, known frames pass byte for byte; unknown ones and empty DATA
        /// vanish.
        #[test]
        fn passes_known_frames_only(frames in frames(), cuts in prop::collection::vec(0..20usize, 0..30)) {
            let kept: Vec<_> = frames.iter().filter(|frame| is_kept(frame)).cloned().collect();
            let (out, boundary) = run(&encode(&frames), &cuts, 100).unwrap();
            prop_assert_eq!(out, encode(&kept));
            prop_assert!(boundary);
        }

        /// Whatever arrives, nothing panics, and what leaves is never more than what came.
        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0..20usize, 0..30)) {
            let filters = [
                FrameFilter::new(1000),
                FrameFilter::request(1000, Head::Request),
                FrameFilter::request(1000, Head::Connect),
                FrameFilter::control(Role::Server),
                FrameFilter::control(Role::Client),
            ];
            for one in filters {
                if let Ok((out, _)) = filter(one, &bytes, &cuts) {
                    prop_assert!(out.len() <= bytes.len());
                }
            }
        }
    }

    const HEAD: (u64, &[u8]) = (frame::HEADERS, b"checked before");
    const TRAILERS: (u64, &[u8]) = (frame::HEADERS, b"\0\0\x23abc\x01v");

    #[test]
    fn the_order_of_a_request() {
        assert!(request(&[HEAD, (frame::DATA, b"a"), (0x21, b"b"), TRAILERS, (0x21, b"")]).is_ok());
        let unexpected = |frames: &[_]| match request(frames) {
            Err(Fault::Connection(violation)) => assert_eq!(violation.code, code::H3_FRAME_UNEXPECTED),
            other => panic!("{other:?}"),
        };
        unexpected(&[(frame::DATA, b"a")]);
        unexpected(&[HEAD, TRAILERS, (frame::DATA, b"")]);
        unexpected(&[HEAD, TRAILERS, TRAILERS]);
        for ty in [frame::SETTINGS, frame::GOAWAY, frame::PUSH_PROMISE, frame::CANCEL_PUSH, frame::MAX_PUSH_ID, 2, 6] {
            unexpected(&[HEAD, (ty, b"")]);
        }
        let connect = encode(&[HEAD, TRAILERS].map(|(ty, payload)| (ty, payload.to_vec())));
        assert!(filter(FrameFilter::request(1000, Head::Connect), &connect, &[]).is_err());
    }

    #[test]
    fn trailers_are_checked_before_they_pass() {
        let message = |payload: &'static [u8]| request(&[HEAD, (frame::HEADERS, payload)]).unwrap_err();
        assert!(matches!(message(b"\0\0\xd1"), Fault::Message(_)), "a pseudo-header");
        assert!(matches!(message(b"\0\0\x23AbC\x01v"), Fault::Message(_)), "upper case");
        assert!(matches!(message(b"\0\0\x80"), Fault::Connection(qpack::UNDECODABLE)));
    }

    #[test]
    fn refuses_a_long_frame_by_its_header_alone() {
        let mut bytes = Vec::new();
        varint::encode(frame::HEADERS, &mut bytes);
        varint::encode(1 << 30, &mut bytes);
        let Err(Fault::Connection(violation)) = run(&bytes, &[], 1 << 14) else { panic!("it passed") };
        assert_eq!(violation.code, code::H3_EXCESSIVE_LOAD);
    }

    #[test]
    fn an_unknown_frame_of_a_gigabyte_is_dropped_as_it_comes() {
        let mut bytes = Vec::new();
        varint::encode(0x21, &mut bytes);
        varint::encode(1 << 30, &mut bytes);
        bytes.extend_from_slice(&[7; 10_000]);
        assert_eq!(run(&bytes, &[1, 1, 1], 1 << 14).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn data_may_be_of_any_length() {
        let mut bytes = Vec::new();
        varint::encode(frame::DATA, &mut bytes);
        varint::encode(varint::MAX, &mut bytes);
        bytes.push(1);
        assert_eq!(run(&bytes, &[3], 10).unwrap(), (bytes.clone(), false));
    }
}
