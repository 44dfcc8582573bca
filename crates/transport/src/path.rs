//! Percent-encoding in paths (RFC 3986 §2.4, §6.2.2.2).

use std::borrow::Cow;

use http::{Uri, uri::PathAndQuery};
use percent_encoding::percent_decode_str;

/// The path with all letters decoded that need not be encoded: an equivalent one. One with a percent sign
/// that encodes nothing is left as it is, since a letter after it could make it do so.
pub fn normal(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else { return path.into() };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
            out += &piece[2..];
        } else {
            out.push('%');
            out += piece;
        }
    }
    if out == path { path.into() } else { out.into() }
}

/// What a path names, decoded; `None` when it is not UTF-8, or has an encoded separator of folders or a
/// NUL in it.
pub fn decoded(path: &str) -> Option<Cow<'_, str>> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let separators = |text: &str| text.matches('/').count();
    let plain = separators(&decoded) == separators(path) && !decoded.contains(['\\', '\0']);
    plain.then_some(decoded)
}

/// A request for the same thing by its normal path, so that routes are found.
pub fn normalized<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Cow::Owned(path) = normal(request.uri().path()) {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(path + &query).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths() {
        assert_eq!(normal("/stream/l%6Fg%2D%5f%7e%2e"), "/stream/log-_~.");
        for path in ["/", "/a%20b", "/%2F", "/%", "/%4", "/%zz", "/%+1", "/%C3%BC", "/%25%32%35a%2"] {
            assert_eq!(decoded(&normal(path)), decoded(path), "{path}");
        }
        assert_eq!(normal("/%2573"), "/%2573");
        assert_eq!(normal("/%%32e"), "/%%32e");
        assert_eq!(decoded("/a%20%C3%BC").as_deref(), Some("/a ü"));
        for path in ["/a%2Fb", "/%00", "/a%5cb", "/%FF", "/%C3"] {
            assert_eq!(decoded(path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_of_a_request_stays() {
        let request = |uri: &str| http::Request::get(uri).body(()).unwrap();
        assert_eq!(normalized(request("https://a:1/%73?b=%73")).uri(), "https://a:1/s?b=%73");
        assert_eq!(normalized(request("/%73")).uri(), "/s");
        assert_eq!(normalized(request("*")).uri(), "*");
    }

    proptest! {
        #[test]
        fn any_path_is_taken(path in "/(%[0-9a-fA-F]{2}|\\PC|%){0,20}") {
            let normal_path = normal(&path);
            prop_assert_eq!(decoded(&normal_path), decoded(&path));
            prop_assert_eq!(normal(&normal_path), normal_path.as_ref());
        }
    }
}
