//! The streams that a client opens in its session: each is a publication.

use std::{io, sync::Arc, time::Duration};

use futures_util::stream;
use http::StatusCode;
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use super::{ChunkBy, known::Said, pieces::publish, written};
use crate::{
    app::{
        App, Problem,
        authorize::Decided,
        entry::Noted,
        input::{Claim, OpenInput},
    },
    auth::Action,
    feed::{Account, Feed},
    panics,
    webtransport::{RecvStream, SendStream, Session, SessionError},
};

/// Streams of one session that are read at once; more wait.
const MAX_STREAMS: usize = 64;
/// How long the answer on a session's stream may wait to be taken.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The input of the session's command, and a stream's right to send it.
type Sending = Option<(Arc<OpenInput>, Claim)>;

/// Reads every stream that the client opens in its session; each is a publication, or where there is `input`, one of
/// them is that: of bidirectional ones that the client opened at once, the first. A bidirectional one is answered on.
/// Ends when the session does.
pub(in crate::app) async fn streams(
    app: &Arc<App>,
    session: &Session,
    feed: &Feed,
    account: &Account,
    decided: &Decided,
    (cut, noted, span): (ChunkBy, Option<Noted>, Span),
    input: Option<OpenInput>,
) {
    let mut running = JoinSet::new();
    let input = input.map(Arc::new);
    loop {
        let (reply, stream) = tokio::select! {
            Some(ended) = running.join_next() => {
                panics::report("the task of a publication", ended);
                continue;
            }
            stream = session.accept_uni(), if running.len() < MAX_STREAMS => match stream {
                Ok(stream) => (None, stream),
                Err(_) => return,
            },
            streams = accept_bi(session, input.is_some()), if running.len() < MAX_STREAMS => match streams {
                Ok((send, recv)) => (Some(send), recv),
                Err(_) => return,
            },
        };
        let (app, feed, decided) = (app.clone(), feed.clone(), decided.clone());
        let (account, noted) = (account.clone(), noted.clone());
        // Here, where they come in their order.
        let input = input.clone().map(|input| {
            let claim = input.claim();
            (input, claim)
        });
        let published = async move {
            one_stream(&app, &feed, &account, &decided, (cut, noted, input), stream, reply).await;
        };
        running.spawn(published.instrument(span.clone()));
    }
}

/// A command gets its input from the first of several streams, which has the lowest id. Publications wait for no others.
async fn accept_bi(session: &Session, in_order: bool) -> Result<(SendStream, RecvStream), SessionError> {
    match in_order {
        true => session.accept_bi_in_order().await,
        false => session.accept_bi().await,
    }
}

async fn one_stream(
    app: &App,
    feed: &Feed,
    account: &Account,
    decided: &Decided,
    (cut, noted, input): (ChunkBy, Option<Noted>, Sending),
    mut stream: RecvStream,
    reply: Option<SendStream>,
) {
    let publications = &app.publications;
    let mut noted = noted.as_ref().map(Noted::publication);
    let mut is_gone = false;
    let done = async {
        let seen = (&mut stream, &mut noted, &mut is_gone);
        let pieces = stream::unfold(seen, |(stream, noted, is_gone)| async move {
            let piece = stream.read_bytes(usize::MAX).await.map_err(io::Error::other).transpose()?;
            match (&piece, &mut *noted) {
                (Ok(piece), Some(noted)) => noted.received(piece.len()),
                (Ok(_), None) => {}
                (Err(_), _) => *is_gone = true,
            }
            Some((piece, (stream, noted, is_gone)))
        });
        // The session may have begun as a view, which takes no place of feeds that are written.
        let feed = &app.feed_named(feed.name(), "", account, decided, Action::Publish).await?;
        if feed.takes_input() {
            let Some((input, claim)) = input else { return Err(OpenInput::over()) };
            let _place = publications.place(account)?;
            // A session may be silent for as long as it likes.
            return input.send(app, account, decided, claim, pieces, (true, Duration::ZERO)).await;
        }
        let publisher = publications.admit(feed, decided)?;
        let _place = publications.place(account)?;
        let _publishing = feed.publishing();
        let said = Said { feed: feed.name(), epoch: None, account, owner: None, key: None, offset: None, publisher };
        let publication = publications.begin(said).await?;
        let done = publish(publications, publisher, account, &publication, pieces, cut.into(), decided).await;
        done.map_err(|problem| problem.published(written(feed, &publication)))?;
        Ok::<_, Problem>(written(feed, &publication))
    };
    let answer = match done.await {
        Ok(answer) => {
            if let Some(noted) = &mut noted {
                noted.answered(StatusCode::OK, false);
            }
            answer.to_string()
        }
        Err(problem) => {
            if let Some(noted) = &mut noted {
                noted.answered(problem.status, is_gone);
            }
            if let Some(refusal) = problem.refusal() {
                publications.refused(refusal, account);
            }
            stream.stop(problem.status.as_u16().into());
            problem.text()
        }
    };
    let Some(mut reply) = reply else { return };
    let sent = async {
        let size = answer.len();
        if reply.write_bytes(answer.into()).await.is_ok() && reply.finish().is_ok() {
            if let Some(noted) = &mut noted {
                noted.sent(size);
            }
            let _ = reply.stopped().await;
        }
    };
    let _ = tokio::time::timeout(ANSWER_WAIT, sent).await;
}
