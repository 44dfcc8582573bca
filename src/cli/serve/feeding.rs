//! Feeding live feeds, until the server stops.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Feed,
    panics,
    source::{
        Feeding,
        command::{Commands, PATIENCE},
    },
};

/// The live feeds, and what feeds them.
pub(super) struct Live {
    pub(super) feeds: Vec<Feed>,
    /// Each with the name of what it feeds.
    pub(super) feedings: Vec<(String, Feeding)>,
    /// The names of those that a command feeds.
    pub(super) of_commands: BTreeSet<String>,
    pub(super) commands: Commands,
}

impl Live {
    /// Feeds until `stop`; then the feeds end, so that their viewers need not be waited for. What commands
    /// print when they are asked to end still reaches viewers, as long as they have their streams (`grace`).
    pub(super) async fn run(self, stop: CancellationToken, grace: Duration) {
        let Self { feeds, feedings, of_commands, commands } = self;
        let (by_command, others): (Vec<_>, Vec<_>) =
            feedings.into_iter().partition(|(name, _)| of_commands.contains(name));
        let (mut by_command, mut others) = (Feedings::spawn(by_command), Feedings::spawn(others));
        stop.run_until_cancelled(async { tokio::join!(by_command.ended(), others.ended()) }).await;
        // What has ended by itself leaves its feed as it is.
        stop.cancelled().await;
        commands.stop();
        // Before what feeds them is ended, which would look like their own end.
        feeds.iter().filter(|feed| !of_commands.contains(feed.name())).for_each(Feed::stop);
        others.tasks.shutdown().await;
        // A command that has not ended by then is killed, and what it still prints is of no use to viewers
        // that are about to be cut off.
        let _ = tokio::time::timeout(grace.min(PATIENCE), by_command.ended()).await;
        feeds.iter().for_each(Feed::stop);
        by_command.tasks.shutdown().await;
    }
}

/// What feeds some of them.
struct Feedings {
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Feedings {
    fn spawn(feedings: Vec<(String, Feeding)>) -> Self {
        let mut tasks = JoinSet::new();
        let names = feedings.into_iter().map(|(name, feeding)| (tasks.spawn(feeding).id(), name)).collect();
        Self { tasks, names }
    }

    /// Waits until all have ended, and reports those that panicked.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            // Its feed has failed by that: nobody publishes to it any more.
            if let Err(panic) = ended {
                let name = self.names.get(&panic.id()).map_or("?", String::as_str);
                panics::report(&format!("the source of the feed `{name}`"), Err::<(), _>(panic));
            }
        }
    }
}
