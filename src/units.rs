//! Amounts as people write them.

/// Names of units, and what each stands for, in bytes. A unit of memory is a power of two however it is written, as
/// Docker, nginx and the JVM have it.
#[cfg(any(feature = "cli", feature = "nats"))]
const UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
];

/// A number of bytes, as in `500000`, `64k`, `8M`, `8MB` or `8 MiB`; `None` if it is none.
#[cfg(any(feature = "cli", feature = "nats"))]
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A number of bytes below which a unit was forgotten, if none was written.
#[cfg(any(feature = "cli", feature = "nats"))]
const SMALLEST: u64 = 1024;

/// What to write instead of a number of bytes that is so small only because its unit is missing.
#[cfg(any(feature = "cli", feature = "nats"))]
pub(crate) fn lacks_unit(text: &str) -> Option<String> {
    let text = text.trim();
    let number: u64 = text.parse().ok().filter(|number| (1..SMALLEST).contains(number))?;
    Some(format!("`{text}` has no unit: write {number}M or {number}G, or {number}B if so few bytes are meant"))
}

/// A number of things in words, as in `1 chunk` and `2 chunks`.
pub(crate) fn many(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// The same of bytes that something was done with, as in `1 byte was sent`.
pub(crate) fn were(bytes: u64, done: &str) -> String {
    format!("{} {} {done}", many(bytes, "byte"), if bytes == 1 { "was" } else { "were" })
}

/// Which feeds there are, as in `there are log, chat, and names like room.*`: patterns have a wildcard in them.
pub(crate) fn there_are(names: &[&str]) -> String {
    let (patterns, named): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains(['*', '>']));
    let like = format!("names like {}", patterns.join(", "));
    match (named.as_slice(), patterns.is_empty()) {
        ([], true) => "there are none".to_owned(),
        ([one], true) => format!("there is {one}"),
        (named, true) => format!("there are {}", named.join(", ")),
        ([], false) => format!("there are {like}"),
        (named, false) => format!("there are {}, and {like}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_feeds_there_are() {
        for (names, expected) in [
            (&[][..], "there are none"),
            (&["default"], "there is default"),
            (&["log", "chat"], "there are log, chat"),
            (&["room.*"], "there are names like room.*"),
            (&["ticks", "log", "logs.*", "a.>"], "there are ticks, log, and names like logs.*, a.>"),
        ] {
            assert_eq!(there_are(names), expected);
        }
    }

    #[test]
    fn numbers_of_things() {
        assert_eq!([0, 1, 2].map(|number| many(number, "byte")), ["0 bytes", "1 byte", "2 bytes"]);
    }

    #[cfg(any(feature = "cli", feature = "nats"))]
    #[test]
    fn sizes() {
        for text in ["8M", "8m", "8MB", "8MiB", "8mib", "8 MiB", "8192k", "8192KB", "8192KiB", "8388608", "8388608B"] {
            assert_eq!(bytes(text), Some(8 << 20), "{text}");
        }
        assert_eq!(
            (bytes("2G"), bytes("2GB"), bytes("2GiB"), bytes("0")),
            (Some(2 << 30), Some(2 << 30), Some(2 << 30), Some(0))
        );
        for text in ["", "M", "lots", "8X", "8MM", "-1", "1.5G", "8Mi", "99999999999999999999", "99999999999G"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
