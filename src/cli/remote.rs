//! What the commands have in common that speak to a server: whom they trust, what they tell, and
//! how Ctrl-C ends them.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use http::{HeaderMap, Uri};

use super::{DEFAULT_CERTS, Failure, complain, shown::Shown, untrusted};
use crate::{
    client::{ClientError, Trust, url},
    identity::Fingerprint,
};

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// Folder whose certificate is trusted for any host, as --certs of `serve`. Without it, servers
    /// that you run on this machine are found automatically, and `certs` in the current folder is
    /// trusted for this machine only.
    #[arg(long, env = "H3CAST_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Trust the certificates in this file (PEM or DER), and those that they signed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert_hash", "insecure"])]
    cacert: Option<PathBuf>,
    /// Trust the server whose certificate (DER) has this SHA-256, and no other.
    #[arg(long, value_name = "HEX", value_parser = fingerprint, conflicts_with = "insecure")]
    cert_hash: Option<Fingerprint>,
    /// Skip certificate verification (INSECURE: allows man-in-the-middle attacks).
    #[arg(long)]
    insecure: bool,
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::from_hex(text).ok_or_else(|| "a SHA-256 hash has 64 hexadecimal digits".into())
}

impl TrustArgs {
    pub(super) fn trust(&self) -> Trust {
        if self.insecure {
            complain("--insecure: the server is not checked, anyone could be answering");
            return Trust::Anyone;
        }
        if let Some(hash) = self.cert_hash {
            return Trust::Hashes(vec![hash]);
        }
        if let Some(file) = &self.cacert {
            return Trust::Files(vec![file.clone()]);
        }
        let certs = self.certs.clone().unwrap_or_else(|| DEFAULT_CERTS.into());
        Trust::Local { certs: Some(certs), anywhere: self.certs.is_some() }
    }
}

/// What is told on stderr with `-v`.
#[derive(Debug, Clone)]
pub(super) struct Log {
    verbose: bool,
    start: Instant,
}

impl Log {
    pub(super) fn new(verbose: bool) -> Self {
        Self { verbose, start: Instant::now() }
    }

    pub(super) fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.verbose {
            // Nobody has to listen.
            let (time, text) = (self.start.elapsed().as_secs_f64() * 1000.0, Shown(text));
            let _ = writeln!(std::io::stderr(), "{time:8.1} ms  {text}");
        }
    }

    pub(super) fn headers(&self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.say(format_args!("< {name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
}

/// How long Ctrl-C waits for an orderly end.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(1);

/// Completes at Ctrl-C, with the failure that this is. A second one, or an end that takes longer
/// than `wait`, ends the process after `before_exit`.
pub(super) fn interrupted(
    wait: Duration,
    before_exit: impl FnOnce() + Send + 'static,
) -> impl Future<Output = Failure> {
    let (interrupt, interrupted) = tokio::sync::oneshot::channel();
    // A task of its own: while a reader of ours stalls, the one that waits is stuck in writing to it.
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            // There are no signals to wait for.
            return;
        }
        let _ = interrupt.send(());
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = tokio::time::sleep(wait) => {}
        }
        before_exit();
        complain("interrupted");
        std::process::exit(130);
    });
    async {
        if interrupted.await.is_err() {
            std::future::pending::<()>().await;
        }
        Failure { code: 130, error: anyhow::anyhow!("interrupted") }
    }
}

/// The URL of a resource; `https://host` means its root.
pub(super) fn url(text: &str) -> Result<Uri, Failure> {
    url::parse(text).map_err(Failure::usage)
}

/// What went wrong with a connection, and what to do.
pub(super) fn failure(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    let client = error.chain().find_map(|error| error.downcast_ref::<ClientError>());
    match client {
        Some(ClientError::Uri(_) | ClientError::Certificate { .. }) => Failure::usage(error),
        Some(ClientError::Untrusted { authority, refusal }) => {
            Failure::running(anyhow::anyhow!(untrusted::in_words(authority, refusal, SystemTime::now())))
        }
        Some(ClientError::Connect { untrusted: true, .. }) => Failure::running(anyhow::anyhow!(
            "{error}: give --cacert PEM or --cert-hash HEX (`h3cast cert` shows both)"
        )),
        _ => Failure::running(error),
    }
}
