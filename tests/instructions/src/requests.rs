//! Requests as the router answers them, for what a request costs beside its stream.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body};
use futures_util::FutureExt;
use h3cast::{
    App, Identity,
    feed::{self, Feed, Lag},
};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::Service;

use crate::{
    chunks::{ROOMY, publish_lines},
    measured,
};

/// What is asked, whether as an `EventSource`, and what comes of it.
const ASKED: &[(&str, bool, StatusCode)] = &[
    ("/stream?format=frames&from=start&limit=5", false, StatusCode::OK),
    ("/stream?from=start&limit=5", true, StatusCode::OK),
    ("/stream/other?from=0-0&limit=5&format=sse", false, StatusCode::OK),
    ("/stream?format=none", false, StatusCode::BAD_REQUEST),
    ("/stream/nothing", false, StatusCode::NOT_FOUND),
    ("/healthz", false, StatusCode::OK),
];

pub(crate) fn answer() {
    // The certificate is made here, which is not counted.
    let identity = Identity::self_signed(&std::env::temp_dir().join("h3cast-instructions"), &[], Default::default())
        .expect("a certificate");
    let feeds = [feed::DEFAULT, "other"].map(|name| Feed::live(name, ROOMY, Lag::Skip));
    feeds.iter().for_each(|(_, publisher)| publish_lines(publisher, 10));
    let router = Arc::new(App::new(feeds.iter().map(|(feed, _)| feed.clone()), identity)).router();
    let bytes = measured(|| (0..200).flat_map(|_| ASKED).map(|asked| ask(&router, asked)).sum::<usize>());
    assert!(bytes > 0);
}

/// How many a server may have of a pattern.
const MANY: usize = 10_000;

/// What is said of many feeds.
pub(crate) fn many_feeds() {
    let feeds: Vec<_> = (0..MANY).map(|number| Feed::live(&format!("log-{number}"), ROOMY, Lag::Skip)).collect();
    let router = Arc::new(App::without_identity(feeds.iter().map(|(feed, _)| feed.clone()))).router();
    let bytes = measured(|| ask(&router, &("/feeds", false, StatusCode::OK)));
    assert!(bytes > 100 * MANY);
}

fn ask(router: &Router, &(uri, events, status): &(&str, bool, StatusCode)) -> usize {
    let mut request = Request::get(uri).header(header::HOST, "localhost:4433").header(header::USER_AGENT, "guard");
    if events {
        request = request.header(header::ACCEPT, "text/event-stream");
    }
    let request = request.body(Body::empty()).expect("a request");
    let Ok(response) = at_once(router.clone().call(request));
    assert_eq!(response.status(), status, "{uri}");
    let body = response.into_body().collect().now_or_never().expect("a body that ends by itself");
    body.expect("a whole body").to_bytes().len()
}

/// What lets others run in between waits for nothing else.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    let mut turns = (0..MANY).map(|_| work.as_mut().poll(&mut context));
    match turns.find(Poll::is_ready) {
        Some(Poll::Ready(done)) => done,
        _ => panic!("an answer at once"),
    }
}
