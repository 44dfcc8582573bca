//! The secrets of TLS for tools that look into captured packets, where the environment asks for them: the variable
//! that curl, Chrome and Firefox know.

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{complain, log::Outlet};

const SSLKEYLOGFILE: &str = "SSLKEYLOGFILE";

/// A file of secrets in the format of NSS (draft-ietf-tls-keylogfile), which a thread of its own writes.
struct KeyLog(Outlet);

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog")
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::with_capacity(2 * (client_random.len() + secret.len()) + label.len() + 3);
        line.push_str(label);
        for bytes in [client_random, secret] {
            line.push(' ');
            // A string takes all.
            bytes.iter().for_each(|byte| _ = write!(line, "{byte:02x}"));
        }
        line.push('\n');
        self.0.write(line.as_bytes());
    }
}

/// What writes the secrets of this process.
static FOUND: OnceLock<Arc<dyn rustls::KeyLog>> = OnceLock::new();

/// What [`find`] has found.
pub(super) fn found() -> Option<Arc<dyn rustls::KeyLog>> {
    FOUND.get().cloned()
}

/// What writes the secrets of this process, if the environment asks for it, which is said.
pub(super) fn find() -> Option<Arc<dyn rustls::KeyLog>> {
    let path = PathBuf::from(std::env::var_os(SSLKEYLOGFILE).filter(|path| !path.is_empty())?);
    match open(&path) {
        Ok(log) => {
            complain(&format!(
                "{SSLKEYLOGFILE} is set: the secrets of all connections are written to {}, with which all that they \
                 carry can be read, tokens too",
                path.display()
            ));
            Some(FOUND.get_or_init(|| Arc::new(log)).clone())
        }
        Err(error) => {
            complain(&format!("{SSLKEYLOGFILE}: cannot open {}: {error}: no secrets are written", path.display()));
            None
        }
    }
}

fn open(path: &Path) -> io::Result<KeyLog> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let what = format!("the secrets in {}", path.display());
    // No tool reads words between the lines.
    Ok(KeyLog(Outlet::start_telling("key log", file, Some(super::log::telling(what)))?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::KeyLog as _;

    use super::*;

    #[test]
    fn a_line_is_what_wireshark_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let keys = open(&path).unwrap();
        keys.log("CLIENT_TRAFFIC_SECRET_0", &[0, 0x1f], &[0xab, 0xcd]);
        keys.0.flush(Duration::from_secs(20)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "CLIENT_TRAFFIC_SECRET_0 001f abcd\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
