//! Keeping a certificate fresh while a server runs.

use std::{
    sync::PoisonError,
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Certificate, Generations, Identity, IdentityError, Mode, Origin, own, stamp::Stamp, watch::Watch};

/// How often to look at the clock, and at the files though nothing was heard of a change. Short,
/// since a computer that sleeps stops timers but not the validity of certificates.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The same where the system does not tell of changes.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How long after a change to look: files come in pairs.
const SETTLE: Duration = Duration::from_millis(200);
/// When to look again at something that was wrong: it may only not be complete yet.
const TROUBLE: Duration = Duration::from_secs(1);
/// How often to look at what the system knows of the files: a folder above them may be exchanged.
const STAMP_EVERY: Duration = Duration::from_secs(1);
/// How long something must have been as it is before it is taken for damaged, not for half copied.
const CALM: Duration = Duration::from_secs(5);

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// What was wrong when last looked at.
    trouble: Option<String>,
    /// What of that was logged.
    told: Option<String>,
    /// What was last logged of the certificate's dates.
    dates: Option<String>,
    /// What was last logged of who can read the key.
    exposed: Option<String>,
    /// How the files were when last looked at, and since when.
    stamp: Option<(Stamp, Instant)>,
    /// Nothing may be stored.
    abandoned: bool,
    /// Clients come by names, whatever addresses the server listens at.
    by_name: bool,
    /// Where the server listens, if it does yet.
    hosts: Vec<String>,
}

impl Identity {
    /// Stores what [`planned`](Self::planned) has planned; does nothing otherwise, or when it is stored
    /// already. Blocks.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written and holds no certificate that is still good, or holds files
    /// that this program did not create.
    pub fn commit(&self) -> Result<(), IdentityError> {
        let Origin::Made(made) = &self.0.origin else { return Ok(()) };
        let mut keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if keeping.abandoned {
            return Ok(());
        }
        let (state, trouble) = made.brought(Some(&self.state()), Mode::Start, SystemTime::now())?;
        if let Some(text) = trouble {
            warn!("{text}");
            (keeping.trouble, keeping.told) = (Some(text.clone()), Some(text));
        }
        self.set(state);
        keeping.look_at_key(made.exposed());
        Ok(())
    }

    /// Has nothing stored any more, and waits for a [`commit`](Self::commit) that has begun: the server does
    /// not start. Blocks.
    pub fn abandon(&self) {
        self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner).abandoned = true;
    }

    /// No address where a server listens is expected in the certificate: an authority issues it for names.
    #[doc(hidden)]
    pub fn is_reached_by_name(&self) {
        self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner).by_name = true;
    }

    /// Logs what will keep clients of a server at these hosts away, though it can serve.
    pub(crate) fn report(&self, hosts: &[String]) {
        let (Origin::Given { chain, .. } | Origin::Memory { chain }) = &self.0.origin else { return };
        let mut keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let is_name = |host: &&String| host.as_str() != "localhost" && host.parse::<std::net::IpAddr>().is_err();
        let hosts = hosts.iter().filter(|host| !keeping.by_name || is_name(host));
        keeping.hosts = hosts.cloned().collect();
        self.look_at_chain(&keeping, chain);
        keeping.look_at_dates(&self.current());
    }

    /// The same for a chain that its owner has put in the place of another.
    pub(super) fn look_at_chain(&self, keeping: &Keeping, chain: &[Certificate]) {
        for warning in own::warnings(chain, &keeping.hosts) {
            warn!(certificate = %self.certificate_path().display(), "the certificate: {warning}");
        }
    }

    /// What a server at these hosts would warn of, if the certificate is its owner's.
    #[doc(hidden)]
    #[must_use]
    pub fn warnings(&self, hosts: &[String]) -> Vec<String> {
        let (Origin::Given { chain, .. } | Origin::Memory { chain }) = &self.0.origin else { return Vec::new() };
        let dates = own::dates(&self.current(), SystemTime::now());
        own::warnings(chain, hosts).into_iter().chain(dates).collect()
    }

    /// Renews the certificate when its time comes, and takes over what changes in its files, until
    /// `stop`.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a look at the files that has begun is completed.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        let every = match &self.0.origin {
            // Never without a pause, whatever the lifetimes.
            Origin::Made(made) => (made.lifetimes().replace / 4).clamp(Duration::from_millis(100), CHECK_EVERY),
            Origin::Given { .. } | Origin::Localhost(_) | Origin::Memory { .. } => CHECK_EVERY,
        };
        let watch = Watch::new();
        // The files may have changed since they were read.
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(self.change(&watch, pause)).await.is_some() {
            let (identity, watch) = (self.clone(), watch.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let watched = watch.follow(&identity.paths());
                (watched, identity.refresh(SystemTime::now()))
            });
            pause = match looked.await {
                Ok((watched, well)) => {
                    let pause = if watched { every } else { every.min(POLL_EVERY) };
                    if well { pause } else { pause.min(TROUBLE) }
                }
                Err(error) => {
                    error!(%error, "cannot check the certificate; trying again");
                    TROUBLE
                }
            };
        }
    }

    /// Completes after `pause`, or soon after a change.
    async fn change(&self, watch: &Watch, pause: Duration) {
        let begun = Instant::now();
        loop {
            let left = pause.saturating_sub(begun.elapsed());
            if watch.wait(left.min(STAMP_EVERY), SETTLE).await || left <= STAMP_EVERY {
                return;
            }
            let identity = self.clone();
            // A panic there is found out by the look that follows.
            if tokio::task::spawn_blocking(move || identity.has_changed()).await.unwrap_or(true) {
                return tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// Whether the files are others than at the last look. Blocks.
    fn has_changed(&self) -> bool {
        let now = Stamp::of(&self.files());
        let keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        keeping.stamp.as_ref().is_none_or(|(before, _)| *before != now)
    }

    /// Looks at the clock and the files once. A failure leaves everything as it is. Whether all is well.
    pub(super) fn refresh(&self, now: SystemTime) -> bool {
        let mut keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state();
        let stamp = keeping.stamp(Stamp::of(&self.files()));
        let mut given = Vec::new();
        let looked = match &self.0.origin {
            Origin::Made(made) => made.brought(Some(&before), Mode::Run(stamp.as_ref()), now),
            Origin::Given { files, .. } => {
                let (certificate, key) = &*files.read().unwrap_or_else(PoisonError::into_inner);
                match is_readable_again(certificate) && is_readable_again(key) {
                    true => own::load(certificate, key).map(|(current, chain)| {
                        given = chain;
                        (Generations { current, next: None, previous: Vec::new() }, None)
                    }),
                    false => Ok(((*before).clone(), None)),
                }
            }
            Origin::Localhost(localhost) => localhost.renewed(&before, now).map(|state| (state, None)),
            Origin::Memory { .. } => Ok(((*before).clone(), None)),
        };
        let trouble = match looked {
            Ok((state, trouble)) => {
                let is_new = state.current.newest() != before.current.newest();
                self.adopt(&before, state, now);
                if is_new {
                    self.look_at_chain(&keeping, &given);
                }
                trouble
            }
            Err(error) => Some(format!("still using the previous certificate: {error}")),
        };
        match &self.0.origin {
            Origin::Made(made) => keeping.look_at_key(made.exposed()),
            Origin::Given { .. } | Origin::Memory { .. } => keeping.look_at_dates(&self.current()),
            Origin::Localhost(_) => {}
        }
        let waits = trouble.is_some() && stamp.is_none();
        keeping.note(trouble) && !waits
    }

    pub(super) fn adopt(&self, before: &Generations, mut state: Generations, now: SystemTime) {
        if state.current.newest() != before.current.newest() {
            info!(sha256 = state.current.newest().hash().hex(), "the certificate was renewed");
        }
        // Pages hold the hashes of what was served or announced, as long as it would be valid.
        for one in before.certificates().chain(&before.previous) {
            if now < one.not_after() && !state.certificates().chain(&state.previous).any(|known| known == one) {
                state.previous.push(one.clone());
            }
        }
        self.set(state);
    }
}

impl Keeping {
    /// Remembers how the files are; gives it back when they have been so for a while.
    fn stamp(&mut self, now: Stamp) -> Option<Stamp> {
        match &self.stamp {
            Some((before, since)) if *before == now => (since.elapsed() >= CALM).then_some(now),
            _ => {
                self.stamp = Some((now, Instant::now()));
                None
            }
        }
    }

    /// Logs what is wrong once, and only when it is still wrong at a second look. Whether all is well.
    fn note(&mut self, trouble: Option<String>) -> bool {
        match &trouble {
            Some(text) if self.told.as_ref() != Some(text) && self.trouble.as_ref() == Some(text) => {
                warn!("{text}");
                self.told = trouble.clone();
            }
            Some(_) => {}
            None => {
                if self.told.take().is_some() {
                    info!("the certificate's files are in order again");
                }
            }
        }
        let first = trouble.is_some() && self.trouble != trouble;
        self.trouble = trouble;
        !first
    }

    fn look_at_key(&mut self, exposed: Option<String>) {
        if let Some(text) = &exposed
            && self.exposed.as_ref() != Some(text)
        {
            warn!("{text}");
        }
        self.exposed = exposed;
    }

    pub(super) fn look_at_dates(&mut self, certificate: &Certificate) {
        let dates = own::dates(certificate, SystemTime::now());
        if let Some(text) = &dates
            && self.dates.as_ref() != Some(text)
        {
            warn!("the certificate: {text}");
        }
        self.dates = dates;
    }
}

/// A pipe can be read once.
pub(super) fn is_readable_again(path: &std::path::Path) -> bool {
    std::fs::metadata(path).map_or(true, |metadata| metadata.is_file() || metadata.is_dir())
}
