//! Where `h3cast reload`, and a server that takes over, reach the server: a Unix socket, only for the server's user and
//! root.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{handover::TAKE_OVER, reload::Outcome};
use crate::{cli::Failure, note};

/// What a client asks for, in a line.
pub(in crate::cli) const RELOAD: &str = "reload";
/// How long a client may take for what it asks, and for what it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a pause is when a connection cannot be accepted.
const EXHAUSTED: Duration = Duration::from_secs(1);
/// How long a folder may be locked by another server, which takes milliseconds, and a pause meanwhile.
const LOCKED: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// How long a server that has taken over may wait before it serves until its socket is renamed, which takes far less
/// unless the folder does not answer: the ports are not read meanwhile. And how long that may take at all.
const BRIEFLY: Duration = Duration::from_millis(50);
const SETTLING: Duration = Duration::from_secs(10);
/// So many clients are answered at once.
const AT_ONCE: usize = 16;
/// So many servers may have the same process id, in containers that share the folder.
const MOST: u32 = 16;
/// What the names of sockets begin and end with; between them is the process id.
const NAME: (&str, &str) = ("control-", ".sock");

/// `--control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Where {
    At(PathBuf),
    Off,
}

pub(super) fn parse(text: &str) -> Result<Where, String> {
    match text {
        "" => Err("write the path of a socket, or off".into()),
        "off" => Ok(Where::Off),
        path => Ok(Where::At(path.into())),
    }
}

/// The folders in which sockets are, the preferred one first: that which systemd has made for a service
/// (`RuntimeDirectory=`), and those of this user.
pub(in crate::cli) fn folders() -> Vec<PathBuf> {
    let service = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let service = std::env::split_paths(&service).filter(|path| path.is_absolute()).collect::<Vec<_>>();
    service.into_iter().chain(note::folders()).collect()
}

/// The sockets in a folder, each with the process id of its server. They may be left by servers that were killed.
pub(in crate::cli) fn sockets(folder: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?;
        let pid = name.split('-').next()?.parse().ok()?;
        Some((pid, path))
    };
    entries.filter_map(named).collect()
}

/// The socket of a server, which is removed with this.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is so far, if that is another server's place.
    own: Option<PathBuf>,
    /// It is being renamed.
    settling: Option<JoinHandle<io::Result<()>>>,
    /// The file is still this one.
    inode: Option<(u64, u64)>,
    /// Another server has that place now, or soon.
    left: Arc<AtomicBool>,
    /// A server that takes over has its own at the same place.
    replaceable: bool,
}

impl Drop for Control {
    fn drop(&mut self) {
        let path = self.own.as_ref().unwrap_or(&self.path);
        // A server that has taken over has its own there, but not where the name is this process's.
        let is_left = self.left.load(Ordering::Acquire) && self.replaceable;
        if !is_left && inode(path) == self.inode {
            let _ = fs::remove_file(path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Control {
    /// Listens at the given path, or in the first folder where it can. A server without one is reached by SIGUSR1.
    /// If it `replaces` another server's, that one stays in its place until this is [settled](Self::settle). It is not
    /// removed if it has been `left` to another server.
    pub(super) async fn listen(
        wanted: Option<&Where>,
        replaces: bool,
        left: Arc<AtomicBool>,
    ) -> Result<Option<Self>, Failure> {
        let wanted = wanted.cloned();
        // The folder may be on a network.
        let bound = tokio::task::spawn_blocking(move || match wanted {
            Some(Where::Off) => Ok(None),
            Some(Where::At(path)) => {
                let own = replaces.then(|| beside(&path));
                if replaces {
                    clean_beside(&path);
                }
                match bind(own.as_ref().unwrap_or(&path)) {
                    Ok(listener) => Ok(Some((listener, path, own, true))),
                    Err(error) => {
                        let at = own.as_ref().unwrap_or(&path).display();
                        let hint = match &own {
                            Some(_) => {
                                " (--take-over needs that one too; where it is too long, start both servers with a shorter --control)"
                            }
                            None => "",
                        };
                        Err(Failure::usage(anyhow::anyhow!("--control: cannot listen at {at}: {error}{hint}")))
                    }
                }
            }
            None => Ok(anywhere().map(|(listener, path)| (listener, path, None, false))),
        });
        let Some((listener, path, own, replaceable)) = bound.await.map_err(Failure::running)?? else {
            return Ok(None);
        };
        let listener = UnixListener::from_std(listener).map_err(Failure::running)?;
        let inode = inode(own.as_ref().unwrap_or(&path));
        Ok(Some(Self { listener, path, own, settling: None, inode, left, replaceable }))
    }

    /// Puts it in the place of the other server's: if its folder answers, that is done when this completes.
    pub(super) async fn settle(&mut self) {
        let Some(own) = self.own.clone() else { return };
        let path = self.path.clone();
        let renaming = tokio::task::spawn_blocking(move || {
            let _lock = lock(path.parent().unwrap_or(Path::new("/")));
            fs::rename(own, path)
        });
        self.settling = Some(renaming);
        _ = timeout(BRIEFLY, self.settled()).await;
    }

    /// Waits until it is in the place of the other server's.
    pub(super) async fn settled(&mut self) {
        let Some(renaming) = &mut self.settling else { return };
        let renamed = timeout(SETTLING, renaming).await;
        self.settling = None;
        let why = match renamed {
            Ok(Ok(Ok(()))) => {
                self.own = None;
                return;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its folder does not answer".into(),
        };
        warn!("cannot listen at {}: {why}; only SIGUSR1 reaches this server", self.path.display());
    }

    /// Answers clients, several at once: one that takes over may take its time.
    pub(super) async fn answer(&self, reload: impl AsyncFn() -> Outcome, take_over: impl AsyncFn(UnixStream)) -> ! {
        let mut answering = FuturesUnordered::new();
        let mut paused: Option<Instant> = None;
        loop {
            // Those that are answered go on meanwhile: publishers may be waiting for one that takes over.
            let pausing = async {
                match paused {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                Some(answered) = answering.next() => {
                    if let Err(error) = answered {
                        debug!(%error, "a client of the control socket was not answered");
                    }
                    continue;
                }
                () = pausing => {
                    paused = None;
                    continue;
                }
                accepted = self.listener.accept(), if answering.len() < AT_ONCE && paused.is_none() => accepted,
            };
            match accepted {
                Ok((stream, _)) => answering.push(answer_one(stream, &reload, &take_over)),
                Err(error) => {
                    warn!(%error, "cannot accept a connection at the control socket: trying again");
                    paused = Some(Instant::now() + EXHAUSTED);
                }
            }
        }
    }
}

async fn answer_one(
    stream: UnixStream,
    reload: &impl AsyncFn() -> Outcome,
    take_over: &impl AsyncFn(UnixStream),
) -> io::Result<()> {
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if peer != own && peer != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} may not ask for that")));
    }
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(PATIENCE, (&mut stream).take(64).read_line(&mut line)).await??;
    if line.trim_end() == TAKE_OVER {
        // It says nothing more before it is answered.
        take_over(stream.into_inner()).await;
        return Ok(());
    }
    let outcome = match line.trim_end() {
        RELOAD => reload().await,
        _ => {
            Outcome { error: Some("not a valid request: another version of h3cast asks".into()), ..Outcome::default() }
        }
    };
    let mut answer = serde_json::to_vec(&outcome)?;
    answer.push(b'\n');
    timeout(PATIENCE, stream.write_all(&answer)).await??;
    Ok(())
}

/// Keeps other servers from replacing sockets in a folder until this is dropped: between the look at one that is left
/// and its removal, another server may have bound its own. Where a folder cannot be locked, or is for too long (anyone
/// who can read it can lock it), this is done without.
fn lock(folder: &Path) -> Option<fs::File> {
    let file = fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok()?;
    for _ in 0..LOCKED.as_millis() / LOCK_PAUSE.as_millis() {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(file),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => break,
        }
    }
    None
}

/// Binds a socket there, in place of one that a server has left which no longer runs.
fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let _lock = lock(path.parent().unwrap_or(Path::new("/")));
    let is_left = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_left {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    // Where that has no effect, clients are still told apart by their user.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where a socket is until it is put in the place of another server's: in the same folder.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", std::process::id()))
}

/// Binds one in the first folder where that works.
fn anywhere() -> Option<(std::os::unix::net::UnixListener, PathBuf)> {
    let mut failed = "this user has no folder for it".to_owned();
    for folder in folders() {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        let prepared = builder.create(&folder);
        if prepared.is_ok() {
            clean(&folder);
        }
        let pid = std::process::id();
        let names = (0..MOST).map(|number| match number {
            0 => format!("{}{pid}{}", NAME.0, NAME.1),
            number => format!("{}{pid}-{number}{}", NAME.0, NAME.1),
        });
        for path in names.map(|name| folder.join(name)) {
            match prepared.as_ref().map_err(|error| io::Error::from(error.kind())).and_then(|()| bind(&path)) {
                Ok(listener) => return Some((listener, path)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    failed = format!("{}: {error}", path.display());
                    break;
                }
            }
        }
    }
    debug!("`h3cast reload` cannot reach this server, only SIGUSR1 can: {failed} (--control names a socket)");
    None
}

/// Removes what servers have left that no longer run.
fn clean(folder: &Path) {
    let _lock = lock(folder);
    sockets(folder).iter().for_each(|(_, path)| remove_left(path));
}

/// The same for servers that were killed before their sockets were in the place of another's.
fn clean_beside(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _lock = lock(folder);
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_of_process = name.to_str().and_then(|name| name.strip_prefix('.')?.parse::<u32>().ok()).is_some();
        let is_own = || entry.metadata().is_ok_and(|found| found.file_type().is_socket() && found.uid() == own);
        if is_of_process && is_own() {
            remove_left(&entry.path());
        }
    }
}

/// Removes a socket if no process listens there.
fn remove_left(path: &Path) {
    let connected = std::os::unix::net::UnixStream::connect(path);
    if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        sync::Barrier,
        thread,
    };

    #[test]
    fn what_a_killed_server_has_left_beside_another_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _live = UnixListener::bind(path(".1")).unwrap();
        for name in [".22", "control.sock", ".a"] {
            drop(UnixListener::bind(path(name)).unwrap());
        }
        fs::write(path(".3"), "").unwrap();
        clean_beside(&path("control.sock"));
        assert!(!path(".22").exists());
        assert!([".1", ".3", ".a", "control.sock"].iter().all(|name| path(name).exists()));
    }

    /// Of servers that start together where one has left its socket, one has it, and is reached there.
    #[test]
    fn one_server_replaces_a_socket_that_is_left() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let path = dir.path().join(format!("{round}.sock"));
            drop(UnixListener::bind(&path).unwrap());
            let barrier = Barrier::new(4);
            let bound: Vec<_> = thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    bind(&path)
                };
                let servers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                servers.into_iter().map(|server| server.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1, "round {round}: {bound:?}");
            UnixStream::connect(&path).unwrap();
        }
    }
}
