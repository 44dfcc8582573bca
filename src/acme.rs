//! A certificate that browsers trust, from a certificate authority that speaks ACME (RFC 8555), as Let's Encrypt does.
//!
//! The authority looks whether the names lead to this server: at the TLS port (TLS-ALPN-01, RFC 8737; it asks at port
//! 443 of the name) or over plain HTTP (HTTP-01, RFC 8555 §8.3; port 80). Account and certificates are kept in a
//! folder, and certificates renewed while the server runs.

mod authority;
mod order;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::Uri;
use tokio::time::Instant;
use tracing::{debug, info, warn};

pub use self::order::{AcmeError, Tokens};
use self::{
    authority::Authority,
    order::{Failed, Way},
    store::Store,
};
use crate::{
    Identity,
    identity::{Certificate, Fingerprint, IdentityError},
};

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How a certificate authority makes sure that a name leads to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// TLS-ALPN-01 (RFC 8737): a handshake at port 443 of the name.
    TlsAlpn01,
    /// HTTP-01 (RFC 8555 §8.3): a request over plain HTTP at port 80 of the name.
    Http01,
}

/// Certificates for these names from an ACME server.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast::{App, Server, acme::Acme, feed::Feed};
///
/// let acme = Acme::new("certs/acme".as_ref(), ["cast.example".to_owned()])?;
/// let identity = acme.identity()?;
/// let app = App::new([], identity.clone()).challenges(acme.tokens());
/// let server = app.install(Server::builder(identity.clone()).listen("0.0.0.0:443".parse()?)).build().await?;
/// tokio::select! {
///     served = server.serve() => served?,
///     never = acme.keep(&identity) => match never {},
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Acme(Arc<Settings>);

#[derive(Debug, Clone)]
struct Settings {
    names: Vec<String>,
    directory: Uri,
    folder: PathBuf,
    ca: Option<PathBuf>,
    contacts: Vec<String>,
    challenges: Vec<Challenge>,
    tokens: Tokens,
    /// How many attempts in a row have failed.
    failed: Arc<AtomicU32>,
}

/// When a try that failed is made again: soon while the authority does not answer, and later where it has refused, since
/// authorities allow few failures an hour.
const AGAIN: [(Duration, Duration); 2] =
    [(Duration::from_secs(5), Duration::from_secs(600)), (Duration::from_secs(60), Duration::from_secs(6 * 3600))];
/// The longest sleep: a computer that sleeps stops timers, but not the validity of certificates.
const LOOK: Duration = Duration::from_secs(60);
/// How long to wait between two certificates, whatever the authority suggests: clocks differ, and authorities issue few
/// for the same names in a week. Shorter for certificates that live only a few hours.
const PAUSE: Duration = Duration::from_secs(3600);
/// How often the authority is asked when it wants the certificate renewed (RFC 9773), if it does not say itself.
const ASK: Duration = Duration::from_secs(6 * 3600);

impl Acme {
    /// Certificates for `names` from Let's Encrypt, kept in `folder`. By using it, you agree to the authority's terms
    /// of service.
    ///
    /// # Errors
    ///
    /// When a name is not one of the public DNS: an address, a wildcard, or without a dot.
    pub fn new(folder: &Path, names: impl IntoIterator<Item = String>) -> Result<Self, AcmeError> {
        let names: Vec<_> = names.into_iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect();
        if names.is_empty() {
            return Err(AcmeError::NoName);
        }
        for name in &names {
            order::check(name)?;
        }
        Ok(Self(Arc::new(Settings {
            names,
            directory: Uri::from_static(LETS_ENCRYPT),
            folder: folder.to_owned(),
            ca: None,
            contacts: Vec::new(),
            challenges: vec![Challenge::TlsAlpn01],
            tokens: Tokens::default(),
            failed: Arc::default(),
        })))
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// The directory of another ACME server. By default that of Let's Encrypt.
    #[must_use]
    pub fn directory(self, url: Uri) -> Self {
        self.set(|settings| settings.directory = url)
    }

    /// A file of CA certificates (PEM) to trust when the ACME server is asked, in addition to those that the system
    /// trusts. By default none.
    #[must_use]
    pub fn ca(self, file: impl Into<Option<PathBuf>>) -> Self {
        self.set(|settings| settings.ca = file.into())
    }

    /// Addresses to which the authority may write, as `admin@cast.example`. By default none.
    #[must_use]
    pub fn contacts(self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.set(|settings| settings.contacts = addresses.into_iter().map(|to| format!("mailto:{to}")).collect())
    }

    /// The challenges to offer, in this order: when one has failed, the next try uses the next. By default, and if there
    /// are none, TLS-ALPN-01 alone.
    #[must_use]
    pub fn challenges(self, challenges: impl IntoIterator<Item = Challenge>) -> Self {
        self.set(|settings| settings.challenges = challenges.into_iter().collect())
    }

    /// What [`App::challenges`](crate::App::challenges) answers HTTP-01 challenges from.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        self.0.tokens.clone()
    }

    /// How many attempts in a row have failed to get a certificate that is needed, of this server: 0 once there is one.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Whether the CA certificates can be used that are to be trusted. Blocks.
    ///
    /// # Errors
    ///
    /// When their file cannot be read, or holds none.
    pub fn check(&self) -> Result<(), crate::client::ClientError> {
        authority::https(&self.0).map(drop)
    }

    /// The first of the names.
    #[cfg(feature = "cli")]
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.names.first().map(String::as_str)
    }

    fn store(&self) -> Store {
        Store::new(&self.0.folder, &self.0.directory, &self.0.names)
    }

    /// The certificate that is kept, or, until there is one, a self-signed one that takes its place. Blocks.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        let store = self.store();
        store.prepare(&self.0.names)?;
        let identity = Identity::from_pem(store.certificate(), store.certificate())?;
        identity.is_reached_by_name();
        Ok(identity)
    }

    /// Has certificates issued and renewed, as long as it is polled: at the time that the authority suggests (RFC 9773),
    /// or when two thirds of a certificate's time have passed. What fails is logged, and tried again later.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it gives up what it is about; a certificate that was issued and not stored yet is asked for again.
    pub async fn keep(&self, identity: &Identity) -> std::convert::Infallible {
        let store = self.store();
        let (mut authority, mut failures, mut refusals) = (None, 0_u32, 0_u32);
        let mut renewal = Renewal::default();
        loop {
            let certificate = identity.current();
            let missing = self.0.names.iter().find(|name| !certificate.names().contains(name));
            let due = match (store.is_stand_in(&certificate), missing) {
                (true, _) | (_, Some(_)) => SystemTime::UNIX_EPOCH,
                (false, None) => renewal.of(&certificate, &mut authority, &self.0, &store).await,
            };
            let now = SystemTime::now();
            if let Ok(left) = due.duration_since(now)
                && !left.is_zero()
            {
                // Issued, here or by another server.
                (failures, refusals) = (0, 0);
                self.0.failed.store(0, Ordering::Relaxed);
                tokio::time::sleep(left.min(LOOK)).await;
                continue;
            }
            let challenges = &self.0.challenges;
            let challenge = challenges.get(refusals as usize % challenges.len().max(1));
            let challenge = challenge.copied().unwrap_or(Challenge::TlsAlpn01);
            let way = Way { challenge, identity, tokens: &self.0.tokens };
            let issued = async {
                // One of several servers on the same folder asks; the others find what it got.
                let Some(_lock) = store.blocking(Store::lock).await? else { return Ok(false) };
                // Another may have been issued since, which is not served yet.
                if store.blocking(Store::stored).await?.is_some_and(|stored| stored != certificate) {
                    return Ok(false);
                }
                let names = self.0.names.clone();
                store.blocking(move |store| store.renew_stand_in(&names)).await?;
                if authority.is_none() {
                    authority = Some(Authority::open(&self.0, &store).await?);
                }
                let Some(authority) = &authority else { return Ok(false) };
                let replaced = (!store.is_stand_in(&certificate)).then(|| certificate.clone());
                let pem = authority.issue(&self.0.names, replaced.as_ref(), &way).await?;
                store.blocking(move |store| store.keep(&pem)).await?;
                Ok(true)
            };
            let issued: Result<bool, Failed> = issued.await;
            let pause = match issued {
                Ok(issued) => {
                    if issued {
                        (failures, refusals) = (0, 0);
                        self.0.failed.store(0, Ordering::Relaxed);
                        info!(names = self.0.names.join(", "), "the certificate authority has issued a certificate");
                        self.taken_over(identity, &certificate).await;
                    }
                    let validity = identity.current().validity();
                    if issued { PAUSE.min(validity / 4) } else { AGAIN[0].0 }
                }
                Err(failed) => {
                    let (kind, count) = match failed.refused {
                        true => (1, &mut refusals),
                        false => (0, &mut failures),
                    };
                    let (first, most) = AGAIN[kind];
                    let pause = first.saturating_mul(1 << (*count).min(16)).min(most).max(failed.not_before());
                    *count += 1;
                    self.0.failed.store(failures + refusals, Ordering::Relaxed);
                    authority = None;
                    if failed.unknown_account {
                        // A new one is made at the next try.
                        let _ = store.blocking(Store::forget_account).await;
                    }
                    warn!(
                        again_in = ?pause,
                        "no certificate for {} from {}: {failed}",
                        self.0.names.join(", "),
                        self.0.directory.host().unwrap_or_default()
                    );
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until the certificate that was stored is served, so that it is not ordered once more.
    async fn taken_over(&self, identity: &Identity, before: &Certificate) {
        let mut changes = identity.changes();
        let taken = async { while identity.current() == *before && changes.changed().await.is_ok() {} };
        if tokio::time::timeout(LOOK, taken).await.is_err() {
            warn!("the new certificate is stored but not served yet");
        }
    }
}

/// When a certificate is to be renewed.
#[derive(Debug, Default)]
struct Renewal {
    /// What the authority has suggested, for which certificate, and until when that counts.
    suggested: Option<(Fingerprint, SystemTime, Instant)>,
}

impl Renewal {
    async fn of(
        &mut self,
        certificate: &Certificate,
        authority: &mut Option<Authority>,
        settings: &Settings,
        store: &Store,
    ) -> SystemTime {
        let usual = certificate.not_before() + certificate.validity() * 2 / 3;
        let known = self.suggested.filter(|(of, _, until)| *of == certificate.hash() && Instant::now() < *until);
        if let Some((_, at, _)) = known {
            return at;
        }
        if authority.is_none() {
            let opened = Authority::open(settings, store).await;
            *authority = opened.map_err(|error| debug!("the certificate authority does not answer: {error}")).ok();
        }
        let suggested = match authority {
            Some(authority) => authority.suggested(certificate).await,
            None => None,
        };
        let (at, again) = match suggested {
            Some((at, again)) => (at.min(certificate.not_after()), again.clamp(LOOK, ASK * 4)),
            None => (usual, ASK),
        };
        self.suggested = Some((certificate.hash(), at, Instant::now() + again));
        at
    }
}
