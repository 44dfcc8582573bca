//! How much clients may have of the server at once.

use std::time::Duration;

use clap::Args;

use crate::{app::Quotas, cli::values, feed::WrittenLimits};

/// What a client is, in each: whom its token names, wherever it is used, else an IPv4 address, or the first 64 bits of
/// an IPv6 address.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli) struct QuotaArgs {
    /// Publications at once. Further ones get 503.
    #[arg(long, env = "H3CAST_MAX_PUBLICATIONS", value_name = "N", default_value_t = 4096, value_parser = values::at_least_one)]
    max_publications: usize,
    /// Publications at once of one client (whom its token names, else its IPv4 address or IPv6 /64); 0 for no limit.
    /// Further ones get 429.
    #[arg(long, env = "H3CAST_PUBLICATIONS_PER_CLIENT", value_name = "N", default_value_t = 256, value_parser = values::count::<usize>)]
    publications_per_client: usize,
    /// How long a publication may take for its first byte; 0s to wait for ever. One that has published something
    /// may be silent for as long as it likes.
    #[arg(long, env = "H3CAST_PUBLISH_WAIT", value_name = "TIME", default_value = "60s", value_parser = values::time)]
    publish_wait: Duration,
    /// Idempotency-Keys to remember. If there are more, the clients that have most of them lose their oldest.
    #[arg(long, env = "H3CAST_MAX_KEYS", value_name = "N", default_value_t = 65_536, value_parser = values::at_least_one)]
    max_keys: usize,
    /// Idempotency-Keys to remember of one client (whom its token names, else its IPv4 address or IPv6 /64) for
    /// one feed; 0 for no limit. If it uses more, its oldest are forgotten.
    #[arg(long, env = "H3CAST_KEYS_PER_CLIENT", value_name = "N", default_value_t = 4096, value_parser = values::count::<usize>)]
    keys_per_client: usize,
    /// Commands at once that run for one viewer each (--per-viewer), until their last process has ended. Further
    /// viewers get 503.
    #[arg(long, env = "H3CAST_MAX_PROCESSES", value_name = "N", default_value_t = 64, value_parser = values::at_least_one)]
    max_processes: usize,
    /// Such commands at once of one client (whom its token names, else its IPv4 address or IPv6 /64); 0 for no
    /// limit. Its further viewers get 429. [default: a quarter of --max-processes]
    #[arg(long, env = "H3CAST_PROCESSES_PER_CLIENT", value_name = "N", value_parser = values::count::<usize>)]
    processes_per_client: Option<usize>,
    /// Feeds at once that clients create, for each pattern (NAME.*=publish). If there are more, the clients that have
    /// created most lose the one that has not been used for longest.
    #[arg(long, env = "H3CAST_MAX_FEEDS", value_name = "N", default_value_t = 1000, value_parser = values::at_least_one)]
    max_feeds: usize,
    /// Such feeds at once that one client (whom its token names, else its IPv4 address or IPv6 /64) has created;
    /// 0 for no limit. Further ones get 429.
    #[arg(long, env = "H3CAST_FEEDS_PER_CLIENT", value_name = "N", default_value_t = 64, value_parser = values::count::<usize>)]
    feeds_per_client: usize,
    /// How long to keep such a feed that is neither viewed nor written.
    #[arg(long, env = "H3CAST_FEED_IDLE", value_name = "TIME", default_value = "1h", value_parser = values::time)]
    feed_idle: Duration,
}

impl QuotaArgs {
    /// How many commands may run for one viewer each, in all and of one client.
    pub(super) fn processes(&self) -> (usize, usize) {
        (self.max_processes, self.processes_per_client.map_or(self.max_processes.div_ceil(4), share))
    }

    /// What the feeds that clients create may come to.
    pub(super) fn written(&self) -> WrittenLimits {
        let mut limits = WrittenLimits::default();
        (limits.all, limits.each, limits.idle) = (self.max_feeds, share(self.feeds_per_client), self.feed_idle);
        limits
    }

    pub(super) fn quotas(&self) -> Quotas {
        Quotas::default()
            .publications(self.max_publications, share(self.publications_per_client))
            .publish_wait(self.publish_wait)
            .keys(self.max_keys, share(self.keys_per_client))
    }
}

/// Zero is no limit.
fn share(each: usize) -> usize {
    if each == 0 { usize::MAX } else { each }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Given {
        #[command(flatten)]
        quotas: QuotaArgs,
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let given =
            |args: &[&str]| Given::try_parse_from(std::iter::once(&"serve").chain(args)).map(|given| given.quotas);
        assert_eq!(given(&[]).unwrap().quotas(), Quotas::default());
        assert_eq!(given(&[]).unwrap().written(), WrittenLimits::default());
        for (args, processes) in [
            (&[][..], (64, 16)),
            (&["--max-processes=2"], (2, 1)),
            (&["--max-processes=100", "--processes-per-client=0"], (100, usize::MAX)),
        ] {
            assert_eq!(given(args).unwrap().processes(), processes, "{args:?}");
        }
        assert!(given(&["--max-processes=0"]).is_err());
    }

    #[test]
    fn each_limit_of_one_client_says_what_a_client_is() {
        let command = <Given as clap::CommandFactory>::command();
        let of_clients: Vec<_> =
            command.get_arguments().filter(|flag| flag.get_id().as_str().ends_with("_per_client")).collect();
        assert_eq!(of_clients.len(), 4);
        for flag in of_clients {
            let help = flag.get_help().unwrap().to_string();
            assert!(help.contains("(whom its token names, else its IPv4 address or IPv6 /64)"), "{help}");
        }
    }
}
