//! What is counted, for Prometheus: `/metrics`.

mod of_connections;
mod of_viewers;
mod sheet;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::SystemTime};

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::header;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, prometheus_text, text},
    registry::Registry,
};

use self::sheet::{Row, Sheet};
use super::{
    App, Problem, accept, generated,
    numbers::{Memory, Numbers},
};
use crate::{
    admission::{self, Refusal},
    feed::Status,
};

/// The format of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers, in the format that the client asks for.
pub(super) async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    let decided = app.decide(&request).await?;
    decided.require_all()?;
    let format =
        if accept::prefers_open_metrics(&request.headers) { OPEN_METRICS } else { prometheus_text::CONTENT_TYPE };
    let text =
        app.metrics.get(app.budget.as_ref(), format, || written(Numbers::of(&app, &app.feeds_of(&decided)), format));
    let headers = [(header::CONTENT_TYPE, format), (header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];
    Ok(generated::shared(&app, &request, headers, text))
}

/// One registry for both formats: they have the same numbers.
fn written(numbers: Numbers, format: &str) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(numbers));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = match format {
        OPEN_METRICS => text::encode(&mut out, &registry),
        _ => prometheus_text::encode(&mut out, &registry),
    };
    out
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        sheet.info("h3cast", "The version of h3cast.", "version", env!("CARGO_PKG_VERSION"))?;
        feeds(&mut sheet, self)?;
        of_viewers::write(&mut sheet, &self.viewing)?;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        sheet.one("process_start_time_seconds", "Start time of the process, in seconds since 1970.", started)?;
        sheet.one("h3cast_publications", "Publications in progress.", self.publications as u64)?;
        sheet.one("h3cast_idempotency_keys", "Idempotency-Keys remembered.", self.keys as u64)?;
        if let Some(commands) = self.commands {
            let help = "Commands running, including those whose processes have not all exited.";
            sheet.one("h3cast_processes", help, commands as u64)?;
        }
        if let Some(admission) = &self.admission {
            admitted(&mut sheet, admission)?;
        }
        if let Some(counts) = &self.counts {
            of_connections::write(&mut sheet, counts)?;
        }
        if let Some(memory) = &self.memory {
            write_memory(&mut sheet, memory)?;
        }
        if let Some((begin, end)) = self.certificate {
            let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let help = "Start of the validity of the current certificate, in seconds since 1970.";
            sheet.one("h3cast_certificate_not_before_seconds", help, since(begin))?;
            let help = "Expiry of the current certificate, in seconds since 1970.";
            sheet.one("h3cast_certificate_not_after_seconds", help, since(end))?;
        }
        for (added, sample) in &self.added {
            sheet.added(added, sample)?;
        }
        Ok(())
    }
}

/// A number of each feed: its name, what it means, and how to have it.
type OfFeed = (&'static str, &'static str, fn(&Status) -> Row);

const FEEDS: [OfFeed; 15] = [
    ("h3cast_feed_viewers", "Current viewers of the feed.", |status| status.viewers.into()),
    (
        "h3cast_feed_viewers_everywhere",
        "Current viewers of the feed at all servers that share it; those of this one if no others are known.",
        |status| status.viewers.saturating_add(status.elsewhere.unwrap_or_default().viewers).into(),
    ),
    ("h3cast_feed_publishers", "Publications to the feed in progress at this server.", |status| {
        status.publishers.into()
    }),
    ("h3cast_feed_chunks_total", "Chunks published, or for an on-demand feed, sent to its viewers.", |status| {
        status.chunks.into()
    }),
    ("h3cast_feed_bytes_total", "Bytes of those chunks.", |status| status.bytes.into()),
    (
        "h3cast_feed_kept_bytes",
        "Memory used by the history for late and returning viewers, including overhead and encoded copies.",
        |status| (status.kept_bytes as u64).into(),
    ),
    (
        "h3cast_feed_skipped_total",
        "Chunks that viewers missed: behind the history, removed from storage before they were read, or lost by the source.",
        |status| status.skipped.into(),
    ),
    ("h3cast_feed_gaps_total", "Gaps reported to viewers.", |status| status.gaps.into()),
    ("h3cast_feed_resumes_total", "Viewers that resumed from a cursor.", |status| status.resumed.into()),
    ("h3cast_feed_lag_chunks", "Chunks waiting for the slowest viewer.", |status| status.lag.chunks.into()),
    ("h3cast_feed_lag_seconds", "Age of the oldest chunk waiting for the slowest viewer.", |status| {
        status.lag.time.as_secs_f64().into()
    }),
    ("h3cast_feed_viewers_behind", "Viewers with a chunk that has been waiting for more than a second.", |status| {
        status.lag.viewers.into()
    }),
    ("h3cast_feed_blocked_seconds_total", "Time publishers spent waiting for slow viewers.", |status| {
        status.blocked.as_secs_f64().into()
    }),
    ("h3cast_feed_stalled", "1 while the server cannot receive or store new chunks of the feed.", |status| {
        u64::from(status.stalled).into()
    }),
    ("h3cast_feed_open", "1 until the feed has ended.", |status| u64::from(status.end.is_none()).into()),
];

fn feeds(sheet: &mut Sheet<'_>, numbers: &Numbers) -> fmt::Result {
    for (name, help, value) in FEEDS {
        let rows = numbers.feeds.iter().map(|(feed, status)| ([("feed", feed.as_str())], value(status)));
        sheet.family(name, help, rows)?;
    }
    sheet.one("h3cast_feeds", "Current number of feeds.", numbers.all_feeds as u64)?;
    let unlisted = numbers.all_feeds - numbers.feeds.len();
    let help = "Feeds created by clients that are not listed here individually because there are too many.";
    sheet.one("h3cast_feeds_unlisted", help, unlisted as u64)?;
    let help = "Feeds created by clients that were removed, with their history, to make room for others.";
    sheet.one("h3cast_feeds_evicted_total", help, numbers.evicted)
}

fn write_memory(sheet: &mut Sheet<'_>, memory: &Memory) -> fmt::Result {
    let &Memory { used, charged, limit, pressure, cut } = memory;
    sheet.one(
        "h3cast_memory_bytes",
        "Memory in use: the amount accounted for or the amount the system reports, whichever is larger.",
        used,
    )?;
    sheet.one("h3cast_memory_charged_bytes", "Memory accounted for by histories, connections and viewers.", charged)?;
    sheet.one("h3cast_memory_limit_bytes", "Memory limit.", limit)?;
    let help = "1 while new viewers are refused, 2 while slow viewers are disconnected, otherwise 0.";
    sheet.one("h3cast_memory_pressure", help, pressure as u64)?;
    sheet.one("h3cast_viewers_cut_total", "Viewers disconnected because memory ran short.", cut)
}

fn admitted(sheet: &mut Sheet<'_>, now: &admission::Snapshot) -> fmt::Result {
    sheet.one("h3cast_connections", "Open connections, over QUIC and TCP.", now.connections)?;
    sheet.one("h3cast_half_open", "Connections whose handshake is in progress.", now.handshakes)?;
    sheet.one("h3cast_requests", "Open requests.", now.requests)?;
    sheet.one("h3cast_sessions", "Open WebTransport sessions.", now.sessions)?;
    sheet.one("h3cast_initials_total", "Initial packets that asked for a QUIC connection.", now.initials)?;
    let help = "Initial packets answered with a Retry, to validate the client's address.";
    sheet.one("h3cast_retries_total", help, now.retries)?;
    let rows = Refusal::ALL.iter().map(|reason| ([("reason", reason.as_str())], Row::from(now.refused(*reason))));
    sheet.family("h3cast_refused_total", "Clients and requests refused, by reason.", rows)
}
