//! Publishing: the body of a POST or PUT, and the streams that a client opens in a session, become
//! chunks as they arrive.

mod keys;
mod known;
mod pieces;
mod publications;
mod session;

use std::{io, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body as _;
use serde_json::json;

#[cfg(feature = "cli")]
pub(super) use self::keys::Known;
use self::{
    keys::Owner,
    known::{PublicationRequest, Said},
    pieces::publish,
};
pub(super) use self::{publications::Publications, session::streams};
use super::{App, Problem, asked::Query, entry::Noted, host::prefix_of, input, quotas::account};
use crate::{auth::Action, feed::Feed, source::chunker::Chunking};

#[derive(Debug, Clone, Copy, Default)]
pub(super) enum ChunkBy {
    /// Wherever a piece of it ends.
    #[default]
    Bytes,
    /// After each newline.
    Lines,
}

impl From<ChunkBy> for Chunking {
    fn from(cut: ChunkBy) -> Self {
        match cut {
            ChunkBy::Bytes => Self::Bytes,
            ChunkBy::Lines => Self::Lines,
        }
    }
}

/// POST and PUT: publishes the body, and answers with what was written.
pub(super) async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let publications = &app.publications;
    let (parts, body) = request.into_parts();
    let decided = app.decide(&parts).await?;
    let account = &account(&parts.extensions, decided.access());
    let prefix = prefix_of(&parts.extensions);
    let feed = &app.feed(parts.uri.path(), prefix, account, &decided, Action::Publish).await?;
    Noted::feed(&parts.extensions, feed);
    let headers = &parts.headers;
    if feed.takes_input() {
        return input::answer(&app, &parts, body, (feed, account, &decided)).await;
    }
    let publisher = publications.admit(feed, &decided)?;
    let chunk = Query::of(&parts.uri)?.chunk.unwrap_or_default();
    let key = idempotency_key(headers)?;
    let offset = upload_offset(headers)?;
    if offset.is_some() && key.is_none() {
        return Err(Problem::bad("Upload-Offset needs an Idempotency-Key, which names the publication".into()));
    }
    let length = body.size_hint().lower();
    if publications.longest().is_some_and(|limit| length > limit) {
        return Err(publications.too_long(0));
    }
    require_whole(headers)?;
    // The publication first: it may take the place of one that runs.
    let owner = decided.access().named_by().map(|(token, name)| Owner::new(token, name));
    let said = Said { feed: feed.name(), epoch: feed.status().epoch, account, owner, key, offset, publisher };
    let publication = publications.begin(said).await?;
    let _place = publications.place(account)?;
    let _publishing = feed.publishing();
    let pieces = body.into_data_stream().map(|piece| piece.map_err(io::Error::other));
    let done = publish(publications, publisher, account, &publication, pieces, chunk.into(), &decided).await;
    done.map_err(|problem| problem.published(written(feed, &publication)))?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(written(feed, &publication))).into_response())
}

/// Refuses a part of a body, and one that would have to be decoded.
pub(super) fn require_whole(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110 §14.5: what is a part must not be taken for the whole.
        let text = "to publish a part of a body, use Idempotency-Key and Upload-Offset, not Content-Range";
        return Err(Problem::bad(text.into()));
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|encoding| !is_identity(encoding)) {
        let text = "publications are not decoded: send the bytes as viewers should get them, without Content-Encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text.into()));
    }
    Ok(())
}

/// Whether a `Content-Encoding` leaves the body as it is.
fn is_identity(encoding: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(encoding.as_bytes());
    text.split(',').map(str::trim).all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
}

/// What a publication has written so far.
fn written(feed: &Feed, publication: &PublicationRequest) -> serde_json::Value {
    let progress = publication.progress();
    json!({
        "feed": feed.name(),
        "epoch": feed.status().epoch.map(|epoch| epoch.to_string()),
        "first": progress.first.map(|cursor| cursor.to_string()),
        "last": progress.last.map(|cursor| cursor.to_string()),
        "chunks": progress.chunks,
        "bytes": progress.bytes,
    })
}

/// The key by which a publication is known when it comes again
/// (draft-ietf-httpapi-idempotency-key-header, which quotes it; most clients do not).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const LONGEST: usize = 200;
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().unwrap_or_default();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let is_printable = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match key.len() {
        1..=LONGEST if is_printable => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!("an Idempotency-Key has 1 to {LONGEST} printable ASCII characters"))),
    }
}

/// Where in its publication the body begins (draft-ietf-httpbis-resumable-upload): an Integer of RFC 9651, section 3.3.1,
/// so that adding the body's length cannot overflow.
fn upload_offset(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    const DIGITS: usize = 15;
    let Some(offset) = headers.get("upload-offset") else { return Ok(None) };
    let text = offset.as_bytes();
    let is_number = (1..=DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let parsed = is_number.then(|| offset.to_str().ok()?.parse().ok()).flatten();
    let problem = || Problem::bad(format!("Upload-Offset is a number of bytes, of up to {DIGITS} digits"));
    parsed.map(Some).ok_or_else(problem)
}
