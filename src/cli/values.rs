//! Values of flags, and the sentences for those that are none: what was given, what may be, and an example.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use crate::units;

/// The most characters of a value that are repeated.
const LONGEST: usize = 100;

/// A value as it is repeated: as much of it as tells which one is meant.
pub(super) fn short(value: &str) -> Cow<'_, str> {
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &value[..end]).into(),
        None => value.into(),
    }
}

/// A whole number of this range; `example` is one that makes sense.
pub(super) fn number<T>(range: RangeInclusive<T>, example: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Copy + Number + Send + Sync + 'static,
{
    move |text| {
        let (least, most) = (*range.start(), *range.end());
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && text.parse::<T>().is_err() {
                return format!("`{text}` is too large: write a whole number of up to {most}, such as {example}");
            }
            let upto = if most < T::MOST { format!("from {least} to {most}") } else { format!("from {least} on") };
            format!("`{text}` is not a whole number {upto}: write one such as {example}")
        })
    }
}

/// Kinds of numbers, with their largest.
pub(super) trait Number {
    const MOST: Self;
}

macro_rules! numbers {
    ($($kind:ty)*) => { $(impl Number for $kind { const MOST: Self = Self::MAX; })* };
}
numbers!(u16 u32 u64 usize);

/// A whole number from 1 on.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    number(1..=usize::MAX, 64)(text)
}

/// Any whole number, where 0 often stands for none.
pub(super) fn count<T>(text: &str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display + Copy + Number + From<u8> + Send + Sync + 'static,
{
    number(T::from(0)..=T::MOST, T::from(100))(text)
}

/// A time with a unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| match text.parse::<f64>() {
        Ok(number) if number >= 0.0 => {
            format!(
                "`{text}` has no unit: write {text}s for seconds, {text}ms for milliseconds, or a time such as 1m30s"
            )
        }
        _ => {
            format!("`{text}` is not a time: write a number with a unit (ms, s, m, h, d), such as 500ms, 10s or 1h30m")
        }
    })
}

/// A time that is not zero.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time.is_zero() => Err(format!("`{text}` is too short: it must be longer than zero, such as 10s")),
        time => Ok(time),
    }
}

/// A time of up to `most`.
pub(super) fn time_up_to(text: &str, most: Duration) -> Result<Duration, String> {
    match time(text)? {
        time if time > most => {
            Err(format!("`{text}` is too long: write a time of up to {}", humantime::format_duration(most)))
        }
        time => Ok(time),
    }
}

/// What the subjects of NATS' answers begin with.
#[cfg(feature = "nats")]
pub(super) fn inbox(text: &str) -> Result<String, String> {
    match crate::nats::is_inbox(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is not the beginning of a subject: write words with dots between, such as _INBOX_edge"
        )),
    }
}

/// A number of bytes that would hold next to nothing without a unit.
pub(super) fn room(text: &str) -> Result<usize, String> {
    units::lacks_unit(text).map_or_else(|| size(text), Err)
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = units::bytes(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        format!("`{text}` is not a number of bytes: write a whole number, alone or with k, M or G, such as 500000, 64k or 8M (8MB and 8MiB are the same)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_is_told_with_what_is() {
        for (told, expected) in [
            (
                time("fast").unwrap_err(),
                "`fast` is not a time: write a number with a unit (ms, s, m, h, d), such as 500ms, 10s or 1h30m",
            ),
            (
                time("10").unwrap_err(),
                "`10` has no unit: write 10s for seconds, 10ms for milliseconds, or a time such as 1m30s",
            ),
            (time("-1s").unwrap_err(), "`-1s` is not a time"),
            (some_time("0s").unwrap_err(), "`0s` is too short: it must be longer than zero"),
            (time_up_to("11s", Duration::from_secs(10)).unwrap_err(), "`11s` is too long: write a time of up to 10s"),
            (size("lots").unwrap_err(), "`lots` is not a number of bytes"),
            (at_least_one("0").unwrap_err(), "`0` is not a whole number from 1 on: write one such as 64"),
            (
                count::<u32>("4294967296").unwrap_err(),
                "`4294967296` is too large: write a whole number of up to 4294967295, such as 100",
            ),
            (count::<u32>("x").unwrap_err(), "`x` is not a whole number from 0 on: write one such as 100"),
            (
                number(1..=512_u16, 4)("513").unwrap_err(),
                "`513` is not a whole number from 1 to 512: write one such as 4",
            ),
        ] {
            assert!(told.starts_with(expected), "{told}");
        }
        assert_eq!(short(&"é".repeat(101)), "é".repeat(100) + "…");
        assert_eq!(short(&"é".repeat(100)), "é".repeat(100));
        assert_eq!(time("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(number(1..=512_u16, 4)("512"), Ok(512));
        assert_eq!(size("8MB"), Ok(8 << 20));
        assert_eq!((room("0"), room("10B"), room("10k"), room("1024")), (Ok(0), Ok(10), Ok(10 << 10), Ok(1024)));
        for small in ["1", "10", " 1023 "] {
            assert!(room(small).unwrap_err().contains(" has no unit: write 1"), "{small}");
        }
    }
}
