//! Flags that would have no effect: they are for other kinds of sources than there are, or for a feed that
//! is not there.

use tracing::warn;

#[cfg(feature = "store")]
use super::args::setting_of;
use super::{
    args::{ServeArgs, Setting},
    auth,
};
#[cfg(feature = "store")]
use crate::feed::Lag;
use crate::{
    PlainHttp,
    cli::Failure,
    source::{Kind, Source},
    units::there_are,
};

/// A flag that was given, and what it is for.
struct Given<'a> {
    flag: &'static str,
    /// Whether it was given for all feeds that it is for.
    all: bool,
    /// The feeds that it was given for by name.
    named: Vec<&'a str>,
    /// For what it was given more than once, if it was: a feed, or all of them.
    twice: Option<Option<&'a str>>,
    /// The sources that it is for, in words.
    of: &'static str,
    applies: fn(&Source, &ServeArgs) -> bool,
}

fn setting<'a, T>(
    flag: &'static str,
    settings: &'a [Setting<T>],
    of: &'static str,
    applies: fn(&Source, &ServeArgs) -> bool,
) -> Given<'a> {
    let all = settings.iter().any(|setting| setting.feed.is_none());
    let feeds: Vec<_> = settings.iter().map(|setting| setting.feed.as_deref()).collect();
    let twice = feeds.iter().enumerate().find(|(at, feed)| feeds[..*at].contains(feed)).map(|(_, feed)| *feed);
    Given { flag, all, named: feeds.into_iter().flatten().collect(), twice, of, applies }
}

fn is_command(source: &Source, _: &ServeArgs) -> bool {
    matches!(source.kind, Kind::Exec(_))
}

/// What is cut into chunks here.
fn is_cut(source: &Source, _: &ServeArgs) -> bool {
    matches!(source.kind, Kind::Stdin | Kind::Exec(_) | Kind::File(_) | Kind::Tail(_))
}

/// Commands that can have what their viewers send.
fn is_for_viewer(source: &Source, args: &ServeArgs) -> bool {
    args.per_viewer && is_command(source, args)
}

/// What clients send something to.
fn is_written(source: &Source, args: &ServeArgs) -> bool {
    source.kind == Kind::Publish || (args.input && is_for_viewer(source, args))
}

pub(super) fn is_live(source: &Source, args: &ServeArgs) -> bool {
    match source.kind {
        Kind::Demo | Kind::File(_) => false,
        Kind::Exec(_) => !args.per_viewer,
        _ => true,
    }
}

/// What `--store` stores.
#[cfg(feature = "store")]
fn is_storable(source: &Source, args: &ServeArgs) -> bool {
    match source.kind {
        Kind::Publish => !args.has_engine(),
        Kind::Stdin | Kind::Tail(_) => true,
        Kind::Exec(_) => !args.per_viewer,
        _ => false,
    }
}

#[cfg(feature = "store")]
pub(super) fn is_stored(source: &Source, args: &ServeArgs) -> bool {
    args.store().is_some() && is_storable(source, args)
}

/// Refuses what cannot be had of a feed on disk.
#[cfg(feature = "store")]
fn stored(sources: &[Source], args: &ServeArgs) -> Result<(), Failure> {
    if args.store().is_none() {
        return Ok(());
    }
    if args.has_engine() && sources.iter().any(|source| source.kind == Kind::Publish) {
        let text = "--store and --engine both store publish feeds: leave one of them out";
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let lag = |source: &&Source| setting_of(&args.lag, &source.name, Lag::Skip) != Lag::Skip;
    if let Some(source) = sources.iter().filter(|source| is_stored(source, args)).find(lag) {
        let problem = format!(
            "--lag block and disconnect cannot be used with the feed `{}`: with --store, a viewer that falls behind the \
             history reads from the disk",
            source.name
        );
        refuse("--lag", &problem)?;
    }
    Ok(())
}

/// Refuses flags without effect. Those of the environment, which may be there for other servers too, are
/// warned of.
pub(super) fn check(sources: &[Source], args: &ServeArgs) -> Result<(), Failure> {
    idle(sources, args).iter().for_each(|problem| warn!("{problem}"));
    #[cfg(feature = "store")]
    stored(sources, args)?;
    const COMMANDS: &str = "exec:COMMAND";
    const LIVE: &str = "live feeds: -, exec:COMMAND without --per-viewer, tail:PATH, publish and nats://";
    let switch = |flag, all| Given { flag, all, named: Vec::new(), twice: None, of: COMMANDS, applies: is_command };
    let input = Given { of: FOR_VIEWERS, applies: is_for_viewer, ..switch("--input", args.input) };
    let given = [
        setting("--chunk", &args.chunk, "-, exec:COMMAND, file:PATH and tail:PATH", is_cut),
        setting("--history", &args.history, LIVE, is_live),
        setting("--lag", &args.lag, LIVE, is_live),
        setting("--stderr", &args.stderr, COMMANDS, is_command),
        setting("--tail-lines", &args.tail_lines, "tail:PATH", |source, _| matches!(source.kind, Kind::Tail(_))),
        switch("--per-viewer", args.per_viewer),
        switch("--restart", args.restart),
        input,
        #[cfg(feature = "store")]
        setting("--retain", &args.storing.retain, STORED, is_stored),
    ];
    for Given { flag, all, named, twice, of, applies } in given {
        let contradiction = twice.map(|feed| match feed {
            Some(feed) => format!("{flag} is given twice for the feed `{feed}`: leave one out"),
            None => format!("{flag} is given twice: leave one out, or write NAME= before a value that is for one feed"),
        });
        if let Some(text) = contradiction {
            return Err(Failure::usage(anyhow::anyhow!(text)));
        }
        let problem = named.iter().find_map(|name| match sources.iter().find(|source| source.name == *name) {
            Some(source) if applies(source, args) => None,
            Some(_) => Some(format!("{flag} has no effect on the feed `{name}`: it is for {of}")),
            None => {
                let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
                Some(format!("there is no feed `{name}` for {flag}: {}", there_are(&names)))
            }
        });
        let none = || {
            let none = all && !sources.iter().any(|source| applies(source, args));
            none.then(|| format!("{flag} has no effect: it is for {of}, and there is no such source"))
        };
        let alone =
            flag == "--input" && all && !args.per_viewer && sources.iter().any(|source| is_command(source, args));
        let none = || {
            match alone {
            true => Some(
                "--input needs --per-viewer as well, since each viewer talks to a command of its own: write --per-viewer \
                 --input"
                    .to_owned(),
            ),
            false => none(),
        }
        };
        let Some(problem) = problem.or_else(none) else { continue };
        refuse(flag, &problem)?;
    }
    Ok(())
}

/// Flags for kinds of sources that may come and go, which are left as they are: what they are for, in words.
type Kinds = (&'static [&'static str], &'static str, fn(&Source, &ServeArgs) -> bool);

#[cfg(feature = "store")]
pub(super) const STORED: &str = "publish, -, exec:COMMAND without --per-viewer, and tail:PATH";

const FOR_VIEWERS: &str = "exec:COMMAND with --per-viewer";

#[cfg(feature = "nats")]
const NATS: &[&str] =
    &["ensure-stream", "nats-creds", "nats-token-file", "nats-ca", "nats-cert", "nats-key", "nats-inbox", "nats-wait"];

const IDLE: &[Kinds] = &[
    (&["count", "interval"], "demo", |source, _| source.kind == Kind::Demo),
    (
        &["publish-token", "publish-limit", "max-publications", "publications-per-client", "publish-wait"],
        "publish and exec:COMMAND with --input",
        is_written,
    ),
    (&["max-keys", "keys-per-client", "engine"], "publish", |source, _| source.kind == Kind::Publish),
    (&["max-feeds", "feeds-per-client", "feed-idle"], "NAME.*=publish", |source, _| {
        source.kind == Kind::Publish && source.name.contains('*')
    }),
    (&["max-processes", "processes-per-client"], FOR_VIEWERS, is_for_viewer),
    #[cfg(feature = "nats")]
    (NATS, "nats:// and publish with --engine", |source, args| {
        matches!(source.kind, Kind::Nats(_)) || (source.kind == Kind::Publish && args.nats.engine.is_some())
    }),
];

/// What is to be said of flags that have no effect, and stop nothing.
fn idle(sources: &[Source], args: &ServeArgs) -> Vec<String> {
    let mut problems = Vec::new();
    for (flags, of, applies) in IDLE {
        if sources.iter().any(|source| applies(source, args)) {
            continue;
        }
        let stated = flags.iter().filter(|flag| args.stated.contains(**flag));
        problems.extend(stated.map(|flag| {
            format!("--{flag} has no effect: it is for {of}, and there is no such source{}", origin(flag))
        }));
    }
    problems.extend(
        auth::public_without_feeds(sources, args)
            .iter()
            .map(|pattern| format!("--public {pattern} has no effect: no feed has such a name{}", origin("public"))),
    );
    if args.stated.contains("certs") && args.certs.cert.is_some() {
        problems.push("--certs has no effect with --cert and --key".into());
    }
    if args.http == Some(PlainHttp::Off) && args.proxies.announce_plain() {
        problems.push("--proxy-protocol http has no effect with --http off".into());
    }
    problems
}

/// Refuses a flag without effect, or warns of it if it is from the environment.
pub(super) fn refuse(flag: &str, problem: &str) -> Result<(), Failure> {
    match origin(flag) {
        origin if !origin.is_empty() => {
            warn!("{problem}{origin}");
            Ok(())
        }
        _ => Err(Failure::usage(anyhow::anyhow!("{problem}"))),
    }
}

/// Where a flag comes from, if its variable is set.
fn origin(flag: &str) -> String {
    let variable = format!("H3CAST_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase());
    match std::env::var_os(&variable) {
        Some(_) => format!(" (from the environment, {variable})"),
        None => String::new(),
    }
}
