//! The log as JSON: one object for each line, with what its spans say of it.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope},
};

use super::{limit, plain};
use crate::shown;

/// The most characters of a text; what a command writes is not cut.
const LONGEST: usize = 1000;

/// Whether lines of this process are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

pub(super) fn choose(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

pub(super) fn is_chosen() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Writes each event with `write`.
pub(super) struct JsonLines(pub(super) fn(&[u8]));

/// What is known of a span. Its `id` is named as the span is.
#[derive(Default)]
struct SpanFields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::default();
        attributes.record(&mut Fields { into: &mut fields.0, span: Some(span.name()), longest: LONGEST });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let name = span.name();
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut Fields { into: &mut fields.0, span: Some(name), longest: LONGEST });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        (self.0)(line(event, context.event_scope(event)).as_bytes());
    }
}

fn line<'a, S: Subscriber + LookupSpan<'a>>(event: &Event<'_>, scope: Option<Scope<'a, S>>) -> String {
    let metadata = event.metadata();
    let mut fields = Map::new();
    let longest = if limit::is_of_command(metadata) { usize::MAX } else { LONGEST };
    event.record(&mut Fields { into: &mut fields, span: None, longest });
    let mut object = begin(*metadata.level(), metadata.target(), fields.remove("message").unwrap_or_default());
    // From the outside in; what is nearer counts.
    for span in scope.into_iter().flat_map(Scope::from_root) {
        if let Some(SpanFields(fields)) = span.extensions().get() {
            object.extend(fields.clone());
        }
    }
    for (name, value) in fields {
        // No field may take the place of those that each line has.
        match object.contains_key(&name) && ["time", "level", "target", "message"].contains(&name.as_str()) {
            true => object.insert(format!("{name}_"), value),
            false => object.insert(name, value),
        };
    }
    written(object)
}

/// A line that is no event's.
pub(super) fn plain(level: Level, text: &str) -> String {
    written(begin(level, "h3cast", text.trim_end().into()))
}

fn begin(level: Level, target: &str, message: Value) -> Map<String, Value> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = i128::try_from(since.as_micros()).unwrap_or_default() * 1000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|time| time.format(&Rfc3339).ok());
    let mut object = Map::new();
    object.insert("time".into(), time.unwrap_or_default().into());
    object.insert("level".into(), level.as_str().into());
    object.insert("target".into(), target.into());
    object.insert("message".into(), message);
    object
}

fn written(object: Map<String, Value>) -> String {
    let mut line = shown::json(&Value::Object(object).to_string());
    line.push('\n');
    line
}

/// Takes fields as values of JSON.
struct Fields<'a> {
    into: &'a mut Map<String, Value>,
    span: Option<&'static str>,
    longest: usize,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match (field.name(), self.span) {
            ("id", Some(span)) => span,
            (name, _) => name,
        };
        self.into.insert(name.into(), value.into());
    }

    fn text(&mut self, field: &Field, text: &str) {
        // A line of a command stays as it is.
        let text = match field.name() {
            "message" | "error" if self.longest == LONGEST => plain::plain(text),
            _ => text.into(),
        };
        let cut = match text.char_indices().nth(self.longest) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.into_owned(),
        };
        self.put(field, cut);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    #[test]
    fn an_object_for_each_line_with_its_spans() {
        let layer = JsonLines(|line| LINES.lock().unwrap().extend_from_slice(line));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let connection = tracing::info_span!("connection", id = tracing::field::Empty, remote = %"[::1]:9");
            connection.record("id", 17);
            let _connection = connection.entered();
            let request = tracing::info_span!("request", id = %"ab\"c");
            tracing::warn!(parent: &request, feed = "x\n", level = 3, error = %"Some(1) (os error 2)", "two (os error 5)\nlines \u{1b}[2J");
            tracing::info!("{}", "é".repeat(2 * LONGEST));
        });
        let written = LINES.lock().unwrap().clone();
        let text = String::from_utf8(written).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let line = &lines[0];
        assert_eq!(
            (&line["connection"], &line["remote"], &line["request"]),
            (&17.into(), &"[::1]:9".into(), &"ab\"c".into())
        );
        assert_eq!((&line["level"], &line["level_"], &line["feed"]), (&"WARN".into(), &3.into(), &"x\n".into()));
        assert_eq!((&line["message"], &line["error"]), (&"two\nlines \u{1b}[2J".into(), &"Some(1)".into()));
        assert_eq!(lines[1]["message"].as_str().unwrap().chars().count(), LONGEST + 1);
    }
}
