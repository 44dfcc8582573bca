//! By what a request is found in logs: its own id, and that of the trace it belongs to.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName};

/// Where proxies state a request's id. It has no standard.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that a proxy may give a request, in characters.
const LONGEST: usize = 128;

/// A request's id, which each request has in its extensions: 32 hexadecimal digits that no other request has, or what a
/// [trusted proxy](crate::server::ServerBuilder::trust_proxy) states in `X-Request-Id` (1 to 128 letters, digits and
/// `-._~:+/=@`).
///
/// ```
/// use axum::Extension;
/// use h3cast_transport::exchange::RequestId;
///
/// async fn whoami(Extension(id): Extension<RequestId>) -> String {
///     format!("this is request {id}\n")
/// }
/// # let _: axum::Router = axum::Router::new().route("/whoami", axum::routing::get(whoami));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Id);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Id {
    /// Of this process, and the request.
    Made(u64, u64),
    Given(Arc<str>),
}

impl RequestId {
    /// A new one.
    pub(crate) fn new() -> Self {
        static PROCESS: OnceLock<(u64, u64)> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, key) = *PROCESS.get_or_init(|| {
            // Its keys are random.
            let random = RandomState::new();
            (random.hash_one("process"), random.hash_one("request"))
        });
        Self(Id::Made(process, spread(NEXT.fetch_add(1, Ordering::Relaxed) ^ key)))
    }

    /// What a proxy states, if that can be one.
    pub(crate) fn given(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(X_REQUEST_ID)?.to_str().ok()?;
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(&byte);
        let is_id = (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_part);
        is_id.then(|| Self(Id::Given(text.into())))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // Each request's is written, for the log: at once, since a formatter's own digits come in pieces.
            Id::Made(process, request) => {
                let digits = digits((u128::from(*process) << 64) | u128::from(*request));
                f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
            Id::Given(text) => f.write_str(text),
        }
    }
}

/// A number as 32 hexadecimal digits.
fn digits(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[
            b"0123456789abcdef"[usize::from(byte >> 4)],
            b"0123456789abcdef"[usize::from(byte & 15)],
        ]);
    }
    digits
}

/// One number for each, with no order to be seen (the finalizer of SplitMix64).
fn spread(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What a request states in `traceparent` of the trace that it belongs to
/// ([W3C Trace Context §3.2](https://www.w3.org/TR/trace-context/#traceparent-header)). A request has it in its
/// extensions if the header is there once and valid. Any client may state one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// Flags that are defined: sampled, and random.
    const KNOWN: u8 = 0b11;

    /// The one of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (one, None) = (given.next()?, given.next()) else { return None };
        Self::parse(one.as_bytes())
    }

    /// Reads the value of the header.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        // `00-` and 32, 16 and 2 digits. What later versions add comes after another `-`.
        let (known, more) = text.split_at_checked(55)?;
        let version = hex(&known[..2])?;
        let is_ended = if version == 0 { more.is_empty() } else { more.first().is_none_or(|next| *next == b'-') };
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let (trace, parent, flags) = (hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?);
        let is_valid = version != 0xff && is_ended && dashes && trace != 0 && parent != 0;
        is_valid.then_some(Self { trace, parent: parent as u64, flags: flags as u8 & Self::KNOWN })
    }

    /// The trace's id: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The id of the span that the request is of: 16 hexadecimal digits.
    #[must_use]
    pub fn parent_id(&self) -> String {
        format!("{:016x}", self.parent)
    }

    /// Whether the caller records the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceParent {
    /// As the header has it, in version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

/// Reads lower-case hexadecimal digits, at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(name: HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn ids_are_of_one_request_each() {
        let ids: HashSet<_> = (0..1000).map(|_| RequestId::new().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_eq!(RequestId(Id::Made(0xab, u64::MAX / 15)).to_string(), "00000000000000ab1111111111111111");
    }

    #[test]
    fn what_a_proxy_states_is_an_id_or_nothing() {
        let given = |text: &str| RequestId::given(&of(X_REQUEST_ID, text)).map(|id| id.to_string());
        let longest = "a".repeat(LONGEST);
        for text in ["7f3c-09", "Root=1-67891233-abcdef012345678912345678", &longest] {
            assert_eq!(given(text).as_deref(), Some(text));
        }
        for text in ["", "a b", "a\"b", "a\\b", "a\tb", "{}", "é", &(longest + "a")] {
            assert_eq!(given(text), None, "{text}");
        }
    }

    #[test]
    fn traceparent_is_valid_or_not_there() {
        let parsed = |text: &str| TraceParent::of(&of(TRACEPARENT, text)).map(|parent| parent.to_string());
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, expected) in [
            (format!("00-{trace}-{parent}-01"), format!("00-{trace}-{parent}-01")),
            // Flags that are not known are not passed on, nor is what a later version adds.
            (format!("00-{trace}-{parent}-ff"), format!("00-{trace}-{parent}-03")),
            (format!("cc-{trace}-{parent}-00-what-comes-later"), format!("00-{trace}-{parent}-00")),
            (format!("cc-{trace}-{parent}-00"), format!("00-{trace}-{parent}-00")),
        ] {
            assert_eq!(parsed(&text), Some(expected), "{text}");
        }
        for text in [
            String::new(),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{trace}-{parent}-01 "),
            format!("cc-{trace}-{parent}-01x"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-{parent}-0g"),
            format!("00-{trace}-{parent}-1"),
            format!("00_{trace}-{parent}-01"),
            format!("00-{trace}x{parent}-01"),
            format!("00-{trace}-{parent}x01"),
        ] {
            assert_eq!(parsed(&text), None, "{text}");
        }
        let mut twice = of(TRACEPARENT, &format!("00-{trace}-{parent}-01"));
        twice.append(TRACEPARENT, format!("00-{trace}-{parent}-01").parse().unwrap());
        assert_eq!(TraceParent::of(&twice), None);
        let parent = TraceParent::parse(format!("00-{trace}-{parent}-01").as_bytes()).unwrap();
        assert_eq!((parent.trace_id().as_str(), parent.parent_id().as_str()), (trace, "00f067aa0ba902b7"));
        assert!(parent.is_sampled());
    }
}
