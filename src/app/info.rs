//! `/info`: everything that the page must know.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Serialize;
use serde_json::json;

use super::{
    App, Problem, generated,
    host::{base_of, encoded, for_shell, has_http3, prefix_of},
};
use crate::{
    browser,
    feed::{self, Feed},
    identity::Fingerprint,
};

/// So many bytes of `/info` are about a feed, or some fewer.
const EACH: usize = 160;

/// What the page must know of a feed.
#[derive(Serialize)]
struct About {
    name: String,
    url: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    settings: &'static [&'static str],
    /// It takes some.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    input: bool,
}

pub(super) async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let decided = app.decide(&parts).await?;
    let has_status = app.has_status_for(&parts, &decided);
    let request = Request::from_parts(parts, body);
    let origin = base_of(&request);
    let (request, _) = request.into_parts();
    let prefix = prefix_of(&request.extensions);
    let base = format!("{origin}{prefix}");
    let url = |feed: &Feed| match feed.name() {
        feed::DEFAULT => format!("{base}/stream"),
        name => format!("{base}/stream/{}", encoded(name, b"-._~")),
    };
    let feeds = app.feeds_of(&decided);
    let about = |feed: &Feed| About {
        name: feed.name().to_owned(),
        url: url(feed),
        kind: feed.kind(),
        settings: feed.settings(),
        input: feed.takes_input(),
    };
    let mut info = json!({ "version": env!("CARGO_PKG_VERSION") });
    if has_status {
        info["status"] = json!(format!("{prefix}/status"));
    }
    if app.decider.is_some() {
        info["auth"] = json!({ "token": decided.access().is_granted(), "renewal": app.renewal });
    }
    // Another server than ours has no HTTP/3.
    if let Some(identity) = app.identity.as_ref().filter(|_| has_http3(&request.extensions)) {
        let hash = |hash: &Fingerprint| json!({ "algorithm": "sha-256", "value": hash.base64() });
        let hashes: Vec<_> = identity.hashes().iter().map(hash).collect();
        let chrome =
            browser::chrome_command(&format!("{origin}{}/", for_shell(prefix)), &identity.current().spki_hash());
        info["webtransport"] = json!({ "url": format!("{base}/stream"), "certificateHashes": hashes });
        info["http3"] = json!({ "url": format!("{base}/") });
        info["chrome"] = json!(chrome);
    }
    Ok(generated::feeds(&app, &request, &feeds, EACH, about, info).await)
}
