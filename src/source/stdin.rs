//! Standard input, on a thread of its own: a read of a terminal or a pipe may never return, and must hold up
//! neither other work nor the exit of the process.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_util::io::StreamReader;

use super::{chunker::MAX_CHUNK, file::Claim};

/// How often to try again where another program has made standard input non-blocking.
const AGAIN: Duration = Duration::from_millis(10);

/// Reads standard input, from the first time that it is polled.
///
/// # Errors
///
/// When another source reads it.
pub(super) fn reader() -> io::Result<impl AsyncRead + Send + Unpin> {
    Ok(StreamReader::new(Box::pin(pieces()?)))
}

/// What each read of standard input brings. The first is made when this is polled.
///
/// # Errors
///
/// When another source reads it.
pub(crate) fn pieces() -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
    Ok(stream::unfold(ReadThread::NotYet(claim()?), |reading| async move {
        let mut read_rx = match reading {
            ReadThread::NotYet(claim) => match start(claim) {
                Ok(read_rx) => read_rx,
                Err(error) => return Some((Err(error), ReadThread::Ended)),
            },
            ReadThread::On(read_rx) => read_rx,
            ReadThread::Ended => return None,
        };
        match read_rx.recv().await {
            Some(Ok(Some(bytes))) => Some((Ok(bytes), ReadThread::On(read_rx))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), ReadThread::Ended)),
            None => Some((Err(io::Error::other("no longer reading standard input")), ReadThread::Ended)),
        }
    }))
}

/// What the thread that reads gives; `None` is the end.
type ReadRx = mpsc::Receiver<io::Result<Option<Bytes>>>;

enum ReadThread {
    NotYet(Option<Claim>),
    On(ReadRx),
    Ended,
}

fn start(claim: Option<Claim>) -> io::Result<ReadRx> {
    let (read_tx, read_rx) = mpsc::channel(1);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let _claim = claim;
        let ended = read(io::stdin().lock(), |bytes| read_tx.blocking_send(Ok(Some(bytes))).is_ok());
        // Nobody wants it any more, then.
        let _ = read_tx.blocking_send(ended.map(|()| None));
    })?;
    Ok(read_rx)
}

/// It may have a name, by which another source finds it.
#[cfg(unix)]
fn claim() -> io::Result<Option<Claim>> {
    use std::os::fd::AsFd;
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    // What cannot be looked at cannot be read either, which is found later.
    stdin.and_then(|stdin| stdin.metadata()).ok().map(|metadata| Claim::of(&metadata)).transpose()
}

#[cfg(not(unix))]
fn claim() -> io::Result<Option<Claim>> {
    Ok(None)
}

/// Gives what is read to its end, as long as it is wanted.
fn read(mut input: impl Read, mut give: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    let mut buf = vec![0; MAX_CHUNK];
    loop {
        match input.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(size) if !give(Bytes::copy_from_slice(&buf[..size])) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
}
