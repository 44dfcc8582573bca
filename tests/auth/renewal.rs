//! Clients of the library whose token ends while they publish and view: nothing is lost or doubled.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream};
use h3cast::{
    App,
    auth::{Access, Authorize, Credential, DEFAULT_COOKIE, Denied, Pattern},
    client::{
        Publication, PublishError, PublishEvent, Token, Trust, Viewer,
        viewer::{Event, Transport, ViewError},
    },
    feed::{Feed, Lag, Start},
};
use http::{HeaderValue, StatusCode, request::Parts};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::common::{TestServer, soon};

/// Lets in whoever has the one token that counts now.
#[derive(Clone)]
struct One(Arc<Mutex<(String, CancellationToken)>>);

impl One {
    fn new(token: &str) -> Self {
        Self(Arc::new(Mutex::new((token.to_owned(), CancellationToken::new()))))
    }

    /// From now on another one counts, and what runs under the old one ends.
    fn change(&self, token: &str) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap(), (token.to_owned(), CancellationToken::new()));
        old.1.cancel();
    }
}

impl Authorize for One {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        let Some(given) = Credential::of(request, DEFAULT_COOKIE)? else { return Ok(Access::anonymous()) };
        let (token, revoked) = self.0.lock().unwrap().clone();
        if given.token() != token {
            return Err(Denied::invalid("the token has been replaced"));
        }
        let all = || [Pattern::all()];
        Ok(Access::granted().read(all()).publish(all()).revoked_by(revoked))
    }
}

/// What a client shows: a token that the test exchanges, and how often it was asked for.
fn renewed(token: &str) -> (watch::Sender<String>, Token) {
    let sender = watch::Sender::new(token.to_owned());
    let shown = sender.clone();
    let get = move || -> BoxFuture<'static, io::Result<String>> {
        let token = shown.borrow().clone();
        Box::pin(async { Ok(token) })
    };
    (sender, Token::by(get))
}

async fn serve() -> (TestServer, One, Feed) {
    let (one, feed) = (One::new("first"), Feed::writable("log", 1 << 20, Lag::Skip));
    let (ours, live) = (one.clone(), feed.clone());
    let server = TestServer::start(|builder, identity| App::new([live], identity).authorize(ours).install(builder));
    (server.await, one, feed)
}

fn trust(server: &TestServer) -> Trust {
    Trust::Files(vec![server.certificate()])
}

#[tokio::test]
async fn a_publication_resumes_with_the_next_token() {
    const PART: usize = 50;
    let (server, one, feed) = serve().await;
    let (shown, token) = renewed("first");
    let (lines, given) = mpsc::channel::<Bytes>(1);
    let given = stream::unfold(given, async |mut given| given.recv().await.map(|line| (Ok(line), given)));
    let mut publication = Publication::new(server.uri("/stream/log"), trust(&server)).token_from(token);
    let (report, mut reports) = mpsc::unbounded_channel();
    let publishing = tokio::spawn(async move {
        let published = publication.run(given, |event| drop(report.send(event))).await;
        published.map(|published| published.bytes)
    });
    let mut viewer = feed.view(Start::Start, None);
    let mut expected = Vec::new();
    for (part, (now, next)) in [("first", "second"), ("second", "third"), ("third", "")].into_iter().enumerate() {
        for number in 0..PART {
            let line = format!("{part} {number}\n");
            expected.extend_from_slice(line.as_bytes());
            soon("room for a line", lines.send(line.into())).await.unwrap();
        }
        if next.is_empty() {
            break;
        }
        // A request runs now, with something in it.
        let mut refused = 0;
        one.change(next);
        while refused < 3 {
            if let PublishEvent::Lost { error, .. } = soon("a report", reports.recv()).await.unwrap() {
                let PublishError::Answered { status, detail, .. } = &error else { panic!("{now}: {error:?}") };
                assert_eq!(*status, StatusCode::UNAUTHORIZED, "{detail:?}");
                let detail = detail.as_deref().unwrap();
                // The request that ran is told that its token has ended; those with the old one, that it is replaced.
                assert!(detail.contains(if refused == 0 { "revoked" } else { "replaced" }), "{refused} {detail}");
                refused += 1;
            }
        }
        // Not before it has been refused: it keeps trying.
        shown.send_replace(next.to_owned());
    }
    drop(lines);
    let bytes = soon("the end of the publication", publishing).await.unwrap().unwrap();
    assert_eq!(bytes, expected.len() as u64);
    let mut read = Vec::new();
    while read.len() < expected.len() {
        match soon("a chunk", viewer.next()).await {
            Some(h3cast::feed::Event::Chunk(chunk)) => read.extend_from_slice(&chunk.bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(String::from_utf8(read), String::from_utf8(expected));
    assert_eq!(feed.status().chunks, 3 * PART as u64, "none is doubled");
}

/// A token that stays the same does not help again.
#[tokio::test]
async fn a_publication_with_a_fixed_token_ends_with_it() {
    let (server, one, _feed) = serve().await;
    for by_header in [true, false] {
        one.change("first");
        let publication = Publication::new(server.uri("/stream/log"), trust(&server));
        let mut publication = match by_header {
            true => publication.token(HeaderValue::from_static("Bearer first")),
            false => publication.token_from(Token::fixed("first")),
        };
        let mut begun = false;
        let pieces = stream::once(async { Ok(Bytes::from("one\n")) }).chain(stream::pending());
        let (opened, mut is_opened) = mpsc::unbounded_channel();
        let running = publication.run(pieces, |event| {
            begun |= matches!(event, PublishEvent::Opened { .. });
            let _ = opened.send(());
        });
        let changing = async {
            is_opened.recv().await;
            one.change("second");
        };
        let (ended, ()) = soon("the end", async { tokio::join!(running, changing) }).await;
        match ended {
            Err(PublishError::Answered { status: StatusCode::UNAUTHORIZED, .. }) => assert!(begun),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_viewer_resumes_with_the_next_token() {
    for transport in [Transport::Get, Transport::WebTransport] {
        let (server, one, feed) = serve().await;
        let (shown, token) = renewed("first");
        let publisher = feed.publisher().unwrap().clone();
        let uri = server.uri("/stream/log?from=start");
        let mut viewer = Viewer::new(&uri, trust(&server)).unwrap().token_from(token).transport(transport);
        let (mut next, mut published) = (0_u64, 0_u64);
        for (number, token) in ["second", "third", ""].into_iter().enumerate() {
            for _ in 0..20 {
                publisher.publish(format!("{published}").into()).await.unwrap();
                published += 1;
            }
            while next < published {
                if let Event::Chunk { bytes, .. } = event(&mut viewer).await {
                    assert_eq!(bytes, next.to_string(), "{transport:?}");
                    next += 1;
                }
            }
            if token.is_empty() {
                break;
            }
            one.change(token);
            // What is published while it is out is not lost.
            publisher.publish(format!("{published}").into()).await.unwrap();
            published += 1;
            let mut refused = 0;
            while refused < 3 {
                match event(&mut viewer).await {
                    Event::Lost { error, .. } => {
                        let expired = matches!(error, ViewError::Expired);
                        assert!(expired == (refused == 0), "{transport:?} {number} {refused}: {error:?}");
                        assert!(expired || error.to_string().contains("replaced"), "{transport:?}: {error}");
                        refused += 1;
                    }
                    // It may have been on its way.
                    Event::Chunk { bytes, .. } => {
                        assert_eq!(bytes, next.to_string(), "{transport:?}");
                        next += 1;
                    }
                    Event::Opened { .. } => {}
                    other => panic!("{transport:?}: {other:?}"),
                }
            }
            shown.send_replace(token.to_owned());
        }
        assert_eq!((viewer.missing(), viewer.restarts()), (0, 0), "{transport:?}");
        assert_eq!(next, 62, "{transport:?}");
        viewer.close().await;
    }
}

async fn event(viewer: &mut Viewer) -> Event {
    tokio::time::timeout(Duration::from_secs(20), viewer.next()).await.expect("an event").unwrap().unwrap()
}
