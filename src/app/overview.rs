//! `/status`: what matters now, for those who look after the server. The page, its files and its numbers.

mod feeds;

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{
    App, Problem,
    authorize::Decided,
    generated,
    local::is_of_this_machine,
    numbers::{Memory, Numbers},
    status,
};
use crate::{
    admission::{Refusal, Snapshot},
    counts::Protocol,
    feed::{Delivered, Pressure},
    identity::{Certificate, rfc3339},
    page::PageFile,
};

/// The page.
pub(super) const PAGE: &str = "status.html";
/// Its files, which are served with it, since an app may have another page or none.
const FILES: [&str; 17] = [
    "favicon.svg",
    "js/client/backoff.mjs",
    "js/client/environment.mjs",
    "js/client/format.mjs",
    "js/client/or-abort.mjs",
    "js/client/token.mjs",
    "js/page/env.mjs",
    "js/page/status-data.mjs",
    "js/page/status-feeds.mjs",
    "js/page/status-format.mjs",
    "js/page/status-poll.mjs",
    "js/page/status-recent.mjs",
    "js/page/status-view.mjs",
    "js/page/status.mjs",
    "js/page/token-form.mjs",
    "status.css",
    "style.css",
];

/// Who may open the status page, `/status`, and ask for its numbers, `/status/data`.
///
/// With [`App::authorize`], those numbers are for clients that may read all feeds, as `/metrics` is. A request that a
/// proxy forwards is not one of this machine, unless the proxy is
/// [trusted](crate::server::ServerBuilder::trust_proxy) and names a client of this machine. A proxy of this machine
/// that does not show that it is one, by any field of its requests, cannot be told apart from its programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusPage {
    /// No one: an app has no such routes.
    #[default]
    Off,
    /// Programs of this machine, that reach the server by a loopback address, as `localhost`.
    Loopback,
    /// Every client that reaches the server.
    Public,
}

impl App {
    /// Refuses the page to a client that is on another machine, unless it is public.
    fn shows_status_to(&self, request: &Parts) -> Result<(), Problem> {
        match self.status_page {
            StatusPage::Public => Ok(()),
            StatusPage::Loopback if is_of_this_machine(request) => Ok(()),
            StatusPage::Loopback | StatusPage::Off => {
                let text = "the status page is for this machine only: open it there as http://localhost (from \
                            elsewhere, through `ssh -L`), or let the server show it to other machines (`status`: `public`)";
                Err(Problem::new(StatusCode::FORBIDDEN, text.into()))
            }
        }
    }

    /// Whether the client of a request may see what the page shows.
    pub(super) fn has_status_for(&self, request: &Parts, decided: &Decided) -> bool {
        self.shows_status_to(request).is_ok() && decided.require_all().is_ok()
    }
}

/// The page, which shows nothing by itself. It is for clients without a token too: it asks for one.
pub(super) async fn page(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    file(&app, PAGE, request)
}

/// One of its files.
pub(super) async fn page_file(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    match FILES.contains(&name.as_str()) {
        true => file(&app, &name, request),
        false => Err(Problem::new(StatusCode::NOT_FOUND, "the status page has no such file".into())),
    }
}

fn file(app: &App, name: &str, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    app.shows_status_to(&request)?;
    let file = PageFile::built_in(name);
    let file = file.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the status page is not built in".into()))?;
    // It talks to its own origin alone.
    Ok(file.respond(&request.headers, ""))
}

/// The paths of the page and of all that it needs.
pub(super) fn paths() -> impl Iterator<Item = String> {
    let own = ["/status", "/status/data"].map(String::from);
    own.into_iter().chain(FILES.iter().map(|name| format!("/status/{name}")))
}

/// The numbers. The query chooses among the feeds: `match=TEXT` of their names, `sort=viewers|rate|skipped|state|name`,
/// and how many at most, `limit=N`.
pub(super) async fn data(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    app.shows_status_to(&request)?;
    let decided = app.decide(&request).await?;
    decided.require_all()?;
    let wanted = feeds::Wanted::of(&request.uri)?;
    let now = Numbers::of(&app, &[]);
    let (feeds, sums) = feeds::shown(&app.feeds_of(&decided), &wanted);
    let reasons = status::unready(&app);
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": rfc3339(std::time::SystemTime::now()),
        "uptime_seconds": now.started.elapsed().unwrap_or_default().as_secs_f64(),
        "unready": reasons,
        "viewers": sums.viewers,
        "rate": { "chunks": sums.chunks, "bytes": sums.bytes },
        "sent": sent(&now),
        "lag": sums.lag,
        "skipped": sums.skipped,
        "publications": now.publications,
        "connections": now.admission.as_ref().map(connections),
        "transports": transports(&now),
        "refused": now.admission.as_ref().map(refusals),
        "certificate": app.identity.as_ref().map(|identity| certificate(&identity.current())),
        "memory": now.memory.as_ref().map(memory),
        "feeds": feeds,
    });
    Ok(generated::json(&app, &request, &data))
}

fn connections(now: &Snapshot) -> Value {
    json!({
        "open": now.connections,
        "half_open": now.handshakes,
        "requests": now.requests,
        "sessions": now.sessions,
    })
}

/// The chunks and bytes that all viewers have been given so far.
fn sent(now: &Numbers) -> Value {
    let of = |count: fn(&Delivered) -> u64| now.viewing.iter().map(|(.., delivered)| count(delivered)).sum::<u64>();
    json!({ "chunks": of(|all| all.chunks), "bytes": of(|all| all.bytes) })
}

/// What clients have open, of each protocol: sessions of WebTransport, else connections; and how many viewers it brings
/// chunks to.
fn transports(now: &Numbers) -> Option<Value> {
    let counts = now.counts.as_ref()?;
    let sessions = now.admission.as_ref().map(|admission| admission.sessions);
    let all = [Protocol::Http3, Protocol::WebTransport, Protocol::Http2, Protocol::Http1];
    let viewers = |of: Protocol| -> u64 {
        let viewing = now.viewing.iter().filter(|(protocol, ..)| *protocol == of);
        viewing.map(|(.., delivered)| delivered.viewers).sum()
    };
    let transport = |protocol: Protocol| {
        let open = match protocol {
            Protocol::WebTransport => sessions,
            protocol => Some(counts.connections(protocol)),
        };
        json!({ "protocol": protocol.as_str(), "open": open, "viewers": viewers(protocol) })
    };
    Some(all.into_iter().map(transport).collect())
}

/// Those reasons that there were, the most frequent first.
fn refusals(now: &Snapshot) -> Value {
    let mut reasons: Vec<_> = Refusal::ALL.iter().map(|reason| (now.refused(*reason), reason)).collect();
    reasons.retain(|(count, _)| *count > 0);
    reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let reason = |(count, reason): &(u64, &Refusal)| json!({ "reason": reason.as_str(), "text": reason.reason(), "count": count });
    reasons.iter().map(reason).collect()
}

fn certificate(certificate: &Certificate) -> Value {
    let kind = match () {
        () if certificate.is_made_here() => "made",
        () if certificate.is_self_signed() => "self-signed",
        () => "issued",
    };
    json!({
        "names": certificate.names(),
        "kind": kind,
        "issuer": certificate.issuer(),
        "not_before": rfc3339(certificate.not_before()),
        "not_after": rfc3339(certificate.not_after()),
    })
}

fn memory(now: &Memory) -> Value {
    let pressure = match now.pressure {
        Pressure::Low => "low",
        Pressure::High => "high",
        Pressure::Critical => "critical",
    };
    json!({ "used": now.used, "limit": now.limit, "pressure": pressure, "viewers_cut": now.cut })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The path of a file that a module imports, or a page links to.
    fn links(text: &str, before: &str, within: &str) -> Vec<String> {
        let parts = text.split(before).skip(1);
        parts.filter_map(|part| part.split('"').next()).map(|name| format!("{within}{name}")).collect()
    }

    /// What is not listed is not served, and the page stays empty.
    #[tokio::test]
    async fn every_file_that_the_page_needs_is_served_with_it() {
        let text = async |name: &str| {
            let file = PageFile::built_in(name).unwrap_or_else(|| panic!("{name} is not there"));
            let body = file.respond(&http::HeaderMap::new(), "").into_body();
            String::from_utf8(axum::body::to_bytes(body, 1 << 20).await.unwrap().into()).unwrap()
        };
        let html = text(PAGE).await;
        let mut left = links(&html, "=\"status/", "");
        left.retain(|name| name != "data");
        let mut needed = BTreeSet::new();
        while let Some(name) = left.pop() {
            if needed.insert(name.clone()) && name.ends_with(".mjs") {
                let (folder, _) = name.rsplit_once('/').unwrap();
                let module = text(&name).await;
                left.extend(links(&module, "from \"./", &format!("{folder}/")));
                left.extend(links(&module, "from \"../", "js/"));
            }
        }
        assert_eq!(needed, FILES.iter().map(|name| (*name).to_owned()).collect());
    }
}
