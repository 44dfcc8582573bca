//! Who issues the certificate, if a certificate authority does.

use tokio_util::sync::CancellationToken;

use super::args::ServeArgs;
use crate::{
    App, Identity,
    acme::Acme,
    cli::{Failure, flags},
    panics::{self, Restarts},
};

/// A certificate authority, or none.
pub(super) struct Issuer(Option<Acme>);

impl Issuer {
    /// Whether there is one, with settings that can be used.
    pub(super) async fn checked(&self) -> Result<bool, Failure> {
        let Some(acme) = self.0.clone() else { return Ok(false) };
        let checked = tokio::task::spawn_blocking(move || acme.check()).await.map_err(Failure::running)?;
        checked.map_err(|error| Failure::usage(anyhow::anyhow!("--acme-ca: {error}")))?;
        Ok(true)
    }

    pub(super) fn find(args: &ServeArgs) -> Result<Self, Failure> {
        Ok(Self(args.acme.acme(&args.certs, args.redirects())?))
    }

    /// The certificate that it has issued, or one that stands in for it.
    pub(super) async fn identity(&self) -> Result<Option<Identity>, Failure> {
        let Some(acme) = self.0.clone() else { return Ok(None) };
        let identity = tokio::task::spawn_blocking(move || acme.identity()).await.map_err(Failure::running)?;
        Ok(Some(identity.map_err(|error| Failure::usage(flags::of_identity(error)))?))
    }

    /// A name that it issues the certificate for.
    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_ref()?.name()
    }

    pub(super) fn install(&self, app: App) -> App {
        let acme = self.0.clone();
        let app = match &acme {
            Some(acme) => app.challenges(acme.tokens()),
            None => app,
        };
        let help = "Attempts in a row that have failed to get a certificate from the ACME server; 0 without --acme.";
        app.gauge("h3cast_acme_failures", help, move || acme.as_ref().map_or(0.0, |acme| acme.failures().into()))
    }

    /// Has certificates issued and renewed until `stop`.
    pub(super) async fn keep(&self, identity: &Identity, stop: &CancellationToken) {
        let Some(acme) = &self.0 else { return };
        let mut restarts = Restarts::new("the task that has certificates issued");
        let keeping = || async {
            let never = stop.run_until_cancelled(acme.keep(identity)).await;
            never.map_or((), |never| match never {})
        };
        while restarts.after(panics::caught_async(keeping()).await, stop).await {}
    }
}
