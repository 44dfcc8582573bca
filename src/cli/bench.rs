//! `h3cast bench`: many viewers of one feed, and what they and the server see.

mod process;
mod report;
mod tally;
mod viewer;

use std::{io::IsTerminal, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use super::{Failure, log, print, remote, values};
use crate::{server::DEFAULT_PORT, shown::json, units::many};
use process::Usage;
use report::{Report, ServerUsage};
use tally::Tally;
use viewer::{BenchViewer, Target};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The feed to view. It is read as `frames`.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/stream"))]
    url: String,
    /// Number of viewers, each on its own connection.
    #[arg(short = 'c', long, value_name = "N", default_value_t = 10, value_parser = values::number(1..=100_000_u32, 100))]
    viewers: u32,
    /// How long to measure, in seconds, or with a unit (1m30s); the feed may end before.
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// How long to wait once all viewers are connected before measuring; 0 measures from the first
    /// connection on.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// View it over WebTransport sessions.
    #[arg(long, conflicts_with = "http")]
    webtransport: bool,
    /// The version of HTTP.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "h3")]
    http: BenchVersion,
    /// Percentage of viewers that never read, and grant credit for 16 KiB only.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = values::number(0..=100_u32, 20))]
    stalled: u32,
    /// Connections opened per second; 0 for all at once.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = values::count::<u32>)]
    pace: u32,
    /// Connect once for a ticket first, then send requests in the first packets (0-RTT).
    #[arg(long, conflicts_with = "webtransport")]
    early_data: bool,
    /// PID of a local server, to report its CPU and memory (Linux).
    #[arg(long, value_name = "PID", value_parser = values::number(1..=u32::MAX, 4711))]
    pid: Option<u32>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: remote::TrustArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BenchVersion {
    /// HTTP/3.
    H3,
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    H1,
    /// QUIC without HTTP: the server writes frames on a stream that it opens (ALPN h3cast-bare).
    #[value(hide = true)]
    Quic,
    /// WebTransport: `--webtransport` says so.
    #[value(skip)]
    WebTransport,
}

impl BenchVersion {
    fn in_words(self) -> &'static str {
        match self {
            Self::H3 => "HTTP/3",
            Self::H2 => "HTTP/2",
            Self::H1 => "HTTP/1.1",
            Self::Quic => "bare QUIC",
            Self::WebTransport => "WebTransport",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST),
        Err(_) => humantime::parse_duration(text).ok().filter(|time| *time <= LONGEST),
    }
    .ok_or_else(|| format!("`{text}` is not a time of up to a day: write seconds such as 10, or a time such as 1m30s"))
}

const LONGEST: Duration = Duration::from_secs(86_400);

/// Handshakes at once, unless all are wanted at once.
const MAX_HANDSHAKES: usize = 100;
/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_millis(200);

pub(super) async fn run(args: BenchArgs) -> Result<(), Failure> {
    let uri = remote::url(&args.url)?;
    let version = if args.webtransport { BenchVersion::WebTransport } else { args.http };
    if args.early_data && version != BenchVersion::H3 {
        return Err(Failure::usage(anyhow::anyhow!("--early-data is for --http h3")));
    }
    let target = Arc::new(Target::new(uri, args.trust.trust()?, version, args.early_data)?);
    let usage = |pid| Usage::of(pid).map_err(|error| Failure::usage(anyhow::anyhow!("process {pid}: {error}")));
    let before = args.pid.map(usage).transpose()?;
    let tally = Arc::new(Tally::new(std::thread::available_parallelism().map_or(1, Into::into) * 4));
    let line = ProgressLine::new(args.viewers);

    // Viewers are dropped, and their connections closed, with this set.
    let mut viewers = JoinSet::new();
    let from_start = args.warm_up.is_zero();
    tally.measure(from_start);
    let (started, mut measured_from) = (Instant::now(), Instant::now());
    let stop = remote::interrupted(remote::STOP_WAIT, || {})?;
    let (arrived, mut arrivals) = watch::channel(0_u32);
    let measure = async {
        let all = async {
            let slots = Arc::new(Semaphore::new(if args.pace == 0 { Semaphore::MAX_PERMITS } else { MAX_HANDSHAKES }));
            for number in 0..args.viewers {
                if let Some(wait) = number.checked_mul(1_000_000).and_then(|micros| micros.checked_div(args.pace)) {
                    sleep_until(started + Duration::from_micros(wait.into())).await;
                }
                let Ok(slot) = slots.clone().acquire_owned().await else { break };
                // Spread evenly among the others.
                let stalled = (number + 1) * args.stalled / 100 > number * args.stalled / 100;
                let viewer =
                    BenchViewer { number: number as usize, stalled, target: target.clone(), tally: tally.clone() };
                let arrived = arrived.clone();
                viewers.spawn(viewer.run(move || {
                    drop(slot);
                    arrived.send_modify(|number| *number += 1);
                }));
            }
            let _ = arrivals.wait_for(|number| *number == args.viewers).await;
        };
        line.during("connected", || u64::from(*arrived.borrow()), all).await;
        let connected_in = started.elapsed();
        if !from_start {
            tokio::time::sleep(args.warm_up).await;
            measured_from = Instant::now();
        }
        let at_start = if from_start { Ok(before) } else { args.pid.map(usage).transpose() };
        tally.measure(true);
        let until = sleep_until(measured_from + args.duration);
        // A feed may end before.
        let ended = async { while viewers.join_next().await.is_some() {} };
        let over = async {
            tokio::select! {
                () = until => false,
                () = ended => true,
            }
        };
        let ended = line.during("chunks", || tally.chunks(), over).await;
        tally.measure(false);
        (connected_in, measured_from.elapsed(), at_start, ended)
    };
    let (connected_in, measured, at_start, ended) = tokio::select! {
        biased;
        failure = stop => return Err(failure),
        measured = measure => measured,
    };
    line.clear();
    let after = args.pid.map(usage).transpose()?;
    let server = match (before, at_start?, after) {
        (Some(before), Some(start), Some(end)) => Some(ServerUsage { before, start, end }),
        _ => None,
    };
    let total = tally.total();
    let report = Report {
        url: &args.url,
        version,
        viewers: args.viewers,
        stalled: args.viewers * args.stalled / 100,
        connected_in,
        measured,
        total: &total,
        server,
    };
    match args.json {
        true => print(&json(&format!("{:#}\n", report.json())))?,
        false => print(&report.to_string())?,
    }
    match total.connected {
        0 => Err(match target.untrusted() {
            Some(untrusted) => untrusted,
            None => Failure::running(anyhow::anyhow!("no viewer could connect")),
        }),
        _ if total.failures() >= u64::from(args.viewers) => {
            Err(Failure::running(anyhow::anyhow!("no viewer got the feed")))
        }
        _ if total.chunks == 0 && args.stalled < 100 => {
            let why = match ended {
                true => "the feed had ended before; try --warm-up 0, or a feed without end (`h3cast serve --count 0`)",
                false => "nothing was published to the feed meanwhile",
            };
            Err(Failure::running(anyhow::anyhow!("no chunk arrived in the measured time: {why}")))
        }
        _ => Ok(()),
    }
}

/// The progress line, on a terminal.
struct ProgressLine {
    bar: Option<ProgressBar>,
    viewers: u32,
}

impl ProgressLine {
    fn new(viewers: u32) -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise}  {msg}");
        let spinner = || ProgressBar::with_draw_target(None, log::draw_target());
        let bar = std::io::stderr().is_terminal().then(spinner);
        let bar = bar.map(|bar| match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        });
        Self { bar, viewers }
    }

    /// Shows a number while something goes on.
    async fn during<T>(&self, what: &str, number: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
        let Some(bar) = &self.bar else { return work.await };
        let mut ticks = interval(PROGRESS);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => {
                    bar.set_message(format!("{} {what}, {}", number(), many(self.viewers.into(), "viewer")));
                    bar.tick();
                }
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
