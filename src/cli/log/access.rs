//! The access log: a line for each request, session and publication, when it has ended.

mod format;

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, OnceLock},
};

use clap::ValueEnum;

use super::{
    file::{Again, LogFile, reopened, telling},
    outlet::Outlet,
};
use crate::{app::Entry, cli::standard};

/// The access log of this process, for its end.
static ACCESS: OnceLock<AccessLog> = OnceLock::new();

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Place {
    /// Standard output.
    Stdout,
    File(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name a file, or - for standard output".into()),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum Format {
    /// As nginx and Apache do.
    #[default]
    Combined,
    /// An object.
    Json,
}

/// An access log that is open. Clones write to the same.
#[derive(Debug, Clone)]
pub(in crate::cli) struct AccessLog {
    outlet: Outlet,
    format: Format,
    /// Of a file.
    again: Option<(Arc<str>, Again)>,
}

impl AccessLog {
    /// Opens it.
    pub(in crate::cli) fn open(place: &Place, format: Format) -> io::Result<Self> {
        let (outlet, again) = match place {
            Place::Stdout => {
                let tell = telling("the access log on standard output".into());
                (Outlet::start_telling("access log", standard::stdout(), Some(tell))?, None)
            }
            Place::File(path) => {
                let (again, what) = (Again::default(), format!("the access log {}", path.display()));
                let file = LogFile::open(path, &again)?;
                let outlet = Outlet::start_telling("access log", file, Some(telling(what.clone())))?;
                (outlet, Some((what.into(), again)))
            }
        };
        let log = Self { outlet, format, again };
        Ok(ACCESS.get_or_init(|| log).clone())
    }

    /// Whether a file could be opened. Nothing is created.
    pub(in crate::cli) fn check(path: &Path) -> io::Result<()> {
        super::file::check(path)
    }

    /// Writes a line, or leaves it to the thread that does.
    pub(in crate::cli) fn write(&self, entry: &Entry) {
        let mut line = match self.format {
            Format::Combined => format::combined(entry),
            Format::Json => format::json(entry),
        };
        line.push('\n');
        self.outlet.write(line.as_bytes());
    }

    /// Opens its file again.
    fn reopen(&self) {
        if let Some((what, again)) = &self.again {
            reopened(what);
            again.ask();
            // So that it is there at once.
            self.outlet.write(b"");
        }
    }
}

/// Opens the file of the access log again, if there is one: what logrotate's `postrotate` asks for. Does not block.
pub(in crate::cli) fn reopen() {
    if let Some(log) = ACCESS.get() {
        log.reopen();
    }
}

/// Where the last lines are.
pub(super) fn outlet() -> Option<&'static Outlet> {
    ACCESS.get().map(|log| &log.outlet)
}
