//! `h3cast feeds`: the feeds of a server, and what they are doing.

use std::{borrow::Cow, fmt, time::Duration};

use anyhow::anyhow;
use clap::Args;
use http::Uri;
use indicatif::{HumanBytes, HumanCount};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use tokio::time::timeout;

use super::{
    Failure, complain, print,
    remote::{self, TokenArgs, TrustArgs},
};
use crate::{
    client::viewer::ViewError,
    server::DEFAULT_PORT,
    shown::{Short, Shown, json},
};

#[derive(Debug, Args)]
pub(super) struct FeedsArgs {
    /// The server, or any page or feed of it.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/"))]
    url: String,
    /// Print what the server reports as JSON, with more figures.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest list, in bytes: that of a server with tens of thousands of feeds.
const LONGEST: usize = 16 << 20;

/// The most characters of a name, and of a word, in the table: what is longer would widen it for all.
const WIDEST: (usize, usize) = (60, 20);
/// So much is printed in one piece, in bytes.
const PIECE: usize = 64 << 10;

/// Why the list could not be read.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
}

/// A feed, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    error: Option<String>,
    #[serde(default)]
    writable: bool,
    #[serde(default)]
    stalled: bool,
    trouble: Option<String>,
    viewers: u64,
    chunks: u64,
    #[serde(default)]
    kept_bytes: u64,
    /// If it is on disk.
    stored_bytes: Option<u64>,
    newest_seconds: Option<f64>,
}

pub(super) async fn run(args: FeedsArgs) -> Result<(), Failure> {
    let url = list_of(&remote::url(&args.url)?)?;
    let (token, trust) = (args.token.token(None)?, args.trust.trust()?);
    let headers = remote::shown_token(token.as_ref()).await?;
    let asked = timeout(PATIENCE, remote::ask(&url, &trust, headers, LONGEST)).await;
    let (status, headers, body) =
        asked.unwrap_or_else(|_| Err(Failure::running(anyhow!("no answer within {} s", PATIENCE.as_secs()))))?;
    if !status.is_success() {
        let detail = serde_json::from_slice(&body).ok().map(|Problem { detail }| detail);
        return Err(Failure::running(ViewError::answered(status, &headers, detail)));
    }
    let mut table = Table::new();
    let list = str::from_utf8(&body).ok().filter(|list| each(list, |feed| table.fit(&feed)).is_ok());
    let Some(list) = list else {
        return Err(Failure::running(anyhow!("{url} is not the list of feeds of an h3cast server")));
    };
    if args.json {
        let mut rest = list.trim_end();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.ceil_char_boundary(PIECE));
            print(&json(piece))?;
            rest = after;
        }
        return print("\n");
    }
    if table.is_empty() {
        complain("the server lists no feeds: it has none, or none that you may read");
        return Ok(());
    }
    table.print(list)
}

/// Takes the feeds of a list one after another. A server that is not trusted may list anything: all at once, or as a
/// tree of values, they could take many times what it sent.
fn each<'de>(list: &'de str, take: impl FnMut(Listed<'de>)) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(list);
    Object(Feeds(take)).deserialize(&mut reader)?;
    reader.end()
}

/// The object that has the list.
struct Object<F>(Feeds<F>);

/// The list in it.
struct Feeds<F>(F);

impl<'de, F: FnMut(Listed<'de>)> DeserializeSeed<'de> for Object<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Listed<'de>)> Visitor<'de> for Object<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of feeds")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut feeds = Some(self.0);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match key.as_ref() {
                "feeds" => map.next_value_seed(feeds.take().ok_or_else(|| A::Error::duplicate_field("feeds"))?)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match feeds {
            None => Ok(()),
            Some(_) => Err(A::Error::missing_field("feeds")),
        }
    }
}

impl<'de, F: FnMut(Listed<'de>)> DeserializeSeed<'de> for Feeds<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Listed<'de>)> Visitor<'de> for Feeds<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of feeds")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(feed) = seq.next_element()? {
            (self.0)(feed);
        }
        Ok(())
    }
}

/// The URL of the list, which lies beside `/stream` and the page, also where a server is below a path.
fn list_of(uri: &Uri) -> Result<Uri, Failure> {
    let path = uri.path();
    let feed = path
        .match_indices("/stream")
        .find(|(at, name)| matches!(path.as_bytes().get(at + name.len()), None | Some(b'/')));
    let folder = feed.map_or_else(|| path.rfind('/').unwrap_or(0), |(at, _)| at);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}/feeds", &path[..folder]).parse().map_err(Failure::usage)?);
    Uri::from_parts(parts).map_err(Failure::usage)
}

/// The feeds in columns, and below them what is wrong with any.
struct Table {
    widths: [usize; COLUMNS],
    rows: u64,
}

const COLUMNS: usize = 9;
const HEADER: [&str; COLUMNS] =
    ["NAME", "KIND", "STATE", "VIEWERS", "CHUNKS", "IN MEMORY", "ON DISK", "NEWEST", "WRITABLE"];

impl Table {
    fn new() -> Self {
        Self { widths: HEADER.map(str::len), rows: 0 }
    }

    fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Makes room for a feed.
    fn fit(&mut self, feed: &Listed<'_>) {
        self.rows += 1;
        for (width, cell) in self.widths.iter_mut().zip(row(feed)) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// Prints the feeds of a list, each of which fits.
    fn print(&self, list: &str) -> Result<(), Failure> {
        let mut printed = Printed { text: self.line(HEADER), failure: None };
        let _ = each(list, |feed| printed.push(&self.line(row(&feed))));
        let mut gap = "\n";
        let _ = each(list, |feed| {
            if let Some(error) = feed.error.as_ref().or(feed.trouble.as_ref()) {
                printed.push(&format!("{}{}: {}\n", std::mem::take(&mut gap), name(&feed), Shown(error)));
            }
        });
        printed.end()
    }

    fn line<T: fmt::Display>(&self, row: [T; COLUMNS]) -> String {
        let cells: Vec<_> = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    }
}

/// What is printed piece by piece.
struct Printed {
    text: String,
    failure: Option<Failure>,
}

impl Printed {
    fn push(&mut self, line: &str) {
        self.text += line;
        if self.text.len() >= PIECE {
            self.failure = self.failure.take().or_else(|| print(&self.text).err());
            self.text.clear();
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None => print(&self.text),
        }
    }
}

fn name(feed: &Listed<'_>) -> String {
    Short(&feed.name, WIDEST.0).to_string()
}

fn row(feed: &Listed<'_>) -> [String; COLUMNS] {
    let state = match &*feed.state {
        _ if feed.stalled => "stalled",
        "open" if feed.trouble.is_some() => "not ready",
        state => state,
    };
    [
        name(feed),
        Short(&feed.kind, WIDEST.1).to_string(),
        Short(state, WIDEST.1).to_string(),
        HumanCount(feed.viewers).to_string(),
        HumanCount(feed.chunks).to_string(),
        HumanBytes(feed.kept_bytes).to_string(),
        feed.stored_bytes.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string()),
        feed.newest_seconds
            .map_or_else(|| "-".to_owned(), |seconds| Short(age(seconds) + " ago", WIDEST.1).to_string()),
        if feed.writable { "yes" } else { "no" }.to_owned(),
    ]
}

/// A time in its largest unit.
fn age(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_list_is() {
        for (url, list) in [
            ("https://h/", "/feeds"),
            ("https://h/stream", "/feeds"),
            ("https://h/stream/a?from=start", "/feeds"),
            ("https://h/feeds", "/feeds"),
            ("https://h/fetch.html", "/feeds"),
            ("https://h/cast/", "/cast/feeds"),
            ("https://h/cast/stream/a", "/cast/feeds"),
            ("https://h/streams/stream", "/streams/feeds"),
        ] {
            let found = list_of(&url.parse().unwrap()).unwrap();
            assert_eq!(found.to_string(), format!("https://h{list}"), "{url}");
        }
    }

    #[test]
    fn only_a_list_of_feeds_is_one() {
        let names = |list: &str| {
            let mut names = Vec::new();
            each(list, |feed| names.push(feed.name.into_owned())).map(|()| names)
        };
        let feed =
            |name: &str| format!(r#"{{"kind":"live","x":[{{}}],"name":{name},"state":"open","viewers":1,"chunks":2}}"#);
        let list = format!(r#"{{"version":{{"a":[]}},"feeds":[{},{}]}}"#, feed(r#""a""#), feed(r#""\u0062""#));
        assert_eq!(names(&list).unwrap(), ["a", "b"]);
        assert_eq!(names(r#"{"feeds":[]}"#).unwrap(), [""; 0]);
        // What is left out is not kept, however deep it is.
        let deep = format!(r#"{{"x":{}1{},"feeds":[]}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(names(&deep).unwrap(), [""; 0]);
        for text in ["", "{}", "[]", "null", r#"{"feeds":{}}"#, r#"{"feeds":[],"feeds":[]}"#, r#"{"feeds":[]} x"#] {
            assert!(names(text).is_err());
        }
        assert!(names(&format!(r#"{{"feeds":[{}]}}"#, feed("1"))).is_err());
    }

    #[test]
    fn a_long_name_does_not_widen_the_table() {
        let mut table = Table::new();
        let list = format!(
            r#"{{"feeds":[{{"kind":"live","name":"{}","state":"{}","viewers":1,"chunks":2}}]}}"#,
            "n".repeat(5000),
            "s".repeat(5000)
        );
        each(&list, |feed| table.fit(&feed)).unwrap();
        let mut lines = Vec::new();
        each(&list, |feed| lines.push(table.line(row(&feed)))).unwrap();
        assert!(lines[0].starts_with(&("n".repeat(60) + "…  live  sssssssss")) && lines[0].len() < 150, "{lines:?}");
    }

    #[test]
    fn ages_in_words() {
        let words = [0.04, 9.9, 59.6, 119.0, 3600.0, 7300.0, 200_000.0].map(age);
        assert_eq!(words, ["0.0 s", "9.9 s", "60 s", "119 s", "60 min", "2 h", "2 days"]);
    }
}
