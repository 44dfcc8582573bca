//! Messages between the two servers: JSON, each after its length, and the chunks of histories.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::{
    app::estate::KnownPublications,
    chunk::{Chunk, Epoch},
    feed::{Account, History, Provenance},
};

/// The version of all this.
pub(super) const VERSION: u32 = 1;
/// The longest message, in bytes: 100,000 keys of publications have some 20 MB.
const LONGEST: u32 = 256 << 20;
/// The longest message but one with publications, in bytes: the addresses and ids of servers, or the reason of a failure.
const LONGEST_SHORT: u32 = 1 << 20;
/// So many descriptors are sent at once, as the system allows (`SCM_MAX_FD`).
const MOST_SOCKETS: usize = 253;
// Apple's systems lack both flags. There, SIGPIPE is ignored as in every Rust program, and descriptors are closed on exec
// once they are here.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::empty();

/// What a server says of itself before it is chosen.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) version: u32,
    pub(super) pid: u32,
    /// Where it listens, over TCP and UDP.
    pub(super) listens: Vec<SocketAddr>,
    /// It was told to stop, and ends soon.
    pub(super) stops: bool,
    /// It has feeds on disk.
    #[serde(default)]
    pub(super) stores: bool,
}

/// A folder, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The old server's sockets. Their descriptors come with it: for each UDP socket itself and its lines, then TCP.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Why there are none.
    pub(super) refused: Option<String>,
    /// How packets are recognised that are for the servers at the other ends of its lines.
    pub(super) udp: Vec<Vec<Vec<u8>>>,
    pub(super) tcp: usize,
}

/// From the new server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToOld {
    /// It is the one that is taken over.
    Chosen,
    /// It is about to open the store in that folder, which the old server has.
    Release { folder: Folder },
    /// It could serve now, and will read these.
    Ready { udp: Vec<SocketAddr> },
    /// It can continue all feeds: their chunks may come.
    Send,
    /// It has the feeds.
    Taken,
    /// It fails: the old server is to keep serving.
    Fails { why: String },
}

/// From the old server, after its offer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToNew {
    /// The store can be opened. No feed in it is changed before `Go`.
    Released,
    /// The chunks of the feeds follow when the new server asks for them.
    State {
        feeds: Vec<FeedState>,
        publications: KnownPublications,
        /// The feeds on disk that have chunks. The new server reads them there.
        #[serde(default)]
        stored: Vec<String>,
        /// Those of them that clients write. An older server does not say it.
        #[serde(default)]
        written: Option<Vec<String>>,
    },
    /// The next chunks, one after another: so many follow the message itself.
    Chunks {
        count: u64,
    },
    Go,
    /// It keeps serving.
    Refused {
        why: String,
    },
    /// It was told to stop, and what it has sent so far counts for nothing.
    Stops,
}

/// A feed without its chunks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FeedState {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) next: u64,
    /// How many chunks follow.
    pub(super) chunks: u64,
    /// The bytes of all chunks so far, also of those that do not follow.
    pub(super) bytes: u64,
    /// If a client created it.
    pub(super) created: Option<Created>,
}

/// Where a feed comes from that a client created.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    /// Whom it counts for, if that is known.
    account: Option<String>,
    /// For how long it has not been used.
    unused_ms: u64,
}

impl Created {
    fn new(provenance: &Provenance) -> Self {
        let unused_ms = u64::try_from(provenance.unused.as_millis()).unwrap_or(u64::MAX);
        Self { account: provenance.account.name().map(String::from), unused_ms }
    }

    pub(super) fn provenance(&self) -> Provenance {
        let account = self.account.as_deref().map_or_else(Account::unknown, Account::new);
        Provenance::new(account, Duration::from_millis(self.unused_ms))
    }
}

impl FeedState {
    pub(super) fn new(name: &str, history: &History) -> Self {
        Self {
            name: name.into(),
            epoch: history.epoch.0,
            next: history.next,
            chunks: history.chunks.len() as u64,
            bytes: history.bytes,
            created: history.provenance.as_ref().map(Created::new),
        }
    }

    /// The numbers of the chunks that follow.
    pub(super) fn seqs(&self) -> io::Result<Range<u64>> {
        let first = self.next.checked_sub(self.chunks).ok_or_else(|| invalid("a history before its beginning"))?;
        Ok(first..self.next)
    }

    /// Its history, of all its chunks.
    pub(super) fn history(&self, chunks: Vec<Arc<Chunk>>) -> History {
        let mut history = History::new(Epoch(self.epoch), self.next, chunks);
        history.bytes = self.bytes;
        history
    }
}

/// A message with chunks, without their numbers: they follow one another.
pub(super) fn with_chunks(chunks: &[Arc<Chunk>]) -> io::Result<Vec<u8>> {
    let mut message = message(&ToNew::Chunks { count: chunks.len() as u64 })?;
    for chunk in chunks {
        let length = u32::try_from(chunk.bytes.len()).map_err(io::Error::other)?;
        message.extend_from_slice(&chunk.micros().to_be_bytes());
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&chunk.bytes);
    }
    Ok(message)
}

/// Reads what follows a message with so many chunks.
pub(super) async fn read_chunks(
    from: &mut (impl AsyncRead + Unpin),
    seqs: Range<u64>,
    chunks: &mut Vec<Arc<Chunk>>,
) -> io::Result<()> {
    for seq in seqs {
        let time = UNIX_EPOCH + Duration::from_micros(from.read_u64().await?);
        let length = from.read_u32().await?;
        let bytes = read_bytes(from, length).await?;
        chunks.push(Arc::new(Chunk::published_at(seq, time, bytes)));
    }
    Ok(())
}

/// A message as it is written.
pub(super) fn message(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 4];
    serde_json::to_writer(&mut text, message)?;
    let length = length_of(&text[4..])?;
    text[..4].copy_from_slice(&length.to_be_bytes());
    Ok(text)
}

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&self::message(message)?).await
}

pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    read_within(from, LONGEST).await
}

/// Reads a message that has no more than a few kilobytes.
pub(super) async fn read_short<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    read_within(from, LONGEST_SHORT).await
}

async fn read_within<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), longest: u32) -> io::Result<T> {
    let length = from.read_u32().await?;
    if length > longest {
        return Err(invalid("a message that is too long"));
    }
    Ok(serde_json::from_slice(&read_bytes(from, length).await?)?)
}

/// No more memory than what has come.
async fn read_bytes(from: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    if from.take(length.into()).read_to_end(&mut bytes).await? < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

/// Writes a message with descriptors.
pub(super) async fn write_sockets(
    to: &mut UnixStream,
    message: &impl Serialize,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = length_of(&text)?.to_be_bytes();
    if sockets.len() > MOST_SOCKETS {
        return Err(invalid("more sockets than can be sent at once"));
    }
    let sent = to.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(sockets));
        Ok(rustix::net::sendmsg(to.as_fd(), &[IoSlice::new(&length)], &mut control, NO_SIGNAL)?)
    });
    let sent = sent.await?;
    to.write_all(&length[sent..]).await?;
    to.write_all(&text).await
}

/// Reads a message with descriptors.
pub(super) async fn read_sockets<T: DeserializeOwned>(from: &mut UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut sockets = Vec::new();
    let come = from.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut length)];
        let come = rustix::net::recvmsg(from.as_fd(), &mut into, &mut control, CLOSED_ON_EXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        #[cfg(target_vendor = "apple")]
        for socket in &sockets {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(come.bytes)
    });
    let come = come.await?;
    if come == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    from.read_exact(&mut length[come..]).await?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(invalid("a message that is too long"));
    }
    Ok((serde_json::from_slice(&read_bytes(from, length).await?)?, sockets))
}

fn length_of(text: &[u8]) -> io::Result<u32> {
    u32::try_from(text.len()).ok().filter(|length| *length <= LONGEST).ok_or_else(|| invalid("too long a message"))
}

/// Whether the other end has closed.
pub(super) fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is chosen has nothing of another length to read, whoever is at the other end.
    #[tokio::test]
    async fn a_message_is_refused_before_it_is_read() {
        let ready = ToOld::Ready { udp: vec!["127.0.0.1:1".parse().unwrap()] };
        let mut wire = Vec::new();
        write(&mut wire, &ready).await.unwrap();
        assert!(matches!(read_short(&mut wire.as_slice()).await, Ok(ToOld::Ready { .. })));
        let endless = [&(255_u32 << 20).to_be_bytes()[..], b"["].concat();
        let error = read_short::<ToOld>(&mut endless.as_slice()).await.unwrap_err();
        // Not that it has ended.
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
