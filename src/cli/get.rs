//! `h3cast get`.

mod download;
mod feed;
mod input;
mod lines;
mod mark;
mod output;
mod owner;
mod plain;
mod progress;
mod resume;

use std::{path::PathBuf, pin::pin, time::Duration};

use clap::{Args, ValueEnum};
use http::Uri;

use super::{
    Failure,
    remote::{self, Log, TokenArgs, TrustArgs},
    values,
};
use crate::{
    client::{Token, Trust},
    server::DEFAULT_PORT,
};
use output::Output;
use progress::Progress;

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The feeds to read. With several, each line begins with the name of its feed.
    #[arg(value_name = "URL", default_values_t = [format!("https://localhost:{DEFAULT_PORT}/stream")])]
    urls: Vec<String>,
    /// Begin with the last N chunks instead of the newest.
    #[arg(long, value_name = "N", value_parser = values::number(1..=u64::MAX, 100))]
    last: Option<u64>,
    /// Print the feed in this format, as it comes, instead of its bytes.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["timestamps", "resume"])]
    format: Option<Format>,
    /// Begin each line with the time at which it was published, in UTC.
    #[arg(short, long)]
    timestamps: bool,
    /// Send standard input to the command behind the feed (`serve --per-viewer --input`), up to Ctrl-D.
    #[arg(short, long, conflicts_with_all = ["timestamps", "resume"])]
    input: bool,
    /// Read it over a WebTransport session instead of a GET response.
    #[arg(long)]
    webtransport: bool,
    /// Reconnect after a lost connection and resume after the last chunk, over either transport; with
    /// --output, also resume a partial file from an earlier run.
    #[arg(long)]
    resume: bool,
    /// How long --resume tries to reach the server, counted from the first failure. [default: forever]
    #[arg(long, value_name = "TIME", value_parser = values::time, requires = "resume")]
    retry_for: Option<Duration>,
    /// Write to FILE (as FILE.part until complete); `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show no progress bar on the terminal.
    #[arg(long)]
    no_progress: bool,
    /// Write what QUIC does on each connection (qlog) to files in this folder, for qvis and similar tools.
    #[cfg(feature = "qlog")]
    #[arg(long, value_name = "FOLDER")]
    qlog: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Show protocol, status, headers and times on stderr.
    #[arg(short, long)]
    verbose: bool,
}

/// The formats of a feed. Without words for each, `--help` stays on one screen; docs/protocol.md has them.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Raw,
    Sse,
    Frames,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Sse => "sse",
            Self::Frames => "frames",
        }
    }
}

impl GetArgs {
    /// The feeds to read, with what the other arguments say of each.
    fn uris(&self) -> Result<Vec<Uri>, Failure> {
        let uri = |text: &String| {
            let mut uri = remote::url(text)?;
            if let Some(last) = self.last {
                uri = with(uri, "--last", "from", &format!("-{last}"))?;
            }
            if let Some(format) = self.format {
                uri = with(uri, "--format", "format", format.name())?;
            }
            Ok(uri)
        };
        self.urls.iter().map(uri).collect()
    }
}

/// The URI with one more pair in its query, for a flag.
fn with(uri: Uri, flag: &str, name: &str, value: &str) -> Result<Uri, Failure> {
    let query = uri.query().unwrap_or_default();
    if query.split('&').any(|pair| pair.split('=').next() == Some(name)) {
        return Err(Failure::usage(anyhow::anyhow!(
            "{flag} cannot be used with `{name}=` in the URL: remove one of them"
        )));
    }
    let query = if query.is_empty() { format!("{name}={value}") } else { format!("{query}&{name}={value}") };
    let mut parts = uri.into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.path());
    parts.path_and_query = Some(format!("{path}?{query}").parse().map_err(Failure::usage)?);
    Uri::from_parts(parts).map_err(Failure::usage)
}

/// What every way of getting needs.
struct Getting {
    trust: Trust,
    token: Option<Token>,
    log: Log,
    progress: Progress,
    /// Standard input goes to the server.
    input: bool,
    /// How long to try, for those who try again.
    retry_for: Option<Duration>,
}

pub(super) async fn run(args: GetArgs) -> Result<(), Failure> {
    #[cfg(feature = "qlog")]
    if let Some(folder) = args.qlog.clone() {
        let traces = super::qlog::start(folder).await?;
        h3cast_transport::program::qlog::trace_clients(move |connection| traces.of(connection));
    }
    let uris = args.uris()?;
    let lines = (args.timestamps || uris.len() > 1).then_some(lines::Lines {
        timestamps: args.timestamps,
        webtransport: args.webtransport,
        resume: args.resume,
    });
    if args.input && uris.len() > 1 {
        return Err(Failure::usage(anyhow::anyhow!("--input takes one feed, whose command it is for")));
    }
    if lines.is_some() && args.format.is_some() {
        return Err(Failure::usage(anyhow::anyhow!("--format takes one feed: several are printed line by line")));
    }
    if args.resume || lines.is_some() {
        let what = if args.resume { "--resume: " } else { "" };
        uris.iter().try_for_each(|uri| resume::check(uri, what))?;
    }
    // Before there is an output, which nobody would tidy up.
    let trust = args.trust.trust()?;
    let token = args.token.token(args.input.then_some("H3CAST_PUBLISH_TOKEN"))?;
    // A faulty one is reported before anything is sent.
    remote::shown_token(token.as_ref()).await?;
    let file = args.output.as_deref().filter(|file| file.as_os_str() != "-");
    if lines.is_some() && file.is_some_and(|file| !file.exists() || file.is_file()) {
        let text = "--output FILE takes one feed, without --timestamps: redirect standard output instead (> FILE)";
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let uri = &uris[0];
    let mut output = Output::open(file, args.resume, &uri.to_string())?;
    let progress = Progress::new(file.is_some(), args.verbose || args.no_progress);
    let (bar, part) = (progress.clone(), output.part());
    let before_exit = move || {
        bar.clear();
        part.iter().for_each(|part| output::tell_of(part));
    };
    let mut interrupted = match remote::interrupted(remote::STOP_WAIT, before_exit) {
        Ok(interrupted) => pin!(interrupted),
        Err(failure) => return Err(output.keep(failure)),
    };
    let (log, input, retry_for) = (Log::new(args.verbose), args.input, args.retry_for);
    let getting = Getting { trust, token, log, progress: progress.clone(), input, retry_for };
    let got = match (lines, args.resume) {
        (Some(lines), _) => lines::run(&getting, &uris, &lines, &mut output, &mut interrupted).await,
        (None, true) => resume::run(&getting, uri, args.webtransport, &mut output, &mut interrupted).await,
        (None, false) => plain::run(&getting, uri, args.webtransport, &mut output, &mut interrupted).await,
    };
    progress.clear();
    match got {
        Ok(()) => output.finish(),
        Err(failure) => Err(output.keep(failure)),
    }
}
