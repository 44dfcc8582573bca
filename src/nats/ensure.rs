//! The JetStream stream of a subject: found, and made or looked at when that is wanted. It is never
//! changed.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    context::GetStreamByNameErrorKind,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};

use sha2::{Digest, Sha256};

use super::{
    connection::Link,
    error::{NatsError, Unfit, answer},
    several::streams,
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
    /// For how long ids of messages are remembered, so that what is sent again is kept once.
    pub duplicate_window: Option<Duration>,
    /// How many consumers it may have.
    pub max_consumers: Option<i32>,
    /// Several messages can be published as one. If nothing is said, streams that are made can, where the server is
    /// new enough (2.12).
    pub atomic: Option<bool>,
    /// Subjects, each with wildcards perhaps, that are kept together: a stream that is made for a feed whose subject is
    /// one of those keeps all of them.
    pub subjects: Vec<String>,
}

/// A text that does not describe a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid stream setting {0}")]
pub struct BadEnsure(String);

/// What settings there are.
const EXPECTED: &str = "expected replicas=3, max-age=24h, max-bytes=10G, max-messages=N, discard=old|new, \
    storage=file|memory, duplicate-window=2m, max-consumers=N, allow-atomic=on|off, subject=logs.>, with commas between";

impl FromStr for Ensure {
    type Err = BadEnsure;

    fn from_str(text: &str) -> Result<Self, BadEnsure> {
        let mut ensure = Self::default();
        let mut names = BTreeSet::new();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let bad = || BadEnsure(format!("`{setting}`: {EXPECTED}"));
            let (name, value) = setting.split_once('=').ok_or_else(bad)?;
            if name != "subject" && !names.insert(name) {
                return Err(BadEnsure(format!("`{setting}`: {name} is given twice: leave one out")));
            }
            match (name, value) {
                ("replicas", number) => ensure.replicas = Some(number.parse().map_err(|_| bad())?),
                ("max-age", time) => ensure.max_age = Some(age(time).ok_or_else(bad)?),
                ("max-bytes", size) => {
                    if let Some(why) = units::lacks_unit(size) {
                        return Err(BadEnsure(format!("`{setting}`: {why}")));
                    }
                    ensure.max_bytes = Some(bytes(size).ok_or_else(bad)?);
                }
                ("max-messages", number) => {
                    ensure.max_messages = Some(number.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?);
                }
                ("discard", "old") => ensure.discard_new = Some(false),
                ("discard", "new") => ensure.discard_new = Some(true),
                ("storage", "file") => ensure.memory = Some(false),
                ("storage", "memory") => ensure.memory = Some(true),
                ("duplicate-window", time) => ensure.duplicate_window = Some(age(time).ok_or_else(bad)?),
                ("max-consumers", number) => {
                    ensure.max_consumers = Some(number.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?);
                }
                ("allow-atomic", "on") => ensure.atomic = Some(true),
                ("allow-atomic", "off") => ensure.atomic = Some(false),
                ("subject", subject) if is_subject(subject) => ensure.subjects.push(subject.to_owned()),
                _ => return Err(bad()),
            }
        }
        Ok(ensure)
    }
}

/// Whether a stream can have it.
fn is_subject(text: &str) -> bool {
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let right = match token {
            "*" => true,
            ">" => tokens.peek().is_none(),
            token => !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || matches!(c, '*' | '>')),
        };
        if !right {
            return false;
        }
    }
    true
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
    /// The subject that a stream has which is made for that one.
    fn widened<'a>(&'a self, subject: &'a str) -> &'a str {
        self.subjects.iter().find(|wide| covers(wide, subject)).map_or(subject, String::as_str)
    }

    fn config(&self, name: String, subject: &str, is_atomic: bool) -> Config {
        Config {
            name,
            subjects: vec![subject.to_owned()],
            num_replicas: self.replicas.unwrap_or(1),
            max_age: self.max_age.unwrap_or_default(),
            max_bytes: self.max_bytes.unwrap_or(-1),
            max_messages: self.max_messages.unwrap_or(-1),
            discard: if self.discard_new == Some(true) { DiscardPolicy::New } else { DiscardPolicy::Old },
            storage: if self.memory == Some(true) { StorageType::Memory } else { StorageType::File },
            duplicate_window: self.duplicate_window.unwrap_or_default(),
            max_consumers: self.max_consumers.unwrap_or_default(),
            allow_atomic_publish: self.atomic.unwrap_or(is_atomic),
            // Every replica answers for what is kept, not its leader alone.
            allow_direct: true,
            ..Config::default()
        }
    }

    /// What of it a stream is not, in words.
    fn differences(&self, subject: &str, there: &Config) -> Vec<String> {
        let mut found = Vec::new();
        let wide = self.widened(subject);
        if wide != subject && !there.subjects.iter().any(|kept| covers(kept, wide)) {
            found.push(format!("its subjects are {}, not {wide}", there.subjects.join(", ")));
        }
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
        compare("duplicate-window", self.duplicate_window.map(seconds), seconds(there.duplicate_window));
        compare("max-consumers", self.max_consumers.map(|number| number.to_string()), there.max_consumers.to_string());
        let on = |on| if on { "on" } else { "off" }.to_owned();
        compare("allow-atomic", self.atomic.map(on), on(there.allow_atomic_publish));
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
    pub(super) fn of(config: &Config) -> Self {
        let whole = config.mirror.is_none() && config.sources.as_ref().is_none_or(Vec::is_empty);
        let only = match config.subjects.as_slice() {
            [subject] if whole && !subject.contains(['*', '>']) => Some(subject.clone()),
            _ => None,
        };
        Self { name: config.name.clone(), only }
    }
}

/// Whether messages of that subject may be in a stream.
fn stores(config: &Config, subject: &str) -> bool {
    let mirrored = config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty());
    mirrored || config.subjects.iter().any(|kept| overlaps(kept, subject))
}

/// Why a stream cannot have the feed of a subject.
fn unfit(config: &Config, subject: &str, writable: bool) -> Option<Unfit> {
    if config.retention != RetentionPolicy::Limits {
        Some(Unfit::Retention)
    } else if !stores(config, subject) {
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

/// Whether all messages of the one subject are of the wide one.
fn covers(wide: &str, subject: &str) -> bool {
    let (mut wide, mut subject) = (wide.split('.'), subject.split('.'));
    loop {
        match (wide.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (_, Some(">")) => return false,
            (Some(a), Some(b)) if a == b || a == "*" => {}
            _ => return false,
        }
    }
}

/// The names that a stream of these subjects may have, if it is made here: several subjects can have the same first
/// one.
fn names(subject: &str) -> [String; 2] {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = subject.chars().map(plain).collect();
    let hash: String = Sha256::digest(subject).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let other = format!("{name}-{hash}");
    [name, other]
}

/// Whether a server has what came with that version.
fn is_at_least(version: &str, (major, minor): (u64, u64)) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u64>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (major, minor)
}

/// The oldest server that is tested: what feeds need of JetStream, it has.
const OLDEST: (&str, (u64, u64)) = ("2.10", (2, 10));

/// Refuses a server that is older. One that does not say what it is gets the benefit of the doubt.
fn is_new_enough(version: String) -> Result<(), NatsError> {
    let (needs, oldest) = OLDEST;
    match version.is_empty() || is_at_least(&version, oldest) {
        true => Ok(()),
        false => Err(NatsError::TooOld { setting: "a feed on JetStream", needs, version }),
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
    let now = connection.now();
    let jetstream = &now.jetstream;
    is_new_enough(now.client.server_info().version)?;
    // A stream that exists, checked against what is asked for.
    let found = |config: &Config| {
        let stream = config.name.clone();
        if let Some(unfit) = unfit(config, subject, writable) {
            return Err(NatsError::Unfit { stream, unfit });
        }
        let differences = ensure.map(|ensure| ensure.differences(subject, config)).unwrap_or_default();
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
    if let Some(named) = named {
        match info(connection, &named).await {
            Ok(info) => return found(&info.config),
            // Found by its subject it is there: not every server knows yet of a stream that was just created.
            Err(error) if name.is_none() || !is_missing(&error) => return Err(error),
            Err(_) => {}
        }
    }
    let Some(ensure) = ensure else {
        // A server without JetStream is another error: no stream can be created there.
        jetstream.query_account().await.map_err(|error| NatsError::JetStream(error.into()))?;
        return Err(NatsError::NoStream { subject: subject.to_owned() });
    };
    let version = now.client.server_info().version;
    let can_be_atomic = is_at_least(&version, (2, 12));
    if ensure.atomic == Some(true) && !can_be_atomic {
        return Err(NatsError::TooOld { setting: "allow-atomic=on", needs: "2.12", version });
    }
    let stored = ensure.widened(subject);
    let all = match name {
        Some(name) => vec![name.to_owned()],
        None => names(stored).into(),
    };
    let (given, mut names) = (name, all.into_iter().peekable());
    while let Some(name) = names.next() {
        let error = match jetstream.create_stream(ensure.config(name.clone(), stored, can_be_atomic)).await {
            // A server that is older than the one of this connection leaves out what it does not know.
            Ok(made) => return found(&made.cached_info().config),
            Err(error) => error,
        };
        match info(connection, &name).await {
            // That of another subject.
            Ok(info) if names.peek().is_some() && !stores(&info.config, subject) => {}
            // Another server may have created it first.
            Ok(info) => return found(&info.config),
            Err(_) => {
                let code = answer(&error).map(|answer| answer.error_code());
                let stored = stored.to_owned();
                let is_forestalled = match code {
                    Some(ErrorCode::STREAM_NAME_EXIST) => true,
                    Some(ErrorCode::STREAM_SUBJECT_OVERLAP) => {
                        let (of_feed, of_all) =
                            (streams(connection, subject).await?, streams(connection, &stored).await?);
                        may_be_new(given, &of_feed, &of_all)
                    }
                    _ => false,
                };
                return Err(match is_forestalled {
                    true => NatsError::Forestalled { stream: name, subject: stored, source: error.into() },
                    false => NatsError::Create { stream: name, subject: stored, source: error.into() },
                });
            }
        }
    }
    Err(NatsError::NoStream { subject: subject.to_owned() })
}

/// Whether streams that have some of the subjects of one that cannot be created for that reason may be another server's
/// of just now, which are to be looked at again: they have the feed's subject by now, or are not known here yet.
fn may_be_new(given: Option<&str>, of_feed: &[String], of_all: &[String]) -> bool {
    match given {
        Some(name) if !of_feed.is_empty() => of_feed.iter().any(|stream| stream == name),
        _ => !of_feed.is_empty() || of_all.is_empty(),
    }
}

async fn info(connection: &Link, name: &str) -> Result<Info, NatsError> {
    match connection.now().jetstream.get_stream(name).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => Err(NatsError::Stream { stream: name.to_owned(), source: error.into() }),
    }
}

/// Whether a stream cannot be read since there is none of that name.
fn is_missing(error: &NatsError) -> bool {
    let NatsError::Stream { source, .. } = error else { return false };
    answer(source.as_ref()).is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_NOT_FOUND)
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
    fn wide_subjects() {
        for (wide, subject) in [("a.>", "a.b"), ("a.>", "a.b.c"), ("a.*", "a.b"), ("a.>", "a.>"), ("a.>", "a.*")] {
            assert!(covers(wide, subject), "{wide} {subject}");
        }
        for (wide, subject) in [("a.*", "a.>"), ("a.b", "a.*"), ("a.>", "a"), ("a.*", "b.c"), ("a.*.c", "a.>")] {
            assert!(!covers(wide, subject), "{wide} {subject}");
        }
        let ensure: Ensure = "subject=logs.>,subject=x.*,duplicate-window=10m,max-consumers=7".parse().unwrap();
        assert_eq!((ensure.widened("logs.web"), ensure.widened("other")), ("logs.>", "other"));
        let config = ensure.config("logs__".into(), "logs.>", false);
        assert!(ensure.differences("logs.web", &config).is_empty());
        let narrow = ensure.config("logs_web".into(), "logs.web", false);
        assert_eq!(ensure.differences("logs.web", &narrow), ["its subjects are logs.web, not logs.>"]);
    }

    #[test]
    fn names_that_are_folded_alike_differ() {
        let ([one, one_more], [other, other_more]) = (names("h3cast.a.b"), names("h3cast.a_b"));
        assert_eq!((one.as_str(), other.as_str()), ("h3cast_a_b", "h3cast_a_b"));
        assert_ne!(one_more, other_more);
        assert!(is_at_least("2.12.0", (2, 12)) && is_at_least("2.15.1-beta", (2, 12)) && is_at_least("3.0.0", (2, 12)));
        assert!(!is_at_least("2.11.11", (2, 12)) && !is_at_least("", (2, 12)));
    }

    #[test]
    fn a_stream_in_the_way_may_be_of_just_now() {
        let streams = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (none, one, other) = (streams(&[]), streams(&["ONE"]), streams(&["OTHER"]));
        // It has the subject, or is not known here yet.
        assert!(
            may_be_new(None, &one, &one) && may_be_new(None, &none, &none) && may_be_new(Some("ONE"), &none, &none)
        );
        assert!(may_be_new(Some("ONE"), &one, &one));
        // It has other subjects of the stream that was to be created, or another name than the one asked for.
        assert!(!may_be_new(None, &none, &other) && !may_be_new(Some("ONE"), &other, &other));
    }

    #[test]
    fn descriptions() {
        let all = "replicas=3,max-age=24h,max-bytes=10G,max-messages=5,discard=new,storage=memory";
        let ensure: Ensure = all.parse().unwrap();
        assert_eq!(ensure.max_age, Some(Duration::from_secs(24 * 3600)));
        assert_eq!(ensure.max_bytes, Some(10 << 30));
        assert_eq!("".parse(), Ok(Ensure::default()));
        let config = ensure.config("x".into(), "x", true);
        assert!(config.allow_atomic_publish && ensure.differences("x", &config).is_empty());
        assert!(Ensure::default().differences("x", &config).is_empty());
        let other: Ensure = "replicas=1,discard=old".parse().unwrap();
        assert_eq!(other.differences("x", &config), ["replicas is 3, not 1", "discard is new, not old"]);
        for text in [
            "replicas",
            "replicas=x",
            "max-age=1",
            "max-age=h",
            "what=1",
            "discard=all",
            "max-bytes=G",
            "max-bytes=10",
            "max-bytes=1023",
            "subject=a..b",
            "subject=>.a",
            "allow-atomic=1",
            "max-consumers=0",
            "replicas=1,replicas=3",
        ] {
            assert!(text.parse::<Ensure>().is_err(), "{text}");
        }
        assert_eq!(
            "max-messages=10,max-bytes=10".parse::<Ensure>().unwrap_err().to_string(),
            "invalid stream setting `max-bytes=10`: `10` has no unit: write 10M or 10G, or 10B if so few bytes are meant",
        );
        let few: Ensure = "max-bytes=10B,max-messages=10,max-consumers=10".parse().unwrap();
        assert_eq!((few.max_bytes, few.max_messages, few.max_consumers), (Some(10), Some(10), Some(10)));
        assert_eq!("max-bytes=1024".parse::<Ensure>().unwrap().max_bytes, Some(1024));
    }
}
