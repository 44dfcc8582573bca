//! Finding and starting a browser that trusts this server, with a profile of its own.

use std::{
    ffi::OsString,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{child, identity::Fingerprint, origin::split_authority};

/// A browser that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    /// Chrome, Chromium, or Edge.
    Chrome,
    /// Firefox.
    Firefox,
}

/// Why no browser was opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// None was found in the usual places.
    #[error("no {0} was found on this machine")]
    NotFound(&'static str),
    /// A folder for its profile could not be created, or it could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was started, and ended with an error at once: see [`Opened::failure`].
    #[error("{} ended at once ({status}){}", program.display(), last.as_ref().map(|line| format!(": {line}")).unwrap_or_default())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote to standard error, if it wrote any.
        last: Option<String>,
    },
}

/// A browser that was opened. Its profile lives as long as this value.
#[derive(Debug)]
pub struct Opened {
    /// The browser's process.
    pub process: Child,
    program: PathBuf,
    profile: PathBuf,
}

/// A browser that cannot run ends sooner than this.
const EARLY: Duration = Duration::from_secs(2);
/// The file in its profile that has its standard error: a pipe would break, and the browser with it, when this
/// process ends first.
const STDERR: &str = "h3cast-stderr.log";
/// How much of that is read, in bytes.
const LAST: u64 = 4096;

impl Opened {
    /// Waits until a browser that cannot run would have ended, about 2 s, and returns [`OpenError::Ended`] if it
    /// has. Blocks.
    pub fn failure(&mut self) -> Option<OpenError> {
        let start = Instant::now();
        let status = loop {
            match self.process.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if start.elapsed() < EARLY => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) | Err(_) => return None,
            }
        };
        (!status.success()).then(|| OpenError::Ended { program: self.program.clone(), status, last: self.last_line() })
    }

    fn last_line(&self) -> Option<String> {
        let mut file = std::fs::File::open(self.profile.join(STDERR)).ok()?;
        let len = file.metadata().ok()?.len();
        file.seek(io::SeekFrom::Start(len.saturating_sub(LAST))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(String::from)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A browser that still runs keeps its profile; the folder is a temporary one then.
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = std::fs::remove_dir_all(&self.profile);
        }
    }
}

impl Browser {
    fn name(self) -> &'static str {
        match self {
            Self::Chrome => "Chrome or Chromium",
            Self::Firefox => "Firefox",
        }
    }

    /// Where the browser usually is: names to look for on the path, then whole paths.
    fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::Chrome => &[
                "google-chrome",
                "google-chrome-stable",
                "chromium",
                "chromium-browser",
                "chrome",
                "microsoft-edge",
                "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
                "/Applications/Chromium.app/Contents/MacOS/Chromium",
                "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
                r"C:\Program Files\Google\Chrome\Application\chrome.exe",
                r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
                r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
            ],
            Self::Firefox => &[
                "firefox",
                "firefox-esr",
                "/Applications/Firefox.app/Contents/MacOS/firefox",
                r"C:\Program Files\Mozilla Firefox\firefox.exe",
                r"C:\Program Files (x86)\Mozilla Firefox\firefox.exe",
            ],
        }
    }

    /// Looks for the browser on this machine.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        self.find_in(&std::env::var_os("PATH").unwrap_or_default())
    }

    fn find_in(self, path: &OsString) -> Option<PathBuf> {
        let suffix = std::env::consts::EXE_SUFFIX;
        let on_path = |name: &str| {
            std::env::split_paths(path).map(|dir| dir.join(format!("{name}{suffix}"))).find(|file| is_program(file))
        };
        self.candidates().iter().find_map(|candidate| {
            let whole = Path::new(candidate);
            match candidate.contains(['/', '\\']) {
                true => is_program(whole).then(|| whole.to_path_buf()),
                false => on_path(candidate),
            }
        })
    }

    /// Starts the browser on a fresh profile that trusts the server with a certificate and a public
    /// key of these hashes, so that the page at `url` is loaded over HTTP/3 although the certificate is
    /// self-signed.
    ///
    /// # Errors
    ///
    /// When it is not there or cannot be started.
    pub fn open(self, url: &str, certificate: &Fingerprint, public_key: &Fingerprint) -> Result<Opened, OpenError> {
        let program = self.find().ok_or(OpenError::NotFound(self.name()))?;
        let failed = |source| OpenError::Start { program: program.clone(), source };
        let profile = fresh_profile().map_err(failed)?;
        let mut command = child::command(&program);
        match self {
            Self::Chrome => {
                command.args(chrome_arguments(url, public_key, &profile.to_string_lossy()));
            }
            Self::Firefox => {
                // It has no switches for this, and takes all of it from its profile.
                for (name, text) in firefox_profile(url, certificate) {
                    std::fs::write(profile.join(name), text).map_err(failed)?;
                }
                command.arg("--no-remote").arg("--profile").arg(&profile).arg(url);
            }
        }
        let stderr = std::fs::File::create(profile.join(STDERR)).map_err(failed)?;
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().map_err(failed)?;
        Ok(Opened { process, program, profile })
    }

    /// What to do by hand where the browser was not found: for Chrome the same command, for Firefox
    /// the plain page on this machine at `fallback`.
    #[must_use]
    pub fn command(self, url: &str, fallback: &str, spki_hash: &Fingerprint) -> String {
        match self {
            Self::Chrome => chrome_command(url, spki_hash),
            Self::Firefox => format!("firefox {fallback}"),
        }
    }
}

/// A program and not a folder or a dangling link.
fn is_program(file: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(file) else { return false };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    meta.is_file() && runs
}

/// A new folder that nobody else can have made before.
fn fresh_profile() -> io::Result<PathBuf> {
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let dir = std::env::temp_dir().join(format!("h3cast-profile-{}-{stamp}", std::process::id()));
    std::fs::create_dir(&dir)?;
    Ok(dir)
}

/// The files of a Firefox profile that loads a page over HTTP/3 from a server with a self-signed
/// certificate: preferences, and the exception that a user would click.
fn firefox_profile(url: &str, hash: &Fingerprint) -> [(&'static str, String); 2] {
    let (host, port) = authority(url);
    let preferences = [
        // From the first request on; else only once `Alt-Svc` has been seen.
        ("network.http.http3.alt-svc-mapping-for-testing", format!("\"{host};h3=:{port}\"")),
        // Firefox keeps HTTP/3 to certificates that the web's authorities vouch for.
        ("network.http.http3.disable_when_third_party_roots_found", "false".into()),
        ("browser.shell.checkDefaultBrowser", "false".into()),
        ("browser.aboutwelcome.enabled", "false".into()),
        ("datareporting.policy.dataSubmissionEnabled", "false".into()),
        ("termsofuse.bypassNotification", "true".into()),
    ];
    let preferences = preferences.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n")).concat();
    let hex = hash.hex().to_uppercase();
    let pairs: Vec<&str> = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]).collect();
    // The object identifier says SHA-256.
    let exception = format!("{host}:{port}:\tOID.2.16.840.1.101.3.4.2.1\t{}\t\n", pairs.join(":"));
    [("user.js", preferences), ("cert_override.txt", exception)]
}

/// Host and port of a URL.
fn authority(url: &str) -> (&str, u16) {
    let authority = url.trim_start_matches("https://").split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = split_authority(authority).unwrap_or((authority, None));
    (host, port.unwrap_or(443))
}

/// The host of a URL.
#[cfg(feature = "cli")]
pub(crate) fn host(url: &str) -> &str {
    authority(url).0
}

/// What Chromium needs to load a page over HTTP/3 from a server with a self-signed certificate.
fn chrome_arguments(url: &str, spki_hash: &Fingerprint, profile: &str) -> Vec<String> {
    let (host, port) = authority(url);
    vec![
        format!("--user-data-dir={profile}"),
        "--no-first-run".into(),
        "--no-default-browser-check".into(),
        format!("--origin-to-force-quic-on={host}:{port}"),
        format!("--ignore-certificate-errors-spki-list={}", spki_hash.base64()),
        url.into(),
    ]
}

/// The command line that opens `url` over HTTP/3 in Chrome, for this machine's shell.
#[must_use]
pub fn chrome_command(url: &str, spki_hash: &Fingerprint) -> String {
    let (program, profile) = if cfg!(target_os = "macos") {
        ("'/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'".to_owned(), "/tmp/h3cast-chrome")
    } else if cfg!(windows) {
        ("start chrome".to_owned(), r"%TEMP%\h3cast-chrome")
    } else {
        let found =
            Browser::Chrome.find().and_then(|program| Some(program.file_name()?.to_string_lossy().into_owned()));
        (found.unwrap_or_else(|| "google-chrome".into()), "/tmp/h3cast-chrome")
    };
    format!("{program} {}", chrome_arguments(url, spki_hash, profile).join(" "))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn finds_a_program_on_the_path_only() {
        let dir = tempfile::tempdir().unwrap();
        let chromium = dir.path().join("firefox");
        std::fs::write(&chromium, "").unwrap();
        let path = OsString::from(dir.path());
        assert_ne!(Browser::Firefox.find_in(&path), Some(chromium.clone()), "it cannot be run");
        std::fs::set_permissions(&chromium, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Browser::Firefox.find_in(&path), Some(chromium));
    }

    #[test]
    fn the_command_names_the_origin_and_the_key() {
        let command = chrome_command("https://localhost:4433/", &Fingerprint::of(b"key"));
        assert!(command.contains(" --origin-to-force-quic-on=localhost:4433 "), "{command}");
        let flag = format!(" --ignore-certificate-errors-spki-list={} ", Fingerprint::of(b"key").base64());
        assert!(command.contains(&flag), "{command}");
        assert!(command.ends_with(" https://localhost:4433/"), "{command}");
    }
}
