//! What can be said of the feeds, as JSON, and whether new clients are welcome.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::{App, Problem, generated};
use crate::{
    auth::{Action, Decider},
    feed::{End, Feed, Pressure, Trouble},
};

/// 200 when new clients are welcome, 503 and why when not. With `?strict`, one feed that cannot be served is enough
/// for that.
pub(super) async fn ready(State(app): State<Arc<App>>, request: Request) -> Response {
    let is_strict = request.uri().query().is_some_and(|query| query.split('&').any(|word| word == "strict"));
    let (mut reasons, stalled) = (unready(&app), stalled(&app));
    if reasons.is_empty() && is_strict {
        reasons.clone_from(&stalled);
    }
    readiness(reasons, stalled)
}

/// The same for one feed, to those who may read it.
pub(super) async fn feed_ready(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    app.decide(&parts).await?.require(Action::Read, &name)?;
    let mut reasons = refusing(&app);
    match app.feeds.is_ready(&name) {
        None => return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no feed `{name}`"))),
        Some(true) => {}
        Some(false) => reasons.push(stalls(&app, &name, &format!("feed {name}"), |_| true)),
    }
    Ok(readiness(reasons, Vec::new()))
}

/// Why not, one reason a line; or that it is, and what is wrong all the same.
fn readiness(reasons: Vec<String>, wrong: Vec<String>) -> Response {
    let (status, lines) = match reasons.is_empty() {
        true => (StatusCode::OK, [vec!["ready".to_owned()], wrong].concat()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], lines.join("\n") + "\n").into_response()
}

/// Why new clients are not welcome, if they are not.
pub(super) fn unready(app: &App) -> Vec<String> {
    let (mut reasons, stalled) = (refusing(app), stalled(app));
    // One feed that works is reason enough to come.
    if stalled.len() == app.feeds.names().count() {
        reasons.extend(stalled);
    }
    reasons
}

/// Why none is let in, whatever the feed.
fn refusing(app: &App) -> Vec<String> {
    let mut reasons: Vec<_> =
        app.stopping.is_cancelled().then(|| "server: it is stopping".to_owned()).into_iter().collect();
    if app.budget.as_ref().is_some_and(|budget| budget.pressure() >= Pressure::High) {
        reasons.push("memory: it is short, so new viewers are refused".to_owned());
    }
    let undecided = app.decider.as_ref().and_then(Decider::unready);
    reasons.extend(undecided.map(|why| format!("tokens: {why}")));
    reasons
}

/// The feeds that cannot be served now.
fn stalled(app: &App) -> Vec<String> {
    // Anyone may ask this: names of feeds are for those who may read them, and what is wrong may have them in its words.
    let is_secret = app.decider.is_some();
    let named = |feed: &str| if is_secret { "feed".to_owned() } else { format!("feed {feed}") };
    let stalls = |feed| stalls(app, feed, &named(feed), |trouble| !is_secret || matches!(trouble, Trouble::Disk(_)));
    app.feeds.unready().into_iter().map(stalls).collect()
}

/// Why the feed or pattern `name`, which is `shown` so, cannot be served: what is known of it, if that `may` be told.
fn stalls(app: &App, name: &str, shown: &str, may: impl Fn(&Trouble) -> bool) -> String {
    match app.feeds.trouble(name).filter(may) {
        Some(trouble) => format!("{shown}: {trouble}"),
        None => format!("{shown}: new chunks cannot be received or stored"),
    }
}

pub(super) async fn feeds(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    let decided = app.decide(&request).await?;
    let feeds = app.feeds_of(&decided);
    Ok(generated::feeds(&app, &request, &feeds, EACH, |feed| About::of(feed, &app), json!({})).await)
}

/// So many bytes of `/feeds` are about a feed, or some fewer.
const EACH: usize = 512;

/// What `/feeds` has of a feed.
#[derive(Serialize)]
struct About {
    name: String,
    kind: &'static str,
    writable: bool,
    input: bool,
    state: &'static str,
    error: Option<String>,
    viewers: u64,
    publishers: u64,
    viewers_everywhere: Option<u64>,
    publishers_everywhere: Option<u64>,
    servers: Option<u64>,
    chunks: u64,
    bytes: u64,
    rate: RateOf,
    kept_bytes: usize,
    stored_bytes: Option<u64>,
    skipped: u64,
    stalled: bool,
    trouble: Option<String>,
    blocked_seconds: f64,
    epoch: Option<String>,
    oldest: Option<String>,
    newest_seconds: Option<f64>,
}

/// In a second.
#[derive(Serialize)]
struct RateOf {
    chunks: f64,
    bytes: f64,
}

impl About {
    fn of(feed: &Feed, app: &App) -> Self {
        let status = feed.status();
        let (state, error) = match &status.end {
            None => ("open", None),
            Some(End::Clean | End::Stopped) => ("ended", None),
            Some(End::Failed(error)) => ("failed", Some(error.to_string())),
        };
        let elsewhere = status.elsewhere;
        Self {
            name: feed.name().to_owned(),
            kind: feed.kind(),
            writable: feed.publisher().is_some(),
            input: feed.takes_input(),
            state,
            error,
            viewers: status.viewers,
            publishers: status.publishers,
            viewers_everywhere: elsewhere.map(|other| other.viewers.saturating_add(status.viewers)),
            publishers_everywhere: elsewhere.map(|other| other.publishers.saturating_add(status.publishers)),
            servers: elsewhere.map(|other| other.servers.saturating_add(u64::from(status.viewers > 0))),
            chunks: status.chunks,
            bytes: status.bytes,
            rate: RateOf { chunks: status.rate.chunks, bytes: status.rate.bytes },
            kept_bytes: status.kept_bytes,
            stored_bytes: status.stored,
            skipped: status.skipped,
            stalled: status.stalled,
            trouble: app.feeds.trouble_of(feed).map(|trouble| trouble.to_string()),
            blocked_seconds: status.blocked.as_secs_f64(),
            epoch: status.epoch.map(|epoch| epoch.to_string()),
            oldest: status.oldest.map(|cursor| cursor.to_string()),
            newest_seconds: status.newest.map(|age| age.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use tower::ServiceExt;

    use super::*;
    use crate::auth::{Access, Authorize, Denied};
    use crate::feed::Budget;

    async fn ready(app: &App) -> (u16, String) {
        let request =
            Request::get("/readyz").header(header::HOST, "localhost").body(axum::body::Body::empty()).unwrap();
        let response = app.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let text = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(text.into()).unwrap())
    }

    #[tokio::test]
    async fn new_clients_are_welcome_when_there_is_memory() {
        let budget = Budget::new(100_000_000);
        let app = App::without_identity([]).budget(&budget);
        let mut seen = Vec::new();
        for resident in [0, 91_000_000, 99_000_000, 88_000_000, 80_000_000] {
            budget.observe(resident);
            seen.push(ready(&app).await);
        }
        let short = (503, "memory: it is short, so new viewers are refused\n".to_owned());
        let ready = (200, "ready\n".to_owned());
        assert_eq!(seen, [ready.clone(), short.clone(), short.clone(), short, ready]);
    }

    #[tokio::test]
    async fn new_clients_are_welcome_when_it_can_be_decided_what_they_may_do() {
        struct Undecided;
        impl Authorize for Undecided {
            async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
                Err(Denied::unavailable("later"))
            }

            fn unready(&self) -> Option<String> {
                Some("there are no keys".into())
            }
        }
        let app = App::without_identity([]).authorize(Arc::new(Undecided));
        assert_eq!(ready(&app).await, (503, "tokens: there are no keys\n".to_owned()));
    }
}
