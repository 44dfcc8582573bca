//! The files of the page: embedded, or from a folder while working on them.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, include_dir};

use crate::{content, identity::Fingerprint};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// The files of the page that is built in.
static BUILT_IN: LazyLock<Files> = LazyLock::new(|| Files::of(&EMBEDDED));

/// A file as it is served.
#[derive(Debug)]
pub(crate) struct PageFile {
    content: PageContent,
    mime: String,
    etag: String,
}

/// What a file holds, and whose it is.
#[derive(Debug)]
enum PageContent {
    /// Of the page that is built in, which keeps to a strict policy.
    BuiltIn(Bytes),
    /// Of a user's program.
    Embedded(Bytes),
}

/// Files in the program, by path, hashed once.
#[derive(Debug)]
pub(crate) struct Files(HashMap<String, Embedded>);

impl Files {
    pub(crate) fn of(root: &'static Dir<'static>) -> Self {
        let mut files = HashMap::new();
        let mut dirs = vec![root];
        while let Some(dir) = dirs.pop() {
            dirs.extend(dir.dirs());
            for file in dir.files().filter(|file| !is_hidden(file.path())) {
                // Paths of the build machine: separators may be its own.
                let path = file.path().to_string_lossy().replace('\\', "/");
                let embedded = Embedded::new(&path, file.contents());
                files.insert(path, embedded);
            }
        }
        Self(files)
    }

    /// A file of a user's program.
    pub(crate) fn get(&self, path: &str) -> Option<PageFile> {
        self.0.get(path).map(|file| file.serve(PageContent::Embedded))
    }
}

/// An embedded file with what is known of it beforehand.
#[derive(Debug)]
struct Embedded {
    bytes: Bytes,
    mime: String,
    etag: String,
}

impl Embedded {
    fn new(path: &str, bytes: &'static [u8]) -> Self {
        let mime = content::media_type(Path::new(path), &bytes[..bytes.len().min(content::HEAD)]);
        let etag = format!("\"{}\"", &Fingerprint::of(bytes).hex()[..32]);
        Self { bytes: Bytes::from_static(bytes), mime, etag }
    }

    fn serve(&self, content: fn(Bytes) -> PageContent) -> PageFile {
        let (mime, etag) = (self.mime.clone(), self.etag.clone());
        PageFile { content: content(self.bytes.clone()), mime, etag }
    }
}

/// Whether a name of the path is hidden: what begins with a dot is not meant for others (`.git`, `.env`),
/// but for what RFC 8615 puts there.
fn is_hidden(relative: &Path) -> bool {
    let well_known = relative.strip_prefix(".well-known").unwrap_or(relative);
    well_known.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// A file of a folder, which is its owner's: nothing outside of it, and nothing hidden, is ever read.
pub(crate) async fn in_folder(dir: &Path, relative: &Path) -> Option<PathBuf> {
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) || is_hidden(relative) {
        return None;
    }
    let root = tokio::fs::canonicalize(dir).await.ok()?;
    let file = tokio::fs::canonicalize(root.join(relative)).await.ok()?;
    // A link must not lead out, nor to what is hidden.
    if file.strip_prefix(&root).map_or(true, is_hidden) {
        return None;
    }
    tokio::fs::metadata(&file).await.is_ok_and(|found| found.is_file()).then_some(file)
}

impl PageFile {
    /// A file of the page that is built in.
    pub(crate) fn built_in(path: &str) -> Option<Self> {
        BUILT_IN.0.get(path).map(|file| file.serve(PageContent::BuiltIn))
    }

    /// Answers with the file, or 304 when the client has it. `connect` is the one other origin
    /// that the page that is built in may talk to.
    pub(crate) fn respond(self, request: &HeaderMap, connect: &str) -> Response {
        let mut head = [
            (header::CONTENT_TYPE, self.mime),
            // To be asked for each time, so that a new version shows at once; with an entity tag, the same one
            // costs a 304.
            (header::CACHE_CONTROL, "no-cache".into()),
        ]
        .into_response();
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            head.headers_mut().insert(header::ETAG, etag);
        }
        if let PageContent::BuiltIn(_) = self.content {
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
            false => match self.content {
                PageContent::BuiltIn(bytes) | PageContent::Embedded(bytes) => head.map(|_| Body::from(bytes)),
            },
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
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag.trim_start_matches("W/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_type_that_browsers_take() {
        for (path, file) in BUILT_IN.0.iter() {
            assert_ne!(file.mime, "application/octet-stream", "{path}");
            if path.ends_with(".mjs") {
                assert!(file.mime.starts_with("text/javascript"), "{path}: {}", file.mime);
            }
        }
        assert!(BUILT_IN.0.contains_key("index.html"));
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
        assert!(in_folder(&page, "a.html".as_ref()).await.is_some());
        assert!(in_folder(&page, ".well-known/thing".as_ref()).await.is_some());
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
            assert!(in_folder(&page, path.as_ref()).await.is_none(), "{path}");
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
