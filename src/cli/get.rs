//! `h3cast get`.

mod download;
mod feed;
mod mark;
mod output;
mod owner;
mod plain;
mod progress;
mod resume;

use std::{path::PathBuf, pin::pin, time::Duration};

use clap::Args;

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
    /// The feed to read. With `format=` in it, that format is printed as it comes.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/stream"))]
    url: String,
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

/// What every way of getting needs.
struct Getting {
    trust: Trust,
    token: Option<Token>,
    log: Log,
    progress: Progress,
    /// How long to try, for those who try again.
    retry_for: Option<Duration>,
}

pub(super) async fn run(args: GetArgs) -> Result<(), Failure> {
    #[cfg(feature = "qlog")]
    if let Some(folder) = args.qlog.clone() {
        let traces = super::qlog::start(folder).await?;
        h3cast_transport::program::qlog::trace_clients(move |connection| traces.of(connection));
    }
    let uri = remote::url(&args.url)?;
    if args.resume {
        resume::check(&uri)?;
    }
    // Before there is an output, which nobody would tidy up.
    let trust = args.trust.trust()?;
    let token = args.token.token(None)?;
    let file = args.output.as_deref().filter(|file| file.as_os_str() != "-");
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
    let getting =
        Getting { trust, token, log: Log::new(args.verbose), progress: progress.clone(), retry_for: args.retry_for };
    let got = match args.resume {
        true => resume::run(&getting, &uri, args.webtransport, &mut output, &mut interrupted).await,
        false => plain::run(&getting, &uri, args.webtransport, &mut output, &mut interrupted).await,
    };
    progress.clear();
    match got {
        Ok(()) => output.finish(),
        Err(failure) => Err(output.keep(failure)),
    }
}
