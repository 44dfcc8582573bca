//! Standard input and other pipes: read by one source at most; and standard input is not missed by who pipes
//! into the demo.

use std::{collections::BTreeMap, path::Path};

use crate::source::{Kind, Source, file::Once};

/// Two sources that read standard input, or the same pipe or device, of which each would get a part; and what
/// that is. Blocks.
pub(super) fn shared(sources: &[Source]) -> Option<(String, String, String)> {
    let mut reading = sources.iter().filter(|source| match &source.kind {
        Kind::Stdin => true,
        Kind::File(path) | Kind::Tail(path) => is_stdin(path),
        _ => false,
    });
    if let (Some(one), Some(other)) = (reading.next(), reading.next()) {
        return Some((one.name.clone(), other.name.clone(), "standard input".into()));
    }
    let mut found = BTreeMap::new();
    for source in sources {
        if let Kind::Tail(path) = &source.kind
            && let Ok(metadata) = std::fs::metadata(path)
            && let Some(once) = Once::of(&metadata)
            && let Some(one) = found.insert(once, &source.name)
        {
            let what = if matches!(once, Once::Pipe(..)) { "pipe" } else { "device" };
            return Some((one.clone(), source.name.clone(), format!("the {what} `{}`", path.display())));
        }
    }
    None
}

/// Whether this is standard input under another name.
fn is_stdin(path: &Path) -> bool {
    let own = format!("/proc/{}/fd/0", std::process::id());
    let names = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "/proc/thread-self/fd/0", &own];
    // By components, so that extra slashes do not matter.
    names.iter().any(|name| path == Path::new(name)) || is_same(path)
}

/// Whether it is the pipe, socket or terminal that standard input is, by a link or its own name. Nothing is
/// opened.
#[cfg(unix)]
fn is_same(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().map(std::fs::File::from);
    let (Ok(stdin), Ok(found)) = (stdin.and_then(|stdin| stdin.metadata()), std::fs::metadata(path)) else {
        return false;
    };
    let kind = found.file_type();
    let shares = kind.is_fifo() || kind.is_socket() || std::io::IsTerminal::is_terminal(&std::io::stdin());
    shares && (found.dev(), found.ino()) == (stdin.dev(), stdin.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Path) -> bool {
    false
}

/// Waits until something comes on standard input, which nobody reads; `false` if nothing can. Nothing is taken
/// from there.
#[cfg(unix)]
pub(super) async fn is_left_unread() -> bool {
    use rustix::fs::FileType;
    let Ok(stat) = rustix::fs::fstat(std::io::stdin()) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => stat.st_size > 0,
        FileType::Fifo | FileType::Socket => {
            let (come_tx, come_rx) = tokio::sync::oneshot::channel();
            // It may never return: not a thread that the runtime would wait for.
            let waiting = std::thread::Builder::new().name("stdin".into()).spawn(move || {
                let _ = come_tx.send(has_come());
            });
            waiting.is_ok() && come_rx.await.unwrap_or(false)
        }
        _ => false,
    }
}

/// Waits until there is something to read, or its end.
#[cfg(unix)]
fn has_come() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdin = std::io::stdin();
    poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None).is_ok()
        && rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0)
}

#[cfg(not(unix))]
pub(super) async fn is_left_unread() -> bool {
    false
}
