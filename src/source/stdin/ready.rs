//! A pipe or a socket as standard input, read by the runtime whenever there is something to read.
//!
//! Whether reads wait (`O_NONBLOCK`) belongs to the open file description, which this process shares with the one that
//! started it, and often with others. It is left alone: a pipe is opened once more, and a socket is asked not to wait
//! in each call.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{fs::FileType, net::RecvFlags};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf, unix::AsyncFd},
    task::coop::poll_proceed,
};

/// What can be waited for without a thread.
#[derive(Debug)]
pub(super) struct Ready {
    input: AsyncFd<OwnedFd>,
    kind: Kind,
    /// There was nothing more to read: the system says when there is. It says nothing of what was there before, such as
    /// the end of a named pipe whose writers have all gone.
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Pipe,
    Socket,
}

impl Ready {
    /// Of standard input; `None` where it takes a thread. Inside a runtime.
    pub(super) fn of_stdin() -> Option<Self> {
        let stdin = io::stdin();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&stdin).ok()?.st_mode);
        let (input, kind) = match kind {
            FileType::Fifo => (opened_again(stdin.as_fd())?, Kind::Pipe),
            FileType::Socket => (stdin.as_fd().try_clone_to_owned().ok()?, Kind::Socket),
            _ => return None,
        };
        Self::new(input, kind).ok()
    }

    #[allow(deprecated, reason = "the other way is unsafe, for what may change its descriptor, which this cannot")]
    fn new(input: OwnedFd, kind: Kind) -> io::Result<Self> {
        Ok(Self { input: AsyncFd::with_interest(input, Interest::READABLE)?, kind, waits: false })
    }

    /// Reads what is there.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let input = self.input.get_ref();
        Ok(match self.kind {
            Kind::Pipe => rustix::io::read(input, buf)?,
            Kind::Socket => rustix::net::recv(input, buf, RecvFlags::DONTWAIT)?.0,
        })
    }
}

impl AsyncRead for Ready {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = ready!(poll_proceed(cx));
        loop {
            if this.waits {
                // Cleared before the read: what comes after that is told anew.
                ready!(this.input.poll_read_ready(cx))?.clear_ready();
                this.waits = false;
            }
            match this.read(buf.initialize_unfilled()) {
                Ok(size) => {
                    buf.advance(size);
                    progress.made_progress();
                    return Poll::Ready(Ok(()));
                }
                // A read that brought less than asked for may have left something: only this tells.
                Err(error) if error.kind() == ErrorKind::WouldBlock => this.waits = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// The same pipe, opened for this process alone; `None` where that may not be, as for a pipe of another user.
#[cfg(target_os = "linux")]
fn opened_again(pipe: impl AsFd) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, open};
    use std::os::fd::AsRawFd;
    // Of one that is there to be written to, a read fails.
    if fcntl_getfl(&pipe).ok()? & OFlags::RWMODE == OFlags::WRONLY {
        return None;
    }
    let path = format!("/proc/self/fd/{}", pipe.as_fd().as_raw_fd());
    let opened = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let (one, other) = (fstat(pipe).ok()?, fstat(&opened).ok()?);
    ((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)).then_some(opened)
}

#[cfg(not(target_os = "linux"))]
fn opened_again(_: impl AsFd) -> Option<OwnedFd> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs::File,
        io::Write,
        os::unix::{fs::OpenOptionsExt, net::UnixDatagram, net::UnixStream},
    };

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use tokio::io::AsyncReadExt;

    use super::*;

    fn again(pipe: &impl AsFd) -> Ready {
        Ready::new(opened_again(pipe).unwrap(), Kind::Pipe).unwrap()
    }

    async fn read(input: &mut Ready) -> Vec<u8> {
        let mut buf = vec![0; 100];
        let size = input.read(&mut buf).await.unwrap();
        buf[..size].to_vec()
    }

    /// Waits for what is written once the read waits.
    async fn waits(input: &mut Ready, write: impl FnOnce()) -> Vec<u8> {
        tokio::join!(biased; read(input), async { write() }).0
    }

    #[tokio::test]
    async fn a_pipe_is_read_and_its_description_left_alone() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = again(&reader);
        assert!(!fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        for text in ["one\n", "two\n"] {
            assert_eq!(waits(&mut input, || writer.write_all(text.as_bytes()).unwrap()).await, text.as_bytes());
        }
        writer.write_all(b"rest").unwrap();
        assert_eq!(read(&mut input).await, b"rest");
        assert_eq!(waits(&mut input, || drop(writer)).await, b"");
        assert_eq!(read(&mut input).await, b"");
    }

    /// Each write is a packet, and a read brings no more than one.
    #[tokio::test]
    async fn nothing_that_a_read_leaves_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::DIRECT).unwrap();
        let mut input = again(&reader);
        let both = || ["one", "two"].iter().for_each(|text| writer.write_all(text.as_bytes()).unwrap());
        assert_eq!(waits(&mut input, both).await, b"one");
        assert_eq!(read(&mut input).await, b"two");
        let (socket, other) = UnixDatagram::pair().unwrap();
        let mut input = Ready::new(socket.into(), Kind::Socket).unwrap();
        let both = || ["one", "two"].iter().for_each(|text| drop(other.send(text.as_bytes())));
        assert_eq!(waits(&mut input, both).await, b"one");
        assert_eq!(read(&mut input).await, b"two");
    }

    #[tokio::test]
    async fn a_socket_is_read_and_its_description_left_alone() {
        let (socket, mut other) = UnixStream::pair().unwrap();
        let mut input = Ready::new(socket.try_clone().unwrap().into(), Kind::Socket).unwrap();
        assert_eq!(waits(&mut input, || other.write_all(b"one").unwrap()).await, b"one");
        assert!(!fcntl_getfl(&socket).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(waits(&mut input, || drop(other)).await, b"");
    }

    /// The system tells of the end of a named pipe only to those that have seen a writer.
    #[tokio::test]
    async fn a_named_pipe_ends_though_its_writers_had_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let nonblock = OFlags::NONBLOCK.bits().cast_signed();
        let reader = File::options().read(true).custom_flags(nonblock).open(&path).unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"all").unwrap();
        drop(writer);
        let mut input = again(&reader);
        assert_eq!(read(&mut input).await, b"all");
        assert_eq!(read(&mut input).await, b"");
        let mut writer = File::options().write(true).open(&path).unwrap();
        assert_eq!(waits(&mut input, || writer.write_all(b"more").unwrap()).await, b"more");
        assert_eq!(waits(&mut input, || drop(writer)).await, b"");
    }

    #[test]
    fn what_is_written_to_is_not_read() {
        let (_reader, writer) = io::pipe().unwrap();
        assert!(opened_again(writer).is_none());
    }
}
