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
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, include_dir};
use tokio::io::AsyncReadExt;

use crate::{content, identity::Fingerprint, source};

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
            files.insert(path.clone(), File::new(&path, Bytes::from_static(file.contents()), true));
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
    /// It is of the embedded page, and keeps to what that does.
    ours: bool,
}

/// An embedded file.
pub(crate) fn embedded(path: &str) -> Option<File> {
    FILES.get(path).cloned()
}

/// Whether a name of the path is hidden: what begins with a dot is not meant for others (`.git`, `.env`),
/// but for what RFC 8615 puts there.
fn is_hidden(relative: &Path) -> bool {
    let well_known = relative.strip_prefix(".well-known").unwrap_or(relative);
    well_known.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// A file of a folder, which is its owner's: nothing outside of it, and nothing hidden, is ever read.
pub(crate) async fn from_folder(dir: &Path, path: &str) -> Option<File> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) || is_hidden(relative) {
        return None;
    }
    let root = tokio::fs::canonicalize(dir).await.ok()?;
    let file = tokio::fs::canonicalize(root.join(relative)).await.ok()?;
    // A link must not lead out, nor to what is hidden.
    if file.strip_prefix(&root).map_or(true, is_hidden) {
        return None;
    }
    let mut bytes = Vec::new();
    source::file::file(&file).await.ok()?.read_to_end(&mut bytes).await.ok()?;
    Some(File::new(path, bytes.into(), false))
}

impl File {
    fn new(path: &str, bytes: Bytes, ours: bool) -> Self {
        let mime = content::media_type(Path::new(path), &bytes[..bytes.len().min(content::HEAD)]);
        let etag = format!("\"{}\"", &Fingerprint::of(&bytes).hex()[..32]);
        Self { bytes, mime, etag, ours }
    }

    /// Answers with the file, or 304 when the client has it. `connect` is the one other origin
    /// that the page may talk to.
    pub(crate) fn respond(self, request: &HeaderMap, connect: &str) -> Response {
        let mut head = [
            (header::CONTENT_TYPE, self.mime),
            (header::ETAG, self.etag.clone()),
            // To be asked for each time: a new version shows at once, and costs one 304.
            (header::CACHE_CONTROL, "no-cache".into()),
        ]
        .into_response();
        if self.ours {
            let policy = format!(
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                 connect-src 'self' {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            );
            let headers = head.headers_mut();
            // Without a host that can be written, nothing is allowed.
            let policy = policy.try_into().unwrap_or(HeaderValue::from_static("default-src 'none'"));
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        }
        match fresh(request, &self.etag) {
            true => {
                *head.status_mut() = StatusCode::NOT_MODIFIED;
                head
            }
            false => head.map(|_| Body::from(self.bytes)),
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
        for path in [".env", ".git/config", ".well-known/thing", "sub/.env", ".well-known/.env"] {
            let path = page.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "mine").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(".env", page.join("env")).unwrap();
        assert!(from_folder(&page, "a.html").await.is_some());
        assert!(from_folder(&page, ".well-known/thing").await.is_some());
        for path in [
            "../secret",
            "link",
            "/etc/passwd",
            "",
            ".",
            "a.html/..",
            "..%2fsecret",
            ".env",
            ".git/config",
            "sub/.env",
            "./.env",
            ".well-known/.env",
            "env",
        ] {
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
