//! The files of the page: embedded, or from a folder while working on them.

use std::{
    collections::HashMap,
    io,
    path::{Component, Path},
    sync::LazyLock,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, include_dir};
use tokio::io::AsyncReadExt;

use crate::{content, identity::Fingerprint, source};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// The files of the page that is built in.
static BUILT_IN: LazyLock<Files> = LazyLock::new(|| Files::of(&EMBEDDED));

/// How much of a user's file is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// A file as it is served.
#[derive(Debug)]
pub(crate) struct PageFile {
    content: PageContent,
    mime: String,
    etag: Option<String>,
}

/// What a file holds, and whose it is.
#[derive(Debug)]
enum PageContent {
    /// Of the page that is built in, which keeps to a strict policy.
    BuiltIn(Bytes),
    /// Of a user's program.
    Embedded(Bytes),
    /// Of a user's folder: what has been read of it, the rest, and how long it is in all. It may be of any size.
    Folder { head: Vec<u8>, rest: tokio::fs::File, len: u64 },
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
        let (mime, etag) = (self.mime.clone(), Some(self.etag.clone()));
        PageFile { content: content(self.bytes.clone()), mime, etag }
    }
}

/// Whether a name of the path is hidden: what begins with a dot is not meant for others (`.git`, `.env`),
/// but for what RFC 8615 puts there.
fn is_hidden(relative: &Path) -> bool {
    let well_known = relative.strip_prefix(".well-known").unwrap_or(relative);
    well_known.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// The entity tag of a file as it is now, without reading all of it. Its length and the time of its last change
/// are not enough: many tools set that time (`touch -d`, `rsync -t`, package managers). Nobody can set the
/// time that the system notes. Weak, since that has a resolution.
#[cfg(unix)]
fn state(metadata: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (len, inode, seconds, nanoseconds) = (metadata.len(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
    Some(format!("W/\"{len:x}-{inode:x}-{seconds:x}.{nanoseconds:x}\""))
}

/// There is no such time: the file is sent each time.
#[cfg(not(unix))]
fn state(_: &std::fs::Metadata) -> Option<String> {
    None
}

/// So many bytes of a file, though it grows meanwhile. It fails when the file has become shorter.
fn exactly(head: Vec<u8>, rest: tokio::fs::File, len: u64) -> Body {
    let pieces = stream::try_unfold((Bytes::from(head), rest, len), async |(ready, mut rest, left)| {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = ready;
        if piece.is_empty() {
            let mut read = BytesMut::with_capacity(PIECE);
            rest.read_buf(&mut read).await?;
            piece = read.freeze();
        }
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        match piece.len() as u64 {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            size => Ok(Some((piece, (Bytes::new(), rest, left - size)))),
        }
    });
    Body::from_stream(pieces)
}

impl PageFile {
    /// A file of the page that is built in.
    pub(crate) fn built_in(path: &str) -> Option<Self> {
        BUILT_IN.0.get(path).map(|file| file.serve(PageContent::BuiltIn))
    }

    /// A file of a folder, which is its owner's: nothing outside of it, and nothing hidden, is ever read.
    pub(crate) async fn from_folder(dir: &Path, path: &str) -> Option<Self> {
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
        let mut rest = source::file::file(&file).await.ok()?;
        let metadata = rest.metadata().await.ok()?;
        let len = metadata.len();
        let mut head = Vec::new();
        (&mut rest).take(len.min(content::HEAD as u64)).read_to_end(&mut head).await.ok()?;
        Some(Self {
            mime: content::media_type(relative, &head),
            etag: state(&metadata),
            content: PageContent::Folder { head, rest, len },
        })
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
        if let Some(etag) = self.etag.as_deref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
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
        match self.etag.is_some_and(|etag| fresh(request, &etag)) {
            true => {
                *head.status_mut() = StatusCode::NOT_MODIFIED;
                head
            }
            false => match self.content {
                PageContent::BuiltIn(bytes) | PageContent::Embedded(bytes) => head.map(|_| Body::from(bytes)),
                PageContent::Folder { head: begun, rest, len } => {
                    head.headers_mut().insert(header::CONTENT_LENGTH, len.into());
                    head.map(|_| exactly(begun, rest, len))
                }
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
        assert!(PageFile::from_folder(&page, "a.html").await.is_some());
        assert!(PageFile::from_folder(&page, ".well-known/thing").await.is_some());
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
            assert!(PageFile::from_folder(&page, path).await.is_none(), "{path}");
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
