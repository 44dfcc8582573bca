//! What kind of content a file has, by its name and its first bytes.

use std::path::Path;

use infer::MatcherType;

/// How many of a file's first bytes are looked at.
pub(crate) const HEAD: usize = 16 << 10;

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// UTF-8, ASCII, or nothing yet.
    Utf8,
    Utf16,
    /// Text in an encoding that cannot be told.
    Text,
    Binary,
}

impl Bytes {
    fn of(head: &[u8]) -> Self {
        if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
            return Self::Utf16;
        }
        let utf8 = match std::str::from_utf8(head) {
            Ok(_) => true,
            // A character may be cut off at the end; in a short text of ASCII it is one of another encoding.
            Err(error) => {
                let before = &head[..error.valid_up_to()];
                error.error_len().is_none() && (head.len() >= HEAD || !before.is_ascii())
            }
        };
        let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x08 | 0x0c | 0x1b);
        match utf8 {
            _ if head.contains(&0) => Self::Binary,
            true => Self::Utf8,
            false if head.iter().any(control) => Self::Binary,
            false => Self::Text,
        }
    }
}

/// The media type of a file with that name, when it does not depend on how it begins.
pub(crate) fn by_name(name: &Path) -> Option<&'static str> {
    named(name).filter(|named| !named.starts_with("text/") && *named != TRANSPORT_STREAM)
}

fn named(name: &Path) -> Option<&'static str> {
    match name.extension().and_then(|extension| extension.to_str()) {
        // RFC 9239: the type that browsers insist on for modules.
        Some("js" | "mjs") => Some("text/javascript"),
        _ => mime_guess::from_path(name).first_raw(),
    }
}

/// The media type of a file with that name, which begins like this. It comes with `nosniff`, so what it
/// says is what browsers take it for.
pub(crate) fn media_type(name: &Path, head: &[u8]) -> String {
    let bytes = Bytes::of(head);
    match (named(name), bytes) {
        (Some(named), Bytes::Utf8) if named.starts_with("text/") => format!("{named}; charset=utf-8"),
        (Some(named), Bytes::Utf16) if named.starts_with("text/") => format!("{named}; charset=utf-16"),
        (Some(named), Bytes::Text) if named.starts_with("text/") => named.to_owned(),
        // Not what it is called.
        (Some(named), Bytes::Binary) if named.starts_with("text/") => by_content(head, bytes),
        // TypeScript, which is called like a film.
        (Some(TRANSPORT_STREAM), Bytes::Utf8) => by_content(head, bytes),
        (Some(named), _) => named.to_owned(),
        (None, _) => by_content(head, bytes),
    }
}

/// What `.ts` and `.mts` are called.
const TRANSPORT_STREAM: &str = "video/vnd.dlna.mpeg-tts";

/// Whether such content is text, and becomes smaller when it is packed.
pub(crate) fn is_text(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let is = |suffix: &str| kind.ends_with(&format!("/{suffix}")) || kind.ends_with(&format!("+{suffix}"));
    kind.starts_with("text/") || is("json") || is("xml") || is("javascript")
}

/// Never one that a browser runs: a log may have lines of HTML in it.
fn by_content(head: &[u8], bytes: Bytes) -> String {
    match bytes {
        Bytes::Utf8 => "text/plain; charset=utf-8".into(),
        Bytes::Utf16 => "text/plain; charset=utf-16".into(),
        Bytes::Text | Bytes::Binary => {
            let known = infer::get(head).filter(|kind| kind.matcher_type() != MatcherType::Text);
            match (known, bytes) {
                (Some(kind), _) => kind.mime_type().into(),
                (None, Bytes::Text) => "text/plain".into(),
                (None, _) => "application/octet-stream".into(),
            }
        }
    }
}

/// Whether a browser runs scripts of such a document.
pub(crate) fn is_active(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    kind == "text/html" || kind.ends_with("/xml") || kind.ends_with("+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_and_content() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice();
        for (name, head, expected) in [
            ("syslog", "zażółć\n".as_bytes(), "text/plain; charset=utf-8"),
            ("syslog", &"zażółć\n".as_bytes()[..5], "text/plain; charset=utf-8"),
            (
                "syslog",
                &"x".repeat(HEAD - 1).into_bytes().into_iter().chain([0xc3]).collect::<Vec<_>>(),
                "text/plain; charset=utf-8",
            ),
            ("old.txt", b"caf\xe9", "text/plain"),
            ("app.log", b"", "text/plain; charset=utf-8"),
            ("old.txt", b"caf\xe9\n", "text/plain"),
            ("windows.txt", b"\xff\xfea\0", "text/plain; charset=utf-16"),
            ("a.csv", b"a,b\n", "text/csv; charset=utf-8"),
            ("a.html", b"<p>", "text/html; charset=utf-8"),
            ("a.mjs", b"export {}", "text/javascript; charset=utf-8"),
            ("a.json", b"{}", "application/json"),
            ("a.svg", b"<svg>", "image/svg+xml"),
            ("main.ts", b"let a: string;", "text/plain; charset=utf-8"),
            ("main.mts", b"let a: string;", "text/plain; charset=utf-8"),
            ("film.ts", b"\x47\x40\0\x10\0", "video/vnd.dlna.mpeg-tts"),
            // However it begins.
            ("film.mp4", b"ftyp", "video/mp4"),
            ("unnamed", png, "image/png"),
            ("a.txt", png, "image/png"),
            ("a.png", png, "image/png"),
            ("unnamed", b"\0\x01\x02\xff", "application/octet-stream"),
            ("a.log", b"\0\x01\x02\xff", "application/octet-stream"),
            // Nothing that runs, unless it is called so.
            ("log", b"<!DOCTYPE html><script>", "text/plain; charset=utf-8"),
            ("log", b"BMW", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(media_type(Path::new(name), head), expected, "{name} {head:?}");
        }
        for active in ["text/html; charset=utf-8", "image/svg+xml", "application/xhtml+xml", "text/xml"] {
            assert!(is_active(active), "{active}");
        }
        for text in ["text/css; charset=utf-8", "image/svg+xml", "application/json", "application/manifest+json"] {
            assert!(is_text(text), "{text}");
        }
        for other in ["image/png", "video/mp4", "font/woff2", "application/wasm", "application/octet-stream"] {
            assert!(!is_text(other), "{other}");
        }
        assert!(!is_active("text/plain; charset=utf-8") && !is_active("application/pdf"));
    }
}
