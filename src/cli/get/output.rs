//! Where what comes is written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    mark::{self, Mark, Of, with_suffix},
    owner,
};
use crate::{
    cli::{Failure, complain, standard},
    fault,
    units::many,
};

#[cfg_attr(feature = "qlog", allow(clippy::large_enum_variant, reason = "with it, maps of JSON are larger"))]
pub(super) enum Output {
    Stdout(Box<dyn Write + Send>),
    /// A file that is none of its own right: a device, a pipe.
    Device(File),
    Part(PartFile),
}

/// A file that is written beside the one that it becomes.
#[derive(Debug)]
pub(super) struct PartFile {
    /// `FILE.part.json`.
    mark: Mark,
    file: File,
    /// `FILE.part`.
    path: PathBuf,
    target: PathBuf,
    len: u64,
    /// What is there is of an earlier run, and goes when something comes that takes its place.
    stale: bool,
    /// What it is a part of.
    url: String,
    /// What the mark is to record of what replaces a stale part, as soon as that arrives.
    incoming: Option<serde_json::Value>,
}

impl Output {
    /// The output to `path`, or to standard output. `keep`: what an earlier run has left of
    /// `url` may be used.
    pub(super) fn open(path: Option<&Path>, keep: bool, url: &str) -> Result<Self, Failure> {
        let Some(path) = path else {
            // A chunk is written at once and whole.
            return Ok(Self::Stdout(standard::stdout()));
        };
        let wrong = |error: io::Error| Failure::usage(anyhow::anyhow!("cannot write {}: {error}", path.display()));
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(wrong(ErrorKind::IsADirectory.into())),
            Ok(there) if !there.is_file() => {
                Ok(Self::Device(OpenOptions::new().write(true).open(path).map_err(wrong)?))
            }
            // A link stays, and the file that it points to is replaced.
            Ok(_) => PartFile::open(fs::canonicalize(path).map_err(wrong)?, keep, url).map(Self::Part).map_err(wrong),
            Err(_) if path.is_symlink() => {
                Err(wrong(io::Error::other("it is a symbolic link to a file that does not exist: remove the link")))
            }
            Err(_) => PartFile::open(path.to_owned(), keep, url).map(Self::Part).map_err(wrong),
        }
    }

    /// Writes a piece at once; `false` when nobody reads any more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let (name, written) = match self {
            Self::Stdout(stdout) => ("standard output".into(), standard::write_all(stdout, bytes).0),
            Self::Device(file) => ("the output".into(), standard::write_all(file, bytes).0),
            Self::Part(part) => (part.path.display().to_string(), part.write(bytes)),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::running(anyhow::Error::new(error).context(format!("cannot write to {name}")))),
        }
    }

    /// All has come.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(_) | Self::Device(_) => Ok(()),
            Self::Part(part) => {
                let name = part.target.display().to_string();
                let error = |error| Failure::running(anyhow::Error::new(error).context(format!("cannot write {name}")));
                part.finish().map_err(error)
            }
        }
    }

    /// `FILE.part`, if there is one.
    pub(super) fn part(&self) -> Option<PathBuf> {
        match self {
            Self::Stdout(_) | Self::Device(_) => None,
            Self::Part(part) => Some(part.path.clone()),
        }
    }

    /// It failed: what has come stays, if there is any.
    pub(super) fn keep(self, failure: Failure) -> Failure {
        if let Self::Part(part) = self {
            match part.len {
                0 if part.stale => {}
                0 => part.remove(),
                _ => tell_of(&part.path),
            }
        }
        failure
    }
}

/// Says where what has come is.
pub(super) fn tell_of(part: &Path) {
    complain(&format!("what has come is in {}", part.display()));
}

impl PartFile {
    fn open(target: PathBuf, keep: bool, url: &str) -> io::Result<Self> {
        if target.file_name().is_none() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let path = with_suffix(&target, ".part");
        let (mut mark, file) = mark::open(&path, url)?;
        let len = file.metadata()?.len();
        if len == 0 {
            mark.record(&Of { url }, &file)?;
        } else if !mark.can_be_resumed() {
            // It may be all that there is of a live feed.
            return Err(io::Error::other(format!(
                "{} holds {} of an earlier run that cannot be resumed, and is left alone: move or delete it, or choose \
                 another FILE",
                path.display(),
                many(len, "byte")
            )));
        } else if !keep {
            let hint = if mark.is_of(url) { "; --resume would continue it" } else { "" };
            complain(&format!("{} of an earlier run is replaced{hint}", path.display()));
        }
        let mut part = Self { mark, file, path, target, len, stale: false, url: url.to_owned(), incoming: None };
        match keep {
            true => part.seek_end()?,
            false => part.replace(),
        }
        Ok(part)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What `FILE.part.json` records: what `FILE.part` is a part of.
    pub(super) fn recorded(&self) -> serde_json::Value {
        self.mark.recorded()
    }

    /// Records what it is a part of.
    pub(super) fn record(&mut self, of: &impl Serialize) -> io::Result<()> {
        self.mark.record(of, &self.file)
    }

    /// Records what the bytes that come next are a part of: at once, or when they replace what is there.
    pub(super) fn expect(&mut self, of: &impl Serialize) -> io::Result<()> {
        if self.stale {
            self.incoming = Some(serde_json::to_value(of)?);
            return Ok(());
        }
        self.record(of)
    }

    fn seek_end(&mut self) -> io::Result<()> {
        self.len = io::Seek::seek(&mut self.file, io::SeekFrom::End(0))?;
        Ok(())
    }

    /// Begins from nothing as soon as something comes: until then what there is may still be wanted.
    pub(super) fn replace(&mut self) {
        self.stale = self.len > 0;
        self.len = 0;
    }

    /// Begins from nothing. What it was a part of is forgotten first, so that it is never taken for
    /// a part of something else.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.mark.record(&Of { url: &self.url }, &self.file)?;
        if !mark::is_at(&self.path, &self.file) {
            return Err(mark::replaced(&self.path));
        }
        self.file.set_len(0)?;
        self.stale = false;
        self.seek_end()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stale {
            self.restart()?;
            if let Some(of) = self.incoming.take() {
                self.record(&of)?;
            }
        }
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.stale {
            // What came is nothing.
            self.restart()?;
        }
        owner::permit(&self.file, &self.target)?;
        self.file.sync_all()?;
        if !mark::is_at(&self.path, &self.file) {
            return Err(mark::replaced(&self.path));
        }
        fs::rename(&self.path, &self.target)?;
        fault::point("get-finished");
        // Without its part it means nothing.
        self.mark.remove();
        Ok(())
    }

    fn remove(self) {
        if !mark::is_at(&self.path, &self.file) {
            return;
        }
        // A part without its mark would be left alone by all later runs.
        if fs::remove_file(&self.path).is_ok() {
            fault::point("get-removed");
            self.mark.remove();
        }
    }
}
