//! `h3cast get --resume`: to the end, through losses.

use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

use super::{
    Getting, Output, download,
    feed::{FeedOutput, Next},
};
use crate::{
    cli::{
        Failure,
        outage::{Outage, trying_again},
        remote,
    },
    client::{
        ClientError, Connection, Trust, Viewer,
        viewer::{Event, Transport, ViewError},
    },
};

/// Whether the feed at this URL can be read chunk by chunk, and so resumed. `what`: what asks for it.
pub(super) fn check(uri: &Uri, what: &str) -> Result<(), Failure> {
    let wrong = |error| Failure::usage(anyhow::anyhow!("{what}{error}"));
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
    let mut sink = FeedOutput::new(getting, output);
    let got = tokio::select! {
        got = async {
            let got = copy(getting, &mut viewer, &mut sink).await;
            sink.hint(None, uri).await;
            got
        } => got,
        interrupted = interrupted => Err(interrupted),
    };
    viewer.close().await;
    got
}

pub(super) fn viewer(
    getting: &Getting,
    uri: &Uri,
    webtransport: bool,
    connection: Option<Box<Connection>>,
) -> Result<Viewer, Failure> {
    let viewer = Viewer::new(uri, getting.trust.clone()).map_err(Failure::usage)?;
    let viewer = viewer
        .transport(if webtransport { Transport::WebTransport } else { Transport::Get })
        .token_from(getting.token.clone())
        .retry_for(getting.retry_for);
    Ok(match connection {
        Some(connection) => viewer.connection(*connection),
        None => viewer,
    })
}

async fn copy(getting: &Getting, viewer: &mut Viewer, sink: &mut FeedOutput<'_>) -> Result<(), Failure> {
    let mut told = Told::new(getting, None);
    while let Some(event) = viewer.next().await.map_err(failure)? {
        told.take(&event);
        match sink.take(event, viewer.stalled_by())? {
            Next::More => {}
            Next::Ended => break,
            Next::Unread => return Ok(()),
        }
    }
    sink.finish(viewer.missing(), viewer.restarts())
}

/// Reports losses of a feed, and that it continues.
pub(super) struct Told<'a> {
    getting: &'a Getting,
    /// What stands before each message.
    prefix: String,
    outage: Outage,
}

impl<'a> Told<'a> {
    /// `name`: of which of several feeds.
    pub(super) fn new(getting: &'a Getting, name: Option<&str>) -> Self {
        let prefix = name.map(|name| format!("{name}: ")).unwrap_or_default();
        Self { getting, prefix, outage: Outage::default() }
    }

    /// Reports a loss, and its end.
    pub(super) fn take(&mut self, event: &Event) {
        let (Getting { log, progress, .. }, prefix) = (self.getting, &self.prefix);
        match event {
            Event::Opened { transport, behind } => {
                let place = behind.map(|cursor| format!(", after {cursor}")).unwrap_or_default();
                log.say(format_args!("* {prefix}reading over {transport}{place}"));
                if self.outage.ends() {
                    let from = behind.map_or_else(|| "from the beginning".into(), |cursor| format!("after {cursor}"));
                    progress.complain(&format!("{prefix}reconnected over {transport}: continuing {from}"));
                }
            }
            Event::Lost { error, pause, transport } => {
                let words = format!("{prefix}{}", lost_in_words(error, *pause, Some(*transport)));
                match self.outage.prints(&format!("{error}, {transport}"), Instant::now()) {
                    true => progress.complain(&words),
                    false => log.say(format_args!("* {words}")),
                }
            }
            _ => {}
        }
    }

    /// Reports something else.
    pub(super) fn complain(&self, text: &str) {
        self.getting.progress.complain(&format!("{}{text}", self.prefix));
    }
}

pub(super) fn lost_in_words(error: &ViewError, pause: Duration, next: Option<Transport>) -> String {
    let by = next.map(|transport| format!(" over {transport}")).unwrap_or_default();
    trying_again(error, &by, pause)
}

pub(super) fn failure(error: ViewError) -> Failure {
    match error {
        ViewError::Client(
            error @ (ClientError::Uri(_)
            | ClientError::Certificate { .. }
            | ClientError::Untrusted { .. }
            | ClientError::Connect { .. }),
        ) => remote::failure(error),
        ViewError::Token(error) => Failure::usage(error),
        error => Failure::running(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::cli::{get::Progress, remote::Log};

    /// A server that gives no answer, and no error either, is given up after the time asked for.
    #[tokio::test(start_paused = true)]
    async fn no_attempt_lasts_beyond_the_time_to_try() {
        // Something listens on TCP, so that the first attempt takes as long as one may.
        let (tcp, _udp) = std::iter::repeat_with(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .find_map(|tcp| std::net::UdpSocket::bind(tcp.local_addr().unwrap()).ok().map(|udp| (tcp, udp)))
            .unwrap();
        let uri: Uri = format!("https://{}/stream", tcp.local_addr().unwrap()).parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (first, limit) = (Duration::from_secs(10), Duration::from_secs(4));
        let getting = Getting {
            input: false,
            trust: Trust::System,
            token: None,
            log: Log::new(false),
            progress: Progress::new(false, true),
            retry_for: Some(limit),
        };
        for (path, webtransport) in [(None, false), (None, true), (Some(dir.path().join("out")), false)] {
            let mut output = Output::open(path.as_deref(), true, &uri.to_string()).unwrap();
            let began = Instant::now();
            let failure = run(&getting, &uri, webtransport, &mut output, std::future::pending()).await.unwrap_err();
            let took = began.elapsed();
            assert!(took >= first + limit && took < first + limit + Duration::from_millis(100), "{path:?}: {took:?}");
            let text = format!("{:#}", failure.error);
            assert!(text.contains("gave up after 4 s: no answer from"), "{text}");
        }
    }
}
