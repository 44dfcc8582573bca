use http::{HeaderMap, HeaderValue};
use tower::ServiceExt;

use super::*;
use crate::feed::{Feed, Lag};

async fn asked(app: &App, accept: Option<&'static str>) -> (HeaderMap, String) {
    let mut request =
        Request::get("/metrics").header(header::HOST, "localhost").body(axum::body::Body::empty()).unwrap();
    if let Some(accept) = accept {
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    }
    let (head, body) = app.router().oneshot(request).await.unwrap().into_parts();
    let text = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    (head.headers, String::from_utf8(text.into()).unwrap())
}

#[tokio::test]
async fn both_formats_have_the_same_numbers() {
    let (feed, publisher) = Feed::live("log", 1 << 20, Lag::Skip);
    publisher.publish("a line".into()).await.unwrap();
    let app = App::without_identity([feed])
        .gauge("mine", "Of the program.", || 7.0)
        .gauge("mine_oddly_total", "A gauge with the name of a counter.", || 0.5)
        .counter("mine_seconds_total", "Grows.", || 1.5);
    let (head, text) = asked(&app, None).await;
    assert_eq!(head[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE h3cast_feed_chunks_total counter",
        "h3cast_feed_chunks_total{feed=\"log\"} 1",
        "h3cast_feed_blocked_seconds_total{feed=\"log\"} 0",
        "h3cast_feeds 1",
        "# TYPE mine gauge",
        "mine 7",
        "mine_oddly_total 0.5",
        "# HELP mine_seconds_total Grows.",
        "mine_seconds_total 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let (head, open) = asked(&app, Some("application/openmetrics-text")).await;
    assert_eq!(head[header::CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let samples = |text: &str| {
        // The two write the bounds of buckets differently, 1.0 and 1, and in another place.
        let written = |line: &str| {
            let Some((name, rest)) = line.split_once('{') else { return line.to_owned() };
            let (labels, value) = rest.split_once("} ").unwrap();
            let label = |label: &str| match label.strip_prefix("le=\"").and_then(|bound| bound.strip_suffix('"')) {
                Some(bound) => format!("le={}", bound.parse::<f64>().unwrap()),
                None => label.to_owned(),
            };
            let mut labels: Vec<_> = labels.split(',').map(label).collect();
            labels.sort_unstable();
            format!("{name}{labels:?} {value}")
        };
        let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(written).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(samples(&open), samples(&text));
    assert!(text.contains("_bucket{") && text.contains("le=\"+Inf\""), "{text}");
    assert!(
        open.contains("# TYPE h3cast_feed_chunks counter\n") && open.contains("# UNIT h3cast_feed_kept_bytes bytes\n"),
        "{open}"
    );
}

#[test]
#[should_panic(expected = "ends with _total")]
fn the_name_of_a_counter_is_that_of_one() {
    let _ = App::without_identity([]).counter("mine", "Grows.", || 1.0);
}
