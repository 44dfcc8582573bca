//! Structured fields, as far as WebTransport's subprotocol negotiation needs them ([RFC 9651]).
//!
//! [RFC 9651]: https://www.rfc-editor.org/rfc/rfc9651

use http::HeaderValue;

/// Reads a list of strings (RFC 9651 §3.1, §3.3.3), ignoring their parameters; `None` if it is anything else.
#[must_use]
pub fn parse_strings(list: &str) -> Option<Vec<String>> {
    let mut strings = Vec::new();
    let mut rest = list.trim_matches([' ', '\t']);
    while !rest.is_empty() {
        rest = rest.strip_prefix('"')?;
        let mut string = String::new();
        loop {
            let mut chars = rest.chars();
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    escaped @ ('"' | '\\') => string.push(escaped),
                    _ => return None,
                },
                plain @ ' '..='~' => string.push(plain),
                _ => return None,
            }
            rest = &rest[rest.len() - chars.as_str().len()..];
        }
        strings.push(string);
        // Past the closing quote, then past parameters up to the next comma.
        rest = &rest[1..];
        match rest.split_once(',') {
            Some((parameters, next)) => {
                valid_parameters(parameters)?;
                rest = next.trim_start_matches([' ', '\t']);
                if rest.is_empty() {
                    return None;
                }
            }
            None => {
                valid_parameters(rest)?;
                rest = "";
            }
        }
    }
    Some(strings)
}

/// Only spaces and parameters may stand between two members.
fn valid_parameters(between: &str) -> Option<()> {
    let between = between.trim_matches([' ', '\t']);
    (between.is_empty() || between.starts_with(';')).then_some(())
}

/// Writes a string; `None` if it has characters other than visible ASCII and spaces.
#[must_use]
pub fn quote(string: &str) -> Option<HeaderValue> {
    string.bytes().all(|byte| matches!(byte, b' '..=b'~')).then_some(())?;
    let escaped = string.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_str(&format!("\"{escaped}\"")).ok()
}

/// Reads a field whose value is one string.
#[must_use]
pub fn unquote(value: &HeaderValue) -> Option<String> {
    let mut strings = parse_strings(value.to_str().ok()?)?;
    (strings.len() == 1).then(|| strings.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_strings() {
        let some = |strings: &[&str]| Some(strings.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse_strings(""), some(&[]));
        assert_eq!(parse_strings(r#""a", "b\"\\c" ;q=1,"d""#), some(&["a", "b\"\\c", "d"]));
        for wrong in ["a", r#""a"#, r#""a","#, r#""a" "b""#, r#""\a""#, "\"é\""] {
            assert_eq!(parse_strings(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(list in "\\PC{0,40}") {
            let _ = parse_strings(&list);
        }

        #[test]
        fn reads_what_it_writes(strings in prop::collection::vec("[ -~]{0,12}", 0..5)) {
            let list: Vec<_> = strings.iter().map(|s| quote(s).unwrap().to_str().unwrap().to_owned()).collect();
            prop_assert_eq!(parse_strings(&list.join(", ")), Some(strings));
        }
    }
}
