//! The files of the page: embedded, or from a folder while working on them.

use std::{
    collections::HashMap,
    io::Write,
    path::{Component, Path, PathBuf},
    sync::{Arc, LazyLock, OnceLock},
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, include_dir};

use crate::{content, identity::Fingerprint};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// The files of the page that is built in.
static BUILT_IN: LazyLock<Files> = LazyLock::new(|| Files::of(&EMBEDDED));

/// A file as it is served.
#[derive(Debug)]
pub(crate) struct PageFile {
    file: Arc<Embedded>,
    /// Of the page that is built in, which keeps to a strict policy, and not of a user's program.
    built_in: bool,
}

/// Files in the program, by path, hashed once.
#[derive(Debug)]
pub(crate) struct Files(HashMap<String, Arc<Embedded>>);

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
                files.insert(path, Arc::new(embedded));
            }
        }
        Self(files)
    }

    /// A file of a user's program.
    pub(crate) fn get(&self, path: &str) -> Option<PageFile> {
        self.0.get(path).map(|file| PageFile { file: Arc::clone(file), built_in: false })
    }
}

/// An embedded file with what is known of it beforehand.
#[derive(Debug)]
struct Embedded {
    bytes: Bytes,
    mime: String,
    etag: String,
    /// Once a client has asked for it: the same as gzip with its own entity tag, if that is much smaller.
    gzip: OnceLock<Option<(Bytes, String)>>,
}

impl Embedded {
    fn new(path: &str, bytes: &'static [u8]) -> Self {
        let mime = content::media_type(Path::new(path), &bytes[..bytes.len().min(content::HEAD)]);
        let etag = format!("\"{}\"", &Fingerprint::of(bytes).hex()[..32]);
        Self { bytes: Bytes::from_static(bytes), mime, etag, gzip: OnceLock::new() }
    }

    fn gzip(&self) -> Option<&(Bytes, String)> {
        let made = || {
            let packed = packed(&self.bytes).ok().filter(|packed| packed.len() < self.bytes.len() / 10 * 9)?;
            Some((packed.into(), self.etag.replacen('"', "\"gzip-", 1)))
        };
        self.gzip.get_or_init(made).as_ref()
    }
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

/// Whether the client takes gzip (RFC 9110 §12.5.3): it names it, and not with a weight of zero.
fn takes_gzip(request: &HeaderMap) -> bool {
    let fields = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let refused = weight.strip_prefix("q=").and_then(|weight| weight.parse().ok()) == Some(0.0_f32);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
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
        BUILT_IN.0.get(path).map(|file| PageFile { file: Arc::clone(file), built_in: true })
    }

    /// Answers with the file, or 304 when the client has it. `connect` is the one other origin
    /// that the page that is built in may talk to.
    pub(crate) fn respond(self, request: &HeaderMap, connect: &str) -> Response {
        let packed = takes_gzip(request).then(|| self.file.gzip()).flatten();
        let (bytes, etag) = packed.map_or((&self.file.bytes, &self.file.etag), |(bytes, etag)| (bytes, etag));
        let mut head = [
            (header::CONTENT_TYPE, self.file.mime.as_str()),
            // To be asked for each time, so that a new version shows at once; with an entity tag, the same one
            // costs a 304.
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
        ]
        .into_response();
        let headers = head.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(etag) {
            headers.insert(header::ETAG, etag);
        }
        if self.built_in {
            let policy = format!(
                "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' blob:; font-src 'self'; \
                 connect-src 'self' {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            );
            // Without a host that can be written, nothing is allowed.
            let policy = policy.try_into().unwrap_or(HeaderValue::from_static("default-src 'none'"));
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        }
        if fresh(request, etag) {
            *head.status_mut() = StatusCode::NOT_MODIFIED;
            return head;
        }
        if packed.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        head.map(|_| Body::from(bytes.clone()))
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
    fn text_is_sent_as_gzip_to_those_who_take_it() {
        let answer = |coding: &str, etag: &str| {
            let asked = [(header::ACCEPT_ENCODING, coding), (header::IF_NONE_MATCH, etag)];
            let asked = asked.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()));
            PageFile::built_in("index.html").unwrap().respond(&HeaderMap::from_iter(asked), "'none'")
        };
        let value =
            |of: &Response, name| of.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        for refused in ["", "br", "gzip;q=0", "gzip; q=0.000", "gzipped", "identity, *"] {
            assert_eq!(value(&answer(refused, ""), header::CONTENT_ENCODING), None, "{refused}");
        }
        for taken in ["gzip", "deflate, GZIP;q=0.5", "br,gzip ;q=1"] {
            let packed = answer(taken, "");
            assert_eq!(value(&packed, header::CONTENT_ENCODING).as_deref(), Some("gzip"), "{taken}");
            assert_eq!(value(&packed, header::VARY).as_deref(), Some("accept-encoding"));
            let etag = value(&packed, header::ETAG).unwrap();
            assert_eq!(answer(taken, &etag).status(), StatusCode::NOT_MODIFIED);
            // The other form is another one.
            assert_eq!(answer("br", &etag).status(), StatusCode::OK);
        }
        let index = EMBEDDED.get_file("index.html").unwrap().contents();
        let mut unpacked = Vec::new();
        let file = &BUILT_IN.0["index.html"];
        std::io::copy(&mut flate2::read::GzDecoder::new(&file.gzip().unwrap().0[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, index);
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
