//! A feed that is a file, read as a file: any part of it can be asked for (RFC 9110 §14).

use std::{io, path::Path, sync::Arc};

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

use super::{
    App, Problem, memory,
    stored::{self, Stored},
};
use crate::{
    content,
    feed::{Feed, FeedError},
    format::Format,
};

/// What a feed's file is, for browsers.
pub(super) struct FeedType(HeaderValue);

impl FeedType {
    /// Says so in the head of an answer that has its bytes.
    pub(super) fn say(self, headers: &mut HeaderMap) {
        if self.0.to_str().is_ok_and(content::is_active) {
            // Its scripts may run, but not as a page of ours: they read no feed and publish nothing.
            let policy = HeaderValue::from_static("sandbox allow-scripts");
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        headers.insert(header::CONTENT_TYPE, self.0);
    }
}

/// What a feed's file is, to be sent as it is in a stream of another kind.
pub(super) async fn content(feed: &Feed, path: &Arc<Path>) -> Result<FeedType, Problem> {
    Ok(look(feed, path, &Stored::at(path.clone())).await?.1)
}

/// The length of a feed's file, and what it is.
async fn look(feed: &Feed, path: &Path, file: &Stored) -> Result<(u64, FeedType), Problem> {
    let looked = async {
        let (len, head) = file.head().await?;
        let media_type = content::media_type(path, &head);
        let fallback = HeaderValue::from_static("application/octet-stream");
        Ok::<_, io::Error>((len, FeedType(HeaderValue::from_str(&media_type).unwrap_or(fallback))))
    };
    looked.await.map_err(|error| unreadable(feed, path, &error))
}

/// Answers with a feed's file; `None` when it has no length of its own, as those of `/proc`, and is to be
/// read as other feeds are.
pub(super) async fn answer(
    app: &App,
    feed: &Feed,
    path: &Arc<Path>,
    request: &Parts,
) -> Result<Option<Response>, Problem> {
    let file = Stored::at(path.clone());
    let (len, content) = look(feed, path, &file).await?;
    if len == 0 {
        return Ok(None);
    }
    // What cuts it.
    let mut head = Response::default();
    let counted = || {
        let counted = feed.count_viewer().count_in(app.viewing.over(request.version, Format::Raw));
        counted.on_cut(memory::cutting(request.version, &request.extensions, &mut head));
        Some(counted)
    };
    let answered = stored::answer(&file, request, counted).await;
    let mut response = answered.map_err(|why| unreadable(feed, path, &why))?;
    response.extensions_mut().extend(std::mem::take(head.extensions_mut()));
    if stored::has_bytes(&response) {
        content.say(response.headers_mut());
    }
    Ok(Some(response))
}

fn unreadable(feed: &Feed, path: &Path, why: &dyn std::fmt::Display) -> Problem {
    feed.report_failure(&FeedError(format!("cannot read {}: {why}", path.display())));
    Problem::new(StatusCode::NOT_FOUND, format!("the file of the feed `{}` cannot be read now: {why}", feed.name()))
}
