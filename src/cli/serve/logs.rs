//! What the server writes about itself and its clients.

#[cfg(feature = "qlog")]
use std::path::PathBuf;
use std::{io, path::Path};

use clap::Args;

use super::effect;
#[cfg(feature = "qlog")]
use crate::cli::qlog;
use crate::{
    App,
    cli::{
        Failure,
        log::{
            LogFormat,
            access::{AccessLog, Format, Place},
        },
    },
    server::ServerBuilder,
};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub(in crate::cli) struct LogArgs {
    /// The format of the server's own log on stderr: for people (text), or an object of JSON on each line (json), also
    /// for what commands write there.
    #[arg(
        long,
        env = "H3CAST_LOG_FORMAT",
        value_name = "text|json",
        default_value = "text",
        hide_possible_values = true
    )]
    pub(in crate::cli) log_format: LogFormat,
    /// Write a line for each request, WebTransport session and publication when it ends, to this file or (-) to
    /// standard output. The file is appended to, and opened again after logrotate has renamed it. [default: none]
    #[arg(long, env = "H3CAST_ACCESS_LOG", value_name = "FILE|-")]
    access_log: Option<Place>,
    /// The format of its lines: as nginx and Apache write them, with a few fields more (combined), or an object of
    /// JSON. docs/operations.md lists the fields.
    #[arg(long, env = "H3CAST_ACCESS_LOG_FORMAT", value_name = "combined|json", hide_possible_values = true)]
    access_log_format: Option<Format>,
    /// Write what QUIC does on each connection (qlog) to files in this folder, for qvis and similar tools: at most 1,000
    /// files and 1 GiB, of which the oldest are removed.
    #[cfg(feature = "qlog")]
    #[arg(long, env = "H3CAST_QLOG", value_name = "FOLDER")]
    qlog: Option<PathBuf>,
}

impl LogArgs {
    /// Whether standard output is for lines of the access log alone.
    pub(super) fn takes_stdout(&self) -> bool {
        self.access_log == Some(Place::Stdout)
    }

    /// Whether all of it could be written. Nothing is created.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        self.format()?;
        let logs = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(Place::File(path)) = &logs.access_log {
                AccessLog::check(path).map_err(|error| refused(path, &error))?;
            }
            #[cfg(feature = "qlog")]
            if let Some(folder) = &logs.qlog {
                qlog::check(folder)?;
            }
            Ok(())
        });
        looked.await.map_err(Failure::running)?
    }

    /// The format of the access log.
    fn format(&self) -> Result<Format, Failure> {
        const FLAG: &str = "--access-log-format";
        if self.access_log.is_none() && self.access_log_format.is_some() {
            effect::refuse(FLAG, &format!("{FLAG} has no effect without --access-log: name a file for it, or -"))?;
        }
        Ok(self.access_log_format.unwrap_or_default())
    }

    /// Has the server's connections traced.
    #[cfg(feature = "qlog")]
    pub(super) async fn trace(&self, server: ServerBuilder) -> Result<ServerBuilder, Failure> {
        let Some(folder) = self.qlog.clone() else { return Ok(server) };
        let traces = qlog::start(folder).await?;
        Ok(server.qlog(move |connection| traces.of(connection)))
    }

    #[cfg(not(feature = "qlog"))]
    pub(super) async fn trace(&self, server: ServerBuilder) -> Result<ServerBuilder, Failure> {
        Ok(server)
    }

    /// Opens the access log, and has the app write to it.
    pub(super) async fn install(&self, app: App) -> Result<App, Failure> {
        let format = self.format()?;
        let Some(place) = self.access_log.clone() else { return Ok(app) };
        let named = place.clone();
        let opened = tokio::task::spawn_blocking(move || AccessLog::open(&place, format));
        let log = opened.await.map_err(Failure::running)?.map_err(|error| match named {
            Place::File(path) => refused(&path, &error),
            Place::Stdout => Failure::running(error),
        })?;
        Ok(app.on_request_end(move |entry| log.write(entry)))
    }
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let text = format!("--access-log: cannot open {}: {error}", path.display());
    Failure::usage(anyhow::anyhow!(text))
}
