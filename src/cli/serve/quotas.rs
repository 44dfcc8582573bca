//! How much clients may have of the server at once.

use std::time::Duration;

use clap::Args;

use crate::app::Quotas;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli) struct QuotaArgs {
    /// Publications at once. Further ones get 503.
    #[arg(long, env = "H3CAST_PUBLICATIONS", value_name = "N", default_value_t = 4096, value_parser = at_least_one)]
    publications: usize,
    /// Publications at once of one client: an IPv4 address, or the first 64 bits of an IPv6 address. Further ones
    /// get 429.
    #[arg(long, env = "H3CAST_CLIENT_PUBLICATIONS", value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    client_publications: usize,
    /// How long a publication may take for its first byte; 0s to wait for ever. One that has published something
    /// may be silent for as long as it likes.
    #[arg(long, env = "H3CAST_PUBLISH_WAIT", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    publish_wait: Duration,
    /// Idempotency-Keys to remember. If there are more, the clients that have most of them lose their oldest.
    #[arg(long, env = "H3CAST_PUBLISH_KEYS", value_name = "N", default_value_t = 65_536, value_parser = at_least_one)]
    publish_keys: usize,
    /// Idempotency-Keys to remember of one client for one feed. If it uses more, its oldest are forgotten.
    #[arg(long, env = "H3CAST_CLIENT_KEYS", value_name = "N", default_value_t = 4096, value_parser = at_least_one)]
    client_keys: usize,
}

impl QuotaArgs {
    pub(super) fn quotas(&self) -> Quotas {
        Quotas::default()
            .publications(self.publications, self.client_publications)
            .publish_wait(self.publish_wait)
            .keys(self.publish_keys, self.client_keys)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number, 1 or more".into())
}
