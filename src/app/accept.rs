//! Which format a request's `Accept` asks for, of a feed or of metrics (RFC 9110 §12.5.1).

use http::{HeaderMap, header};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams};

use crate::format::{self, Format};

/// The formats that may be asked for, by the type without its parameters. Where two are wanted as much,
/// the first one is given: a client that names it knows how to read it.
const OFFERED: [(Format, &str); 3] =
    [(Format::Frames, format::frames::MEDIA_TYPE), (Format::Sse, "text/event-stream"), (Format::Raw, "text/plain")];

/// The format that a client prefers, if it names any. `raw` is what everyone gets who takes anything:
/// `*/*` and `text/*` mean nothing else.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Format> {
    if !headers.contains_key(header::ACCEPT) {
        return None;
    }
    let mut best = None;
    for (format, media_type) in OFFERED {
        let quality = quality(headers, media_type, format == Format::Raw);
        if quality > 0 && best.is_none_or(|(_, most)| quality > most) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format)
}

/// Whether a client of `/metrics` wants OpenMetrics 1.0.0 at least as much as the text format of Prometheus, which
/// everyone gets who does not name OpenMetrics.
pub(super) fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let is = |range: &MediaType<'_>, version: &str| {
        range.get_param(Name::new_unchecked("version")).is_none_or(|value| value.unquoted_str() == version)
    };
    let open = quality_of(headers, "application/openmetrics-text", false, |range| is(range, "1.0.0"));
    open > 0 && open >= quality_of(headers, "text/plain", true, |range| is(range, "0.0.4"))
}

/// How much a client wants a type, in thousandths: by the most specific of its ranges.
fn quality(headers: &HeaderMap, media_type: &str, by_wildcard: bool) -> u16 {
    quality_of(headers, media_type, by_wildcard, |_| true)
}

/// The same, by those of its ranges that are `meant`.
fn quality_of(headers: &HeaderMap, media_type: &str, by_wildcard: bool, meant: impl Fn(&MediaType<'_>) -> bool) -> u16 {
    let Ok(wanted) = MediaType::parse(media_type) else { return 0 };
    let mut found = (0, 0);
    let fields = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
    for range in fields.flat_map(MediaTypeList::new).filter_map(Result::ok) {
        if !meant(&range) {
            continue;
        }
        // Parameters other than `q` change nothing else: each format has one form.
        let specific = match (range.ty, range.subty) {
            (ty, subty) if (ty, subty) == (wanted.ty, wanted.subty) && range.suffix.is_none() => 3,
            (ty, subty) if ty == wanted.ty && subty == ANY && by_wildcard => 2,
            (ty, subty) if ty == ANY && subty == ANY && by_wildcard => 1,
            _ => continue,
        };
        if specific > found.0 {
            found = (specific, weight(&range));
        } else if specific == found.0 {
            found.1 = found.1.max(weight(&range));
        }
    }
    found.1
}

const ANY: Name<'_> = mediatype::names::_STAR;

/// A range's weight in thousandths (RFC 9110 §12.4.2). A range whose weight cannot be read is not wanted: what
/// its client means cannot be told, and `raw` is what everyone can read.
fn weight(range: &MediaType<'_>) -> u16 {
    let Some(weight) = range.get_param(Name::new_unchecked("q")) else { return 1000 };
    let text = weight.as_str();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f32>() {
        Ok(weight) if plain && weight <= 1.0 => (weight * 1000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str]) -> Option<Format> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::ACCEPT, field.parse().unwrap());
        }
        preferred(&headers)
    }

    #[test]
    fn what_means_open_metrics() {
        let open = |field: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, field.parse().unwrap());
            prefers_open_metrics(&headers)
        };
        // As Prometheus 2 and 3 ask.
        assert!(open(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(open(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ));
        for field in [
            "application/openmetrics-text",
            r#"Application/OpenMetrics-Text; Version="1.0.0""#,
            "application/openmetrics-text, text/plain",
            "text/plain;q=0.4, application/openmetrics-text;q=0.5",
            "*/*;q=0.8, application/openmetrics-text;q=0.8",
        ] {
            assert!(open(field), "{field}");
        }
        for field in [
            "*/*",
            "application/*",
            "text/plain",
            "text/html",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;q=0.4, text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text;q=0.1, */*;q=0.2",
        ] {
            assert!(!open(field), "{field}");
        }
        assert!(!prefers_open_metrics(&HeaderMap::new()));
    }

    #[test]
    fn what_means_events() {
        for fields in [
            &["text/event-stream"][..],
            &["Text/Event-Stream"],
            &["text/event-stream;charset=utf-8"],
            &["text/event-stream ; Q=0.5"],
            &["text/event-stream;q=0.001"],
            &["text/html, text/event-stream"],
            &["text/html", "text/event-stream"],
            &["text/event-stream, */*;q=0.1"],
            &["text/event-stream, */*"],
            &["text/event-stream, text/plain"],
            &["text/plain;q=0.5, text/event-stream;q=0.6"],
            &["text/plain;x=\"a,b\";q=0.5,text/event-stream"],
            &["*/*;q=0, text/event-stream"],
            &["text/event-stream;q=0, text/event-stream"],
            &[",,text/event-stream,"],
        ] {
            assert_eq!(of(fields), Some(Format::Sse), "{fields:?}");
        }
    }

    #[test]
    fn what_means_frames() {
        for fields in [
            "application/vnd.h3cast.frames",
            "Application/VND.h3cast.Frames, */*;q=0.1",
            "text/event-stream, application/vnd.h3cast.frames",
            "*/*, application/vnd.h3cast.frames",
        ] {
            assert_eq!(of(&[fields]), Some(Format::Frames), "{fields}");
        }
        for fields in
            ["application/vnd.h3cast.frames;q=0, */*", "application/vnd.h3cast.frames;q=0.5, */*", "application/*"]
        {
            assert_ne!(of(&[fields]), Some(Format::Frames), "{fields}");
        }
    }

    #[test]
    fn what_does_not() {
        for fields in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["text/plain"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0.000"],
            &["text/event-stream;q=0.0000"],
            &["text/event-stream;q=1.5"],
            &["text/event-stream;q=x"],
            &["text/event-streamx"],
            &["text/event-stream+json"],
            &["xtext/event-stream"],
            &["application/event-stream"],
            &["text/plain;x=\",text/event-stream\""],
            &["text/plain, text/event-stream;q=0.9"],
            &["*/*, text/event-stream;q=0.9"],
            &["text/html, */*;q=0.8"],
        ] {
            assert_ne!(of(fields), Some(Format::Sse), "{fields:?}");
        }
    }
}
