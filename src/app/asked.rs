//! What a request wants: the query of `GET`, `POST` and `CONNECT /stream`, and the headers of `EventSource`.

use std::{borrow::Cow, path::Path, sync::Arc};

use http::{Extensions, HeaderMap, StatusCode, Uri};

use super::{
    App, Problem, accept, authorize::Decided, entry::Noted, guard::Unasked, host::prefix_of, publish::ChunkBy,
    quotas::account,
};
use crate::{
    admission::Refusal,
    auth::Action,
    chunk::EndCursor,
    feed::{Account, BadStart, Exhausted, Feed, Start, Viewer},
    format::Format,
    units::many,
};

/// How a session brings the chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Delivery {
    /// On one stream.
    #[default]
    Stream,
    /// One datagram each.
    Datagrams,
}

/// A query. What it has beside is ignored: links grow parameters of trackers, and clients add some
/// against caches.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// End cleanly after that many chunks.
    limit: Option<u64>,
    /// How the feed is written.
    format: Option<Format>,
    /// Where to begin.
    from: Option<String>,
    /// The same, from clients that cannot set `Last-Event-ID`.
    last_event_id: Option<String>,
    delivery: Option<Delivery>,
    /// By what right: pages cannot give the request of a session a header.
    token: Option<String>,
    /// Where what is published is cut.
    pub(super) chunk: Option<ChunkBy>,
    /// What is sent is the last input of a command.
    pub(super) end: Option<bool>,
    /// The client means to send input: a feed that takes none is not for it.
    input: Option<bool>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "limit" => {
                    let number = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                    set(&mut query.limit, &name, &value, number, "a number of chunks, as in limit=10")?;
                }
                "format" => {
                    let format = match value.as_ref() {
                        "raw" => Some(Format::Raw),
                        "sse" => Some(Format::Sse),
                        "frames" => Some(Format::Frames),
                        _ => None,
                    };
                    set(&mut query.format, &name, &value, format, "raw, sse or frames")?;
                }
                "from" => set(&mut query.from, &name, &value, Some(value.to_string()), "given once")?,
                "lastEventId" | "lastEventID" | "last-event-id" | "Last-Event-ID" => {
                    set(&mut query.last_event_id, &name, &value, Some(value.to_string()), "given once")?;
                }
                "delivery" => {
                    let delivery = match value.as_ref() {
                        "stream" => Some(Delivery::Stream),
                        "datagrams" => Some(Delivery::Datagrams),
                        _ => None,
                    };
                    set(&mut query.delivery, &name, &value, delivery, "stream or datagrams")?;
                }
                // Not repeated in an error: it is a secret.
                "token" => set(&mut query.token, &name, "…", Some(value.to_string()), "given once")?,
                "chunk" => {
                    let chunk = match value.as_ref() {
                        "bytes" => Some(ChunkBy::Bytes),
                        "lines" => Some(ChunkBy::Lines),
                        _ => None,
                    };
                    set(&mut query.chunk, &name, &value, chunk, "lines or bytes")?;
                }
                "end" => set(&mut query.end, &name, &value, switch(&value), SWITCH)?,
                "input" => set(&mut query.input, &name, &value, switch(&value), SWITCH)?,
                _ => {}
            }
        }
        Ok(query)
    }
}

const SWITCH: &str = "true or false, and true without a value";

fn switch(value: &str) -> Option<bool> {
    match value {
        "" | "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn set<T>(place: &mut Option<T>, name: &str, value: &str, parsed: Option<T>, allowed: &str) -> Result<(), Problem> {
    let bad = || Problem::bad(format!("cannot read `{name}={}`: {name} is {allowed}", quoted(value)));
    let parsed = parsed.ok_or_else(bad)?;
    match place.replace(parsed) {
        None => Ok(()),
        Some(_) => Err(Problem::bad(format!("`{name}` is given several times: give it once"))),
    }
}

/// Where to begin.
fn start(place: &str) -> Result<Start, BadStart> {
    // The error repeats what it is about.
    place.parse().or_else(|_| quoted(place).parse())
}

/// A value as errors repeat it: so little that it is no token, nor what another separator than `&` has joined to it.
fn quoted(value: &str) -> Cow<'_, str> {
    // The shortest token has 16.
    const LONGEST: usize = 12;
    let is_joined = |c: char| c.is_control() || matches!(c, '&' | ';' | '?' | '=' | ',' | ' ');
    let whole = value.split(is_joined).next().unwrap_or_default();
    let end = whole.char_indices().nth(LONGEST).map_or(whole.len(), |(at, _)| at);
    if end == value.len() { value.into() } else { format!("{}…", &whole[..end]).into() }
}

/// What a client wants to view.
pub(super) struct ViewRequest {
    pub(super) feed: Feed,
    from: Option<Start>,
    /// The end that the client has had.
    had_end: Option<EndCursor>,
    pub(super) limit: Option<u64>,
    pub(super) format: Format,
    /// The query names the format, which is then that one and no other.
    pub(super) format_named: bool,
    pub(super) delivery: Delivery,
    pub(super) token: Option<String>,
    pub(super) chunk: Option<ChunkBy>,
}

impl App {
    /// What a request wants to view, by its URI, its headers and its extensions.
    pub(super) async fn asked(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
        decided: &Decided,
        action: Action,
    ) -> Result<ViewRequest, Problem> {
        let query = Query::of(uri)?;
        let account = account(extensions, decided.access());
        let feed = self.feed(uri.path(), prefix_of(extensions), &account, decided, action).await?;
        Noted::feed(extensions, &feed);
        if query.input == Some(true) && !feed.takes_input() {
            let text =
                "this feed takes no input: only a command that runs per viewer can, and only if the server allows it";
            return Err(Problem::bad(text.into()));
        }
        let variant = feed.variant(uri.query().unwrap_or_default()).map_err(|bad| Problem::bad(bad.to_string()))?;
        let feed = variant.unwrap_or(feed);
        // An `EventSource` asks by `Accept`, and adds its place when it reconnects.
        let by_header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
        let last_event = by_header.or(query.last_event_id.as_deref());
        let by_headers = match last_event {
            Some(_) => Some(Format::Sse),
            None => accept::preferred(headers),
        };
        // Without an event yet its place is empty (HTML §9.2.4).
        let place = last_event.filter(|id| !id.is_empty()).or(query.from.as_deref());
        let from = place.map(|place| start(place).map_err(|error| Problem::bad(error.to_string()))).transpose()?;
        Ok(ViewRequest {
            feed,
            from,
            had_end: place.and_then(|place| place.parse().ok()),
            limit: query.limit,
            format: query.format.or(by_headers).unwrap_or_default(),
            format_named: query.format.is_some(),
            delivery: query.delivery.unwrap_or_default(),
            token: query.token,
            chunk: query.chunk,
        })
    }
}

impl ViewRequest {
    /// Whether an `EventSource` asks that has had the end, and would get it again and again: only 204
    /// keeps it from that (HTML §9.2.3).
    pub(super) fn is_over(&self) -> bool {
        self.format == Format::Sse && self.had_end.is_some_and(|had| self.feed.is_over(had))
    }

    /// Refuses what may not start anything, when a view of the feed would.
    pub(super) fn may_start(&self, extensions: &Extensions) -> Result<(), Problem> {
        match extensions.get::<Unasked>() {
            Some(unasked) if self.feed.is_costly() => Err(unasked.problem().because(Refusal::Origin)),
            _ => Ok(()),
        }
    }

    pub(super) fn view(&self, app: &App, account: &Account) -> Result<Viewer, Problem> {
        let viewer = self.feed.view_as(account, self.from.unwrap_or_default(), self.limit);
        let viewer = viewer.map_err(|exhausted| match exhausted {
            Exhausted::Account(each) => {
                app.refused(Refusal::ProcessesPerClient, account);
                let text = format!(
                    "this client already has {each} commands running, the most that one client may have: close one of \
                     its views of feeds that start a command for each viewer"
                );
                Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
            Exhausted::All(all) => {
                app.refused(Refusal::Processes, account);
                let text = format!(
                    "{all} commands are running for viewers, the most that this server starts: try again when one of \
                     them has left"
                );
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        })?;
        if self.format == Format::Raw
            && let Some(gap) = viewer.gap()
        {
            // Better told now than by a stream that breaks off at once.
            let text = match gap.restarted {
                true => "the feed has started over since, which `raw` cannot report: use from=start, or another format"
                    .into(),
                false => format!(
                    "the feed no longer has {} after that cursor, which `raw` cannot report: use from=start, or another format",
                    many(gap.missing, "chunk")
                ),
            };
            return Err(Problem::new(StatusCode::GONE, text));
        }
        Ok(viewer)
    }

    /// The file, when all of it is wanted as it is. A client that merely prefers frames gets the file
    /// too: it can ask for parts of it later.
    pub(super) fn file(&self) -> Option<&Arc<Path>> {
        let plain = match self.format {
            Format::Raw => true,
            Format::Frames => !self.format_named,
            Format::Sse => false,
        };
        let whole = plain && self.limit.is_none() && !matches!(self.from, Some(Start::After(_) | Start::End(_)));
        self.feed.file().filter(|_| whole)
    }
}
