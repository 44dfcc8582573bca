//! What can be said of the feeds: as JSON, and for Prometheus.

use std::{fmt::Write, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde_json::json;

use super::{App, Problem};
use crate::{
    admission::{Refusal, Snapshot},
    auth::Decider,
    feed::{Budget, End, Pressure, Status},
    source::command::Commands,
};

/// 200 when new clients are welcome, 503 and why when not.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let mut reasons: Vec<_> = app.stopping.is_cancelled().then(|| "server: it stops".to_owned()).into_iter().collect();
    let unready = app.feeds.unready();
    // Anyone may ask this: names of feeds are for those who may read them.
    let named = |feed: &str| if app.decider.is_some() { "feed".to_owned() } else { format!("feed {feed}") };
    reasons.extend(unready.iter().map(|feed| format!("{}: what keeps it does not answer", named(feed))));
    if app.budget.as_ref().is_some_and(|budget| budget.pressure() >= Pressure::High) {
        reasons.push("memory: it is short, and new viewers are refused".to_owned());
    }
    let undecided = app.decider.as_ref().and_then(Decider::unready);
    reasons.extend(undecided.map(|why| format!("tokens: {why}")));
    let (status, text) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n")),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], text + "\n").into_response()
}

pub(super) async fn feeds(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let decided = app.decide(&request.into_parts().0).await?;
    let feeds: Vec<_> = app
        .feeds_of(&decided)
        .iter()
        .map(|feed| {
            let status = feed.status();
            let (state, error) = match &status.end {
                None => ("open", None),
                Some(End::Clean | End::Stopped) => ("ended", None),
                Some(End::Failed(error)) => ("failed", Some(error.to_string())),
            };
            json!({
                "name": feed.name(),
                "kind": feed.kind(),
                "writable": feed.publisher().is_some(),
                "state": state,
                "error": error,
                "viewers": status.viewers,
                "chunks": status.chunks,
                "bytes": status.bytes,
                "rate": { "chunks": status.rate.chunks, "bytes": status.rate.bytes },
                "kept_bytes": status.kept_bytes,
                "skipped": status.skipped,
                "stalled": status.stalled,
                "blocked_seconds": status.blocked.as_secs_f64(),
                "epoch": status.epoch.map(|epoch| epoch.to_string()),
                "oldest": status.oldest.map(|cursor| cursor.to_string()),
            })
        })
        .collect();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(json!({ "feeds": feeds }))).into_response())
}

/// A number that is told of each feed: its name, its type, what it means, and how to have it.
type Metric = (&'static str, &'static str, &'static str, fn(&Status) -> f64);

const METRICS: [Metric; 8] = [
    ("h3cast_feed_viewers", "gauge", "Viewers of the feed now.", |status| status.viewers as f64),
    ("h3cast_feed_chunks_total", "counter", "Chunks published, or given to viewers of an on-demand feed.", |status| {
        status.chunks as f64
    }),
    ("h3cast_feed_bytes_total", "counter", "Bytes of those chunks.", |status| status.bytes as f64),
    (
        "h3cast_feed_kept_bytes",
        "gauge",
        "Memory of the history for late and returning viewers, with its overhead and encodings.",
        |status| status.kept_bytes as f64,
    ),
    ("h3cast_feed_skipped_total", "counter", "Chunks that viewers missed, being too far behind.", |status| {
        status.skipped as f64
    }),
    ("h3cast_feed_blocked_seconds_total", "counter", "For how long publishers were held up by viewers.", |status| {
        status.blocked.as_secs_f64()
    }),
    ("h3cast_feed_stalled", "gauge", "1 while nothing can come from where the feed is kept.", |status| {
        f64::from(u8::from(status.stalled))
    }),
    ("h3cast_feed_open", "gauge", "1 until the feed has ended.", |status| f64::from(u8::from(status.end.is_none()))),
];

/// The text format of Prometheus, version 0.0.4.
pub(super) async fn metrics(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let decided = app.decide(&request.into_parts().0).await?;
    decided.require_all()?;
    let feeds = app.feeds_of(&decided);
    let feeds: Vec<_> = feeds.iter().map(|feed| (feed.name(), feed.status())).collect();
    let mut text = format!(
        "# HELP h3cast_info The version.\n# TYPE h3cast_info gauge\nh3cast_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, kind, help, value) in METRICS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (feed, status) in &feeds {
            // A label's value is quoted as a Rust string of printable characters is.
            let _ = writeln!(text, "{name}{{feed={feed:?}}} {}", value(status));
        }
    }
    let (publications, keys) = app.publications.counts();
    let commands = app.commands.as_ref().map(Commands::running);
    let gauges = [
        ("h3cast_publications", "Publications that run now.", Some(publications)),
        ("h3cast_idempotency_keys", "Idempotency-Keys that are remembered.", Some(keys)),
        ("h3cast_processes", "Commands that run now, or whose processes have not all ended.", commands),
    ];
    for (name, help, value) in gauges {
        let Some(value) = value else { continue };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    let name = "h3cast_feeds_evicted_total";
    let help = "Feeds that clients created and that were removed with their history, to make room for others.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", app.feeds.evicted());
    if let Some(admission) = &app.admission {
        write_admission(&mut text, &admission.snapshot());
    }
    if let Some(budget) = &app.budget {
        write_budget(&mut text, budget);
    }
    for Gauge { name, help, value } in &app.gauges {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}", value());
    }
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, text).into_response())
}

/// A number that the program adds.
#[derive(Clone)]
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl std::fmt::Debug for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn write_budget(text: &mut String, budget: &Budget) {
    let pressure = budget.pressure() as u64;
    for (name, kind, help, value) in [
        ("h3cast_memory_bytes", "gauge", "Memory in use: what is charged, or what the system reports.", budget.used()),
        ("h3cast_memory_charged_bytes", "gauge", "Memory of histories, connections and viewers.", budget.charged()),
        ("h3cast_memory_limit_bytes", "gauge", "Memory that may be used.", budget.limit()),
        ("h3cast_memory_pressure", "gauge", "1 while new viewers are refused, 2 while slow ones are cut.", pressure),
        ("h3cast_viewers_cut_total", "counter", "Viewers cut because memory was short.", budget.cut()),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

/// A number of the server's admission, as a [`Metric`] is one of a feed.
type AdmissionMetric = (&'static str, &'static str, &'static str, fn(&Snapshot) -> u64);

const ADMISSION: [AdmissionMetric; 6] = [
    ("h3cast_connections", "gauge", "Connections now, over QUIC and TCP.", |now| now.connections),
    ("h3cast_half_open", "gauge", "Connections whose handshake is in progress now.", |now| now.handshakes),
    ("h3cast_requests", "gauge", "Requests open now.", |now| now.requests),
    ("h3cast_sessions", "gauge", "WebTransport sessions open now.", |now| now.sessions),
    ("h3cast_initials_total", "counter", "First packets of QUIC connections.", |now| now.initials),
    ("h3cast_retries_total", "counter", "Those answered with a Retry, to validate the client's address.", |now| {
        now.retries
    }),
];

fn write_admission(text: &mut String, now: &Snapshot) {
    for (name, kind, help, value) in ADMISSION {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", value(now));
    }
    let name = "h3cast_refused_total";
    let _ = writeln!(text, "# HELP {name} Clients and requests refused, by the reason.\n# TYPE {name} counter");
    for reason in Refusal::ALL {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", reason.as_str(), now.refused(*reason));
    }
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use tower::ServiceExt;

    use super::*;
    use crate::auth::{Access, Authorize, Denied};

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
        let short = (503, "memory: it is short, and new viewers are refused\n".to_owned());
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
