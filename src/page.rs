//! The files of the page: embedded, or from a folder while working on them.

use std::{
    collections::HashMap,
    path::{Component, Path},
    sync::LazyLock,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use include_dir::{Dir, include_dir};

use crate::identity::Fingerprint;

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// The embedded files by path, hashed once.
static FILES: LazyLock<HashMap<String, File>> = LazyLock::new(|| {
    let mut files = HashMap::new();
    let mut dirs = vec![&EMBEDDED];
    while let Some(dir) = dirs.pop() {
        dirs.extend(dir.dirs());
        for file in dir.files() {
            // Paths of the build machine: separators may be its own.
            let path = file.path().to_string_lossy().replace('\\', "/");
            files.insert(path.clone(), File::new(&path, Bytes::from_static(file.contents())));
        }
    }
    files
});

/// A file as it is served.
#[derive(Debug, Clone)]
pub(crate) struct File {
    bytes: Bytes,
    mime: String,
    etag: String,
}

/// An embedded file.
pub(crate) fn embedded(path: &str) -> Option<File> {
    FILES.get(path).cloned()
}

/// A file of a folder; nothing outside of it is ever read.
pub(crate) async fn from_folder(dir: &Path, path: &str) -> Option<File> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let root = tokio::fs::canonicalize(dir).await.ok()?;
    let file = tokio::fs::canonicalize(root.join(relative)).await.ok()?;
    // A link must not lead out.
    if !file.starts_with(&root) {
        return None;
    }
    Some(File::new(path, tokio::fs::read(file).await.ok()?.into()))
}

impl File {
    fn new(path: &str, bytes: Bytes) -> Self {
        let mime = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
            // RFC 9239: the type that browsers insist on for modules.
            Some("js" | "mjs") => "text/javascript; charset=utf-8".into(),
            _ => match mime_guess::from_path(path).first_or_octet_stream() {
                text if text.type_() == mime_guess::mime::TEXT => format!("{text}; charset=utf-8"),
                other => other.to_string(),
            },
        };
        let etag = format!("\"{}\"", &Fingerprint::of(&bytes).hex()[..32]);
        Self { bytes, mime, etag }
    }

    /// Answers with the file, or 304 when the client has it. `connect` is the one other origin
    /// that the page may talk to.
    pub(crate) fn respond(self, request: &HeaderMap, connect: &str) -> Response {
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
             connect-src 'self' {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let headers = [
            (header::CONTENT_TYPE, self.mime),
            (header::ETAG, self.etag.clone()),
            // To be asked for each time: a new version shows at once, and costs one 304.
            (header::CACHE_CONTROL, "no-cache".into()),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::REFERRER_POLICY, "no-referrer".into()),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin".into()),
        ];
        match fresh(request, &self.etag) {
            true => (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response(),
            false => (headers, self.bytes).into_response(),
        }
    }
}

/// Whether `If-None-Match` names the file as it is (RFC 9110 §13.1.2, weak comparison).
fn fresh(request: &HeaderMap, etag: &str) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_type_that_browsers_take() {
        for (path, file) in FILES.iter() {
            assert_ne!(file.mime, "application/octet-stream", "{path}");
            if path.ends_with(".mjs") {
                assert!(file.mime.starts_with("text/javascript"), "{path}: {}", file.mime);
            }
        }
        assert!(FILES.contains_key("index.html"));
    }

    #[tokio::test]
    async fn a_folder_gives_nothing_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("page")).unwrap();
        std::fs::write(dir.path().join("secret"), "no").unwrap();
        std::fs::write(dir.path().join("page/a.html"), "yes").unwrap();
        let page = dir.path().join("page");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", page.join("link")).unwrap();
        assert!(from_folder(&page, "a.html").await.is_some());
        for path in ["../secret", "link", "/etc/passwd", "", ".", "a.html/..", "..%2fsecret"] {
            assert!(from_folder(&page, path).await.is_none(), "{path}");
        }
    }

    #[test]
    fn conditional_requests() {
        let mut headers = HeaderMap::new();
        assert!(!fresh(&headers, "\"a\""));
        headers.insert(header::IF_NONE_MATCH, "\"b\", W/\"a\"".parse().unwrap());
        assert!(fresh(&headers, "\"a\""));
        assert!(!fresh(&headers, "\"c\""));
    }
}
