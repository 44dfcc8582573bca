//! What the folder of certificates should hold, given what it holds: decided without touching it.
//!
//! Certificates come in generations: a key, and one or more certificates of it. A server that needs
//! another name adds a certificate to the present generation; the ones before stay, are served to
//! whoever comes by a name that they have, and end with it. So nothing that clients know (a
//! certificate's hash, its file, the key's hash) is invalidated before the generation's time is over.

use std::time::{Duration, SystemTime};

use tracing::warn;

use super::{
    Made,
    folder::{self, CERTIFICATES, FolderContents, FolderStep, KEY, StepError},
    lack::{Lack, Unsaved, doubtful},
    lock::Lock,
};
use crate::identity::{
    Certificate, Generations, IdentityError, Lifetimes, Mode,
    key::{Generation, Key},
    stamp::Stamp,
};

/// Names in one certificate. Those that servers needed before are kept up to here.
const MOST_NAMES: usize = 64;
/// Certificates in the file. Those that are no longer served are kept up to here.
const MOST_CERTIFICATES: usize = 16;
/// How often to look again when another program changes the folder at the same time.
const ROUNDS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) state: Generations,
    /// Why it could not be stored as it should be. The state is still good.
    pub(super) unsaved: Option<Unsaved>,
}

impl Made {
    /// Brings the folder to what it should be. Blocks.
    pub(super) fn settle(
        &self,
        known: Option<&Generations>,
        mode: Mode<'_>,
        now: SystemTime,
    ) -> Result<Outcome, IdentityError> {
        if mode == Mode::Start && folder::has_parts(&self.dir) {
            let lock = Lock::of(&self.dir);
            folder::clean(&self.dir, now, lock.is_some());
        }
        let mut result = self.look(known, mode, now);
        // Another server may just be writing there.
        for _ in 0..3 {
            match result {
                Err(IdentityError::Foreign { .. }) if !mode.runs() => {
                    std::thread::sleep(PAUSE);
                    result = self.look(known, mode, now);
                }
                _ => break,
            }
        }
        let (contents, plan) = result?;
        if plan.steps.is_empty() || mode == Mode::Look {
            return Ok(Outcome { state: plan.state, unsaved: None });
        }
        let lack = Lack::of(&contents, known, mode, now);
        match self.store(known, mode, now) {
            Ok(state) => {
                if let Lack::Damaged(path) = lack {
                    warn!(
                        "{} was incomplete or did not fit, and nothing more was written: it was restored",
                        path.display()
                    );
                }
                Ok(Outcome { state, unsaved: None })
            }
            Err(error @ IdentityError::File { .. }) => match self.as_it_is(known.filter(|_| mode.runs()), now) {
                Some(state) => Ok(Outcome { state, unsaved: Some(Unsaved { lack, error }) }),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn look(
        &self,
        known: Option<&Generations>,
        mode: Mode<'_>,
        now: SystemTime,
    ) -> Result<(FolderContents, Plan), IdentityError> {
        let contents = FolderContents::read(&self.dir)?;
        let plan = self.plan(&contents, known, mode, now)?;
        if let Mode::Run(calm) = mode
            && let Some(name) = doubtful(&contents, known, now)
            && !plan.steps.is_empty()
        {
            let path = contents.path(name);
            // Read after the contents, so that these were like this for so long.
            if calm != Some(&Stamp::of(&folder::files(&self.dir))) {
                return Err(IdentityError::Incomplete { path, found: "it is not complete or does not fit".into() });
            }
        }
        Ok((contents, plan))
    }

    fn store(
        &self,
        known: Option<&Generations>,
        mode: Mode<'_>,
        now: SystemTime,
    ) -> Result<Generations, IdentityError> {
        // Not what it was in: whoever removed that has done so on purpose.
        folder::create(&self.dir, mode == Mode::Start)?;
        let lock = Lock::of(&self.dir);
        folder::clean(&self.dir, now, lock.is_some());
        for _ in 0..ROUNDS {
            let (mut contents, plan) = self.look(known, mode, now)?;
            if plan.steps.is_empty() {
                return Ok(plan.state);
            }
            for step in &plan.steps {
                match contents.take(step) {
                    Ok(()) => {}
                    Err(StepError::Changed) => {
                        std::thread::sleep(PAUSE / 10);
                        break;
                    }
                    Err(StepError::Failed(error)) => return Err(error),
                }
            }
        }
        let source = std::io::Error::other("another program keeps changing it");
        Err(IdentityError::File { action: "write to", path: self.dir.clone(), source })
    }

    /// What can be served though nothing can be stored.
    fn as_it_is(&self, known: Option<&Generations>, now: SystemTime) -> Option<Generations> {
        let stored = FolderContents::read(&self.dir).ok().and_then(|contents| {
            let valid = |key| Candidate::of(key, contents.all().filter(|one| one.is_valid(now)).cloned());
            let current = valid(contents.key.value()?)?.generation()?;
            let next = contents.next_key.value().and_then(valid).and_then(Candidate::generation);
            let previous = others(contents.all(), &current, next.as_ref(), now);
            Some(Generations { current, next, previous })
        });
        stored.or_else(|| known.filter(|known| !known.current.left(now).is_zero()).cloned())
    }

    fn plan(
        &self,
        contents: &FolderContents,
        known: Option<&Generations>,
        mode: Mode<'_>,
        now: SystemTime,
    ) -> Result<Plan, IdentityError> {
        let view = View { contents, known, now, lifetimes: self.lifetimes };
        if mode.runs() {
            view.is_whole()?;
        }
        let names = view.names(&self.names);
        let (current, next) = match view.current() {
            Some(current) => {
                let current = view.with_names(current, &self.names, &names)?;
                // Where the next would be is the one that is to be restored.
                let restored = contents.key.value().is_none() && contents.next_key.value() == Some(&current.key);
                let next = match (view.next(&current.key), !restored && current.left(now) <= self.lifetimes.announce) {
                    (next, false) => next.and_then(Candidate::generation),
                    (Some(next), true) => Some(view.with_names(next, &names, &names)?),
                    (None, true) => Some(view.with_names(Candidate::new()?, &names, &names)?),
                };
                (current, next)
            }
            // What takes over has the place of the next until it has.
            None => {
                let next = contents.next_key.value().and_then(|key| view.of(key));
                let successor = next.or_else(|| contents.key.value().and_then(|key| view.lone(key)));
                let successor = match successor {
                    Some(successor) => successor,
                    None => Candidate::new()?,
                };
                (view.with_names(successor, &self.names, &names)?, None)
            }
        };
        let previous = others(contents.all(), &current, next.as_ref(), now);
        let steps = steps(contents, &current, next.as_ref(), &previous);
        Ok(Plan { steps, state: Generations { current, next, previous } })
    }
}

#[derive(Debug)]
struct Plan {
    state: Generations,
    steps: Vec<FolderStep>,
}

/// A key with those of its certificates that will do, perhaps none.
struct Candidate {
    key: Key,
    certificates: Vec<Certificate>,
}

impl Candidate {
    fn new() -> Result<Self, IdentityError> {
        Ok(Self { key: Key::generate()?, certificates: Vec::new() })
    }

    fn of(key: &Key, all: impl Iterator<Item = Certificate>) -> Option<Self> {
        let mut certificates: Vec<Certificate> = Vec::new();
        for one in all.filter(|one| key.is_of(one)) {
            if !certificates.contains(&one) {
                certificates.push(one);
            }
        }
        (!certificates.is_empty()).then(|| Self { key: key.clone(), certificates })
    }

    fn generation(self) -> Option<Generation> {
        let (newest, older) = self.certificates.split_first()?;
        Some(Generation::new(self.key, newest, older))
    }
}

/// All that a plan is made from.
struct View<'a> {
    contents: &'a FolderContents,
    known: Option<&'a Generations>,
    now: SystemTime,
    lifetimes: Lifetimes,
}

impl View<'_> {
    fn will_do(&self, one: &Certificate) -> bool {
        one.is_valid(self.now) && one.left(self.now) > self.lifetimes.replace
    }

    /// The certificates of a key, those in the folder and those that we know.
    fn of(&self, key: &Key) -> Option<Candidate> {
        let known = self.known.into_iter().flat_map(Generations::certificates);
        Candidate::of(key, self.contents.all().chain(known).filter(|one| self.will_do(one)).cloned())
    }

    fn knows(&self, key: &Key) -> bool {
        self.known.is_some_and(|known| known.generations().any(|generation| generation.key == *key))
    }

    /// Whether all is there that belongs to what is there. What was removed is not missed: we have it.
    fn is_whole(&self) -> Result<(), IdentityError> {
        let incomplete =
            |name, found: &str| Err(IdentityError::Incomplete { path: self.contents.path(name), found: found.into() });
        let key = self.contents.key.value();
        if let Some(key) = key
            && !self.knows(key)
            && self.of(key).is_none()
        {
            return incomplete(KEY, "no valid certificate for this key was found");
        }
        let ours = |one: &Certificate| {
            self.known.is_some_and(|known| known.certificates().any(|known| known == one))
                || key.is_some_and(|key| key.is_of(one))
        };
        match self.contents.certificates.value() {
            Some(found) if !found.iter().any(ours) => incomplete(CERTIFICATES, "its key is missing so far"),
            _ => Ok(()),
        }
    }

    /// What is served now and stays.
    fn current(&self) -> Option<Candidate> {
        match self.contents.key.value() {
            Some(key) => self.of(key),
            None => self.known.and_then(|known| self.of(&known.current.key)),
        }
    }

    /// What follows on the generation of `current`.
    fn next(&self, current: &Key) -> Option<Candidate> {
        let known = self.known.and_then(|known| known.next.as_ref()).map(|next| &next.key);
        let key = self.contents.next_key.value().or(known).filter(|key| *key != current)?;
        self.of(key).or_else(|| self.lone(key))
    }

    /// A key whose certificate was lost, before anyone could see it.
    fn lone(&self, key: &Key) -> Option<Candidate> {
        let lost = !self.contents.all().any(|one| key.is_of(one)) && !self.knows(key);
        lost.then(|| Candidate { key: key.clone(), certificates: Vec::new() })
    }

    /// These names, and those that servers needed before.
    fn names(&self, names: &[String]) -> Vec<String> {
        let mut all = names.to_vec();
        let known = self.known.into_iter().flat_map(Generations::certificates);
        for name in self.contents.all().chain(known).flat_map(Certificate::names) {
            if all.len() < MOST_NAMES && !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// The generation with a certificate that has all the names that are needed: if there is none, one
    /// with `all` is added.
    fn with_names(&self, candidate: Candidate, needed: &[String], all: &[String]) -> Result<Generation, IdentityError> {
        let Candidate { key, mut certificates } = candidate;
        let covers = |one: &Certificate| needed.iter().all(|name| one.names_host(name));
        let newest = match certificates.iter().position(covers) {
            Some(at) => certificates.remove(at),
            None => {
                // It ends with the others.
                let end = certificates.iter().map(Certificate::not_after).max();
                let end = end.unwrap_or(self.now + self.lifetimes.validity);
                key.certify(all, self.now - self.lifetimes.backdate, end)?
            }
        };
        Ok(Generation::new(key, &newest, &certificates))
    }
}

/// What else is valid, for clients that know no other.
fn others<'a>(
    all: impl Iterator<Item = &'a Certificate>,
    current: &Generation,
    next: Option<&Generation>,
    now: SystemTime,
) -> Vec<Certificate> {
    let mut served = current.certificates().chain(next.into_iter().flat_map(Generation::certificates));
    let served: Vec<_> = served.by_ref().collect();
    let room = MOST_CERTIFICATES.saturating_sub(served.len());
    all.filter(|one| one.is_valid(now) && !served.contains(one)).take(room).cloned().collect()
}

/// The way from what is there to what should be.
fn steps(
    contents: &FolderContents,
    current: &Generation,
    next: Option<&Generation>,
    previous: &[Certificate],
) -> Vec<FolderStep> {
    let served: Vec<_> = current.certificates().chain(next.into_iter().flat_map(Generation::certificates)).collect();
    let file: &[Certificate] = contents.certificates.value().map_or(&[], Vec::as_slice);
    // Any of the key may be the first: servers with names of their own would else take turns.
    let complete = file.first().is_some_and(|first| current.key.is_of(first))
        && served.iter().all(|one| file.contains(one))
        && contents.next_certificates.is_empty();
    let certificates = || FolderStep::Certificates(served.iter().copied().chain(previous).cloned().collect());
    let mut steps = Vec::new();
    match contents.key.value() {
        Some(key) if *key == current.key => {
            if let Some(next) = next
                && contents.next_key.value() != Some(&next.key)
            {
                steps.push(FolderStep::NextKey(next.key.clone()));
            }
            if !complete {
                steps.push(certificates());
            }
        }
        Some(_) => {
            if contents.next_key.value() != Some(&current.key) {
                steps.push(FolderStep::NextKey(current.key.clone()));
            }
            if !served.iter().all(|one| file.contains(one)) {
                steps.push(certificates());
            }
            steps.push(FolderStep::Promote);
        }
        None if contents.next_key.value() == Some(&current.key) => {
            if !complete {
                steps.push(certificates());
            }
            steps.push(FolderStep::Promote);
        }
        None => {
            steps.push(FolderStep::Key(current.key.clone()));
            if let Some(next) = next
                && contents.next_key.value() != Some(&next.key)
            {
                steps.push(FolderStep::NextKey(next.key.clone()));
            }
            if !complete {
                steps.push(certificates());
            }
        }
    }
    steps
}
