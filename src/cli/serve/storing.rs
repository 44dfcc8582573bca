//! Where live feeds are stored on this machine, and how much of them.

mod beginning;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Changeover,
    args::{ServeArgs, Setting, setting, setting_of},
};
use crate::{
    cli::{Failure, values},
    source::{Kind, Source},
    store::{Checked, Disk, Fsync, Retain, Store, StoreError, StoreOptions},
    units,
};

/// What is kept of a feed, and of each feed that clients create, if nothing else was said, in bytes.
const NAMED: u64 = 1 << 30;
const CREATED: u64 = 16 << 20;

/// How long an old server may keep the store after it has freed its ports, and how often to look.
const ENDING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a process that was killed may take until the system has freed what it had.
const KILLED: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feeds on disk")]
pub(super) struct StoreArgs {
    /// Store live feeds on disk in this folder, which is created: publish, -, exec:COMMAND (not with --per-viewer) and
    /// tail:PATH. After a restart or a crash they continue with the same cursors. One server at a time can use it.
    #[arg(long, env = "H3CAST_STORE", value_name = "DIR", value_parser = folder())]
    pub(super) store: Option<PathBuf>,
    /// When what is stored is flushed to the disk: before it is confirmed (always), every TIME, or when the system does it
    /// (never). Without a flush, a power loss or a crash of the system loses it; a crash of the server does not.
    #[arg(long, env = "H3CAST_FSYNC", value_name = "always|TIME|never", default_value = "100ms", requires = "store", value_parser = fsync)]
    pub(super) fsync: Fsync,
    /// How much of each feed to keep on disk: up to so many bytes (k, M and G as for --history), not older than so long,
    /// or both, as in 10G,7d; `all` for everything. With NAME= for that feed, or each feed of a pattern; several with
    /// semicolons. [default: 1G, for each feed of NAME.*=publish 16M]
    #[arg(long, env = "H3CAST_RETAIN", value_name = "[NAME=]BYTES,TIME", value_delimiter = ';', requires = "store", value_parser = setting(retain))]
    pub(super) retain: Vec<Setting<Retain>>,
}

impl StoreArgs {
    pub(super) fn options(&self) -> StoreOptions {
        let mut options = StoreOptions::default();
        options.fsync = self.fsync;
        options
    }

    /// What is kept of the feed of that name, or of each feed of a pattern.
    pub(super) fn retain(&self, name: &str) -> Retain {
        let bytes = if name.contains('*') { CREATED } else { NAMED };
        setting_of(&self.retain, name, Retain { bytes: Some(bytes), age: None })
    }
}

/// How much is kept of the feeds of each source.
pub(super) fn retained(sources: &[Source], args: &ServeArgs) -> Vec<(String, Retain)> {
    sources.iter().map(|source| (source.name.clone(), args.storing.retain(&source.name))).collect()
}

/// Opens the store, if there is one, for these sources. An old server that has it releases it; then nothing is written to
/// it yet.
pub(super) async fn open(
    stored: &[Source],
    retained: Vec<(String, Retain)>,
    args: &ServeArgs,
    changeover: &mut Changeover,
) -> Result<Option<Disk>, Failure> {
    let StoreArgs { store: Some(dir), .. } = &args.storing else { return Ok(None) };
    let is_claimed = match args.takes_over() {
        true => changeover.claim(dir, stored.iter().any(|source| source.kind == Kind::Publish)).await?,
        false => false,
    };
    let new = dir.clone();
    let fails = tokio::task::spawn_blocking(move || beginning::fails(&new)).await.map_err(Failure::running)?;
    if let Some(why) = fails {
        return Err(failed(&why));
    }
    let begun = Instant::now();
    let mut is_told = false;
    let disk = loop {
        match Disk::open(dir.clone(), args.storing.options(), retained.clone()).await {
            Ok(disk) => break disk,
            // An old server that has freed its ports, and is about to end.
            Err(StoreError::Locked { dir, pid }) if args.takes_over() && begun.elapsed() < ENDING => {
                // After the store was released, it is a moment.
                if !is_told && !is_claimed {
                    let place = listening(&changeover.listens(pid));
                    let (held, most) = (in_use(&dir, pid), ENDING.as_secs());
                    info!("--store: {held}{place}: waiting up to {most} s for that process to exit");
                }
                is_told = true;
                sleep(PAUSE).await;
            }
            // One that was killed just now, and has not ended yet.
            Err(StoreError::Locked { .. }) if begun.elapsed() < KILLED => sleep(PAUSE).await,
            Err(StoreError::Locked { dir, pid }) if args.takes_over() && !is_claimed => {
                return Err(failed(&held_elsewhere(&dir, pid, &changeover.listens(pid))));
            }
            Err(error) => return Err(cannot_open(&error, args)),
        }
    };
    if is_claimed {
        disk.hold();
    }
    if stored.is_empty() {
        warn!("{}", nothing_stored());
    }
    Ok(Some(disk))
}

/// Which process has the store open.
fn in_use(dir: &Path, pid: Option<u32>) -> String {
    let by = pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
    format!("{} is in use{by}", dir.display())
}

/// Where a server listens that is not taken over, if that is known.
fn listening(listens: &[SocketAddr]) -> String {
    if listens.is_empty() {
        return String::new();
    }
    // Over UDP and TCP: what is for TCP alone is not of --listen.
    let twice = listens.iter().enumerate().filter(|(at, place)| listens[..*at].contains(place));
    let places: BTreeSet<_> = twice.map(|(_, place)| place).collect();
    let places: Vec<_> = places.into_iter().map(SocketAddr::to_string).collect();
    format!(", which listens elsewhere ({})", places.join(", "))
}

/// What to do about a store that is another process's than the one to take over from: of a server that listens there, if
/// it has been found.
fn held_elsewhere(dir: &Path, pid: Option<u32>, listens: &[SocketAddr]) -> String {
    let what = match listens {
        [] => {
            "no server with a control socket was found to have it (it may be another user's, or have another \
             XDG_RUNTIME_DIR, or --control off): give its socket with --control, stop it, or choose another folder"
        }
        _ => "to take over from it, give the same --listen, or its socket with --control",
    };
    format!("{}{}: {what}", in_use(dir, pid), listening(listens))
}

/// So many feeds are named that are not served.
const SHOWN: usize = 5;

/// What serves a stored feed.
const STORABLE: &str = "that can be stored (publish, -, exec: or tail:), or a pattern with publish";

/// What is stored and not served, for another reason than that it was given up.
pub(super) async fn unserved(disk: &Disk, args: &ServeArgs) -> Vec<String> {
    let mut feeds = disk.unserved().await;
    feeds.retain(|name| !args.drops(name));
    feeds
}

/// Says where feeds are stored from now on, and which of those there are not served.
pub(super) fn begins(disk: Option<&Disk>, unserved: &[String]) {
    if let Some(disk) = disk {
        info!("storing feeds in {}", absolute(disk.dir()).display());
    }
    let mut names = unserved.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = unserved.len().checked_sub(SHOWN) {
        names += &format!(", and {more} more");
    }
    match unserved.len() {
        0 => {}
        1 => info!("1 stored feed is not served: {names}. It stays on disk, for a source of that name {STORABLE}"),
        many => info!(
            "{many} stored feeds are not served: {names}. They stay on disk, for sources of those names {STORABLE}"
        ),
    }
}

/// Why the store cannot be opened.
fn cannot_open(error: &StoreError, args: &ServeArgs) -> Failure {
    match error {
        StoreError::Locked { .. } if !args.takes_over() => {
            failed(&format!("{error}, or take over from it with --take-over"))
        }
        StoreError::Damaged { file, at } => match mended(file) {
            Some(content) => failed(&format!(
                "{} is damaged at byte {at}: restore it from a copy, or replace its content with {content} (no feed is \
                 lost by that)",
                file.display()
            )),
            None => failed(&error.to_string()),
        },
        _ => failed(&error.to_string()),
    }
}

/// What to write to a file of the store's own, whose folder has all feeds, if it is one.
fn mended(file: &Path) -> Option<&'static str> {
    match file.file_name()?.to_str()? {
        "h3cast-store.json" => Some(r#"{"format":1}"#),
        // Each feed is looked at then, as after a power loss.
        "state.json" => Some(r#"{"closed":false}"#),
        _ => None,
    }
}

fn failed(why: &str) -> Failure {
    Failure::usage(anyhow::anyhow!("--store: {why}"))
}

/// Whether the folder could be opened, which changes nothing there; what a person is to know of it.
pub(super) async fn check(sources: &[Source], args: &ServeArgs) -> Result<Vec<String>, Failure> {
    let Some(dir) = args.storing.store.clone() else { return Ok(Vec::new()) };
    let is_idle = !sources.iter().any(|source| super::effect::is_stored(source, args));
    let looked = dir.clone();
    let look = move || (Store::check(&looked), beginning::fails(&looked));
    let (checked, fails) = tokio::task::spawn_blocking(look).await.map_err(Failure::running)?;
    match checked.map_err(|error| cannot_open(&error, args))? {
        Checked::InUse { pid } if !args.takes_over() => {
            return Err(cannot_open(&StoreError::Locked { dir, pid }, args));
        }
        _ => {}
    }
    match fails {
        Some(why) => Err(failed(&why)),
        None => Ok(is_idle.then(nothing_stored).into_iter().collect()),
    }
}

/// The store has no feeds.
fn nothing_stored() -> String {
    format!("--store stores nothing: it is for {}, and there is no such source", super::effect::STORED)
}

/// The folder from the root on, for those who do not know where the server was started.
fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Looks after the store until `stop`.
pub(super) async fn keep(store: Option<Disk>, stop: &CancellationToken) {
    if let Some(store) = store {
        stop.run_until_cancelled(store.watch()).await;
    }
}

/// Closes the store, after its feeds have ended.
pub(super) async fn close(store: Option<Disk>) {
    if let Some(store) = store
        && let Err(error) = store.close().await
    {
        error!("--store: {error}");
    }
}

/// A folder that is not a source which was meant to come after it.
fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|dir| match dir.to_str() {
        Some(text) if text.parse::<Source>().is_ok() && !dir.exists() => {
            let text = values::short(text);
            Err(format!(
                "`{text}` is a source, not a folder: write --store DIR {text} or H3CAST_STORE=DIR, or ./{text} for a \
                 folder of that name"
            ))
        }
        _ => Ok(dir),
    })
}

fn fsync(text: &str) -> Result<Fsync, String> {
    match text {
        "always" => Ok(Fsync::Always),
        "never" => Ok(Fsync::Never),
        _ => {
            let time = values::some_time(text).map_err(|error| format!("{error}; or write always or never"))?;
            match time > LONGEST {
                true => Err(format!("`{text}` is too long: write a time of up to a minute, or never")),
                false => Ok(Fsync::Every(time)),
            }
        }
    }
}

/// The longest time between two flushes.
const LONGEST: Duration = Duration::from_secs(60);

fn retain(text: &str) -> Result<Retain, String> {
    if text == "all" {
        return Ok(Retain { bytes: None, age: None });
    }
    let (mut bytes, mut age) = (None, None);
    for part in text.split(',') {
        let part = part.trim();
        if let Some(error) = units::lacks_unit(part) {
            return Err(format!("{error}; for a time, {part}d or {part}h"));
        }
        let twice = match (units::bytes(part), values::some_time(part)) {
            (Some(0), _) => return Err("a feed must keep at least one byte: write a size such as 10G".into()),
            (Some(size), _) => bytes.replace(size).is_some(),
            (None, Ok(time)) => age.replace(time).is_some(),
            (None, Err(_)) => {
                return Err(format!("`{part}` is neither a size nor a time: write 10G, 7d or both as 10G,7d, or all"));
            }
        };
        if twice {
            return Err(format!("`{text}` has two sizes or two times: write one of each, such as 10G,7d"));
        }
    }
    Ok(Retain { bytes, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_and_an_age() {
        let day = Duration::from_secs(24 * 3600);
        for (text, bytes, age) in [
            ("10G,7d", Some(10 << 30), Some(7 * day)),
            ("7d, 10G", Some(10 << 30), Some(7 * day)),
            ("64k", Some(64 << 10), None),
            ("1d", None, Some(day)),
            ("all", None, None),
        ] {
            assert_eq!(retain(text), Ok(Retain { bytes, age }), "{text}");
        }
        assert!(
            retain("10").unwrap_err().contains("write 10M or 10G, or 10B if so few bytes are meant; for a time, 10d")
        );
        assert_eq!(retain("10B,7d"), Ok(Retain { bytes: Some(10), age: Some(7 * day) }));
        for bad in ["10", "7d,10", "", "10G,", "1G,2G", "1d,2d", "0", "0s", "lots", "all,1d"] {
            assert!(retain(bad).is_err(), "{bad}");
        }
        assert_eq!(fsync("250ms"), Ok(Fsync::Every(Duration::from_millis(250))));
        assert_eq!((fsync("always"), fsync("never")), (Ok(Fsync::Always), Ok(Fsync::Never)));
        for bad in ["0s", "61s", "sometimes", "5"] {
            assert!(fsync(bad).is_err(), "{bad}");
        }
    }
}
