//! What a program stores with a feed's chunks, and the ids of chunks. Both are in memory while the feed is open, and
//! are written again at the beginning of each file, so that older files can go.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{left_out::LeftOut, record};

/// Something that is stored together with chunks: either all of it, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is found by; at most 65,000 bytes. A note replaces an earlier one with the same key.
    pub key: Bytes,
    /// `None` removes the note.
    pub value: Option<Bytes>,
    /// When it is removed by itself. Rounded to milliseconds.
    pub expires: Option<SystemTime>,
}

/// How many ids of chunks are known at least.
const IDS: usize = 4096;
/// What the keys of ids begin with, those of a program's notes, and the one of numbers that were left out.
const ID: u8 = 0;
const OWN: u8 = 1;
const LEFT_OUT: u8 = 2;

#[derive(Debug, Default)]
pub(crate) struct Notes {
    own: BTreeMap<Bytes, (Bytes, u64)>,
    ids: HashMap<Bytes, (u64, u64)>,
    /// The oldest first.
    order: VecDeque<Bytes>,
    /// As the file has it.
    pub(crate) left_out: LeftOut,
}

impl Notes {
    /// Applies what was written.
    pub(crate) fn apply(&mut self, note: record::Note) {
        let mut key = note.key;
        match (key.first().copied(), note.value) {
            (Some(ID), Some(mut value)) if value.len() == 16 => {
                key.advance(1);
                // Without the buffer that it is a part of.
                let key = Bytes::copy_from_slice(&key);
                if self.ids.insert(key.clone(), (value.get_u64_le(), value.get_u64_le())).is_none() {
                    self.order.push_back(key);
                }
                while self.order.len() > IDS {
                    if let Some(oldest) = self.order.pop_front() {
                        self.ids.remove(&oldest);
                    }
                }
            }
            (Some(OWN), Some(value)) => {
                let value = (Bytes::copy_from_slice(&value), note.expires);
                self.own.insert(Bytes::copy_from_slice(&key), value);
            }
            (Some(OWN), None) => {
                self.own.remove(&key);
            }
            (Some(LEFT_OUT), Some(value)) => self.left_out = LeftOut::read(value).unwrap_or_default(),
            _ => {}
        }
    }

    /// The number and size of the chunk with that id.
    pub(crate) fn known(&self, id: &str) -> Option<(u64, u64)> {
        self.ids.get(id.as_bytes()).copied()
    }

    /// Those that begin with `prefix`, by key.
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Vec<Note> {
        let from = keyed(OWN, prefix);
        let now = millis(SystemTime::now());
        let of_prefix = self.own.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from));
        let live = of_prefix.filter(|(_, (_, expires))| *expires == 0 || *expires > now);
        live.map(|(key, (value, expires))| Note {
            key: key.slice(1..),
            value: Some(value.clone()),
            expires: (*expires > 0).then(|| UNIX_EPOCH + Duration::from_millis(*expires)),
        })
        .collect()
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self) {
        let now = millis(SystemTime::now());
        self.own.retain(|_, (_, expires)| *expires == 0 || *expires > now);
    }

    /// All there are, as they are written.
    pub(crate) fn all(&mut self) -> Vec<record::Note> {
        self.expire();
        let own = self.own.iter().map(|(key, (value, expires))| record::Note {
            key: key.clone(),
            value: Some(value.clone()),
            expires: *expires,
        });
        let ids = self.order.iter().filter_map(|id| {
            let (seq, size) = self.ids.get(id)?;
            Some(of_id(id, *seq, *size))
        });
        own.chain(ids).collect()
    }
}

impl From<Note> for record::Note {
    fn from(note: Note) -> Self {
        let expires = note.expires.map_or(0, |time| millis(time).max(1));
        Self { key: keyed(OWN, &note.key), value: note.value, expires }
    }
}

/// That a chunk has an id.
pub(crate) fn of_id(id: &[u8], seq: u64, size: u64) -> record::Note {
    let mut value = BytesMut::with_capacity(16);
    value.put_u64_le(seq);
    value.put_u64_le(size);
    record::Note { key: keyed(ID, id), value: Some(value.freeze()), expires: 0 }
}

/// Which numbers were left out, if any were.
pub(crate) fn of_left_out(left_out: &LeftOut) -> Option<record::Note> {
    Some(record::Note { key: keyed(LEFT_OUT, b""), value: Some(left_out.write()?), expires: 0 })
}

fn keyed(kind: u8, key: &[u8]) -> Bytes {
    [&[kind], key].concat().into()
}

fn millis(time: SystemTime) -> u64 {
    record::micros(time) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_replace_remove_and_expire() {
        let mut notes = Notes::default();
        let mut set = |key: &'static str, value: Option<&'static str>, expires| {
            let note = Note { key: key.into(), value: value.map(Bytes::from), expires };
            notes.apply(note.into());
        };
        set("a/1", Some("x"), None);
        set("a/1", Some("y"), None);
        set("a/2", Some("z"), Some(SystemTime::now() + Duration::from_secs(60)));
        set("a/3", Some("old"), Some(SystemTime::now() - Duration::from_secs(1)));
        set("b", Some("b"), None);
        set("b", None, None);
        let found: Vec<_> = notes.with_prefix(b"a/").into_iter().map(|note| (note.key, note.value.unwrap())).collect();
        assert_eq!(found, [("a/1".into(), "y".into()), ("a/2".into(), Bytes::from("z"))]);
        assert!(notes.with_prefix(b"b").is_empty());
        assert_eq!(notes.all().len(), 2);
    }

    #[test]
    fn only_the_latest_ids_are_known() {
        let mut notes = Notes::default();
        for number in 0..IDS as u64 + 10 {
            notes.apply(of_id(format!("id {number}").as_bytes(), number, 3));
        }
        assert_eq!((notes.known("id 9"), notes.known("id 10")), (None, Some((10, 3))));
        assert_eq!(notes.all().len(), IDS);
    }
}
