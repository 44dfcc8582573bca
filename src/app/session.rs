//! A feed over WebTransport.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::StatusCode;
use serde_json::json;

use super::{App, Delivery};
use crate::{
    feed::{FeedError, Viewer},
    origin::split_authority,
    webtransport::{DatagramError, SendStream, Session, SessionRequest, StreamError},
};

/// The application's code of a session whose feed broke off.
const FEED_FAILED: u32 = 1;

/// Why a feed was not brought to its end.
enum Cut {
    /// Nobody wants the rest.
    Gone,
    /// The feed broke off.
    Feed(FeedError),
}

impl From<StreamError> for Cut {
    fn from(_: StreamError) -> Self {
        Self::Gone
    }
}

/// Answers a session request: who may, which feed, and then its chunks.
pub(super) async fn answer(app: Arc<App>, request: SessionRequest) {
    let host = split_authority(request.authority()).map_or("", |(host, _)| host);
    if let Some(origin) = request.origin()
        && !app.origins.allow(origin, host)
    {
        return request.reject(StatusCode::FORBIDDEN);
    }
    let (viewer, delivery) = match app.view(request.uri()) {
        Ok(view) => view,
        Err(problem) => return request.reject(problem.status),
    };
    let Ok(session) = request.accept().await else { return };
    // Either way the session has one stream of ours; its end is the end of the feed.
    let Ok(mut stream) = session.open_uni().await else { return };
    let brought = match delivery {
        Delivery::Stream => by_stream(viewer, &mut stream).await,
        Delivery::Datagrams => by_datagrams(viewer, &session, &mut stream).await,
    };
    match brought {
        Ok(()) => {
            if stream.finish().is_ok() {
                // The client may still be reading; it closes the session.
                session.closed().await;
            }
        }
        Err(Cut::Gone) => {}
        Err(Cut::Feed(error)) => {
            stream.reset(FEED_FAILED);
            session.close(FEED_FAILED, &error.to_string());
        }
    }
}

/// The next chunk, unless nobody reads the stream any more.
async fn next(viewer: &mut Viewer, stream: &SendStream) -> Result<Option<Bytes>, Cut> {
    tokio::select! {
        biased;
        chunk = viewer.next() => match chunk {
            Some(Ok(chunk)) => Ok(Some(chunk.bytes)),
            Some(Err(error)) => Err(Cut::Feed(error)),
            None => Ok(None),
        },
        _ = stream.stopped() => Err(Cut::Gone),
    }
}

async fn by_stream(mut viewer: Viewer, stream: &mut SendStream) -> Result<(), Cut> {
    while let Some(bytes) = next(&mut viewer, stream).await? {
        stream.write_bytes(bytes).await?;
    }
    Ok(())
}

/// Each chunk as a datagram. The stream tells, as lines of JSON, of each chunk that does not fit
/// into one, and at the end how many there were.
async fn by_datagrams(mut viewer: Viewer, session: &Session, stream: &mut SendStream) -> Result<(), Cut> {
    let (mut sent, mut skipped) = (0_u64, 0_u64);
    while let Some(bytes) = next(&mut viewer, stream).await? {
        match session.send_datagram_wait(bytes).await {
            Ok(()) => sent += 1,
            Err(DatagramError::TooLarge { size, max }) => {
                let seq = sent + skipped;
                tell(stream, &json!({ "skipped": { "seq": seq, "bytes": size, "max": max } })).await?;
                skipped += 1;
            }
            Err(_) => return Err(Cut::Gone),
        }
    }
    tell(stream, &json!({ "end": { "chunks": sent + skipped, "sent": sent, "skipped": skipped } })).await
}

async fn tell(stream: &mut SendStream, what: &serde_json::Value) -> Result<(), Cut> {
    let mut line = BytesMut::from(what.to_string().as_str());
    line.put_u8(b'\n');
    Ok(stream.write_bytes(line.freeze()).await?)
}
