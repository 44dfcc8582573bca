//! What the names of rotated files tell of them.

use std::{ffi::OsStr, fs::DirEntry, path::Path};

/// What compressed files end in.
const PACKED: [&str; 5] = ["gz", "xz", "zst", "bz2", "lz4"];
/// Above that a number is a date: `app.log-20261127`.
const NUMBERS: u64 = 9999;

/// A rotated file, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rotated {
    pub(super) is_packed: bool,
    /// What follows the name of the file: one number, or those of a date.
    numbers: Vec<u64>,
}

impl Rotated {
    /// With numbers after the name of the file at `path`: `app.log.1`, `app.log-20261127`, `app.log.2.gz`.
    pub(super) fn of(path: &Path, name: &OsStr) -> Option<Self> {
        let after = name.to_str()?.strip_prefix(path.file_name()?.to_str()?)?.strip_prefix(['.', '-'])?;
        let (numbers, is_packed) = match after.rsplit_once('.') {
            Some((numbers, end)) if PACKED.contains(&end) => (numbers, true),
            _ => (after, false),
        };
        let is_one = numbers.starts_with(|first: char| first.is_ascii_digit())
            && numbers.chars().all(|one| one.is_ascii_digit() || "-_.:TZ".contains(one));
        let numbers = numbers.split(|one: char| !one.is_ascii_digit()).filter(|number| !number.is_empty());
        let numbers = numbers.map(|number| number.parse().unwrap_or(u64::MAX));
        is_one.then(|| Self { is_packed, numbers: numbers.collect() })
    }

    fn number(&self) -> Option<u64> {
        self.numbers.first().copied().filter(|number| self.numbers.len() == 1 && *number <= NUMBERS)
    }
}

/// In which order rotated files were written, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The newest one has the lowest number, or the last date.
    Falling,
    /// The newest one has the highest number, or the last date.
    Rising,
    /// The names do not tell.
    Unknown,
}

impl Order {
    /// The order of files of which the `older` ones were written before the `newer` ones.
    pub(super) fn of<'a>(
        older: impl Iterator<Item = &'a Rotated>,
        newer: impl Iterator<Item = &'a Rotated> + Clone,
    ) -> Self {
        let numbers: Option<Vec<_>> = newer.clone().map(Rotated::number).collect();
        let Some(numbers) = numbers else {
            let are_dates = newer.into_iter().all(|one| one.number().is_none());
            return if are_dates { Self::Rising } else { Self::Unknown };
        };
        let older: Vec<_> = older.filter_map(Rotated::number).collect();
        let (Some(first), Some(last)) = (older.iter().min(), older.iter().max()) else { return Self::Falling };
        match (numbers.iter().all(|number| number < first), numbers.iter().all(|number| number > last)) {
            (true, _) => Self::Falling,
            (false, true) => Self::Rising,
            (false, false) => Self::Unknown,
        }
    }

    /// Whether the first one is newer than the other.
    pub(super) fn is_newer(self, one: &Rotated, other: &Rotated) -> bool {
        match (one.number(), other.number()) {
            (Some(one), Some(other)) if self == Self::Rising => one > other,
            (Some(one), Some(other)) => one < other,
            (None, None) => one.numbers > other.numbers,
            _ => false,
        }
    }

    /// Sorts files, the oldest first. A number and a date do not tell which is newer, so numbered files and dated ones
    /// are each sorted among themselves; those whose names do not tell stay where they are.
    pub(super) fn sort<T>(self, files: &mut [T], name: impl Fn(&T) -> Option<&Rotated>) {
        for is_numbered in [true, false] {
            let of_kind = |at: &usize| name(&files[*at]).is_some_and(|name| name.number().is_some() == is_numbered);
            let places: Vec<_> = (0..files.len()).filter(of_kind).collect();
            let mut sorted: Vec<_> = (0..places.len()).collect();
            sorted.sort_by(|one, other| match (name(&files[places[*one]]), name(&files[places[*other]])) {
                (Some(one), Some(other)) => self.is_newer(one, other).cmp(&self.is_newer(other, one)),
                _ => std::cmp::Ordering::Equal,
            });
            for to in 0..sorted.len() {
                let mut from = sorted[to];
                // What was there has been moved on.
                while from < to {
                    from = sorted[from];
                }
                files.swap(places[to], places[from]);
            }
        }
    }
}

/// Whether a name is that of the file at `path`, compressed in its place: `app.log.gz`.
pub(super) fn is_packed_in_place(path: &Path, name: &Path) -> bool {
    let names = (path.file_name().and_then(OsStr::to_str), name.file_name().and_then(OsStr::to_str));
    let (Some(path), Some(name)) = names else { return false };
    name.strip_prefix(path).and_then(|end| end.strip_prefix('.')).is_some_and(|end| PACKED.contains(&end))
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is in the folder of a file.
pub(super) fn in_folder(path: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    std::fs::read_dir(folder(path)).into_iter().flatten().flatten()
}

/// The rotated file with that name.
pub(super) fn rotated(path: &Path, name: &Path) -> Option<Rotated> {
    Rotated::of(path, name.file_name()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Rotated> {
        Rotated::of(Path::new("logs/app.log"), OsStr::new(name))
    }

    #[test]
    fn names_of_rotated_files() {
        for plain in ["app.log.1", "app.log-20261127", "app.log.2026-11-27T10:00:00Z"] {
            assert!(of(plain).is_some_and(|rotated| !rotated.is_packed), "{plain}");
        }
        assert!(of("app.log.2.gz").is_some_and(|rotated| rotated.is_packed));
        for other in ["app.log", "app.log.", "app.log.bak", "app.log1", "app.log.gz", "other.log.1", "app.log.1.bak"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_files_that_were_compressed_in_their_place() {
        let is_packed = |name: &str| is_packed_in_place(Path::new("logs/app.log"), Path::new(name));
        assert!(["logs/app.log.gz", "logs/app.log.zst"].into_iter().all(is_packed));
        assert!(
            !["logs/app.log", "logs/app.log.1.gz", "logs/app.loggz", "logs/other.log.gz"].into_iter().any(is_packed)
        );
    }

    /// With a comparison that treats them as equal, Rust's sort panics from 21 files on.
    #[test]
    fn numbers_and_dates_are_sorted_among_themselves() {
        let dates: Vec<_> = (0..40).map(|number| format!("-202611{:02}", number * 7 % 40)).collect();
        let numbers: Vec<_> = (0..40).map(|number| format!(".{}", number * 11 % 40)).collect();
        let mixed: Vec<_> = dates.iter().zip(&numbers).flat_map(|(date, number)| [&**date, number]).collect();
        let files = sorted(&[], &mixed).1;
        for (at, pair) in files.chunks(2).enumerate() {
            assert_eq!(pair[0], format!("-202611{at:02}"));
        }
        let numbers: Vec<_> = files.iter().skip(1).step_by(2).map(|file| file[1..].parse::<u32>().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, other| one > other), "{numbers:?}");
    }

    fn sorted(older: &[&str], newer: &[&str]) -> (Order, Vec<String>) {
        let named =
            |names: &[&str]| names.iter().map(|name| of(&format!("app.log{name}")).unwrap()).collect::<Vec<_>>();
        let mut files: Vec<_> = named(newer).into_iter().zip(newer).collect();
        let order = Order::of(named(older).iter(), files.iter().map(|(name, _)| name));
        order.sort(&mut files, |(name, _)| Some(name));
        (order, files.iter().map(|(_, name)| name.to_string()).collect())
    }

    #[test]
    fn names_tell_the_order() {
        let check = |older: &[&str], newer: &[&str], order, expected: &[&str]| {
            assert_eq!(sorted(older, newer), (order, expected.iter().map(|name| name.to_string()).collect()));
        };
        check(&[".10", ".3"], &[".1", ".2"], Order::Falling, &[".2", ".1"]);
        check(&[], &[".9", ".10"], Order::Falling, &[".10", ".9"]);
        // The newest one has the highest number.
        check(&[".1", ".2"], &[".10", ".9"], Order::Rising, &[".9", ".10"]);
        check(&[".2"], &[".3", ".1"], Order::Unknown, &[".3", ".1"]);
        check(&[".2"], &["-20261128", "-20261127"], Order::Rising, &["-20261127", "-20261128"]);
        check(
            &[],
            &["-2026-11-27", "-2026-11-27.1", "-2026-9-30"],
            Order::Rising,
            &["-2026-9-30", "-2026-11-27", "-2026-11-27.1"],
        );
        assert_eq!(sorted(&[], &["-20261128", ".1"]).0, Order::Unknown);
    }
}
