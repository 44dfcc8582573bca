//! A feed over WebTransport.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use h3cast_proto::feed::session_code;
use http::{StatusCode, Uri};
use serde_json::json;
use tokio::time::Instant;
use tracing::{Span, debug};

use super::{
    App, Problem, asked::Delivery, authorize::Decided, entry::Noted, host::prefix_of, input::OpenInput,
    memory::when_cut, problem::Challenge, publish, quotas::account, viewing::Shape,
};
use crate::{
    auth::Action,
    feed::{self, End, Event, Feed, Viewer},
    format::{self, Format, Framing, Writer},
    outstanding::{self, Outstanding},
    rarely,
    webtransport::{DatagramError, NoSession, SendStream, Session, SessionRequest, StreamError},
};

/// How long a client may take to allow the stream that it asked for.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Why a feed was not brought to its end.
enum Undelivered {
    /// Nobody wants the rest.
    Gone,
    /// The viewer took nothing for too long.
    Stalled,
    /// The feed broke off.
    Feed(format::Cut),
    /// The viewer was cut: it is too slow, and memory is short.
    Slow,
}

impl From<format::Cut> for Undelivered {
    fn from(cut: format::Cut) -> Self {
        Self::Feed(cut)
    }
}

impl From<StreamError> for Undelivered {
    fn from(error: StreamError) -> Self {
        if error == StreamError::Stalled { Self::Stalled } else { Self::Gone }
    }
}

/// Answers a session request that the guard has let pass: which feed, and then its chunks.
pub(super) async fn open(State(app): State<Arc<App>>, request: Request) -> Result<Response, Response> {
    let (mut parts, _) = request.into_parts();
    let decided = app.decide(&parts).await.map_err(Problem::into_response)?;
    let (uri, own) = (parts.uri.clone(), app.require_own_page(&parts));
    let request = SessionRequest::from_request_parts(&mut parts, &()).await.map_err(NoSession::into_response)?;
    open_for(app, uri, request, decided, own).await.map_err(Problem::into_response)
}

async fn open_for(
    app: Arc<App>,
    uri: Uri,
    request: SessionRequest,
    decided: Decided,
    own: Result<(), Problem>,
) -> Result<Response, Problem> {
    let name = App::feed_name(uri.path(), prefix_of(request.extensions()))?;
    // One who may only publish views nothing.
    let may_view = decided.access().allows(Action::Read, &name);
    let may_publish = decided.access().allows(Action::Publish, &name);
    let action = if may_publish && !may_view { Action::Publish } else { Action::Read };
    let mut asked = app.asked(&uri, request.headers(), request.extensions(), &decided, action).await?;
    if !may_view && asked.limit != Some(0) {
        let text = "this token allows publishing to the feed but not reading it: open the session with ?limit=0";
        return Err(Problem::new(StatusCode::FORBIDDEN, text.into()).challenge(Challenge::Scope));
    }
    let _reserved = match app.admit_viewer(&asked.feed, request.extensions()) {
        Ok(reserved) => reserved,
        Err(short) => return Ok(short.into_response()),
    };
    let offered = request.protocols().iter().any(|protocol| protocol == format::frames::MEDIA_TYPE);
    if offered && !asked.format_named && asked.delivery == Delivery::Stream {
        asked.format = Format::Frames;
    }
    let account = account(request.extensions(), decided.access());
    asked.may_start(request.extensions())?;
    if asked.feed.takes_input() {
        own?;
    }
    let mut viewer = asked.view(&app, &account)?;
    let input = OpenInput::of(&mut viewer, &asked.feed, &decided);
    // To view it keeps no place from those who write.
    let (feed, format, delivery, cut) =
        (asked.feed.for_list(), asked.format, asked.delivery, asked.chunk.unwrap_or_default());
    // States that the feed comes so, to a client that does not insist on it.
    let frames = offered && format == Format::Frames;
    let request = if frames { request.protocol(format::frames::MEDIA_TYPE) } else { request };
    let (noted, span) = (Noted::of(request.extensions()).cloned(), Span::current());
    Ok(request.on_session(async move |session| {
        let how = (cut, noted, span);
        let published = rarely(Box::pin(publish::streams(&app, &session, &feed, &account, &decided, how, input)));
        tokio::select! {
            () = bring(&app, &session, &feed, &decided, viewer, format, delivery) => {}
            () = published => {}
        }
    }))
}

/// Brings the feed on a stream of ours, whose end is the end of the feed, and waits until the
/// client closes the session, or its right to it ends.
async fn bring(
    app: &App,
    session: &Session,
    feed: &Feed,
    decided: &Decided,
    viewer: Viewer,
    format: Format,
    delivery: Delivery,
) {
    let opened = tokio::select! {
        biased;
        () = decided.until_ended() => return session.close(session_code::EXPIRED, decided.expiry()),
        opened = tokio::time::timeout(OPEN_WAIT, session.open_uni()) => opened,
    };
    let mut stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return,
        Err(_) => {
            // What waits for this viewer goes on: publishers, a command of its own.
            drop(viewer);
            if feed.publisher().is_some() {
                return until_closed(session, decided).await;
            }
            return session.close(session_code::STALLED, "the client allowed no stream for too long");
        }
    };
    // A client that reads the stream learns why at once, and also where its session stays open to publish.
    stream.set_stalled_code(session_code::STALLED);
    let breaks_off = format == Format::Raw || delivery == Delivery::Datagrams || decided.may_end();
    let mut out = Out { stream, breaks_off, outstanding: Outstanding::default() };
    let mut cut = rarely(Box::pin(when_cut(&viewer).cancelled_owned()));
    let bringing = async {
        match delivery {
            Delivery::Stream => {
                let writer = Writer::new(viewer, format, Framing::Plain).coalesce(app.coalesce);
                let writer = writer.count_in(app.viewing.in_session(format));
                let writer = match decided.ended() {
                    Some(over) => writer.until(over),
                    None => writer,
                };
                by_stream(writer, &mut out).await
            }
            Delivery::Datagrams => {
                let counted = app.viewing.in_session(Shape::Datagrams).viewer();
                by_datagrams((viewer, counted), session, decided, &mut out).await
            }
        }
    };
    let brought = tokio::select! {
        biased;
        // Before the end that the viewer gives then, for which there is no hurry.
        () = &mut cut => Err(Undelivered::Slow),
        brought = bringing => brought,
    };
    if decided.access().has_ended() {
        return expire(out, session, decided, brought).await;
    }
    if let Err(Undelivered::Feed(_)) = brought {
        out.delivered(session).await;
    }
    match brought {
        Ok(()) => {
            if out.stream.finish().is_ok() {
                // The client may still be reading; it closes the session.
                until_closed(session, decided).await;
            }
        }
        // A client that does not read, or not fast enough, may still publish.
        Err(cut) if feed.publisher().is_some() => {
            match cut {
                Undelivered::Feed(_) => out.stream.reset(session_code::FAILED),
                Undelivered::Slow | Undelivered::Stalled => out.stream.reset(session_code::STALLED),
                Undelivered::Gone => {}
            }
            until_closed(session, decided).await;
        }
        Err(Undelivered::Gone) => {}
        Err(Undelivered::Stalled) => session.close(session_code::STALLED, "the client read nothing for too long"),
        Err(Undelivered::Feed(error)) => {
            out.stream.reset(session_code::FAILED);
            session.close(session_code::FAILED, &error.to_string());
        }
        Err(Undelivered::Slow) => {
            out.stream.reset(session_code::STALLED);
            session.close(session_code::STALLED, format::CUT);
        }
    }
}

/// The client's right to the session has ended: it gets what was written, and the code by which it opens another.
async fn expire(mut out: Out, session: &Session, decided: &Decided, brought: Result<(), Undelivered>) {
    match brought {
        Ok(()) => {
            // What publications of the session come to is being written as well.
            if out.stream.finish().is_ok() {
                out.delivered(session).await;
            }
        }
        Err(_) => {
            out.delivered(session).await;
            out.stream.reset(session_code::EXPIRED);
        }
    }
    session.close(session_code::EXPIRED, decided.expiry());
}

/// Waits until the client closes the session. When its right to it ends, it is closed.
async fn until_closed(session: &Session, decided: &Decided) {
    let Some(over) = decided.ended() else {
        session.closed().await;
        return;
    };
    tokio::select! {
        _ = session.closed() => {}
        () = over => session.close(session_code::EXPIRED, decided.expiry()),
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
            debug!("a client did not receive in time what was written before its session was cut");
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
async fn by_datagrams(
    (mut viewer, mut counted): (Viewer, feed::Delivery),
    session: &Session,
    decided: &Decided,
    out: &mut Out,
) -> Result<(), Undelivered> {
    let (mut sent, mut skipped) = (0_u64, 0_u64);
    let mut stopped = rarely(Box::pin(out.stream.when_stopped()));
    let mut over = std::pin::pin!(decided.until_ended());
    loop {
        let next = tokio::select! {
            biased;
            () = &mut over => return Ok(out.tell(&json!({ "expired": {} })).await?),
            next = viewer.next() => next,
            () = &mut stopped => return Err(Undelivered::Gone),
        };
        match next {
            Some(Event::Chunk(chunk)) => match session.send_datagram_wait(chunk.bytes.clone()).await {
                Ok(()) => {
                    sent += 1;
                    counted.count(1, chunk.bytes.len() as u64);
                    if viewer.is_live() {
                        counted.look(chunk.time, Instant::now());
                    }
                }
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
            Some(Event::Stalled(stalled)) => {
                let mut said = json!({ "stalled": stalled });
                if let Some(trouble) = viewer.trouble().filter(|_| stalled) {
                    said["cause"] = trouble.to_string().into();
                }
                out.tell(&said).await?;
            }
            Some(Event::End(End::Failed(error))) => return Err(Undelivered::Feed(error.into())),
            Some(Event::End(End::Stopped)) => return Err(Undelivered::Feed(format::Cut::Stopped)),
            Some(Event::End(End::Clean)) | None => {
                let end = json!({ "chunks": sent + skipped, "sent": sent, "skipped": skipped });
                return Ok(out.tell(&json!({ "end": end })).await?);
            }
        }
    }
}
