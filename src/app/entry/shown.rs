//! URLs without the tokens in them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What takes the place of a token.
const HIDDEN: &str = "***";
/// How often a value may be encoded to be looked through, as when a URL is a parameter of another one.
const DEPTH: usize = 4;

/// A query without tokens: `token=…`, `access_token=…`, whatever their letters are written as, and parameters that have
/// one of them in their value.
pub(super) fn hidden(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(has_token) {
        return query.into();
    }
    let pairs = query.split('&').map(|pair| match has_token(pair) {
        true => format!("{}={HIDDEN}", name(pair)).into(),
        false => Cow::from(pair),
    });
    pairs.collect::<Vec<_>>().join("&").into()
}

/// A path without what follows the first token in it, as where `&` was written for `?`. A token may contain `/`.
pub(super) fn hidden_in_path(path: &str) -> Cow<'_, str> {
    if !has_token(path) {
        return path.into();
    }
    let mut shown = String::new();
    for part in path.split_inclusive(['/', '&', ';', ':', ',']) {
        if has_token(part) {
            shown += &format!("{}={HIDDEN}", name(part));
            return shown.into();
        }
        shown += part;
    }
    HIDDEN.into()
}

/// A URL without tokens, and without a user's name and password.
pub(super) fn hidden_in_url(url: &str) -> Cow<'_, str> {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (place, query) = before.split_once('?').map_or((before, None), |(place, query)| (place, Some(query)));
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match has_token(authority) {
        // No name of a host: a separator was forgotten.
        true => Some(HIDDEN),
        false => authority.rsplit_once('@').map(|(_, host)| host),
    };
    if host.is_none() && !url.split(['?', '#', '&']).any(has_token) {
        return url.into();
    }
    let mut shown = format!("{scheme}{}", if scheme.is_empty() { "" } else { "://" });
    shown += host.unwrap_or(authority);
    shown += &hidden_in_path(path);
    for (mark, part) in [('?', query), ('#', fragment)] {
        if let Some(part) = part {
            shown.push(mark);
            shown += &hidden(part);
        }
    }
    shown.into()
}

/// Whether there is a token in a parameter. Others whose names end so (`id_token=`) are secrets just the same.
fn has_token(pair: &str) -> bool {
    let mut text = Cow::from(pair);
    for _ in 0..DEPTH {
        if text.to_ascii_lowercase().contains("token=") {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == *text {
            return false;
        }
        text = decoded.into();
    }
    // Nothing that is meant to be read is encoded so often.
    true
}

/// The name of a parameter, if it is no secret itself.
fn name(pair: &str) -> &str {
    let name = pair.split('=').next().unwrap_or_default();
    let is_name = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name { name } else { HIDDEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_hidden_however_they_are_written() {
        for (query, expected) in [
            ("from=start&token=geheim", "from=start&token=***"),
            ("access_token=geheim&limit=2", "access_token=***&limit=2"),
            ("TOKEN=geheim", "TOKEN=***"),
            ("%74oken=geheim", "***=***"),
            ("token%3Dgeheim", "***=***"),
            ("a=1;token=geheim", "a=***"),
            ("next=/stream?token=geheim", "next=***"),
            ("next=%2Fstream%3Ftoken%3Dgeheim", "next=***"),
            ("next=%252Fstream%253Ftoken%253Dgeheim", "next=***"),
            ("token=a=b&token=geheim", "token=***&token=***"),
            ("token=geheim;x", "token=***"),
            ("from=1-2&format=raw", "from=1-2&format=raw"),
            ("tokens=1&q=token", "tokens=1&q=token"),
            ("", ""),
        ] {
            let shown = hidden(query);
            assert_eq!(shown, expected);
            assert!(!shown.contains("geheim"));
        }
    }

    #[test]
    fn tokens_are_hidden_in_paths() {
        for (path, expected) in [
            ("/stream/log&token=geheim", "/stream/log&token=***"),
            ("/stream/log;access_token=geheim/geheim&x=geheim", "/stream/log;access_token=***"),
            ("/stream/log%3Ftoken=geheim", "/stream/***=***"),
            ("/stream/log%26token%3Dgeheim%2Fgeheim", "/stream/***=***"),
            ("/token=geheim", "/token=***"),
            ("/stream/token", "/stream/token"),
        ] {
            assert_eq!(hidden_in_path(path), expected);
        }
    }

    #[test]
    fn tokens_are_hidden_in_urls() {
        for (url, expected) in [
            ("https://a.example/b;token=geheim", "https://a.example/b;token=***"),
            ("https://a.example/b&token=geheim?x=y", "https://a.example/b&token=***?x=y"),
            ("https://a.example&token=geheim", "https://***"),
            ("https://a.example/b?token=geheim#c", "https://a.example/b?token=***#c"),
            ("https://me:geheim@a.example/b", "https://a.example/b"),
            ("https://a.example/#access_token=geheim&x=1", "https://a.example/#access_token=***&x=1"),
            ("/b?token=geheim", "/b?token=***"),
            ("https://a.example/b?x=y", "https://a.example/b?x=y"),
            ("about:blank", "about:blank"),
        ] {
            assert_eq!(hidden_in_url(url), expected);
        }
    }
}
