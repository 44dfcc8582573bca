//! What makes a request malformed ([RFC 9114 §4.1.2]) and h3 0.0.8 does not check: h3 accepts pseudo-headers
//! anywhere, keeps the last of several, and lets connection-specific fields pass.
//!
//! [RFC 9114 §4.1.2]: https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2

use crate::qpack::Field;

/// The kind of a well-formed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Has a body, and trailers.
    Request,
    /// Carries DATA only (RFC 9114 §4.4).
    Connect,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// H3_MESSAGE_ERROR.
    Malformed(&'static str),
    /// An extended CONNECT that is not for WebTransport: 501 (RFC 9220 §3).
    Protocol,
}

const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":protocol"];

/// Checks the fields of a request's head.
pub fn check_head(fields: &[Field]) -> Result<Head, Wrong> {
    match well_formed(fields).map_err(Wrong::Malformed)? {
        (head, None | Some(b"webtransport")) => Ok(head),
        _ => Err(Wrong::Protocol),
    }
}

/// What a head is, and its `:protocol`.
fn well_formed(fields: &[Field]) -> Result<(Head, Option<&[u8]>), &'static str> {
    let (pseudo, regular) = fields.split_at(fields.iter().take_while(|field| is_pseudo(field)).count());
    let mut values: [Option<&[u8]>; PSEUDO.len()] = [None; PSEUDO.len()];
    for field in pseudo {
        let place = PSEUDO.iter().position(|name| name.as_bytes() == &field.name[..]);
        let place = place.ok_or("a request has a pseudo-header that is not for requests")?;
        if values[place].replace(&field.value).is_some() {
            return Err("a request has a pseudo-header twice");
        }
    }
    check_regular(regular)?;
    let host = one(regular, b"host").map_err(|()| "a request has two different hosts")?;
    one(regular, b"content-length").map_err(|()| "a request has two different lengths")?;
    let [method, scheme, authority, path, protocol] = values;
    let head = match (method.ok_or("a request has no method")?, protocol) {
        (b"CONNECT", None) if scheme.is_some() || path.is_some() => return Err("a CONNECT has a scheme or a path"),
        (b"CONNECT", None) if authority.is_none_or(<[u8]>::is_empty) => return Err("a CONNECT has no authority"),
        (b"CONNECT", None) => return Ok((Head::Connect, None)),
        (b"CONNECT", Some(_)) => Head::Connect,
        (_, Some(_)) => return Err("a request other than CONNECT has a protocol"),
        (_, None) => Head::Request,
    };
    check_target(method, scheme, authority.or(host), path)?;
    Ok((head, protocol))
}

/// RFC 9114 §4.3.1.
fn check_target(
    method: Option<&[u8]>,
    scheme: Option<&[u8]>,
    authority: Option<&[u8]>,
    path: Option<&[u8]>,
) -> Result<(), &'static str> {
    let scheme = scheme.filter(|scheme| !scheme.is_empty()).ok_or("a request has no scheme")?;
    let path = path.ok_or("a request has no path")?;
    if !matches!(scheme, b"http" | b"https") {
        return Ok(());
    }
    let authority = authority.filter(|authority| !authority.is_empty()).ok_or("a request has no authority")?;
    if authority.contains(&b'@') {
        return Err("the authority of a request names a user");
    }
    match path {
        b"*" if method == Some(b"OPTIONS") => Ok(()),
        path if path.starts_with(b"/") => Ok(()),
        _ => Err("the path of a request does not begin with a slash"),
    }
}

/// Checks the fields of a request's trailers.
pub fn check_trailers(fields: &[Field]) -> Result<(), &'static str> {
    check_regular(fields)
}

fn check_regular(fields: &[Field]) -> Result<(), &'static str> {
    for field in fields {
        match &field.name[..] {
            _ if is_pseudo(field) => return Err("a pseudo-header comes after other fields, or in trailers"),
            // RFC 9114 §4.2.
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                return Err("a field is specific to the connection");
            }
            b"te" if !field.value.eq_ignore_ascii_case(b"trailers") => {
                return Err("`te` is something other than `trailers`");
            }
            b"content-length" if !is_length(&field.value) => return Err("a length is not a number"),
            name if http::HeaderName::from_lowercase(name).is_err() => return Err("a field's name is invalid"),
            _ if http::HeaderValue::from_bytes(&field.value).is_err() => return Err("a field's value is invalid"),
            _ => {}
        }
    }
    Ok(())
}

fn is_pseudo(field: &Field) -> bool {
    field.name.starts_with(b":")
}

fn is_length(value: &[u8]) -> bool {
    str::from_utf8(value)
        .is_ok_and(|text| text.parse::<u64>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The value of a field that may come several times with one value only.
fn one<'a>(fields: &'a [Field], name: &[u8]) -> Result<Option<&'a [u8]>, ()> {
    let mut values = fields.iter().filter(|field| &field.name[..] == name).map(|field| &field.value[..]);
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(fields: &[(&str, &str)]) -> Result<Head, Wrong> {
        let field = |(name, value): &(&str, &str)| Field {
            name: name.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
        };
        check_head(&fields.iter().map(field).collect::<Vec<_>>())
    }

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];

    fn get_with(name: &str, value: &str) -> Result<Head, Wrong> {
        check(&[&GET[..], &[(name, value)]].concat())
    }

    #[test]
    fn well_formed() {
        assert_eq!(check(&GET), Ok(Head::Request));
        assert_eq!(get_with("te", "trailers"), Ok(Head::Request));
        assert_eq!(get_with("content-length", "12"), Ok(Head::Request));
        assert_eq!(check(&[GET[0], GET[1], GET[3], ("host", "a")]), Ok(Head::Request));
        assert_eq!(check(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")]), Ok(Head::Request));
        assert_eq!(check(&[(":method", "CONNECT"), (":authority", "a:1")]), Ok(Head::Connect));
        let connect = |protocol| check(&[(":method", "CONNECT"), GET[1], GET[2], GET[3], (":protocol", protocol)]);
        assert_eq!(connect("webtransport"), Ok(Head::Connect));
        assert_eq!(connect("connect-udp"), Err(Wrong::Protocol));
    }

    #[test]
    fn malformed() {
        for missing in 0..GET.len() {
            let mut fields = GET.to_vec();
            fields.remove(missing);
            assert!(matches!(check(&fields), Err(Wrong::Malformed(_))), "{fields:?}");
        }
        for twice in GET {
            assert!(matches!(check(&[&GET[..], &[twice]].concat()), Err(Wrong::Malformed(_))), "{twice:?}");
        }
        for (name, value) in [
            (":status", "200"),
            (":protocol", "webtransport"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("content-length", "+1"),
            ("content-length", "-1"),
            ("content-length", ""),
            ("Upper", "case"),
            ("a b", ""),
            ("", ""),
            ("value", "\0"),
        ] {
            assert!(matches!(get_with(name, value), Err(Wrong::Malformed(_))), "{name}: {value}");
        }
        assert!(matches!(check(&[GET[0], GET[1], ("a", "b"), GET[2], GET[3]]), Err(Wrong::Malformed(_))));
        assert!(matches!(check(&[GET[0], GET[1], (":authority", "u@a"), GET[3]]), Err(Wrong::Malformed(_))));
        assert!(matches!(check(&[GET[0], GET[1], GET[2], (":path", "")]), Err(Wrong::Malformed(_))));
        assert!(matches!(check(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]]), Err(Wrong::Malformed(_))));
        assert!(check(&[(":method", "CONNECT"), (":protocol", "webtransport"), GET[2]]).is_err());
        let lengths = [&GET[..], &[("content-length", "1"), ("content-length", "2")]].concat();
        assert!(matches!(check(&lengths), Err(Wrong::Malformed(_))));
    }

    proptest! {
        #[test]
        fn takes_any_fields(fields in prop::collection::vec(("(:?[a-z]{1,5}|:method|:path|te)", "\\PC{0,9}"), 0..9)) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let _ = check(&fields);
        }
    }
}
