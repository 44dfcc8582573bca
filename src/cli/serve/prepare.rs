//! What sources become before they are served.

use std::{collections::BTreeSet, sync::Arc};

use tracing::warn;

use super::{
    Changeover, ServeArgs, advice,
    args::{setting_for, setting_of},
    check,
    handover::Shelf,
    histories, stdin,
};
#[cfg(feature = "store")]
use super::{effect, storing};
#[cfg(feature = "store")]
use crate::store::Disk;
use crate::{
    cli::Failure,
    feed::{self, Family, Feed, FeedError, Lag},
    source::{
        Feeding, Kind, Options, Source, Started,
        chunker::Chunking,
        command::{Commands, Stderr},
    },
};

/// What sources have become, before they are served. Dropped then, its feeds have not failed: they were never
/// there.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) feeds: Vec<Feed>,
    pub(super) families: Vec<Arc<dyn Family>>,
    /// Each with the name of what it feeds.
    pub(super) feedings: Vec<(String, Feeding)>,
    /// The names of those that a command feeds.
    pub(super) of_commands: BTreeSet<String>,
    #[cfg(feature = "nats")]
    pub(super) nats: crate::nats::Connections,
    #[cfg(feature = "store")]
    pub(super) store: Option<crate::store::Disk>,
    /// Any source is stored there.
    #[cfg(feature = "store")]
    stores: bool,
    /// What is on disk and is not served.
    #[cfg(feature = "store")]
    unserved: Vec<String>,
}

impl Prepared {
    /// Has what is stored be written from now on: no other server does that any more. Gives what the next server takes
    /// over.
    pub(super) fn begin(&self) -> Shelf {
        #[cfg(feature = "store")]
        {
            self.store.iter().for_each(Disk::resume);
            storing::begins(self.store.as_ref().filter(|_| self.stores), &self.unserved);
            self.store.clone().into()
        }
        #[cfg(not(feature = "store"))]
        Shelf::default()
    }

    /// The feeds on disk that would have chunks of clients as well as of a source of the server, in words.
    pub(super) fn mixed(&self) -> Vec<String> {
        #[cfg(feature = "store")]
        {
            let mixed = self.store.iter().flat_map(Disk::mixed);
            mixed
                .map(|(name, stored, here)| {
                    format!("`{name}` (from `{}`, and here from `{}`)", stored.word(), here.word())
                })
                .collect()
        }
        #[cfg(not(feature = "store"))]
        Vec::new()
    }

    /// Adds what the source of that name has become.
    fn add(&mut self, name: String, started: Started) {
        self.feeds.extend(started.feed);
        self.families.extend(started.family);
        self.feedings.extend(started.feeding.map(|feeding| (name, feeding)));
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.feeds.iter().for_each(Feed::stop);
    }
}

/// Prepares every source, or none.
#[cfg_attr(not(feature = "store"), allow(unused_variables, reason = "only a store is taken over before the sources"))]
pub(super) async fn prepare(
    mut sources: Vec<Source>,
    args: &ServeArgs,
    commands: &Commands,
    changeover: &mut Changeover,
) -> Result<Prepared, Failure> {
    if sources.is_empty() {
        sources.push(Source { name: feed::DEFAULT.into(), kind: Kind::Demo });
    }
    let look = move || (stdin::shared(&sources), sources);
    let (shared, sources) = tokio::task::spawn_blocking(look).await.map_err(Failure::running)?;
    if let Some((one, other, what)) = shared {
        // Whatever their names are: other names would not help.
        let both = match one == other {
            true => "two sources".into(),
            false => format!("the feeds `{one}` and `{other}`"),
        };
        let text = format!(
            "{both} both read {what}, so each line would reach only one of them: give one source; any number of viewers can read its feed"
        );
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    check::sources(&sources, args)?;
    let is_command = |source: &Source| matches!(source.kind, Kind::Exec(_));
    let of_commands: BTreeSet<_> =
        sources.iter().filter(|source| is_command(source)).map(|source| source.name.clone()).collect();
    #[cfg(feature = "nats")]
    let nats = args.nats.connections().starting_now();
    let options = |name: &str| {
        let chunking = setting_of(&args.chunk, name, Chunking::Lines);
        Options {
            chunking,
            stderr: setting_of(&args.stderr, name, Stderr::of(chunking)),
            commands: commands.clone(),
            history: histories::of(name, args),
            lag: setting_of(&args.lag, name, Lag::Skip),
            tail_lines: setting_for(&args.tail_lines, name),
            written: args.quotas.written(),
            per_viewer: args.per_viewer,
            input: args.input,
            restart: args.restart,
            count: args.count,
            interval: args.interval,
            #[cfg(feature = "nats")]
            nats: nats.clone(),
            #[cfg(feature = "nats")]
            engine: args.nats.engine.clone(),
            ..Options::default()
        }
    };
    let mut prepared = Prepared::default();
    prepared.of_commands = of_commands;
    #[cfg(feature = "nats")]
    prepared.nats.clone_from(&nats);
    let order: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
    #[cfg(feature = "store")]
    let (retained, (stored, sources)) = {
        let retained = storing::retained(&sources, args);
        let is_stored = |source: &Source| effect::is_stored(source, args);
        (retained, sources.into_iter().partition::<Vec<_>, _>(is_stored))
    };
    let failed = |error, source: &Source| Failure::usage(advice::advised(error, source));
    let mut late = Vec::new();
    for source in sources {
        let (name, options) = (source.name.clone(), options(&source.name));
        match source.clone().start(&options).await {
            Ok(started) => prepared.add(name, started),
            Err(error) if error.is_absence() => late.push((source, options, error)),
            Err(error) => return Err(failed(error, &source)),
        }
    }
    // The others, which may take long, come before: publishers of a server that is taken over wait from here on.
    #[cfg(feature = "store")]
    {
        prepared.stores = !stored.is_empty();
        prepared.store = storing::open(&stored, retained, args, changeover).await?;
        for source in stored {
            let options = Options { store: prepared.store.clone(), ..options(&source.name) };
            let started = source.clone().start(&options).await.map_err(|error| failed(error, &source))?;
            prepared.add(source.name, started);
        }
        if let Some(store) = &prepared.store {
            prepared.unserved = storing::unserved(store, args).await;
        }
    }
    let is_any = !prepared.feeds.is_empty() || !prepared.families.is_empty();
    for (source, options, error) in late {
        // With nothing to serve, whoever has started it is to know.
        if !is_any {
            return Err(failed(error, &source));
        }
        let (name, why) = (source.name.clone(), FeedError::of(&error));
        let started = source.clone().start_late(error, &options).map_err(|error| failed(error, &source))?;
        warn!("{why}. The other feeds are served, and this one as soon as it can be");
        prepared.add(name, started);
    }
    let place = |name: &str| order.iter().position(|source| source == name);
    prepared.feeds.sort_by_key(|feed| place(feed.name()));
    prepared.families.sort_by_key(|family| place(family.pattern()));
    Ok(prepared)
}
