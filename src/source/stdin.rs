//! Standard input: a pipe or a socket is read by the runtime, anything else on a thread of its own. A read of a
//! terminal may never return, and must hold up neither other work nor the exit of the process.

#[cfg(unix)]
mod ready;

use std::{
    io::{self, ErrorKind, Read},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};
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
    Ok(Input::NotYet(claim()?))
}

/// What each read of standard input brings. The first is made when this is polled.
///
/// # Errors
///
/// When another source reads it.
#[cfg(feature = "cli")]
pub(crate) fn pieces() -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
    Ok(tokio_util::io::ReaderStream::with_capacity(reader()?, MAX_CHUNK))
}

/// Standard input, and by what it is read.
enum Input {
    NotYet(Option<Claim>),
    #[cfg(unix)]
    Ready(ready::Ready, #[expect(dead_code, reason = "it only has to live as long")] Option<Claim>),
    Thread(Pin<Box<dyn AsyncRead + Send>>),
}

impl AsyncRead for Input {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut *self {
                Self::NotYet(claim) => *self = Self::begin(claim.take())?,
                #[cfg(unix)]
                Self::Ready(input, _) => return Pin::new(input).poll_read(cx, buf),
                Self::Thread(input) => return input.as_mut().poll_read(cx, buf),
            }
        }
    }
}

impl Input {
    fn begin(claim: Option<Claim>) -> io::Result<Self> {
        #[cfg(unix)]
        if let Some(ready) = ready::Ready::of_stdin() {
            return Ok(Self::Ready(ready, claim));
        }
        Ok(Self::Thread(Box::pin(StreamReader::new(Box::pin(read_by(start(claim)?))))))
    }
}

/// What the thread reads.
fn read_by(read_rx: ReadRx) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(read_rx), |reading| async move {
        let mut read_rx = reading?;
        match read_rx.recv().await {
            Some(Ok(Some(bytes))) => Some((Ok(bytes), Some(read_rx))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::Error::other("no longer reading standard input")), None)),
        }
    })
}

/// What the thread that reads gives; `None` is the end.
type ReadRx = mpsc::Receiver<io::Result<Option<Bytes>>>;

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
            Ok(size) => {
                let bytes = match size > MAX_CHUNK / 2 {
                    // Given away: a copy would cost more than a new one.
                    true => Bytes::from(std::mem::replace(&mut buf, vec![0; MAX_CHUNK])).slice(..size),
                    false => Bytes::copy_from_slice(&buf[..size]),
                };
                if !give(bytes) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
}
