//! Standard error and standard output themselves: the standard library's have a lock, which a write that
//! does not return would hold, and a buffer. They may be non-blocking, since they are often shared.

use std::{
    io::{self, ErrorKind, Write},
    thread,
    time::Duration,
};

/// How long to wait before a full stream that does not block is tried again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Standard error.
pub(super) fn stderr() -> Box<dyn Write + Send> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned();
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&io::stderr()).try_clone_to_owned();
    match own {
        Ok(own) => Box::new(std::fs::File::from(own)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// Standard output.
pub(super) fn stdout() -> Box<dyn Write + Send> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned();
    match own {
        Ok(own) => Box::new(std::fs::File::from(own)),
        Err(_) => Box::new(io::stdout()),
    }
}

/// Writes all of it, however long that takes. Gives how much was written, too.
pub(super) fn write_all(stream: &mut impl Write, bytes: &[u8]) -> (io::Result<()>, usize) {
    let (mut at, mut pause) = (0, PAUSE.0);
    while at < bytes.len() {
        match stream.write(&bytes[at..]) {
            Ok(0) => return (Err(ErrorKind::WriteZero.into()), at),
            Ok(written) => (at, pause) = (at + written, PAUSE.0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(pause);
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => return (Err(error), at),
        }
    }
    (Ok(()), at)
}
