//! What a bench found out, in words and as JSON.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use super::{BenchVersion, process::Usage, tally::Counts};
use crate::units::many;

pub(super) struct Report<'a> {
    pub(super) url: &'a str,
    pub(super) version: BenchVersion,
    pub(super) viewers: u32,
    pub(super) stalled: u32,
    /// From the first connection's beginning until all viewers were there.
    pub(super) connected_in: Duration,
    /// For how long it was measured.
    pub(super) measured: Duration,
    pub(super) total: &'a Counts,
    pub(super) server: Option<ServerUsage>,
}

/// What the server has used.
pub(super) struct ServerUsage {
    /// Before the first viewer.
    pub(super) before: Usage,
    /// When the measurement began, and when it ended.
    pub(super) start: Usage,
    pub(super) end: Usage,
}

impl ServerUsage {
    fn cpu(&self) -> Duration {
        self.end.cpu.saturating_sub(self.start.cpu)
    }

    /// Memory that came with the viewers, per viewer that there is.
    fn per_viewer(&self, bytes: u64, viewers: u64) -> u64 {
        bytes.saturating_sub(self.before.resident) / viewers.max(1)
    }
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report<'_> {
    fn per_second(&self, number: u64) -> f64 {
        number as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    fn handshakes_per_second(&self) -> f64 {
        self.total.connected as f64 / self.total.handshakes_in.as_secs_f64().max(1e-9)
    }

    fn micros_per_chunk(&self, server: &ServerUsage) -> f64 {
        server.cpu().as_secs_f64() * 1e6 / self.total.chunks.max(1) as f64
    }

    pub(super) fn json(&self) -> Value {
        let total = self.total;
        let mut json = json!({
            "url": self.url,
            "version": self.version.in_words(),
            "viewers": self.viewers,
            "stalled": self.stalled,
            "connected": total.connected,
            "connected_in_s": self.connected_in.as_secs_f64(),
            "handshakes_per_s": self.handshakes_per_second(),
            "handshake_us": quantiles(&total.handshake),
            "first_chunk_us": quantiles(&total.first),
            "seconds": self.measured.as_secs_f64(),
            "chunks": total.chunks,
            "chunks_per_s": self.per_second(total.chunks),
            "bytes": total.bytes,
            "bytes_per_s": self.per_second(total.bytes),
            "latency_us": quantiles(&total.latency),
            "gaps": total.gaps,
            "missing": total.missing,
            "errors": total.errors,
        });
        if let Some(server) = &self.server {
            json["server"] = json!({
                "cpu_s": server.cpu().as_secs_f64(),
                "cpu_us_per_chunk": self.micros_per_chunk(server),
                "rss_before_bytes": server.before.resident,
                "rss_bytes": server.end.resident,
                "rss_peak_bytes": server.end.peak,
                "rss_bytes_per_viewer": server.per_viewer(server.end.resident, total.connected),
                "rss_peak_bytes_per_viewer": server.per_viewer(server.end.peak, total.connected),
            });
        }
        json
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let mut json: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(name, quantile)| ((*name).into(), histogram.value_at_quantile(*quantile).into()))
        .collect();
    json.insert("max".into(), histogram.max().into());
    json.into()
}

/// Microseconds as they are read best.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros @ ..1000 => write!(f, "{micros} µs"),
            micros @ ..1_000_000 => write!(f, "{:.1} ms", micros as f64 / 1e3),
            micros => write!(f, "{:.2} s", micros as f64 / 1e6),
        }
    }
}

/// The quantiles of a histogram in a line.
struct Spread<'a>(&'a Histogram<u64>);

impl fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "-");
        }
        for (name, quantile) in QUANTILES {
            write!(f, "{name} {}   ", Micros(self.0.value_at_quantile(quantile)))?;
        }
        write!(f, "max {}", Micros(self.0.max()))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total;
        write!(f, "viewers       {} over {}", HumanCount(total.connected), self.version.in_words())?;
        if total.connected < u64::from(self.viewers) {
            write!(f, ", of {}", self.viewers)?;
        }
        if self.stalled > 0 {
            write!(f, ", {} of them do not read", self.stalled)?;
        }
        writeln!(f, "; all there after {:.2} s", self.connected_in.as_secs_f64())?;
        writeln!(f, "handshakes    {:.0}/s   {}", self.handshakes_per_second(), Spread(&total.handshake))?;
        if !total.first.is_empty() {
            writeln!(f, "first chunk   {}", Spread(&total.first))?;
        }
        writeln!(
            f,
            "chunks        {} in {:.2} s: {:.0}/s, {}/s",
            HumanCount(total.chunks),
            self.measured.as_secs_f64(),
            self.per_second(total.chunks),
            HumanBytes(self.per_second(total.bytes) as u64),
        )?;
        writeln!(f, "latency       {}", Spread(&total.latency))?;
        writeln!(f, "gaps          {} ({})", total.gaps, many(total.missing, "chunk"))?;
        writeln!(f, "errors        {}", total.failures())?;
        for (error, times) in &total.errors {
            writeln!(f, "              {times} × {error}")?;
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server        CPU {:.2} s, {:.2} µs a chunk",
                server.cpu().as_secs_f64(),
                self.micros_per_chunk(server)
            )?;
            writeln!(
                f,
                "              RSS {} (before {}, at most {}): {} a viewer",
                HumanBytes(server.end.resident),
                HumanBytes(server.before.resident),
                HumanBytes(server.end.peak),
                HumanBytes(server.per_viewer(server.end.resident, total.connected)),
            )?;
        }
        Ok(())
    }
}
