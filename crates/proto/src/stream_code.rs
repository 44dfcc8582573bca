//! The range of HTTP/3 error codes that carries WebTransport's stream error codes
//! (draft-ietf-webtrans-http3 §4.4).

/// The HTTP/3 code of application code 0.
const FIRST: u64 = 0x52e4_a40f_a8db;
/// The HTTP/3 code of application code 2^32 − 1.
const LAST: u64 = 0x52e5_ac98_3162;

/// The HTTP/3 error code that carries an application's `code` in RESET_STREAM and STOP_SENDING.
#[must_use]
pub fn to_http3(code: u32) -> u64 {
    let code = u64::from(code);
    // Every 31st code is one of HTTP/3's reserved ones and is left out.
    FIRST + code + code / 0x1e
}

/// The application's code in an HTTP/3 error code, or `None` when it is not WebTransport's.
#[must_use]
pub fn from_http3(code: u64) -> Option<u32> {
    let shifted = code.checked_sub(FIRST).filter(|_| code <= LAST)?;
    if (code - 0x21).is_multiple_of(0x1f) {
        return None;
    }
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(to_http3(0), FIRST);
        assert_eq!(to_http3(u32::MAX), LAST);
        assert_eq!(from_http3(FIRST - 1), None);
        assert_eq!(from_http3(LAST + 1), None);
        assert_eq!(from_http3(0), None);
        assert_eq!(from_http3(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn there_and_back(code: u32) {
            let http3 = to_http3(code);
            prop_assert_ne!((http3 - 0x21) % 0x1f, 0);
            prop_assert_eq!(from_http3(http3), Some(code));
        }

        #[test]
        fn any_code_is_taken(code: u64) {
            if let Some(application) = from_http3(code) {
                prop_assert_eq!(to_http3(application), code);
            }
        }

        #[test]
        fn any_code_near_the_range(offset in 0..0x1_1000_0000_u64) {
            let code = FIRST - 100 + offset;
            match from_http3(code) {
                Some(application) => prop_assert_eq!(to_http3(application), code),
                None => prop_assert!(!(FIRST..=LAST).contains(&code) || (code - 0x21).is_multiple_of(0x1f)),
            }
        }
    }
}
