//! How the streams are to be that are created, as people write it.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

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

/// What settings there are, with a value that each may have.
const SETTINGS: [(&str, &str); 10] = [
    ("replicas", "3"),
    ("max-age", "24h"),
    ("max-bytes", "10G"),
    ("max-messages", "N"),
    ("discard", "old|new"),
    ("storage", "file|memory"),
    ("duplicate-window", "2m"),
    ("max-consumers", "N"),
    ("allow-atomic", "on|off"),
    ("subject", "logs.>"),
];

/// What to write in place of that setting: of one that there is, or any.
fn expected(setting: &str) -> String {
    let given = setting.split('=').next().unwrap_or_default();
    let written = |(name, value): &(&str, &str)| format!("{name}={value}");
    match SETTINGS.iter().find(|(name, _)| *name == given) {
        Some(one) => format!("expected {}", written(one)),
        None => {
            let all: Vec<_> = SETTINGS.iter().map(written).collect();
            format!("expected {}, with commas between", all.join(", "))
        }
    }
}

impl Ensure {
    /// Whether a text begins with a setting that is hardly something else: a feed may be called `subject`.
    #[cfg(feature = "cli")]
    pub(crate) fn is_setting(text: &str) -> bool {
        text.split_once('=')
            .is_some_and(|(name, _)| name != "subject" && SETTINGS.iter().any(|(known, _)| *known == name))
    }
}

impl FromStr for Ensure {
    type Err = BadEnsure;

    fn from_str(text: &str) -> Result<Self, BadEnsure> {
        let mut ensure = Self::default();
        let mut names = BTreeSet::new();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let bad = || BadEnsure(format!("`{setting}`: {}", expected(setting)));
            let (name, value) = setting.split_once('=').ok_or_else(bad)?;
            if name != "subject" && !names.insert(name) {
                return Err(BadEnsure(format!("`{setting}`: {name} is given twice: leave one out")));
            }
            match (name, value) {
                ("replicas", number) => ensure.replicas = Some(number.parse().map_err(|_| bad())?),
                ("max-age", time) => ensure.max_age = Some(age(setting, time)?),
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
                ("duplicate-window", time) => ensure.duplicate_window = Some(age(setting, time)?),
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

/// The units of times, and how many seconds each has.
const UNITS: [(char, u64); 5] = [('w', 7 * DAY), ('d', DAY), ('h', 3600), ('m', 60), ('s', 1)];
const DAY: u64 = 24 * 3600;

/// The time of a setting: a number with a unit, as in `24h`.
fn age(setting: &str, time: &str) -> Result<Duration, BadEnsure> {
    let bad = |why: String| BadEnsure(format!("`{setting}`: {why}"));
    if !time.is_empty() && time.chars().all(|c| c.is_ascii_digit()) {
        return Err(bad(format!("`{time}` has no unit: write {time}h or {time}d; s, m, h, d and w are units")));
    }
    let read = || {
        let (number, seconds) = UNITS.iter().find_map(|(unit, seconds)| Some((time.strip_suffix(*unit)?, seconds)))?;
        number.parse::<u64>().ok()?.checked_mul(*seconds)
    };
    let expected = || bad(format!("`{time}` is not a time: write a number with a unit (s, m, h, d or w), such as 24h"));
    Ok(Duration::from_secs(read().ok_or_else(expected)?))
}

/// A time as people write it: hours up to two days.
fn written(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_millis() > 0 {
        return format!("{} ms", time.as_millis());
    }
    let fits = |(unit, of): &(char, u64)| {
        seconds > 0 && seconds.is_multiple_of(*of) && *unit != 'w' && (*unit != 'd' || seconds > 2 * DAY)
    };
    let (unit, of) = UNITS.iter().find(|unit| fits(unit)).copied().unwrap_or(('s', 1));
    format!("{}{unit}", seconds / of)
}

/// A number of bytes, as in `10G`.
fn bytes(text: &str) -> Option<i64> {
    units::bytes(text)?.try_into().ok()
}

impl Ensure {
    /// The subject that a stream has which is made for that one.
    pub(super) fn widened<'a>(&'a self, subject: &'a str) -> &'a str {
        self.subjects.iter().find(|wide| covers(wide, subject)).map_or(subject, String::as_str)
    }

    pub(super) fn config(&self, name: String, subject: &str, is_atomic: bool) -> Config {
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
    pub(super) fn differences(&self, subject: &str, there: &Config) -> Vec<String> {
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
        let age = |time: Duration| if time.is_zero() { "unlimited".to_owned() } else { written(time) };
        let discard = |new| if new { "new" } else { "old" }.to_owned();
        let storage = |memory| if memory { "memory" } else { "file" }.to_owned();
        compare("replicas", self.replicas.map(|number| number.to_string()), there.num_replicas.to_string());
        compare("max-age", self.max_age.map(age), age(there.max_age));
        compare("max-bytes", self.max_bytes.map(|size| size.to_string()), there.max_bytes.to_string());
        compare("max-messages", self.max_messages.map(|number| number.to_string()), there.max_messages.to_string());
        compare("discard", self.discard_new.map(discard), discard(there.discard == DiscardPolicy::New));
        compare("duplicate-window", self.duplicate_window.map(written), written(there.duplicate_window));
        compare("max-consumers", self.max_consumers.map(|number| number.to_string()), there.max_consumers.to_string());
        let on = |on| if on { "on" } else { "off" }.to_owned();
        compare("allow-atomic", self.atomic.map(on), on(there.allow_atomic_publish));
        compare("storage", self.memory.map(storage), storage(there.storage == StorageType::Memory));
        found
    }
}

/// Whether all messages of the one subject are of the wide one.
pub(super) fn covers(wide: &str, subject: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn times_as_people_write_them() {
        let of = |text: &str| text.parse::<Ensure>().map(|ensure| ensure.max_age).map_err(|error| error.to_string());
        let day = 24 * 3600;
        for (text, seconds) in [("90s", 90), ("2m", 120), ("24h", day), ("7d", 7 * day), ("1w", 7 * day)] {
            assert_eq!(of(&format!("max-age={text}")), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        let no_unit = "`24` has no unit: write 24h or 24d; s, m, h, d and w are units";
        assert_eq!(of("max-age=24"), Err(format!("invalid stream setting `max-age=24`: {no_unit}")));
        let no_time = "`soon` is not a time: write a number with a unit (s, m, h, d or w), such as 24h";
        assert_eq!(
            of("duplicate-window=soon"),
            Err(format!("invalid stream setting `duplicate-window=soon`: {no_time}"))
        );
        for (seconds, text) in [(0, "0s"), (90, "90s"), (120, "2m"), (day, "24h"), (2 * day, "48h"), (7 * day, "7d")] {
            assert_eq!(written(Duration::from_secs(seconds)), text);
        }
        assert_eq!(written(Duration::from_millis(90_500)), "90500 ms");
        let told = |text: &str| text.parse::<Ensure>().unwrap_err().to_string();
        assert_eq!(told("replicas=x"), "invalid stream setting `replicas=x`: expected replicas=3");
        assert!(told("what=1").ends_with("allow-atomic=on|off, subject=logs.>, with commas between"));
        let differences = |wanted: &str, is: &str| {
            let [wanted, is] = [wanted, is].map(|text| text.parse::<Ensure>().unwrap());
            wanted.differences("x", &is.config("x".into(), "x", false)).join("; ")
        };
        assert_eq!(differences("max-age=2d", "max-age=24h"), "max-age is 24h, not 48h");
        assert_eq!(differences("max-age=1h", ""), "max-age is unlimited, not 1h");
    }
}
