//! What a peer may send on its control stream ([RFC 9114 §6.2.1, §7.2]).
//!
//! h3 0.0.8 waits forever after a frame whose payload is too short, takes the excess of a payload for the
//! next frame, and checks neither the order of push ids nor the values of settings.
//!
//! [RFC 9114 §6.2.1, §7.2]: https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1

use std::collections::BTreeSet;

use crate::{Role, Violation, code, frame, settings::id, varint};

/// The largest frame on a control stream, in bytes: a hundred settings fit.
pub const MAX_FRAME: u64 = 2048;

/// The state of a control stream.
#[derive(Debug)]
pub struct ControlFrames {
    role: Role,
    settings: bool,
    max_push_id: u64,
    goaway: u64,
}

fn violation<T>(code: u64, reason: &'static str) -> Result<T, Violation> {
    Err(Violation { code, reason })
}

impl ControlFrames {
    /// Nothing has arrived yet; `role` is that of this endpoint.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, settings: false, max_push_id: 0, goaway: varint::MAX }
    }

    /// Whether SETTINGS have arrived.
    pub fn settings_came(&self) -> bool {
        self.settings
    }

    /// Whether a frame of this type may begin now.
    pub fn begin(&self, ty: u64) -> Result<(), Violation> {
        match ty {
            frame::SETTINGS if self.settings => violation(code::H3_FRAME_UNEXPECTED, "a second SETTINGS frame"),
            frame::SETTINGS => Ok(()),
            _ if !self.settings => {
                violation(code::H3_MISSING_SETTINGS, "the control stream does not begin with SETTINGS")
            }
            frame::MAX_PUSH_ID if self.role == Role::Client => {
                violation(code::H3_FRAME_UNEXPECTED, "the server sent MAX_PUSH_ID")
            }
            frame::GOAWAY | frame::MAX_PUSH_ID | frame::CANCEL_PUSH => Ok(()),
            _ if frame::is_known(ty) => {
                violation(code::H3_FRAME_UNEXPECTED, "a frame does not belong on the control stream")
            }
            _ => Ok(()),
        }
    }

    /// Takes the payload of a frame.
    pub fn take(&mut self, ty: u64, payload: &[u8]) -> Result<(), Violation> {
        match ty {
            frame::SETTINGS => {
                self.settings = true;
                check_settings(payload)
            }
            frame::GOAWAY => {
                let id = single(payload)?;
                if id > self.goaway {
                    return violation(code::H3_ID_ERROR, "a GOAWAY names a later id than the one before");
                }
                if self.role == Role::Client && id % 4 != 0 {
                    return violation(code::H3_ID_ERROR, "a GOAWAY does not name a request");
                }
                self.goaway = id;
                Ok(())
            }
            frame::MAX_PUSH_ID => {
                let id = single(payload)?;
                if id < self.max_push_id {
                    return violation(code::H3_ID_ERROR, "MAX_PUSH_ID was reduced");
                }
                self.max_push_id = id;
                Ok(())
            }
            frame::CANCEL_PUSH => {
                single(payload)?;
                // Neither side of this crate pushes, or lets the other push.
                violation(code::H3_ID_ERROR, "CANCEL_PUSH names a push that was never promised")
            }
            _ => Ok(()),
        }
    }
}

/// Reads a payload that must be one integer (RFC 9114 §7.1).
fn single(payload: &[u8]) -> Result<u64, Violation> {
    match varint::decode(payload) {
        Some((value, size)) if size == payload.len() => Ok(value),
        _ => violation(code::H3_FRAME_ERROR, "a frame's payload is not one integer"),
    }
}

/// RFC 9114 §7.2.4.
fn check_settings(mut payload: &[u8]) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    while !payload.is_empty() {
        let mut integer = || {
            let (value, size) = varint::decode(payload)?;
            payload = &payload[size..];
            Some(value)
        };
        let (Some(setting), Some(value)) = (integer(), integer()) else {
            return violation(code::H3_FRAME_ERROR, "SETTINGS are cut short");
        };
        if !seen.insert(setting) {
            return violation(code::H3_SETTINGS_ERROR, "a setting is repeated");
        }
        match setting {
            // HTTP/2's (RFC 9114 §11.2.2).
            0x0 | 0x2..=0x5 => return violation(code::H3_SETTINGS_ERROR, "a setting of HTTP/2"),
            id::ENABLE_CONNECT_PROTOCOL | id::H3_DATAGRAM if value > 1 => {
                return violation(code::H3_SETTINGS_ERROR, "a setting is neither 0 nor 1");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn say(role: Role, frames: &[(u64, &[u8])]) -> Result<(), u64> {
        let mut control = ControlFrames::new(role);
        for (ty, payload) in frames {
            control.begin(*ty).and_then(|()| control.take(*ty, payload)).map_err(|violation| violation.code)?;
        }
        Ok(())
    }

    fn after_settings(frames: &[(u64, &[u8])]) -> Result<(), u64> {
        say(Role::Server, &[&[(frame::SETTINGS, &b""[..])], frames].concat())
    }

    #[test]
    fn settings() {
        let settings = |payload| say(Role::Server, &[(frame::SETTINGS, payload)]);
        assert_eq!(settings(&[]), Ok(()));
        assert_eq!(settings(&[0x6, 0x44, 0, 0x8, 1, 0x33, 1, 0x21, 5]), Ok(()));
        assert_eq!(settings(&[0x6]), Err(code::H3_FRAME_ERROR));
        assert_eq!(settings(&[0x6, 0x44]), Err(code::H3_FRAME_ERROR));
        assert_eq!(settings(&[0x21, 5, 0x21, 5]), Err(code::H3_SETTINGS_ERROR));
        assert_eq!(settings(&[0x2, 0]), Err(code::H3_SETTINGS_ERROR));
        assert_eq!(settings(&[0x33, 2]), Err(code::H3_SETTINGS_ERROR));
    }

    #[test]
    fn order() {
        assert_eq!(say(Role::Server, &[(frame::GOAWAY, &[0])]), Err(code::H3_MISSING_SETTINGS));
        assert_eq!(say(Role::Server, &[(0x21, &[])]), Err(code::H3_MISSING_SETTINGS));
        assert_eq!(after_settings(&[(0x21, &[])]), Ok(()));
        for ty in [frame::SETTINGS, frame::DATA, frame::HEADERS, frame::PUSH_PROMISE, 0x2, 0x6, 0x8, 0x9] {
            assert_eq!(after_settings(&[(ty, &[])]), Err(code::H3_FRAME_UNEXPECTED), "{ty}");
        }
        let push = [(frame::SETTINGS, &[][..]), (frame::MAX_PUSH_ID, &[1])];
        assert_eq!(say(Role::Client, &push), Err(code::H3_FRAME_UNEXPECTED));
    }

    #[test]
    fn ids() {
        assert_eq!(after_settings(&[(frame::GOAWAY, &[4]), (frame::GOAWAY, &[4])]), Ok(()));
        assert_eq!(after_settings(&[(frame::GOAWAY, &[4]), (frame::GOAWAY, &[5])]), Err(code::H3_ID_ERROR));
        assert_eq!(after_settings(&[(frame::MAX_PUSH_ID, &[4]), (frame::MAX_PUSH_ID, &[3])]), Err(code::H3_ID_ERROR));
        assert_eq!(after_settings(&[(frame::CANCEL_PUSH, &[0])]), Err(code::H3_ID_ERROR));
        for ty in [frame::GOAWAY, frame::MAX_PUSH_ID, frame::CANCEL_PUSH] {
            assert_eq!(after_settings(&[(ty, &[])]), Err(code::H3_FRAME_ERROR));
            assert_eq!(after_settings(&[(ty, &[0x40])]), Err(code::H3_FRAME_ERROR));
            assert_eq!(after_settings(&[(ty, &[0, 0])]), Err(code::H3_FRAME_ERROR));
        }
        assert_eq!(say(Role::Client, &[(frame::SETTINGS, &[]), (frame::GOAWAY, &[5])]), Err(code::H3_ID_ERROR));
    }

    proptest! {
        #[test]
        fn takes_any_frames(frames in prop::collection::vec((0..16_u64, prop::collection::vec(any::<u8>(), 0..20)), 0..9)) {
            let frames: Vec<_> = frames.iter().map(|(ty, payload)| (*ty, &payload[..])).collect();
            let _ = after_settings(&frames);
        }
    }
}
