//! How NATS is reached.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    cli::values,
    nats::{Access, Address, Connections, Ensure, NatsOptions},
};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feeds on NATS")]
pub(in crate::cli) struct NatsArgs {
    /// Store publish feeds in NATS JetStream, shared by all servers with the same setting: the feed NAME
    /// under the subject PREFIX.NAME.
    #[arg(long, env = "H3CAST_ENGINE", value_name = "nats://HOST:PORT[/PREFIX]", value_parser = Address::engine, hide_env_values = true)]
    pub(super) engine: Option<Address>,
    /// Create missing JetStream streams; fail if existing ones differ from SETTINGS, which are separated by commas:
    /// replicas=3,max-age=24h,max-bytes=10G,max-messages=N,discard=old|new,storage=file|memory,
    /// duplicate-window=2m,max-consumers=N,allow-atomic=on|off,subject=logs.>. Existing streams are never
    /// changed.
    #[arg(long, env = "H3CAST_ENSURE_STREAM", value_name = "SETTINGS", num_args = 0..=1, default_missing_value = "", require_equals = true)]
    ensure_stream: Option<Ensure>,
    /// NATS credentials: a file that holds a user's JWT and key, as `nsc` writes it.
    #[arg(long, env = "H3CAST_NATS_CREDS", value_name = "FILE", conflicts_with = "nats_token_file")]
    nats_creds: Option<PathBuf>,
    /// A file whose first line is a token for NATS.
    #[arg(long, env = "H3CAST_NATS_TOKEN_FILE", value_name = "FILE")]
    nats_token_file: Option<PathBuf>,
    /// CA certificates for the NATS servers, in PEM.
    #[arg(long, env = "H3CAST_NATS_CA", value_name = "FILE")]
    nats_ca: Option<PathBuf>,
    /// The client certificate to show to the NATS servers, in PEM.
    #[arg(long, env = "H3CAST_NATS_CERT", value_name = "FILE", requires = "nats_key")]
    nats_cert: Option<PathBuf>,
    /// The key of --nats-cert, in PEM.
    #[arg(long, env = "H3CAST_NATS_KEY", value_name = "FILE", requires = "nats_cert")]
    nats_key: Option<PathBuf>,
    /// Prefix of the subjects on which this server receives answers from NATS, for a NATS user that may subscribe to
    /// nothing else.
    #[arg(long, env = "H3CAST_NATS_INBOX", value_name = "PREFIX", default_value = "_INBOX", value_parser = values::inbox)]
    nats_inbox: String,
    /// How long to wait for NATS at the start: for a server, for JetStream, for the leader of a stream. Errors that
    /// waiting cannot mend, such as a wrong password, end the start at once.
    #[arg(long, env = "H3CAST_NATS_WAIT", value_name = "TIME", default_value = "60s", value_parser = values::time)]
    nats_wait: Duration,
}

impl NatsArgs {
    pub(super) fn connections(&self) -> Connections {
        let mut access = Access::default();
        access.credentials.clone_from(&self.nats_creds);
        access.token.clone_from(&self.nats_token_file);
        access.ca.clone_from(&self.nats_ca);
        access.certificate.clone_from(&self.nats_cert);
        access.key.clone_from(&self.nats_key);
        access.inbox = Some(self.nats_inbox.clone());
        Connections::new(NatsOptions { access, ensure: self.ensure_stream.clone(), wait: self.nats_wait })
    }
}
