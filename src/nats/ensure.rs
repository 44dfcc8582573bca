//! The JetStream stream of a subject: found, and made or looked at when that is wanted. It is never
//! changed.

use std::{str::FromStr, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    context::{GetStreamByNameErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};

use super::{
    connection::Link,
    error::{NatsError, Unfit},
};
use crate::units;

/// How a stream is to be. What is not said is as the server has it: kept in files, once, without limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ensure {
    /// How many servers keep it.
    pub replicas: Option<usize>,
    /// How long it is kept.
    pub max_age: Option<Duration>,
    /// How much is kept, in bytes.
    pub max_bytes: Option<i64>,
    /// How many chunks are kept.
    pub max_messages: Option<i64>,
    /// When no more is kept, the new ones are refused, not the old ones dropped.
    pub discard_new: Option<bool>,
    /// It is kept in memory, not in files.
    pub memory: Option<bool>,
}

/// A text that does not describe a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid stream setting `{0}`: expected replicas=3, max-age=24h, max-bytes=10G, max-messages=N, discard=old|new, storage=file|memory, with commas between"
)]
pub struct BadEnsure(String);

impl FromStr for Ensure {
    type Err = BadEnsure;

    fn from_str(text: &str) -> Result<Self, BadEnsure> {
        let mut ensure = Self::default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let bad = || BadEnsure(setting.to_owned());
            let (name, value) = setting.split_once('=').ok_or_else(bad)?;
            match (name, value) {
                ("replicas", number) => ensure.replicas = Some(number.parse().map_err(|_| bad())?),
                ("max-age", time) => ensure.max_age = Some(age(time).ok_or_else(bad)?),
                ("max-bytes", size) => ensure.max_bytes = Some(bytes(size).ok_or_else(bad)?),
                ("max-messages", number) => {
                    ensure.max_messages = Some(number.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?);
                }
                ("discard", "old") => ensure.discard_new = Some(false),
                ("discard", "new") => ensure.discard_new = Some(true),
                ("storage", "file") => ensure.memory = Some(false),
                ("storage", "memory") => ensure.memory = Some(true),
                _ => return Err(bad()),
            }
        }
        Ok(ensure)
    }
}

/// A number with a unit, as in `24h`.
fn age(text: &str) -> Option<Duration> {
    let seconds = match text.char_indices().last()? {
        (at, 's') => (at, 1),
        (at, 'm') => (at, 60),
        (at, 'h') => (at, 3600),
        (at, 'd') => (at, 24 * 3600),
        _ => return None,
    };
    let number: u64 = text[..seconds.0].parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds.1)?))
}

/// A number of bytes, as in `10G`.
fn bytes(text: &str) -> Option<i64> {
    units::bytes(text)?.try_into().ok()
}

impl Ensure {
    fn config(&self, name: String, subject: &str) -> Config {
        Config {
            name,
            subjects: vec![subject.to_owned()],
            num_replicas: self.replicas.unwrap_or(1),
            max_age: self.max_age.unwrap_or_default(),
            max_bytes: self.max_bytes.unwrap_or(-1),
            max_messages: self.max_messages.unwrap_or(-1),
            discard: if self.discard_new == Some(true) { DiscardPolicy::New } else { DiscardPolicy::Old },
            storage: if self.memory == Some(true) { StorageType::Memory } else { StorageType::File },
            ..Config::default()
        }
    }

    /// What of it a stream is not, in words.
    fn differences(&self, there: &Config) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, wanted: Option<String>, is: String| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
                found.push(format!("{what} is {is}, not {wanted}"));
            }
        };
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        let discard = |new| if new { "new" } else { "old" }.to_owned();
        let storage = |memory| if memory { "memory" } else { "file" }.to_owned();
        compare("replicas", self.replicas.map(|number| number.to_string()), there.num_replicas.to_string());
        compare("max-age", self.max_age.map(seconds), seconds(there.max_age));
        compare("max-bytes", self.max_bytes.map(|size| size.to_string()), there.max_bytes.to_string());
        compare("max-messages", self.max_messages.map(|number| number.to_string()), there.max_messages.to_string());
        compare("discard", self.discard_new.map(discard), discard(there.discard == DiscardPolicy::New));
        compare("storage", self.memory.map(storage), storage(there.storage == StorageType::Memory));
        found
    }
}

/// A stream as far as a feed must know it.
#[derive(Debug, Clone)]
pub(super) struct StreamInfo {
    pub(super) name: String,
    /// All that it keeps has this subject, so that its numbers follow each other.
    pub(super) only: Option<String>,
}

impl StreamInfo {
    fn of(config: &Config) -> Self {
        let whole = config.mirror.is_none() && config.sources.as_ref().is_none_or(Vec::is_empty);
        let only = match config.subjects.as_slice() {
            [subject] if whole && !subject.contains(['*', '>']) => Some(subject.clone()),
            _ => None,
        };
        Self { name: config.name.clone(), only }
    }
}

/// Why a stream cannot have the feed of a subject.
fn unfit(config: &Config, subject: &str, writable: bool) -> Option<Unfit> {
    let mirrored = config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty());
    if config.retention != RetentionPolicy::Limits {
        Some(Unfit::Retention)
    } else if !mirrored && !config.subjects.iter().any(|kept| overlaps(kept, subject)) {
        Some(Unfit::Subjects { subject: subject.to_owned(), stored: config.subjects.clone() })
    } else if writable && config.no_ack {
        Some(Unfit::NoAck)
    } else {
        None
    }
}

/// Whether two subjects, with wildcards or without, have messages in common.
fn overlaps(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// Finds the stream that stores `subject`, or creates it.
pub(super) async fn stream(
    connection: &Link,
    subject: &str,
    name: Option<&str>,
    ensure: Option<&Ensure>,
    writable: bool,
) -> Result<StreamInfo, NatsError> {
    let jetstream = &connection.jetstream;
    // A stream that exists, checked against what is asked for.
    let found = |config: &Config| {
        let stream = config.name.clone();
        if let Some(unfit) = unfit(config, subject, writable) {
            return Err(NatsError::Unfit { stream, unfit });
        }
        let differences = ensure.map(|ensure| ensure.differences(config)).unwrap_or_default();
        if !differences.is_empty() {
            return Err(NatsError::Differs { stream, differences });
        }
        Ok(StreamInfo::of(config))
    };
    let named = match name {
        Some(name) => Some(name.to_owned()),
        None => match jetstream.stream_by_subject(subject).await {
            Ok(name) => Some(name),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => None,
            Err(error) => return Err(NatsError::JetStream(error.into())),
        },
    };
    if let Some(name) = named {
        match info(connection, &name).await {
            Ok(info) => return found(&info.config),
            Err(LookupError::Other(error)) => return Err(error),
            Err(LookupError::Stream) => {}
        }
    }
    let Some(ensure) = ensure else {
        // A server without JetStream is another error: no stream can be created there.
        jetstream.query_account().await.map_err(|error| NatsError::JetStream(error.into()))?;
        return Err(NatsError::NoStream { subject: subject.to_owned() });
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name = name.map_or_else(|| subject.chars().map(plain).collect(), String::from);
    let config = ensure.config(name.clone(), subject);
    match jetstream.create_stream(config).await {
        Ok(made) => Ok(StreamInfo::of(&made.cached_info().config)),
        // Another server may have created it first.
        Err(error) => match info(connection, &name).await {
            Ok(info) => found(&info.config),
            Err(_) => Err(NatsError::Create { stream: name, subject: subject.to_owned(), source: error.into() }),
        },
    }
}

enum LookupError {
    Stream,
    Other(NatsError),
}

async fn info(connection: &Link, name: &str) -> Result<Info, LookupError> {
    match connection.jetstream.get_stream(name).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => Err(match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                LookupError::Stream
            }
            _ => LookupError::Other(NatsError::Stream { stream: name.to_owned(), source: error.into() }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_in_common() {
        for (one, other) in [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b.c"), ("a.*", "a.>"), ("*.b", "a.*")] {
            assert!(overlaps(one, other) && overlaps(other, one), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a.b", "a"), ("a.>", "a"), ("a.*", "a.b.c")] {
            assert!(!overlaps(one, other) && !overlaps(other, one), "{one} {other}");
        }
    }

    #[test]
    fn descriptions() {
        let all = "replicas=3,max-age=24h,max-bytes=10G,max-messages=5,discard=new,storage=memory";
        let ensure: Ensure = all.parse().unwrap();
        assert_eq!(ensure.max_age, Some(Duration::from_secs(24 * 3600)));
        assert_eq!(ensure.max_bytes, Some(10 << 30));
        assert_eq!("".parse(), Ok(Ensure::default()));
        let config = ensure.config("x".into(), "x");
        assert!(ensure.differences(&config).is_empty());
        assert!(Ensure::default().differences(&config).is_empty());
        let other: Ensure = "replicas=1,discard=old".parse().unwrap();
        assert_eq!(other.differences(&config), ["replicas is 3, not 1", "discard is new, not old"]);
        for text in ["replicas", "replicas=x", "max-age=1", "max-age=h", "what=1", "discard=all", "max-bytes=G"] {
            assert!(text.parse::<Ensure>().is_err(), "{text}");
        }
    }
}
