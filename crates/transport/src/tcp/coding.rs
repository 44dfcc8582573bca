//! Transfer codings. hyper decodes `chunked` and leaves what is below it as it is.

use http::{HeaderMap, header};

/// Why the body of a request cannot be read, in words: 501 (RFC 9112 §6.1).
pub(super) fn not_understood(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let all = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(", ");
    let mut codings = all.split(',').map(str::trim).filter(|coding| !coding.is_empty());
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => None,
        _ => Some(format!(
            "the transfer coding `{}` is not supported: send the body unencoded, with or without `chunked`",
            all.escape_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_chunked_is_understood() {
        let of = |values: &[&'static str]| {
            let value = |value: &&'static str| (header::TRANSFER_ENCODING, HeaderValue::from_static(value));
            not_understood(&values.iter().map(value).collect())
        };
        for values in [&[][..], &["chunked"], &["Chunked"], &["chunked ,"]] {
            assert_eq!(of(values), None, "{values:?}");
        }
        for values in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["gzip"]] {
            let text = of(values).unwrap_or_else(|| panic!("{values:?}"));
            assert!(text.contains(&values.join(", ")), "{text}");
        }
    }
}
