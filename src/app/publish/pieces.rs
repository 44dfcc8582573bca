//! The pieces of a body or a stream, published as they arrive, until something ends that.

mod gather;

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use tokio_util::io::StreamReader;
use tracing::debug;

use super::{Publications, known::PublicationRequest};
use crate::{
    admission::Refusal,
    app::{Problem, authorize::Decided},
    feed::{Account, FeedError, PublishError, Publisher, Receipt},
    source::chunker::{Chunker, Chunking},
    units::were,
};

/// How long chunks that are on their way to where their feed is stored may take to arrive once the publication has ended.
const LAST_CHUNK: Duration = Duration::from_secs(2);

/// Publishes pieces as they come, to their end.
pub(super) async fn publish(
    publications: &Publications,
    publisher: &Publisher,
    account: &Account,
    publication: &PublicationRequest,
    pieces: impl Stream<Item = io::Result<Bytes>>,
    chunking: Chunking,
    decided: &Decided,
) -> Result<(), Problem> {
    let mut skip = publication.skip();
    let mut left = publications.longest().unwrap_or(u64::MAX);
    // What came with earlier requests counts as well.
    let begun = AtomicBool::new(publication.progress().bytes > 0);
    let mut pieces = pin!(pieces.filter_map(|piece| {
        let piece = piece.and_then(|mut piece| {
            if !piece.is_empty() {
                begun.store(true, Ordering::Relaxed);
            }
            // After a piece that was too much, everything is.
            let more = left.checked_sub(piece.len() as u64);
            left = more.unwrap_or_default();
            more.ok_or(io::ErrorKind::FileTooLarge)?;
            let known = skip.min(piece.len() as u64);
            skip -= known;
            piece.advance(known as usize);
            Ok(piece)
        });
        // An empty piece would be taken for the end.
        std::future::ready(Some(piece).filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty)))
    }));
    let mut chunks = Chunker::new(StreamReader::new(pieces.as_mut()), chunking);
    let replaced = publication.replaced();
    let feed_ended = publisher.ended();
    let right_ended = decided.until_ended();
    // The chunks on their way are the last ones.
    let is_over = AtomicBool::new(false);
    let published = async {
        if publisher.is_stored() {
            // Boxed: the futures of those in memory, which are most, stay small.
            return Box::pin(gather::publish(publisher, publication, &mut chunks, &is_over)).await;
        }
        // Noted at once: what takes the feed over must know of each chunk whose it is.
        let note = |receipt: Receipt| publication.add(receipt.cursor, receipt.size);
        while let Some(chunk) = chunks.next().await? {
            publisher.publish_noted(chunk, || None, note).await?;
        }
        Ok(())
    };
    let wait = publications.wait();
    let silent = async {
        if wait.is_zero() || begun.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        tokio::time::sleep(wait).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let done = {
        let mut published = pin!(published);
        // None of them waits for a client that sends nothing, nor for room in the feed.
        let done = tokio::select! {
            biased;
            () = replaced.cancelled() => Err(Broken::Replaced),
            () = feed_ended => Err(Broken::Ended),
            () = silent => Err(Broken::Silent),
            () = right_ended => Err(Broken::Expired),
            done = &mut published => done,
        };
        // How much was published is stated: it must be true of chunks on their way, too.
        if matches!(done, Err(Broken::Ended | Broken::Expired)) && publication.is_in_doubt() {
            is_over.store(true, Ordering::Relaxed);
            let _ = tokio::time::timeout(LAST_CHUNK, published).await;
        }
        done
    };
    let Err(broken) = done else { return Ok(()) };
    // A client with a key comes back, and its line is not torn. Without one, nobody brings the rest.
    if matches!(broken, Broken::Read(_)) && !publication.is_known() {
        let rest = chunks.rest();
        if !rest.is_empty() {
            let size = rest.len();
            match publisher.publish(rest).await {
                Ok(cursor) => publication.add(cursor, size),
                Err(error) => publication.set_in_doubt(may_be_stored(&error)),
            }
        }
    }
    let progress = publication.progress();
    let so_far = progress.bytes;
    let were = were(so_far, "published");
    let problem = match broken {
        Broken::Replaced => {
            let text = "another request has taken over the publication of this Idempotency-Key";
            Problem::new(StatusCode::CONFLICT, text.into())
        }
        Broken::Silent => {
            publications.refused(Refusal::PublishWait, account);
            let text =
                format!("nothing was sent for {}: open the request when there is something to publish", shown(wait));
            Problem::new(StatusCode::REQUEST_TIMEOUT, text)
        }
        Broken::Expired => decided.expired(so_far),
        Broken::Ended => {
            let last = progress.last.map(|last| format!(", the last of them as {last}")).unwrap_or_default();
            let hint = match (publications.is_ending(), publication.is_known()) {
                (false, _) => "",
                (true, true) => "; send it again under the same Idempotency-Key",
                (true, false) if publication.is_in_doubt() => "",
                (true, false) => "; send the rest in a new request",
            };
            let text = format!("{}: {were}{last}{hint}", publications.why_ended());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Broken::Unavailable(error) => {
            let text = format!("{}: {were}", FeedError::of(&error));
            let is_full = matches!(error, PublishError::Full(_));
            let status = if is_full { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::SERVICE_UNAVAILABLE };
            Problem::new(status, text)
        }
        Broken::TooLarge(error) => {
            let text = format!("{error}: {were}");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        Broken::Read(error) if error.kind() == io::ErrorKind::FileTooLarge => publications.too_long(so_far),
        Broken::Read(error) => {
            debug!(%error, "a publication broke off");
            Problem::bad(format!("the body broke off: {were}"))
        }
    };
    Err(match publication.is_in_doubt() {
        true => problem.in_doubt(),
        false => problem,
    })
}

/// Whether a chunk may be stored all the same.
fn may_be_stored(error: &PublishError) -> bool {
    use PublishError::{Ended, Full, Refused, TooLarge};

    !matches!(error, Ended | TooLarge { .. } | Full(_) | Refused(_))
}

/// A time, for people.
fn shown(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{time:?}"),
    }
}

/// Why a publication was not brought to its end.
enum Broken {
    /// The client stopped, or sent too much.
    Read(io::Error),
    Replaced,
    Ended,
    /// Nothing has come in time.
    Silent,
    /// The client's right to publish has.
    Expired,
    Unavailable(PublishError),
    TooLarge(PublishError),
}

impl From<PublishError> for Broken {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Ended => Self::Ended,
            PublishError::TooLarge { .. } => Self::TooLarge(error),
            error => Self::Unavailable(error),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}
