//! A feed over WebTransport.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::Uri;
use serde_json::json;
use tracing::debug;

use super::{App, Problem, asked::Delivery, publish, quotas::account};
use crate::{
    feed::{End, Event, Feed, Viewer},
    format::{self, Format, Framing, Writer},
    outstanding::{self, Outstanding},
    rarely,
    webtransport::{DatagramError, SendStream, Session, SessionRequest, StreamError},
};

/// The application's code of a session whose feed broke off.
const FEED_FAILED: u32 = 1;

/// Why a feed was not brought to its end.
enum Undelivered {
    /// Nobody wants the rest.
    Gone,
    /// The feed broke off.
    Feed(format::Cut),
}

impl From<format::Cut> for Undelivered {
    fn from(cut: format::Cut) -> Self {
        Self::Feed(cut)
    }
}

impl From<StreamError> for Undelivered {
    fn from(_: StreamError) -> Self {
        Self::Gone
    }
}

/// Answers a session request that the guard has let pass: which feed, and then its chunks.
pub(super) async fn open(State(app): State<Arc<App>>, uri: Uri, request: SessionRequest) -> Result<Response, Problem> {
    let mut asked = app.asked(&uri, request.headers(), request.extensions()).await?;
    let offered = request.protocols().iter().any(|protocol| protocol == format::frames::MEDIA_TYPE);
    if offered && !asked.format_named && asked.delivery == Delivery::Stream {
        asked.format = Format::Frames;
    }
    asked.may_start(&app, request.extensions())?;
    let account = account(request.extensions());
    let viewer = asked.view(&app, &account)?;
    let token = asked.token.or_else(|| publish::bearer(request.headers()).map(String::from));
    let (feed, format, delivery, cut) = (asked.feed, asked.format, asked.delivery, asked.chunk.unwrap_or_default());
    // States that the feed comes so, to a client that does not insist on it.
    let frames = offered && format == Format::Frames;
    let request = if frames { request.protocol(format::frames::MEDIA_TYPE) } else { request };
    Ok(request.on_session(async move |session| {
        let published = rarely(Box::pin(publish::streams(&app, &session, &feed, &account, token.as_deref(), cut)));
        tokio::select! {
            () = bring(&app, &session, &feed, viewer, format, delivery) => {}
            () = published => {}
        }
    }))
}

/// Brings the feed on a stream of ours, whose end is the end of the feed, and waits until the
/// client closes the session.
async fn bring(app: &App, session: &Session, feed: &Feed, viewer: Viewer, format: Format, delivery: Delivery) {
    let Ok(stream) = session.open_uni().await else { return };
    let breaks_off = format == Format::Raw || delivery == Delivery::Datagrams;
    let mut out = Out { stream, breaks_off, outstanding: Outstanding::default() };
    let brought = match delivery {
        Delivery::Stream => {
            let writer = Writer::new(viewer, format, Framing::Plain).coalesce(app.coalesce);
            by_stream(writer, &mut out).await
        }
        Delivery::Datagrams => by_datagrams(viewer, session, &mut out).await,
    };
    if let Err(Undelivered::Feed(_)) = brought {
        out.delivered(session).await;
    }
    let mut stream = out.stream;
    match brought {
        Ok(()) => {
            if stream.finish().is_ok() {
                // The client may still be reading; it closes the session.
                session.closed().await;
            }
        }
        // Who does not read, or not fast enough, may still publish.
        Err(cut) if feed.publisher().is_some() => {
            if let Undelivered::Feed(_) = cut {
                stream.reset(FEED_FAILED);
            }
            session.closed().await;
        }
        Err(Undelivered::Gone) => {}
        Err(Undelivered::Feed(error)) => {
            stream.reset(FEED_FAILED);
            session.close(FEED_FAILED, &error.to_string());
        }
    }
}

/// The stream that a feed is brought on.
struct Out {
    stream: SendStream,
    /// A feed that fails has no other way to say so, so that it matters what has arrived.
    breaks_off: bool,
    outstanding: Outstanding,
}

impl Out {
    async fn write(&mut self, buffers: &mut [Bytes]) -> Result<(), StreamError> {
        if self.breaks_off
            && let Some(last) = buffers.last_mut()
        {
            // QUIC keeps it until everything up to it is acknowledged.
            *last = self.outstanding.hold(std::mem::take(last));
        }
        self.stream.write_chunks(buffers).await
    }

    /// Writes a line of JSON.
    async fn tell(&mut self, what: &serde_json::Value) -> Result<(), StreamError> {
        let mut line = BytesMut::from(what.to_string().as_str());
        line.put_u8(b'\n');
        self.write(&mut [line.freeze()]).await
    }

    /// Waits until the client has all that was written, and has had a moment to read it.
    async fn delivered(&self, session: &Session) {
        let received = async {
            self.outstanding.none().await;
            outstanding::read(session.quic()).await;
        };
        let waited = outstanding::while_receiving(session.quic(), async {
            tokio::select! {
                () = received => {}
                // It does not want the rest, or is gone.
                _ = self.stream.when_stopped() => {}
            }
        });
        if waited.await.is_none() {
            debug!("a client has not received in time what was written before its session breaks off");
        }
    }
}

async fn by_stream(mut writer: Writer, out: &mut Out) -> Result<(), Undelivered> {
    let mut stopped = rarely(Box::pin(out.stream.when_stopped()));
    let mut buffers = Vec::new();
    loop {
        tokio::select! {
            biased;
            more = writer.next(&mut buffers) => match more? {
                true => out.write(&mut buffers).await?,
                false => return Ok(()),
            },
            // Nobody reads the stream any more.
            () = &mut stopped => return Err(Undelivered::Gone),
        }
        buffers.clear();
    }
}

/// Each chunk as a datagram. The stream tells, as lines of JSON, of each chunk that does not fit
/// into one, of those that the viewer was too slow for, and at the end how many there were.
async fn by_datagrams(mut viewer: Viewer, session: &Session, out: &mut Out) -> Result<(), Undelivered> {
    let (mut sent, mut skipped) = (0_u64, 0_u64);
    let mut stopped = rarely(Box::pin(out.stream.when_stopped()));
    loop {
        let next = tokio::select! {
            biased;
            next = viewer.next() => next,
            () = &mut stopped => return Err(Undelivered::Gone),
        };
        match next {
            Some(Event::Chunk(chunk)) => match session.send_datagram_wait(chunk.bytes.clone()).await {
                Ok(()) => sent += 1,
                Err(DatagramError::TooLarge { size, max }) => {
                    out.tell(&json!({ "skipped": { "seq": chunk.seq, "bytes": size, "max": max } })).await?;
                    skipped += 1;
                }
                Err(_) => return Err(Undelivered::Gone),
            },
            Some(Event::Gap(gap)) => {
                let gap = json!({ "from": gap.from, "missing": gap.missing, "restarted": gap.restarted });
                out.tell(&json!({ "gap": gap })).await?;
            }
            Some(Event::Stalled(stalled)) => out.tell(&json!({ "stalled": stalled })).await?,
            Some(Event::End(End::Failed(error))) => return Err(Undelivered::Feed(error.into())),
            Some(Event::End(End::Stopped)) => return Err(Undelivered::Feed(format::Cut::Stopped)),
            Some(Event::End(End::Clean)) | None => {
                let end = json!({ "chunks": sent + skipped, "sent": sent, "skipped": skipped });
                return Ok(out.tell(&json!({ "end": end })).await?);
            }
        }
    }
}
