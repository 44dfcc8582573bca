//! `h3cast get --resume`: to the end, through losses.

use http::Uri;

use super::{Getting, Output, download};
use crate::{
    cli::{Failure, remote},
    client::{
        ClientError, Connection, Trust, Viewer,
        viewer::{Event, Transport, ViewError},
    },
    feed::{End, Gap},
};

/// Whether the feed at this URL can be resumed.
pub(super) fn check(uri: &Uri) -> Result<(), Failure> {
    let wrong = |error| Failure::usage(anyhow::anyhow!("--resume: {error}"));
    Viewer::new(uri, Trust::System).map(drop).map_err(wrong)
}

pub(super) async fn run(
    getting: &Getting,
    uri: &Uri,
    webtransport: bool,
    output: &mut Output,
    interrupted: impl Future<Output = Failure>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(interrupted);
    let mut connection = None;
    // What begins behind a chunk, or has a limit, is no file.
    let whole =
        !uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with("from=") || pair.starts_with("limit="));
    if let (Output::Part(part), false, true) = (&mut *output, webtransport, whole) {
        let downloaded = tokio::select! {
            downloaded = download::run(getting, uri, part) => downloaded?,
            interrupted = &mut interrupted => return Err(interrupted),
        };
        match downloaded {
            download::Done::Complete => return Ok(()),
            download::Done::NoRanges(open) => connection = Some(open),
        }
    }
    if let Output::Part(part) = output {
        part.replace();
    }
    let mut viewer = viewer(getting, uri, webtransport, connection)?;
    let got = tokio::select! {
        got = copy(getting, &mut viewer, output) => got,
        interrupted = interrupted => Err(interrupted),
    };
    viewer.close().await;
    got
}

fn viewer(
    getting: &Getting,
    uri: &Uri,
    webtransport: bool,
    connection: Option<Box<Connection>>,
) -> Result<Viewer, Failure> {
    let viewer = Viewer::new(uri, getting.trust.clone()).map_err(Failure::usage)?;
    let viewer = viewer
        .transport(if webtransport { Transport::WebTransport } else { Transport::Get })
        .retry_for(getting.retry_for);
    Ok(match connection {
        Some(connection) => viewer.connection(*connection),
        None => viewer,
    })
}

async fn copy(getting: &Getting, viewer: &mut Viewer, output: &mut Output) -> Result<(), Failure> {
    let Getting { log, progress, .. } = getting;
    let (mut bytes, mut lost) = (0_u64, false);
    progress.begin(0, None);
    loop {
        match viewer.next().await.map_err(failure)? {
            Some(Event::Opened { transport, behind }) => {
                let place = behind.map(|cursor| format!(", behind {cursor}")).unwrap_or_default();
                log.say(format_args!("* reading over {transport}{place}"));
                if std::mem::take(&mut lost) {
                    let from = behind.map_or_else(|| "from the beginning".into(), |cursor| format!("behind {cursor}"));
                    progress.complain(&format!("connected again over {transport}: going on {from}"));
                }
            }
            Some(Event::Chunk { cursor, bytes: chunk, .. }) => {
                bytes += chunk.len() as u64;
                log.say(format_args!("* chunk {cursor}, {} bytes", chunk.len()));
                if !output.write(&chunk)? {
                    return Ok(());
                }
                progress.advance(chunk.len());
            }
            Some(Event::Gap(gap)) => progress.complain(&in_words(&gap)),
            Some(Event::Stalled(true)) => progress.complain("the server cannot reach what keeps the feed: waiting"),
            Some(Event::Stalled(false)) => progress.complain("the feed goes on"),
            Some(Event::Lost { error, pause, transport }) => {
                lost = true;
                progress.complain(&lost_in_words(&error, pause, Some(transport)));
            }
            Some(Event::End(End::Failed(error))) => {
                let error = anyhow::anyhow!("cut short after {bytes} bytes: the feed failed: {error}");
                return Err(Failure::running(error));
            }
            Some(Event::End(_)) | None => break,
            #[expect(unreachable_patterns, reason = "for those of another crate there may be more")]
            Some(_) => {}
        }
    }
    if let Some(missing) = missing(viewer.missing(), viewer.restarts()) {
        return Err(Failure::running(anyhow::anyhow!("{missing}: the output is not whole")));
    }
    log.say(format_args!("* clean end after {bytes} bytes"));
    Ok(())
}

fn in_words(gap: &Gap) -> String {
    match (gap.restarted, gap.missing) {
        (true, 0) => "the feed was started again: what was between is not known".into(),
        (true, missing) => format!("the feed was started again, and its first {} are gone", chunks(missing)),
        (false, missing) => format!("{} missing, from number {} on", chunks(missing), gap.from),
    }
}

fn chunks(number: u64) -> String {
    match number {
        1 => "1 chunk".into(),
        number => format!("{number} chunks"),
    }
}

/// What the whole output lacks.
fn missing(missing: u64, restarts: u64) -> Option<String> {
    match (missing, restarts) {
        (0, 0) => None,
        (missing, 0) => Some(format!("{} missing", chunks(missing))),
        (0, _) => Some("the feed was started again".into()),
        (missing, _) => Some(format!("the feed was started again, and {} missing", chunks(missing))),
    }
}

pub(super) fn lost_in_words(error: &ViewError, pause: std::time::Duration, next: Option<Transport>) -> String {
    let by = next.map(|transport| format!(" over {transport}")).unwrap_or_default();
    format!("{error}; trying again{by} in {:.1} s", pause.as_secs_f64())
}

pub(super) fn failure(error: ViewError) -> Failure {
    match error {
        ViewError::Client(
            error @ (ClientError::Uri(_) | ClientError::Certificate { .. } | ClientError::Connect { .. }),
        ) => remote::failure(error),
        error => Failure::running(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_words() {
        assert_eq!(missing(0, 0), None);
        assert_eq!(missing(1, 0).unwrap(), "1 chunk missing");
        assert_eq!(missing(0, 2).unwrap(), "the feed was started again");
        assert_eq!(missing(7, 1).unwrap(), "the feed was started again, and 7 chunks missing");
        let gap = |from, missing, restarted| in_words(&Gap { from, missing, restarted });
        assert_eq!(gap(3, 2, false), "2 chunks missing, from number 3 on");
        assert_eq!(gap(0, 2, true), "the feed was started again, and its first 2 chunks are gone");
    }
}
