//! The secrets of TLS for tools that look into captured packets, where the environment asks for them: the variable
//! that curl, Chrome and Firefox know.

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
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
static FOUND: OnceLock<Arc<KeyLog>> = OnceLock::new();

/// What [`find`] has found.
pub(super) fn found() -> Option<Arc<dyn rustls::KeyLog>> {
    FOUND.get().map(|keys| keys.clone() as Arc<dyn rustls::KeyLog>)
}

/// Where the last secrets are.
pub(super) fn outlet() -> Option<&'static Outlet> {
    FOUND.get().map(|keys| &keys.0)
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
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // A link may lead to another user's file, and a pipe without a reader would hold up the start.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits() as i32);
    }
    let file = options.open(path)?;
    private(&file)?;
    let what = format!("the secrets in {}", path.display());
    // No tool reads words between the lines.
    Ok(KeyLog(Outlet::start_telling("key log", file, Some(super::log::telling(what)))?))
}

/// The secrets are for this user alone: in a folder such as /tmp, another one may have created the file.
#[cfg(unix)]
fn private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
    let found = file.metadata()?;
    match () {
        () if !found.is_file() => refused("not a regular file"),
        () if found.uid() != rustix::process::geteuid().as_raw() => refused("the file belongs to another user"),
        () if found.mode() & 0o077 != 0 => refused("other users may open the file: run `chmod 600` on it first"),
        () => Ok(()),
    }
}

#[cfg(not(unix))]
fn private(_: &File) -> io::Result<()> {
    Ok(())
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
        open(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_not_written_where_others_may_read_them() {
        use std::{
            fs::{self, Permissions},
            os::unix::fs::{PermissionsExt, symlink},
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let refused = |path: &Path| open(path).err().unwrap().to_string();
        fs::write(at("readable"), "").unwrap();
        fs::set_permissions(at("readable"), Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&at("readable")).contains("chmod 600"));
        fs::write(at("own"), "").unwrap();
        fs::set_permissions(at("own"), Permissions::from_mode(0o600)).unwrap();
        open(&at("own")).unwrap();
        symlink(at("own"), at("link")).unwrap();
        refused(&at("link"));
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        // It returns at once, with a reader and without one.
        refused(&at("pipe"));
        let _reader = fs::OpenOptions::new().read(true).write(true).open(at("pipe")).unwrap();
        assert!(refused(&at("pipe")).contains("regular"));
        if rustix::process::geteuid().is_root() {
            fs::write(at("theirs"), "").unwrap();
            fs::set_permissions(at("theirs"), Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(at("theirs"), Some(65534), None).unwrap();
            assert!(refused(&at("theirs")).contains("another user"));
        }
    }
}
