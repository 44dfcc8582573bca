//! A feed that comes with its gaps and its end: what it carries goes to the output, and what it lacks
//! is reported.

use std::time::Duration;

use http::Uri;

use super::{Getting, Output};
use crate::{
    cli::Failure,
    client::{Connection, answer, viewer::Event},
    feed::{End, FeedError, Gap},
    shown::Short,
    units::many,
};

/// How long the end of a feed waits for what the server says of it.
const HINT_WAIT: Duration = Duration::from_secs(3);

/// The message when a feed pauses, for this reason, if the server says it.
pub(super) fn stalled(cause: Option<&str>) -> String {
    match cause {
        Some(cause) => format!("the feed has stalled: {}: waiting", Short(cause, LONGEST)),
        None => "the feed has stalled: the server cannot receive or store new chunks of it: waiting".into(),
    }
}

/// So many characters of a cause are printed.
const LONGEST: usize = 300;

/// Writes a feed to the output.
pub(super) struct FeedOutput<'a> {
    getting: &'a Getting,
    output: &'a mut Output,
    bytes: u64,
    end: Option<End>,
}

/// What follows an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// More of the feed.
    More,
    /// Nothing: the feed has ended.
    Ended,
    /// Nothing that anyone reads: the output is closed.
    Unread,
}

impl<'a> FeedOutput<'a> {
    pub(super) fn new(getting: &'a Getting, output: &'a mut Output) -> Self {
        getting.progress.begin(0, None);
        Self { getting, output, bytes: 0, end: None }
    }

    /// How many bytes were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says how to read what the feed still holds, if it ended before any of it came: by default a viewer
    /// begins at the live edge.
    pub(super) async fn hint(&self, connection: Option<&Connection>, uri: &Uri) {
        let how = match &self.end {
            Some(End::Clean) => "has ended",
            Some(End::Failed(_)) => "has failed",
            _ => return,
        };
        let query = uri.query().unwrap_or_default();
        if self.bytes > 0 || query.split('&').any(|pair| pair.starts_with("from=") || pair == "limit=0") {
            return;
        }
        let Getting { progress, trust, .. } = self.getting;
        let holds = async {
            match connection {
                Some(connection) => answer::holds_history(connection, uri).await,
                None => answer::holds_history(&Connection::open(uri, trust).await.ok()?, uri).await,
            }
        };
        // Only a hint: what cannot be learned is left out.
        if tokio::time::timeout(HINT_WAIT, holds).await.ok().flatten() == Some(true) {
            let begin = if query.is_empty() { '?' } else { '&' };
            progress.complain(&format!("the feed {how}; add {begin}from=start to read what it still holds"));
        }
    }

    /// Takes the next event; with it, why the feed has stalled, if the server says that.
    pub(super) fn take(&mut self, event: Event, stalled_by: Option<&str>) -> Result<Next, Failure> {
        let Getting { log, progress, .. } = self.getting;
        if let Event::End(end) = &event {
            self.end = Some(end.clone());
        }
        match event {
            Event::Chunk { cursor, bytes, .. } => {
                self.bytes += bytes.len() as u64;
                log.say(format_args!("* chunk {cursor}, {}", many(bytes.len() as u64, "byte")));
                if !self.output.write(&bytes)? {
                    return Ok(Next::Unread);
                }
                progress.advance(bytes.len());
            }
            Event::Gap(gap) => progress.complain(&in_words(&gap)),
            Event::Stalled(true) => progress.complain(&stalled(stalled_by)),
            Event::Stalled(false) => progress.complain("the feed continues"),
            Event::End(End::Failed(error)) => return Err(Failure::running(self.failed(&error))),
            Event::End(_) => return Ok(Next::Ended),
            Event::Opened { .. } | Event::Lost { .. } => {}
        }
        Ok(Next::More)
    }

    fn failed(&self, error: &FeedError) -> anyhow::Error {
        match self.bytes {
            0 => anyhow::anyhow!("the feed failed: {error}"),
            bytes => anyhow::anyhow!("the feed failed after {}: {error}", many(bytes, "byte")),
        }
    }

    /// The feed has ended: whether all of it was written.
    pub(super) fn finish(&self, missing: u64, restarts: u64) -> Result<(), Failure> {
        if let Some(lack) = lack(missing, restarts) {
            return Err(Failure::running(anyhow::anyhow!("{lack}: the output is incomplete")));
        }
        self.getting.log.say(format_args!("* clean end after {}", many(self.bytes, "byte")));
        Ok(())
    }
}

pub(super) fn in_words(gap: &Gap) -> String {
    match (gap.restarted, gap.missing) {
        (true, 0) => "the feed was restarted: chunks may be missing in between".into(),
        (true, missing) => format!("the feed was restarted, and its first {} are gone", chunks(missing)),
        (false, missing) => format!("{} missing, starting at number {}", chunks(missing), gap.from),
    }
}

fn chunks(number: u64) -> String {
    many(number, "chunk")
}

/// What the whole output lacks.
pub(super) fn lack(missing: u64, restarts: u64) -> Option<String> {
    match (missing, restarts) {
        (0, 0) => None,
        (missing, 0) => Some(format!("{} missing", chunks(missing))),
        (0, _) => Some("the feed was restarted".into()),
        (missing, _) => Some(format!("the feed was restarted, and {} missing", chunks(missing))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_words() {
        assert_eq!(lack(0, 0), None);
        assert_eq!(lack(1, 0).unwrap(), "1 chunk missing");
        assert_eq!(lack(0, 2).unwrap(), "the feed was restarted");
        assert_eq!(lack(7, 1).unwrap(), "the feed was restarted, and 7 chunks missing");
        let gap = |from, missing, restarted| in_words(&Gap { from, missing, restarted });
        assert_eq!(gap(3, 2, false), "2 chunks missing, starting at number 3");
        assert_eq!(gap(0, 2, true), "the feed was restarted, and its first 2 chunks are gone");
    }
}
