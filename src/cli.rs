//! The command line of the `h3cast` program. Nothing below it sees clap.

mod bench;
mod cert;
mod completions;
mod config;
mod environment;
mod familiar;
mod feeds;
mod flags;
mod get;
mod health;
mod help;
mod holder;
mod keylog;
mod log;
mod man;
mod mistyped;
mod note;
mod open;
mod outage;
mod publish;
#[cfg(feature = "qlog")]
mod qlog;
#[cfg(unix)]
mod reload;
mod remote;
mod secrets;
mod serve;
mod signals;
mod standard;
#[cfg(feature = "jwt")]
mod token;
mod untrusted;
mod usage;
mod values;

use std::{ffi::OsString, panic::AssertUnwindSafe, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{browser::Browser, fault, identity::Identity};
use log::complain;

/// Stream live output to any browser over HTTP/3.
///
/// Without a command, it serves the demo feed: open the page that it prints.
#[derive(Debug, Parser)]
#[command(name = "h3cast", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stream feeds and serve the page (the default).
    Serve(Box<serve::ServeCommand>),
    /// Print a feed as it arrives, report its gaps and why it broke off.
    Get(get::GetArgs),
    /// Publish standard input to a feed.
    Publish(publish::PublishArgs),
    /// List the feeds of a server.
    Feeds(feeds::FeedsArgs),
    /// Measure a server: many viewers of one feed at once.
    Bench(bench::BenchArgs),
    /// Have a server that runs read its settings again.
    #[cfg(unix)]
    Reload(reload::ReloadArgs),
    /// Ask a server whether it is ready, for health checks and monitors.
    Health(health::HealthArgs),
    /// Show the certificate: its files, dates and hashes.
    Cert(cert::CertArgs),
    /// Open the page of a running server in a browser that trusts it.
    Open(open::OpenArgs),
    /// Make a token that lets its client read or publish, or a key that signs such tokens.
    #[cfg(feature = "jwt")]
    Token(token::TokenArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages to a folder.
    Man(man::ManArgs),
}

/// The folder of the certificate for localhost, unless another is named.
const DEFAULT_CERTS: &str = "certs";
/// How long a thread for blocking work waits for more. Files are looked at several times a second, which wakes idle
/// threads in turn: with Tokio's 10 s, as many would stay for good as were ever busy at once.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);

/// Where the server's certificate is.
#[derive(Debug, Clone, Args)]
struct CertsArgs {
    /// Folder of the certificate for localhost. `serve` creates and renews it there; files that it did
    /// not create are never replaced.
    #[arg(long, env = "H3CAST_CERTS", value_name = "DIR", default_value = DEFAULT_CERTS)]
    certs: PathBuf,
    /// A certificate chain of your own (PEM), with --key.
    #[arg(long, env = "H3CAST_CERT", value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of --cert (PEM).
    #[arg(long, env = "H3CAST_KEY", value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BrowserName {
    /// Chrome, Chromium or Edge.
    Chrome,
    /// Firefox.
    Firefox,
}

impl From<BrowserName> for Browser {
    fn from(name: BrowserName) -> Self {
        match name {
            BrowserName::Chrome => Self::Chrome,
            BrowserName::Firefox => Self::Firefox,
        }
    }
}

/// A failure with the exit code that tells what kind it is.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// Something went wrong while running.
    const RUNNING: u8 = 1;
    /// The command cannot be run as it was given.
    const USAGE: u8 = 2;

    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: Self::USAGE, error: error.into() }
    }

    /// The error and its causes, each said once: many of ours name their cause themselves.
    fn in_words(&self) -> String {
        self.error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text {
            text if text.is_empty() => cause,
            text if text.contains(&cause) => text,
            text => format!("{text}: {cause}"),
        })
    }

    fn running(error: impl Into<anyhow::Error>) -> Self {
        Self { code: Self::RUNNING, error: error.into() }
    }
}

/// Runs the program with the arguments of its process.
#[must_use]
pub fn run() -> ExitCode {
    // Before there are other threads, which inherit it.
    signals::unblock();
    crate::app::started();
    log::log_panics();
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(text) = help::asked(&arguments) {
        // It is fine if the reader has closed the pipe.
        let _ = standard::write_all(&mut standard::stdout(), text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let parsed = config::parse(&arguments);
    // Its environment changes by that, which only a process with one thread may do.
    let sockets = serve::Given::take();
    // Without threads, messages are written all the same.
    let _ = log::open();
    let config::Parsed { cli, given, places } = match parsed {
        Ok(parsed) => parsed,
        Err(failure) => {
            log::fail(&failure.in_words());
            log::exit(failure.code)
        }
    };
    let reloads = match &cli.command {
        None | Some(Command::Serve(_)) => signals::Reloads::listen(),
        Some(_) => Ok(signals::Reloads::none()),
    };
    let workers = match &cli.command {
        None => cli.serve.workers(),
        Some(Command::Serve(command)) => command.args.workers(),
        Some(_) => None,
    };
    log::set_format(match &cli.command {
        None => cli.serve.logs.log_format,
        Some(Command::Serve(command)) => command.args.logs.log_format,
        Some(_) => log::LogFormat::Text,
    });
    let mut runtime = match workers {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(workers) = workers.filter(|workers| *workers > 1) {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().thread_keep_alive(BLOCKING_IDLE).build();
    let done = match runtime.and_then(|runtime| Ok((runtime, reloads?))) {
        Ok((runtime, reloads)) => {
            let started = Started { arguments, given, places, reloads };
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(dispatch(cli, sockets, started))));
            let Ok(done) = done else {
                // What it was has been said. Whatever it was at, no command stays.
                log::fail("ended by a panic");
                log::exit(Failure::RUNNING)
            };
            // A blocking read of the terminal must not hold the program up.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::running(error)),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::fail(&failure.in_words());
            ExitCode::from(failure.code)
        }
    };
    log::flush();
    code
}

/// How the program was started.
struct Started {
    arguments: Vec<OsString>,
    given: config::Given,
    places: config::Places,
    reloads: signals::Reloads,
}

async fn dispatch(cli: Cli, sockets: serve::Given, started: Started) -> Result<(), Failure> {
    secrets::warnings(std::env::args_os()).iter().for_each(|warning| complain(warning));
    if matches!(cli.command, None | Some(Command::Serve(_))) {
        environment::warnings(std::env::vars_os().map(|(name, _)| name)).iter().for_each(|warning| complain(warning));
    }
    let connects = matches!(
        cli.command,
        None | Some(Command::Serve(_) | Command::Get(_) | Command::Publish(_) | Command::Feeds(_) | Command::Bench(_))
    );
    // `--check` writes nothing.
    let checks = match &cli.command {
        None => cli.serve.check,
        Some(Command::Serve(command)) => command.args.check,
        Some(_) => false,
    };
    if connects
        && !checks
        && let Some(keys) = keylog::find()
    {
        h3cast_transport::program::keys::log_to(keys);
    }
    match cli.command {
        None => serve::run(Vec::new(), cli.serve, sockets, started).await,
        Some(Command::Serve(command)) => serve::run(command.sources, command.args, sockets, started).await,
        Some(Command::Get(args)) => get::run(args).await,
        Some(Command::Publish(args)) => publish::run(args).await,
        Some(Command::Feeds(args)) => feeds::run(args).await,
        Some(Command::Bench(args)) => bench::run(args).await,
        Some(Command::Cert(args)) => cert::run(&args),
        Some(Command::Open(args)) => open::run(args).await,
        Some(Command::Health(args)) => health::run(args).await,
        #[cfg(unix)]
        Some(Command::Reload(args)) => reload::run(args).await,
        #[cfg(feature = "jwt")]
        Some(Command::Token(args)) => token::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
    }
}

impl CertsArgs {
    /// The certificate of a server; `names` are what it must be for in addition to localhost. Nothing
    /// is written yet.
    async fn identity(&self, names: Vec<String>) -> Result<Identity, Failure> {
        let args = self.clone();
        let read = move || {
            fault::point("certificate-read");
            match (&args.cert, &args.key) {
                (Some(cert), Some(key)) => Identity::from_pem(cert, key),
                _ => Identity::planned(&args.certs, &names, Default::default()),
            }
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(Failure::running)?
            .map_err(|error| Failure::usage(flags::of_identity(error)))
    }
}

/// Prints to standard output. It is fine if the reader has closed the pipe.
fn print(text: &str) -> Result<(), Failure> {
    match standard::write_all(&mut standard::stdout(), text.as_bytes()).0 {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::running(error)),
        _ => Ok(()),
    }
}
