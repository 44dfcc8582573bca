//! The token of a request, by whichever way it was sent.

use std::fmt;

use http::{HeaderMap, header, request::Parts};

use super::Denied;

/// The cookie in which a token may be sent, unless another is named.
pub const DEFAULT_COOKIE: &str = "h3cast_token";
/// The longest token that is read, in bytes.
pub const LONGEST_TOKEN: usize = 8 << 10;

/// How a token was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Header,
    /// A cookie.
    Cookie,
    /// `?token=TOKEN`, for sessions and `EventSource`, whose requests a page cannot give a header.
    Query,
}

/// The token of a request. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    token: String,
    way: Way,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("way", &self.way).finish_non_exhaustive()
    }
}

impl Credential {
    /// The token that a request carries, if it carries one: as `Authorization: Bearer`, in the cookie of that name,
    /// or as `?token=`.
    ///
    /// # Errors
    ///
    /// When there are several, since it is not clear then which one counts (RFC 6750 §2), or it is too long.
    pub fn of(request: &Parts, cookie: &str) -> Result<Option<Self>, Denied> {
        let mut found = Vec::new();
        let fields = request.headers.get_all(header::AUTHORIZATION);
        for field in &fields {
            // Other schemes are for someone on the way.
            let text = field.to_str().unwrap_or_default();
            if let Some((scheme, token)) = text.split_once(' ')
                && scheme.eq_ignore_ascii_case("bearer")
            {
                found.push((Way::Header, token.trim().to_owned()));
            }
        }
        found.extend(cookies(&request.headers, cookie).map(|token| (Way::Cookie, token.to_owned())));
        let pairs = form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes());
        found.extend(pairs.filter(|(name, _)| name == "token").map(|(_, token)| (Way::Query, token.into_owned())));
        let mut found = found.into_iter();
        let Some((way, token)) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            let text = "the request carries several tokens: send one, by one way (Authorization, a cookie or ?token=)";
            return Err(Denied::malformed(text));
        }
        match token.len() {
            0 => Err(Denied::malformed("the token is empty")),
            1..=LONGEST_TOKEN => Ok(Some(Self { token, way })),
            _ => Err(Denied::invalid(format!("the token is longer than {LONGEST_TOKEN} bytes"))),
        }
    }

    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// How it was sent.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }
}

/// The values of the cookies of that name (RFC 6265 §4.2). HTTP/2 and 3 may send each in a field of its own.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(';')).filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (key.trim() == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn of(uri: &str, headers: &[(&str, &str)]) -> Result<Option<(Way, String)>, Denied> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        Ok(Credential::of(&parts, DEFAULT_COOKIE)?.map(|found| (found.way(), found.token().to_owned())))
    }

    #[test]
    fn one_token_by_one_way() {
        let one = |way, token: &str| Ok(Some((way, token.to_owned())));
        assert_eq!(of("/", &[]), Ok(None));
        assert_eq!(of("/", &[("authorization", "bearer  abc ")]), one(Way::Header, "abc"));
        assert_eq!(of("/", &[("authorization", "Basic abc")]), Ok(None));
        assert_eq!(of("/?a=b&token=a%2Bc", &[]), one(Way::Query, "a+c"));
        assert_eq!(of("/", &[("cookie", "a=b; h3cast_token=abc"), ("cookie", "c=d")]), one(Way::Cookie, "abc"));
        assert_eq!(of("/", &[("cookie", "xh3cast_token=abc; h3cast_token2=d")]), Ok(None));
        for (uri, headers) in [
            ("/?token=a", &[("authorization", "Bearer a")][..]),
            ("/?token=a", &[("cookie", "h3cast_token=a")]),
            ("/?token=a&token=a", &[]),
            ("/", &[("authorization", "Bearer a"), ("authorization", "Bearer a")]),
            ("/", &[("authorization", "Bearer a"), ("cookie", "h3cast_token=b")]),
            ("/", &[("cookie", "h3cast_token=a; h3cast_token=a")]),
            ("/?token=", &[]),
            ("/", &[("authorization", "Bearer ")]),
        ] {
            assert!(matches!(of(uri, headers), Err(Denied::Malformed(_))), "{uri} {headers:?}");
        }
        let long = format!("/?token={}", "x".repeat(LONGEST_TOKEN + 1));
        assert!(matches!(of(&long, &[]), Err(Denied::Invalid(_))));
    }

    #[test]
    fn is_not_shown() {
        let parts = Request::get("/?token=secret").body(()).unwrap().into_parts().0;
        let credential = Credential::of(&parts, DEFAULT_COOKIE).unwrap();
        assert!(!format!("{credential:?}").contains("secret"));
    }
}
