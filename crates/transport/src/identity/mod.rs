//! Who the server is to its clients: a certificate and its key.
//!
//! Created by ourselves for localhost, it is short-lived, as browsers ask for when they are to trust
//! a certificate by its hash alone, and so it is renewed while the server runs. Its successor is
//! created and announced well before it takes over: a page that was loaded before the change knows
//! both hashes. One given by the user is read again when its files change.
//!
//! | made with | where it is | renewed by | feature |
//! |---|---|---|---|
//! | `Identity::localhost` | in memory | us | `self-signed` |
//! | `Identity::self_signed` | in a folder | us | `self-signed` |
//! | [`Identity::from_pem`] | in files | you, in these files | none; with `self-signed` changes are noticed at once, else within 500 ms |
//! | [`Identity::from_pem_bytes`], [`Identity::from_der`] | in memory | you, with [`Identity::replace`] | none |

mod again;
mod certificate;
mod challenge;
mod error;
mod fingerprint;
mod keeper;
mod key;
#[cfg_attr(not(feature = "self-signed"), path = "made/none.rs")]
mod made;
mod memory;
mod own;
mod pem;
mod stamp;
#[cfg_attr(not(feature = "self-signed"), path = "watch/none.rs")]
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tokio::sync::watch::{Receiver, Sender};

pub use again::Renewal;
pub use certificate::Certificate;
pub use challenge::ChallengeAnswer;
pub(crate) use challenge::PROTOCOL as CHALLENGE;
pub use error::IdentityError;
pub use fingerprint::Fingerprint;
pub use pem::PemError;
pub(crate) use pem::{trusted, trusted_bytes};
/// What [`Identity::from_der`] takes.
#[doc(no_inline)]
pub use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use keeper::Keeping;
use key::Generation;
use made::{Localhost, Made};
use stamp::Stamp;

/// How long the certificates live that are created here.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Lifetimes {
    /// From its creation to its end. Browsers refuse more than 14 days in all.
    pub validity: Duration,
    /// How long before its creation a certificate is already valid, for clocks that are behind.
    pub backdate: Duration,
    /// How long before its end the successor is created and announced.
    pub announce: Duration,
    /// How long before its end the successor takes over.
    pub replace: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Lifetimes {
    fn default() -> Self {
        let backdate = Duration::from_secs(60 * 60);
        Self { validity: 13 * DAY - backdate, backdate, announce: 3 * DAY, replace: DAY }
    }
}

/// The server's certificate, as it is now and as it will be next.
///
/// ```no_run
/// # #[cfg(feature = "self-signed")] {
/// use h3cast_transport::Identity;
///
/// // Created and renewed in this folder; `Identity::from_pem` reads a certificate of your own.
/// let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
/// println!("{}", identity.hashes()[0].hex());
/// # }
/// # Ok::<(), h3cast_transport::identity::IdentityError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Identity(Arc<SharedIdentity>);

#[derive(Debug)]
struct SharedIdentity {
    origin: Origin,
    state: RwLock<Arc<Generations>>,
    changed: Sender<()>,
    /// SharedIdentity by whoever looks at the files, never by a worker.
    keeping: Mutex<Keeping>,
    /// What ACME servers are shown.
    answers: challenge::Answers,
}

/// Where the certificate comes from.
#[derive(Debug)]
enum Origin {
    /// Created here.
    Made(Made),
    /// Given by the user, who renews it.
    Given {
        /// The certificate and the key.
        files: RwLock<(PathBuf, PathBuf)>,
        /// As it was read first: a pipe cannot be read again.
        chain: Vec<Certificate>,
    },
    /// Created here, and in no file.
    Localhost(Localhost),
    /// Given by the user, who may replace it.
    Memory { chain: Vec<Certificate> },
}

#[derive(Debug, Clone)]
struct Generations {
    current: Generation,
    next: Option<Generation>,
    /// Those before, whose hashes pages may still hold.
    previous: Vec<Certificate>,
}

impl Generations {
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten()
    }

    /// Those that are served, or will be.
    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.generations().flat_map(Generation::certificates)
    }
}

/// How the folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode<'a> {
    /// Nothing is written.
    Look,
    /// A server starts: what is missing is created.
    Start,
    /// A server runs: what is missing is restored. What it has not seen before and is not complete is
    /// being put there by its owner: it is restored only when it has been like this stamp for a while.
    Run(Option<&'a Stamp>),
}

impl Mode<'_> {
    fn runs(self) -> bool {
        matches!(self, Self::Run(_))
    }
}

impl Identity {
    /// A certificate chain and its key from files. Changed files are read again while running.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// When they cannot be read, are not PEM, do not fit together, or are of a kind that TLS cannot
    /// use.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use h3cast_transport::Identity;
    /// let identity = Identity::from_pem("/etc/tls/fullchain.pem".as_ref(), "/etc/tls/privkey.pem".as_ref())?;
    /// println!("for {:?}", identity.current().names());
    /// # Ok::<(), h3cast_transport::identity::IdentityError>(())
    /// ```
    pub fn from_pem(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let (current, chain) = own::load(certificate, key)?;
        let origin = Origin::Given { files: RwLock::new((certificate.into(), key.into())), chain };
        Ok(Self::new(origin, Generations { current, next: None, previous: Vec::new() }))
    }

    fn new(origin: Origin, state: Generations) -> Self {
        Self(Arc::new(SharedIdentity {
            origin,
            state: RwLock::new(Arc::new(state)),
            changed: Sender::new(()),
            keeping: Mutex::default(),
            answers: challenge::Answers::default(),
        }))
    }

    fn state(&self) -> Arc<Generations> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: Generations) {
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.0.changed.send_replace(());
    }

    /// The certificate that is served now, to clients that come by any of the names that servers on
    /// its folder have. One that is as old as the key and has fewer names is served to those who come
    /// by its names: see [`certificate_for`](Self::certificate_for).
    #[must_use]
    pub fn current(&self) -> Certificate {
        self.state().current.newest().clone()
    }

    /// The certificate that clients get that come by `host`. When a name is added, it is the one
    /// before, if that has the name, so that what clients trust stays good.
    #[must_use]
    pub fn certificate_for(&self, host: &str) -> Certificate {
        self.state().current.certificate_for(host).clone()
    }

    /// All certificates that are served now or soon.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        self.state().certificates().cloned().collect()
    }

    /// Hears of each time that the certificates were looked at, and may have changed.
    #[must_use]
    pub fn changes(&self) -> Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The hashes by which a browser may trust this server now and in the near future. Empty when
    /// the certificate is not one that browsers trust by hash (ECDSA P-256, valid now and for at most
    /// 14 days in all), and must be trusted otherwise.
    #[must_use]
    pub fn hashes(&self) -> Vec<Fingerprint> {
        let (state, now) = (self.state(), SystemTime::now());
        if !state.current.certificates().any(|current| current.is_trusted_by_hash(now)) {
            return Vec::new();
        }
        let all = state.certificates().chain(&state.previous);
        all.filter(|one| one.is_trusted_by_hash(now)).map(Certificate::hash).collect()
    }

    /// The file of the certificate; empty when it is in memory alone.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.paths().into_iter().next().unwrap_or_default()
    }

    /// The file of the key; empty when it is in memory alone.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.paths().into_iter().nth(1).unwrap_or_default()
    }

    /// The files of the certificate and of the key, if there are any.
    fn paths(&self) -> Vec<PathBuf> {
        match &self.0.origin {
            Origin::Made(made) => made.paths().into(),
            Origin::Given { files, .. } => {
                let (certificate, key) = files.read().unwrap_or_else(PoisonError::into_inner).clone();
                vec![certificate, key]
            }
            Origin::Localhost(_) | Origin::Memory { .. } => Vec::new(),
        }
    }

    /// The files that are looked after.
    fn files(&self) -> Vec<PathBuf> {
        match &self.0.origin {
            Origin::Made(made) => made.files(),
            _ => self.paths(),
        }
    }

    /// What only who has the key knows, for other purposes than TLS.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.state().current.secret()
    }

    /// What rustls asks for the certificate at each handshake with a listener at `host`.
    pub(crate) fn resolver(&self, host: &str) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { identity: self.clone(), host: host.to_owned() })
    }
}

/// Chooses the certificate for a client.
#[derive(Debug)]
struct Resolver {
    identity: Identity,
    /// What clients come by that name no host, since they have an address.
    host: String,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(answer) = self.identity.0.answers.for_client(&hello) {
            return answer;
        }
        Some(self.identity.state().current.tls_for(hello.server_name().unwrap_or(&self.host)))
    }
}

/// Certificates as they are stored.
pub struct Stored {
    /// Those of the key, the newest first, at least one.
    own: Vec<Certificate>,
    /// The others in the same file.
    pub others: Vec<Certificate>,
}

impl Stored {
    /// Reads them, without a change of anything.
    ///
    /// # Errors
    ///
    /// When there are none, or the file cannot be read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        if std::fs::symlink_metadata(certificate).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            let dir = certificate.parent().unwrap_or(certificate).to_owned();
            return Err(IdentityError::Missing { dir });
        }
        let all = pem::certificates(certificate, &pem::read(certificate)?)?;
        // A key that cannot be read is not needed to show a certificate.
        let key = pem::read(key).ok().and_then(|bytes| pem::key(key, &bytes).ok());
        let own = all.iter().find(|one| key.as_ref().is_some_and(|key| key.is_of(one))).or(all.first());
        let spki_hash = own.map(Certificate::spki_hash);
        let (own, others) = all.into_iter().partition(|one| Some(one.spki_hash()) == spki_hash);
        Ok(Self { own, others })
    }

    /// Reads a pair that its owner gives to a server, with what that would warn of.
    ///
    /// # Errors
    ///
    /// Whatever a server would refuse.
    pub fn given(certificate: &Path, key: &Path) -> Result<(Self, Vec<String>), IdentityError> {
        let (_, chain) = own::load(certificate, key)?;
        let dates = chain.first().and_then(|leaf| own::dates(leaf, SystemTime::now()));
        // Where it will listen is not known here.
        let warnings = own::warnings(&chain, &[]).into_iter().chain(dates).collect();
        let mut chain = chain.into_iter();
        Ok((Self { own: chain.next().into_iter().collect(), others: chain.collect() }, warnings))
    }

    /// Why a server would not start with the folder of this certificate, though it can be shown.
    pub fn refused(&self, certificate: &Path) -> Option<IdentityError> {
        let dir = certificate.parent().filter(|_| self.own.iter().all(Certificate::is_made_here))?;
        made::refused(dir)
    }

    /// The one that servers show to clients that come by `host`, then the others of the same key.
    pub fn for_host(&self, host: &str) -> Vec<&Certificate> {
        let at = self.own.iter().rposition(|one| one.names_host(host)).unwrap_or(self.own.len().saturating_sub(1));
        let first = self.own.get(at);
        first.into_iter().chain(self.own.iter().filter(|one| Some(*one) != first)).collect()
    }
}

/// The cryptography of every TLS connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(crate::crypto::default_provider())
}

/// A time as RFC 3339 writes it, in UTC.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    // Fails only for years that no certificate reaches.
    OffsetDateTime::from(at).format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// A random number; when the system has none, a fixed one.
#[must_use]
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = provider().secure_random.fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
