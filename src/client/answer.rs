//! What a server's answer is: frames, the bytes of a feed, or no feed at all.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use tokio::time::timeout;

use super::{ClientResponse, Connection, viewer::ViewError};
use crate::{format, resource};

/// How long a server may take to say more about what it has refused.
const MORE: Duration = Duration::from_secs(5);
/// Feeds that an error names.
const NAMED: usize = 5;

/// Asks for frames where there are any. Other servers answer as they would without it.
pub(crate) fn prefer_frames(headers: &mut HeaderMap) {
    const PREFERRED: HeaderValue = HeaderValue::from_static("application/vnd.h3cast.frames, */*;q=0.5");
    debug_assert!(PREFERRED.as_bytes().starts_with(format::frames::MEDIA_TYPE.as_bytes()));
    headers.insert(header::ACCEPT, PREFERRED);
}

/// The media type of an answer, without parameters.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim)
}

/// Whether the body is frames.
#[cfg(feature = "cli")]
pub(crate) fn is_frames(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(format::frames::MEDIA_TYPE))
}

/// What a successful answer of an h3cast server is, in words, if it is no feed. `None` when it is one, or
/// comes from another kind of server.
pub(crate) fn other_resource(headers: &HeaderMap) -> Option<String> {
    let what = match headers.get(resource::HEADER)?.as_bytes() {
        kind if kind == resource::FEED.as_bytes() => return None,
        kind if kind == resource::PAGE.as_bytes() => "the server's web page",
        kind if kind == resource::STATUS.as_bytes() => "the server's status",
        _ => "something else of the server",
    };
    Some(media_type(headers).map_or_else(|| what.to_owned(), |kind| format!("{what} ({kind})")))
}

/// The same as an error, with the feeds that there are.
pub(crate) async fn no_feed(connection: &Connection, uri: &Uri, headers: &HeaderMap) -> Option<ViewError> {
    let what = other_resource(headers)?;
    let feeds = timeout(MORE, feeds(connection, uri)).await.ok().flatten();
    Some(ViewError::OtherResource { url: uri.to_string(), what, feeds: feeds.unwrap_or_default() })
}

/// The URLs of the server's feeds, the first ones.
async fn feeds(connection: &Connection, uri: &Uri) -> Option<Vec<String>> {
    let base = format!("https://{}", uri.authority()?);
    let mut response = connection.get(&format!("{base}/info").parse().ok()?).await.ok()?;
    let info: serde_json::Value = serde_json::from_slice(&response.body.short().await.ok()?).ok()?;
    let names = info["feeds"].as_array()?.iter().filter_map(|feed| feed["name"].as_str());
    let url = |name: &str| match name {
        crate::feed::DEFAULT => format!("{base}/stream"),
        name => format!("{base}/stream/{name}"),
    };
    Some(names.map(url).take(NAMED).collect())
}

/// Whether the server has chunks of the feed at `uri` that came before now; `None` when it does not say.
#[cfg(feature = "cli")]
pub(crate) async fn holds_history(connection: &Connection, uri: &Uri) -> Option<bool> {
    let name = match uri.path().strip_prefix("/stream")? {
        "" => crate::feed::DEFAULT.into(),
        path => crate::path::decoded(path.strip_prefix('/')?)?,
    };
    let mut response = connection.get(&format!("https://{}/feeds", uri.authority()?).parse().ok()?).await.ok()?;
    let feeds: serde_json::Value = serde_json::from_slice(&response.body.short().await.ok()?).ok()?;
    let feed = feeds["feeds"].as_array()?.iter().find(|feed| feed["name"] == *name)?;
    Some(feed["oldest"].is_string())
}

/// Why a session was refused: a GET of the same URL may say more than a status.
pub(crate) async fn refused(
    connection: &Connection,
    uri: &Uri,
    authorization: Option<&HeaderValue>,
    status: StatusCode,
    headers: &HeaderMap,
) -> ViewError {
    let more = async {
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        prefer_frames(request.headers_mut());
        request.headers_mut().extend(authorization.map(|value| (header::AUTHORIZATION, value.clone())));
        let mut response: ClientResponse = connection.request(request).await.ok()?;
        if response.status.is_success() {
            return no_feed(connection, uri, &response.headers).await;
        }
        let detail = response.problem().await.filter(|_| response.status == status)?;
        Some(ViewError::answered(status, headers, Some(detail)))
    };
    let more = timeout(MORE, more).await.ok().flatten();
    more.unwrap_or_else(|| ViewError::answered(status, headers, None))
}
