use http::{HeaderMap, HeaderValue};
use tower::ServiceExt;

use super::*;
use crate::feed::{Feed, Lag, WrittenFeeds, WrittenLimits};

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
        .counter("mine_seconds_total", "Grows.", || 1.5)
        .counters("mine_refused_total", "Grow.", "cause", || vec![("full", 2.0), ("late", 0.0)])
        .histogram("mine_took_seconds", "Distributed.", || (vec![(0.5, 3), (f64::INFINITY, 1)], 9.5));
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
        "mine_refused_total{cause=\"full\"} 2",
        "mine_took_seconds_bucket{le=\"0.5\"} 3",
        "mine_took_seconds_sum 9.5",
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

/// Labels are bounded: by name, so that two reads show the same feeds, and without those that were named at the start.
#[tokio::test]
async fn at_most_a_thousand_feeds_of_clients_are_labels() {
    let (named, _publisher) = Feed::live("zzz", 1 << 10, Lag::Skip);
    let mut limits = WrittenLimits::default();
    (limits.all, limits.each) = (2_000, 2_000);
    let family = WrittenFeeds::within("chat.*", 1 << 10, Lag::Skip, limits).unwrap();
    let app = App::without_identity([named]).family(family);
    let create = async |number: usize| {
        let request = Request::post(format!("/stream/chat.{number:04}")).header(header::HOST, "localhost");
        let request = request.header(header::ORIGIN, "http://localhost").body(axum::body::Body::from("a line"));
        let response = app.router().oneshot(request.unwrap()).await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
    };
    let listed = async || {
        let (_, text) = asked(&app, None).await;
        let series: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("h3cast_feed_chunks_total{feed=\"")?.split_once("\"} "))
            .map(|(feed, _)| feed.to_owned())
            .collect();
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<usize>().unwrap();
        (series, value("h3cast_feeds "), value("h3cast_feeds_unlisted "))
    };
    // The last ones by name come first.
    for number in (1..=1_000).rev() {
        create(number).await;
    }
    let (series, all, unlisted) = listed().await;
    assert_eq!((series.len(), all, unlisted), (1_001, 1_001, 0));
    create(0).await;
    create(1_001).await;
    let (series, all, unlisted) = listed().await;
    assert_eq!((series.len(), all, unlisted), (1_001, 1_003, 2));
    assert_eq!([&series[0], &series[1], &series[1_000]], ["zzz", "chat.0000", "chat.0999"]);
}

#[test]
#[should_panic(expected = "ends with _total")]
fn the_name_of_a_counter_is_that_of_one() {
    let _ = App::without_identity([]).counter("mine", "Grows.", || 1.0);
}
