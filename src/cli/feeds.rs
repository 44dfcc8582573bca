//! `h3cast feeds`: the feeds of a server, and what they are doing.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use http::Uri;
use indicatif::{HumanBytes, HumanCount};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Failure, complain, print,
    remote::{self, TokenArgs, TrustArgs},
};
use crate::{
    client::viewer::ViewError,
    server::DEFAULT_PORT,
    shown::{Shown, json},
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

/// The list, as far as the table shows it. Typed, since a server that is not trusted may answer anything: as a tree of
/// values it would take thirty times its length.
#[derive(Debug, Deserialize)]
struct List {
    feeds: Vec<Listed>,
}

/// Why there is no list.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
}

/// A feed, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    kind: String,
    state: String,
    error: Option<String>,
    #[serde(default)]
    writable: bool,
    #[serde(default)]
    stalled: bool,
    viewers: u64,
    chunks: u64,
    #[serde(default)]
    kept_bytes: u64,
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
    let no_list = |_| Failure::running(anyhow!("{url} is not the list of feeds of an h3cast server"));
    let List { feeds } = serde_json::from_slice(&body).map_err(no_list)?;
    if args.json {
        let answer: Value = serde_json::from_slice(&body).map_err(no_list)?;
        return print(&json(&format!("{answer:#}\n")));
    }
    if feeds.is_empty() {
        complain("the server lists no feeds: it has none, or none that you may read");
        return Ok(());
    }
    print(&table(&feeds))
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

/// The feeds in columns, and below them why any has failed.
fn table(feeds: &[Listed]) -> String {
    let header = ["NAME", "KIND", "STATE", "VIEWERS", "CHUNKS", "KEPT", "NEWEST", "WRITABLE"].map(str::to_owned);
    let row = |feed: &Listed| {
        let state = if feed.stalled { "stalled" } else { &feed.state };
        [
            Shown(&feed.name).to_string(),
            Shown(&feed.kind).to_string(),
            Shown(state).to_string(),
            HumanCount(feed.viewers).to_string(),
            HumanCount(feed.chunks).to_string(),
            HumanBytes(feed.kept_bytes).to_string(),
            feed.newest_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", age(seconds))),
            if feed.writable { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(header).chain(feeds.iter().map(row)).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 8]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let failed = feeds.iter().filter_map(|feed| Some((&feed.name, feed.error.as_ref()?)));
    let failed: String = failed.map(|(name, error)| format!("{}: {}\n", Shown(name), Shown(error))).collect();
    let gap = if failed.is_empty() { "" } else { "\n" };
    rows.iter().map(line).collect::<String>() + gap + &failed
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
    fn ages_in_words() {
        let words = [0.04, 9.9, 59.6, 119.0, 3600.0, 7300.0, 200_000.0].map(age);
        assert_eq!(words, ["0.0 s", "9.9 s", "60 s", "119 s", "60 min", "2 h", "2 days"]);
    }
}
