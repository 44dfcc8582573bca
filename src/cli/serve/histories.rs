//! What the histories of the feeds may take in memory.

use super::args::{ServeArgs, setting_of};
use super::effect;
use crate::{
    feed,
    source::{Kind, Source},
};

/// What each feed that clients create keeps, if nothing else was said, in bytes: there may be a thousand.
const CREATED: usize = 1 << 20;

/// What a feed of that name keeps, or each one of a pattern, in bytes.
pub(super) fn of(name: &str, args: &ServeArgs) -> usize {
    setting_of(&args.history, name, if name.contains('*') { CREATED } else { feed::DEFAULT_HISTORY })
}

/// What the histories of all live feeds may take in memory: those of clients' feeds too, as many as there may be. The
/// feeds of a NATS pattern, which come by their subjects, are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Histories {
    /// In all, in bytes.
    pub(super) bytes: u64,
    /// How many they are.
    pub(super) feeds: u64,
    /// What one feed of each pattern takes, in bytes, if clients may create some.
    created: u64,
    /// How many they may create of each pattern.
    most: u64,
}

impl Histories {
    pub(super) fn find(sources: &[Source], args: &ServeArgs) -> Self {
        let mut all = Self { most: most(args), ..Self::default() };
        for source in sources.iter().filter(|source| effect::is_live(source, args)) {
            let history = of(&source.name, args) as u64;
            let is_pattern = matches!(source.kind, Kind::Publish) && source.name.contains('*');
            let count = if is_pattern { all.most } else { 1 };
            all.bytes = all.bytes.saturating_add(history.saturating_mul(count));
            all.feeds = all.feeds.saturating_add(count);
            all.created = all.created.saturating_add(if is_pattern { history } else { 0 });
        }
        all
    }

    /// As many feeds of each pattern as fit with the others into that many bytes, if fewer of them would.
    pub(super) fn most_within(&self, room: u64) -> Option<u64> {
        let others = self.bytes.saturating_sub(self.created.saturating_mul(self.most));
        room.checked_sub(others)?.checked_div(self.created).filter(|most| *most > 0)
    }
}

/// How many feeds clients may create of each pattern.
fn most(args: &ServeArgs) -> u64 {
    let most = args.quotas.written().all;
    #[cfg(feature = "nats")]
    let most = if args.nats.engine.is_some() { most.min(crate::nats::MAX_FEEDS) } else { most };
    most as u64
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::serve::ServeCommand;

    #[derive(Debug, Parser)]
    struct Given {
        #[command(flatten)]
        serve: ServeCommand,
    }

    pub(in crate::cli::serve) fn find(args: &[&str]) -> Histories {
        let given = Given::try_parse_from(std::iter::once(&"serve").chain(args)).unwrap().serve;
        Histories::find(&given.sources, &given.args)
    }

    #[test]
    fn feeds_that_clients_may_create_count_each() {
        const MIB: u64 = 1 << 20;
        let sum = |args: &[&str]| (find(args).bytes / MIB, find(args).feeds);
        assert_eq!(sum(&["log=-", "demo"]), (8, 1));
        assert_eq!(sum(&["chat.*=publish"]), (1000, 1000));
        assert_eq!(sum(&["chat.*=publish", "log=-", "--max-feeds=10"]), (18, 11));
        assert_eq!(sum(&["chat.*=publish", "a.*=publish", "--history=chat.*=2M", "--max-feeds=10"]), (30, 20));
        #[cfg(feature = "nats")]
        {
            let engine = ["chat.*=publish", "--engine=nats://127.0.0.1/h3cast", "--max-feeds=20000"];
            assert_eq!(sum(&engine), (10_000, 10_000));
        }
    }

    #[test]
    fn fewer_feeds_fit() {
        let all = find(&["chat.*=publish", "log=-"]);
        assert_eq!(all.most_within(83 << 20), Some(75));
        assert_eq!(all.most_within(8 << 20), None);
        assert_eq!(find(&["log=-"]).most_within(83 << 20), None);
    }
}
