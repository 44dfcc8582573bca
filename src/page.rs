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
    /// Once a client has asked for it: the same as gzip with its own entity tag.
    gzip: OnceLock<Option<(Bytes, String)>>,
}

impl Embedded {
    fn new(path: &str, bytes: &'static [u8]) -> Self {
        let mime = content::media_type(Path::new(path), &bytes[..bytes.len().min(content::HEAD)]);
        let etag = format!("\"{}\"", &Fingerprint::of(bytes).hex()[..32]);
        Self { bytes: Bytes::from_static(bytes), mime, etag, gzip: OnceLock::new() }
    }

    fn gzip(&self) -> Option<&(Bytes, String)> {
        let made = || Some((packed(&self.bytes).ok()?.into(), self.etag.replacen('"', "\"gzip-", 1)));
        self.gzip.get_or_init(made).as_ref()
    }

    /// The same for a client that takes it, if it is text and becomes much smaller, or the client takes nothing else.
    fn gzip_for(&self, request: &HeaderMap) -> Option<&(Bytes, String)> {
        let wanted = Wanted::of(request);
        match wanted.identity {
            _ if wanted.gzip == 0 => None,
            Some(0) => self.gzip(),
            Some(plain) if plain > wanted.gzip => None,
            _ if !content::is_text(&self.mime) => None,
            _ => self.gzip().filter(|(packed, _)| packed.len() < self.bytes.len() / 10 * 9),
        }
    }
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

/// What `Accept-Encoding` says of the codings that there are, with weights in thousandths (RFC 9110 §12.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    gzip: u16,
    /// The file as it is, if the client says anything about that. It takes it otherwise.
    identity: Option<u16>,
}

impl Wanted {
    fn of(request: &HeaderMap) -> Self {
        let (mut gzip, mut identity, mut any) = (None, None, None);
        let fields = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for coding in fields.flat_map(|value| value.split(',')) {
            let (name, weight) = coding.split_once(';').map_or((coding, Some(1000)), |(name, of)| (name, weight(of)));
            match name.trim().to_ascii_lowercase().as_str() {
                // One that cannot be read means no.
                "gzip" | "x-gzip" => gzip = Some(weight.unwrap_or_default()),
                "identity" => identity = weight,
                "*" => any = weight,
                _ => {}
            }
        }
        // A file that nothing is said about is refused only by name, or with everything else.
        Self { gzip: gzip.or(any).unwrap_or_default(), identity: identity.or(any.filter(|weight| *weight == 0)) }
    }
}

/// A weight in thousandths; `None` if it is none (RFC 9110 §12.4.2).
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.trim().split_once('=')?;
    let (whole, rest) = value.split_once('.').unwrap_or((value, ""));
    let is_weight = name.eq_ignore_ascii_case("q") && rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{rest:0<3}").parse().ok().filter(|_| is_weight)?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
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
        BUILT_IN.0.get(path).map(|file| PageFile { file: Arc::clone(file), built_in: true })
    }

    /// Answers with the file, or 304 when the client has it. `connect` is the one other origin
    /// that the page that is built in may talk to.
    pub(crate) fn respond(self, request: &HeaderMap, connect: &str) -> Response {
        let packed = self.file.gzip_for(request);
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

    const REFUSED: [&str; 18] = [
        "",
        // Sent as it is all the same (RFC 9110 §12.1): what it takes, this server does not have.
        "identity;q=0",
        "br",
        "gzipped",
        "gzip;q=0",
        "GZIP ; Q=0.000",
        "gzip;q=0, *",
        "*, gzip;q=0",
        "*;q=0",
        "*;q=0.000, br",
        // As browsers ask for films.
        "identity;q=1, *;q=0",
        "gzip;q=0.5, identity",
        "identity;q=0.502, gzip;q=0.501",
        // No weights.
        "gzip;q=0;x=1",
        "gzip;x=1",
        "gzip;q=0.0001",
        "gzip;q=1.1",
        "gzip;q=2",
    ];
    const TAKEN: [&str; 11] = [
        "gzip",
        "deflate, GZIP;q=0.5",
        "br,gzip ;q=1",
        "gzip;q=0.001",
        "x-gzip;q=1.",
        "*",
        "br, *;q=0.1",
        "identity, *",
        "identity;q=0, *;q=0.5",
        "gzip, *;q=0",
        "identity;q=0.501, gzip;q=0.502",
    ];

    /// Only what becomes smaller is packed, unless a client takes nothing else.
    #[test]
    fn images_are_sent_as_they_are() {
        let file = |name: &str| Embedded::new(name, &[b'a'; 10_000]);
        let asked = |coding: &str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, coding.parse().unwrap())]);
        for name in ["a.png", "a.jpg", "a.webp", "a.woff2", "a.mp4", "a.ico"] {
            assert!(file(name).gzip_for(&asked("gzip")).is_none(), "{name}");
            assert!(file(name).gzip_for(&asked("gzip, identity;q=0")).is_some(), "{name}");
        }
        for name in ["a.svg", "a.css", "a.json", "a.webmanifest", "a.xml", "a.txt", "LICENSE"] {
            assert!(file(name).gzip_for(&asked("gzip")).is_some(), "{name}");
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
        for refused in REFUSED {
            assert_eq!(value(&answer(refused, ""), header::CONTENT_ENCODING), None, "{refused}");
        }
        for taken in TAKEN {
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
