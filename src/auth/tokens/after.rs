//! Tokens that take the place of earlier ones while a server runs.

use std::sync::{Arc, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{Held, Source, Tokens, TokensError};
use crate::auth::reload::{Place, Stamp};

impl Tokens {
    /// They are to take the place of earlier ones, by [`Switch::replace`](crate::auth::Switch::replace): files that both have
    /// are read again, except for pipes, whose tokens stay; keys that cannot be asked for now stay as well. Call it
    /// first.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        self.earlier = Some(earlier.sources.clone());
        self
    }

    pub(super) async fn read(&self, place: &Place) -> Result<(Stamp, Vec<u8>), TokensError> {
        // Before it is read: a change while it is read counts.
        let stamp = place.stamp().await;
        let read = match &self.earlier {
            None => place.read().await,
            // It may be anything now.
            Some(_) => place.reread().await,
        };
        Ok((stamp, read.map_err(|source| TokensError::Read { place: place.to_string(), source })?))
    }

    /// The same source among the earlier ones.
    pub(super) fn earlier_at(&self, place: &Place) -> Option<Arc<Source>> {
        self.earlier.iter().flatten().find(|source| source.place.to_string() == place.to_string()).cloned()
    }

    /// The same, if it cannot be read again.
    pub(super) fn kept(&self, place: &Place, is_of_kind: impl Fn(&Held) -> bool) -> Option<Arc<Source>> {
        self.earlier_at(place).filter(|source| source.stamp.is_of_pipe() && is_of_kind(&source.held()))
    }

    /// Where keys are from that could not be had yet.
    #[cfg(feature = "cli")]
    pub(crate) fn missing(&self) -> Vec<String> {
        #[cfg(feature = "jwt")]
        let lacks = |source: &&Arc<Source>| matches!(&*source.held(), Held::NoKeys);
        #[cfg(not(feature = "jwt"))]
        let lacks = |_: &&Arc<Source>| false;
        self.sources.iter().filter(lacks).map(|source| source.place.to_string()).collect()
    }

    /// The same, so that what is read without a token may end.
    pub(in crate::auth) fn revocable(mut self) -> Self {
        self.open = Some(CancellationToken::new());
        self
    }

    /// Takes the place of earlier ones, whose streams continue where nothing has changed for them.
    pub(in crate::auth) fn succeed(mut self, earlier: &Self) -> Self {
        self.earlier = None;
        let (before, now) = (&earlier.sources, &self.sources);
        for (at, source) in before.iter().enumerate() {
            // Not held while others are looked at, which may be the same.
            let tokens = match &*source.held() {
                Held::Tokens(tokens) => tokens.clone(),
                #[cfg(feature = "jwt")]
                _ => continue,
            };
            for hash in tokens.hashes() {
                if before[..at].iter().any(|first| first.has(hash)) {
                    continue;
                }
                match now.iter().find(|new| new.has(hash)) {
                    Some(same) if Arc::ptr_eq(same, source) => {}
                    Some(new) => match &mut *new.held.write().unwrap_or_else(PoisonError::into_inner) {
                        Held::Tokens(new) => tokens.hand_over(hash, Some(Arc::make_mut(new))),
                        #[cfg(feature = "jwt")]
                        _ => {}
                    },
                    None => tokens.hand_over(hash, None),
                }
            }
        }
        let stays = earlier.public.iter().all(|pattern| self.public.contains(pattern));
        self.open = match &earlier.open {
            Some(open) if stays => Some(open.clone()),
            before => {
                before.iter().for_each(CancellationToken::cancel);
                Some(CancellationToken::new())
            }
        };
        self
    }
}
