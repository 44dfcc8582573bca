//! A feed as a response.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::OptionFuture, stream};
use h3cast_proto::{code, frame};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    App, Problem, asked::Delivery, authorize::Decided, file, input::InputSession, memory, quotas::account, refused,
};
use crate::{
    auth::Action,
    feed::Viewer,
    format::{Format, Framing, PREFIX_TYPE, Writer},
    http3::{TakenStream, Takeover},
};

pub(super) async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let response = viewed(&app, &request).await.into_response();
    match refused::is_for_now(&response) && refused::is_of_event_source(&request) {
        true => refused::told_as_event(response).await,
        false => response,
    }
}

async fn viewed(app: &Arc<App>, request: &Parts) -> Result<Response, Problem> {
    let decided = app.decide(request).await?;
    let asked = app.asked(&request.uri, &request.headers, &request.extensions, &decided, Action::Read).await?;
    if asked.delivery == Delivery::Datagrams {
        let text = "a response cannot carry datagrams: open a WebTransport session at the same URL";
        return Err(Problem::bad(text.into()));
    }
    if (asked.token.is_some() && app.decider.is_none()) || asked.chunk.is_some() {
        let text = "`token` and `chunk` are for sessions that publish: a viewer needs neither";
        return Err(Problem::bad(text.into()));
    }
    let account = account(&request.extensions, decided.access());
    asked.may_start(&request.extensions)?;
    if asked.feed.takes_input() {
        app.require_own_page(request)?;
    }
    let _reserved = match app.admit_viewer(&asked.feed, &request.extensions) {
        Ok(reserved) => reserved,
        Err(short) => return Ok(short.into_response()),
    };
    if let Some(path) = asked.file()
        && let Some(mut response) = file::answer(app, &asked.feed, path, request).await?
    {
        if app.decider.is_some() {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        return Ok(decided.limit(response));
    }
    if asked.is_over() {
        return Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response());
    }
    let content = match asked.feed.file() {
        Some(path) if asked.format == Format::Raw => Some(file::content(&asked.feed, path).await?),
        _ => None,
    };
    let head = request.method == Method::HEAD;
    // A viewer of an on-demand feed runs its source; of a live one it only tells whether chunks are gone.
    let viewer = (!head || asked.feed.kind() == "live").then(|| asked.view(app, &account)).transpose()?;
    let headers = [
        (header::CONTENT_TYPE, asked.format.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        // What has gone by cannot be asked for again in bytes.
        (header::ACCEPT_RANGES, "none"),
        // Proxies that gather a response before they send it on are asked not to.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = headers.into_response();
    if let Some(content) = content {
        content.say(response.headers_mut());
    }
    let Some(mut viewer) = viewer.filter(|_| !head) else {
        // Not a body of no bytes, whose length would be sent as that of the feed (RFC 9110 §8.6).
        return Ok(response.map(|_| Body::from_stream(stream::empty::<Result<Bytes, Infallible>>())));
    };
    let input = app.inputs.open(&mut viewer, &asked.feed, &decided);
    if let Some(input) = &input {
        input.say(&mut response);
    }
    let (format, coalesce) = (asked.format, app.coalesce);
    let counted = app.viewing.over(request.version, format).clone();
    let writer = move |decided: &Decided, viewer, framing| {
        let writer = Writer::new(viewer, format, framing).coalesce(coalesce).count_in(&counted);
        match decided.ended() {
            Some(over) => writer.until(over),
            None => writer,
        }
    };
    let (other, writes) = (decided.clone(), writer.clone());
    let on_cut = memory::cutting(request.version, &request.extensions, &mut response);
    let body = move |(viewer, input): (Viewer, Option<InputSession>)| {
        viewer.on_cut(on_cut);
        let written = writes(&other, viewer, Framing::Plain).into_stream();
        match input {
            Some(input) => Body::from_stream(written.inspect(move |_| _ = &input)),
            None => Body::from_stream(written),
        }
    };
    let takeover = request.extensions.get::<Takeover>().cloned();
    Ok(match takeover {
        Some(takeover) => {
            // For one of the two.
            let viewer = Arc::new(Mutex::new(Some((viewer, input))));
            let shared = viewer.clone();
            let take = |viewer: &Mutex<Option<_>>| viewer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let written = move |stream| {
                let taken = take(&viewer).map(|(viewer, input)| {
                    let cut = memory::when_cut(&viewer);
                    write(writer(&decided, viewer, Framing::Prefixed), stream, cut, input)
                });
                OptionFuture::from(taken).map(drop)
            };
            // Under a layer that compresses, say.
            takeover.respond_or(response.map(|_| ()), written, move || take(&shared).map_or_else(Body::empty, body))
        }
        None => response.map(|_| body((viewer, input))),
    })
}

// The prefix that feeds encode with their chunks is the header of a DATA frame.
const _: () = assert!(PREFIX_TYPE == frame::DATA);

/// Writes a feed as the DATA frames of a response, several at once to a viewer that is behind. The
/// stream is reset when the feed breaks off and the viewer has what there was, or dropped with this
/// future when the viewer goes. When the viewer is `cut`, it has taken nothing for some time, and is reset at once.
///
/// Not an `async fn`, which would keep what it is given twice, for each viewer as long as it waits; the end is in a box of
/// its own for the same reason. `input` is what it may type, and is held until then.
fn write(
    mut writer: Writer,
    mut stream: TakenStream,
    cut: CancellationToken,
    input: Option<InputSession>,
) -> impl Future<Output = ()> + Send {
    let mut buffers = Vec::new();
    async move {
        let _held = &input;
        loop {
            match writer.next(&mut buffers).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if cut.is_cancelled() => return stream.reset(code::H3_EXCESSIVE_LOAD),
                Err(cut) => {
                    debug!(%cut, "a response was cut short");
                    return Box::pin(stream.abort()).await;
                }
            }
            let written = tokio::select! {
                biased;
                written = stream.write_frames(&mut buffers) => Some(written),
                () = cut.cancelled() => None,
            };
            match written {
                Some(Ok(())) => buffers.clear(),
                Some(Err(_)) => return,
                None => return stream.reset(code::H3_EXCESSIVE_LOAD),
            }
        }
        // An error means that the viewer has gone.
        let _ = Box::pin(stream.finish()).await;
    }
}
