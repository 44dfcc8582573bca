//! Lines with what is known of them in front: when they came, and of which feed they are when there are several.

use std::{
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Uri;
use time::{UtcDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tokio_util::sync::CancellationToken;

use super::{Getting, Output, feed, resume};
use crate::{
    cli::{Failure, log},
    client::viewer::{Event, ViewError},
    feed::End,
};

/// A line that is longer is cut, so that one without an end is not kept for ever, in bytes.
const LONGEST: usize = 64 << 10;
/// Times are in UTC, as in the server's log.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z ");
/// The colours of feeds, in turn (SGR).
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// What the arguments say of lines.
pub(super) struct Lines {
    pub(super) timestamps: bool,
    pub(super) webtransport: bool,
    pub(super) resume: bool,
}

/// Writes the lines of all these feeds, each as soon as it is whole, until every one has ended, nobody reads them, or it
/// is interrupted.
pub(super) async fn run(
    getting: &Getting,
    uris: &[Uri],
    args: &Lines,
    output: &mut Output,
    interrupted: impl Future<Output = Failure>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(interrupted);
    let names = names(uris);
    let labels = match uris.len() {
        1 => vec![String::new()],
        _ => labels(&names, log::is_coloured(&std::io::stdout())),
    };
    let (output, stop) = (Mutex::new(output), CancellationToken::new());
    let mut feeds: FuturesUnordered<_> = (uris.iter().zip(&labels).zip(&names))
        .map(|((uri, label), name)| {
            let sink =
                Sink { label, timestamps: args.timestamps, begun: Vec::new(), at: 0, cut: false, output: &output };
            let (name, stop) = (name.as_str(), &stop);
            async move { (name, one(getting, uri, args, sink, (uris.len() > 1).then_some(name), stop).await) }
        })
        .collect();
    let mut failed = Vec::new();
    let mut stopped = None;
    loop {
        let (name, done) = tokio::select! {
            done = feeds.next() => match done {
                Some(done) => done,
                None => break,
            },
            failure = &mut interrupted, if stopped.is_none() => {
                stopped = Some(Err(failure));
                stop.cancel();
                continue;
            }
        };
        match done {
            Ok(feed::Next::Unread) => {
                stopped.get_or_insert(Ok(()));
                stop.cancel();
            }
            Ok(_) => {}
            Err(failure) if uris.len() == 1 => return Err(failure),
            Err(failure) => {
                getting.progress.complain(&format!("{name}: {}", failure.in_words()));
                failed.push(name);
            }
        }
    }
    match stopped {
        Some(stopped) => stopped,
        None if failed.is_empty() => Ok(()),
        None => {
            let (number, of, names) = (failed.len(), uris.len(), failed.join(", "));
            Err(Failure::running(anyhow::anyhow!("{number} of {of} feeds failed: {names}")))
        }
    }
}

/// Reads one feed to its end, or until it is to stop.
async fn one(
    getting: &Getting,
    uri: &Uri,
    args: &Lines,
    mut sink: Sink<'_, '_>,
    name: Option<&str>,
    stop: &CancellationToken,
) -> Result<feed::Next, Failure> {
    let mut viewer = resume::viewer(getting, uri, args.webtransport, None)?;
    if !args.resume {
        viewer = viewer.retry_for(Duration::ZERO);
    }
    let mut told = resume::Told::new(getting, name);
    let got = loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(feed::Next::Unread),
            next = viewer.next() => next,
        };
        let event = match next {
            Ok(Some(event)) => event,
            Ok(None) => break Ok(feed::Next::Ended),
            Err(ViewError::GaveUp { last, .. }) if !args.resume => break Err(resume::failure(*last)),
            Err(error) => break Err(resume::failure(error)),
        };
        told.take(&event);
        let written = match event {
            Event::Chunk { micros, bytes, .. } => sink.push(micros, &bytes),
            Event::End(End::Failed(error)) => {
                break Err(Failure::running(anyhow::anyhow!("the feed failed: {error}")));
            }
            Event::End(_) => break whole(&viewer),
            Event::Gap(gap) => {
                told.complain(&feed::in_words(&gap));
                // What follows does not belong to the unfinished line.
                sink.finish()
            }
            Event::Stalled(true) => {
                told.complain(&feed::stalled(viewer.stalled_by()));
                continue;
            }
            _ => continue,
        };
        match written {
            Ok(true) => {}
            Ok(false) => break Ok(feed::Next::Unread),
            Err(failure) => break Err(failure),
        }
    };
    // What has come of a line is part of what has come, also before a failure or an interruption.
    let got = match (sink.finish(), got) {
        (Ok(_), got) => got,
        (Err(_), Err(failure)) | (Err(failure), Ok(_)) => Err(failure),
    };
    viewer.close().await;
    got
}

fn whole(viewer: &crate::client::Viewer) -> Result<feed::Next, Failure> {
    match feed::lack(viewer.missing(), viewer.restarts()) {
        Some(lack) => Err(Failure::running(anyhow::anyhow!("{lack}: the output is incomplete"))),
        None => Ok(feed::Next::Ended),
    }
}

/// The lines of one feed.
struct Sink<'a, 'o> {
    /// What stands in front of each.
    label: &'a str,
    timestamps: bool,
    /// The line that has begun.
    begun: Vec<u8>,
    /// When it did, in microseconds since 1970.
    at: u64,
    /// The line was cut where it is longest, and what follows is the rest of it.
    cut: bool,
    output: &'a Mutex<&'o mut Output>,
}

impl Sink<'_, '_> {
    /// Writes the lines that are whole with these bytes; `false` when nobody reads any more.
    fn push(&mut self, micros: u64, bytes: &[u8]) -> Result<bool, Failure> {
        let mut ready = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                if self.begun.is_empty() {
                    self.at = micros;
                }
                // The line that was cut ends here, and was written.
                if std::mem::take(&mut self.cut) && self.begun.is_empty() && rest == b"\n" {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(LONGEST - self.begun.len()));
                self.begun.extend_from_slice(now);
                rest = later;
                if self.begun.ends_with(b"\n") {
                    self.end_line(&mut ready);
                } else if self.begun.len() == LONGEST {
                    let later = self.begun.split_off(LONGEST - incomplete(&self.begun));
                    self.end_line(&mut ready);
                    (self.begun, self.at, self.cut) = (later, micros, true);
                }
            }
        }
        self.write(&ready)
    }

    /// Writes what there is of a line.
    fn finish(&mut self) -> Result<bool, Failure> {
        let mut ready = Vec::new();
        if !self.begun.is_empty() {
            self.end_line(&mut ready);
        }
        self.cut = false;
        self.write(&ready)
    }

    fn end_line(&mut self, ready: &mut Vec<u8>) {
        ready.extend_from_slice(self.label.as_bytes());
        if self.timestamps {
            ready.extend_from_slice(time(self.at).as_bytes());
        }
        ready.append(&mut self.begun);
        if !ready.ends_with(b"\n") {
            ready.push(b'\n');
        }
    }

    /// In one piece, so that lines of several feeds do not mix.
    fn write(&self, lines: &[u8]) -> Result<bool, Failure> {
        if lines.is_empty() {
            return Ok(true);
        }
        let mut output: MutexGuard<'_, _> = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write(lines)
    }
}

/// How many bytes at the end are the beginning of a character in UTF-8.
fn incomplete(bytes: &[u8]) -> usize {
    let begins = |len: &usize| {
        let end = &bytes[bytes.len().saturating_sub(*len)..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(begins).unwrap_or(0)
}

fn time(micros: u64) -> String {
    let at = UtcDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(UtcDateTime::UNIX_EPOCH);
    at.format(TIME).unwrap_or_default()
}

/// What the feeds are called: by their names, with their servers if that is not enough.
fn names(uris: &[Uri]) -> Vec<String> {
    let short = |uri: &Uri| match uri.path().trim_matches('/').rsplit_once('/') {
        Some((_, name)) => crate::path::decoded(name).map_or_else(|| name.to_owned(), std::borrow::Cow::into_owned),
        None if uri.path() == "/stream" => crate::feed::DEFAULT.to_owned(),
        None => uri.path().to_owned(),
    };
    let all: Vec<_> = uris.iter().map(short).collect();
    let named = |(name, uri): (&String, &Uri)| match all.iter().filter(|other| *other == name).count() {
        1 => name.clone(),
        _ => format!("{}/{name}", uri.authority().map_or("", http::uri::Authority::as_str)),
    };
    // Control characters of a name must not reach the terminal.
    all.iter().zip(uris).map(named).map(|name| crate::shown::Shown(name).to_string()).collect()
}

/// Names of one width, as they stand in front of lines.
fn labels(names: &[String], coloured: bool) -> Vec<String> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let label = |(name, colour): (&String, &u8)| {
        let mut label = String::new();
        let _ = match coloured {
            true => write!(label, "\x1b[{colour}m{name:width$} |\x1b[0m "),
            false => write!(label, "{name:width$} | "),
        };
        label
    };
    names.iter().zip(COLOURS.iter().cycle()).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(uris: &[&str]) -> Vec<String> {
        names(&uris.iter().map(|uri| uri.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn feeds_by_their_names() {
        assert_eq!(called(&["https://h:1/stream", "https://h:1/stream/a%20b"]), ["default", "a b"]);
        assert_eq!(called(&["https://h:1/stream/a", "https://i/stream/a?from=start"]), ["h:1/a", "i/a"]);
        assert!(!called(&["https://h/stream/%1b[31m", "https://h/stream/a"])[0].contains('\x1b'));
        let labels = labels(&["a".into(), "long".into()], false);
        assert_eq!(labels, ["a    | ", "long | "]);
        let coloured = super::labels(&["a".into(), "b".into()], true);
        assert_eq!(coloured, ["\x1b[36ma |\x1b[0m ", "\x1b[33mb |\x1b[0m "]);
    }

    #[test]
    fn lines_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "").unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut output = Output::Device(file);
        let output = Mutex::new(&mut output);
        let mut sink = Sink { label: "a | ", timestamps: true, begun: Vec::new(), at: 0, cut: false, output: &output };
        sink.push(1_764_226_201_123_456, b"on").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        sink.push(1_764_226_202_000_000, b"e\n\ntwo").unwrap();
        sink.finish().unwrap();
        let expected = "a | 2025-11-27T06:50:01.123Z one\n\
                        a | 2025-11-27T06:50:02.000Z \n\
                        a | 2025-11-27T06:50:02.000Z two\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        sink.push(0, &vec![b'x'; LONGEST + 1]).unwrap();
        sink.finish().unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        let last: Vec<_> = lines.lines().skip(3).map(str::len).collect();
        assert_eq!(last, [LONGEST + 29, 30]);
    }

    /// However a line comes, it is written once, and no character is cut.
    #[test]
    fn long_lines_are_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let x = "x".repeat(LONGEST);
        let odd = format!("x{}", "é".repeat(LONGEST / 2));
        for (line, expected) in [
            (format!("{x}\n"), format!("{x}\n")),
            (format!("{x}y\n"), format!("{x}\ny\n")),
            (format!("{x}\n\n"), format!("{x}\n\n")),
            (format!("{odd}\n"), format!("{}\né\n", &odd[..LONGEST - 1])),
        ] {
            for size in [LONGEST, line.len(), 1000] {
                let file = tempfile::NamedTempFile::new_in(&dir).unwrap();
                let mut output = Output::Device(file.reopen().unwrap());
                let output = Mutex::new(&mut output);
                let mut sink =
                    Sink { label: "", timestamps: false, begun: Vec::new(), at: 0, cut: false, output: &output };
                for piece in line.as_bytes().chunks(size) {
                    assert!(sink.push(0, piece).unwrap());
                }
                sink.finish().unwrap();
                assert!(std::fs::read_to_string(file.path()).unwrap() == expected, "{} bytes by {size}", line.len());
            }
        }
    }
}
