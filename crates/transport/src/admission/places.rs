//! Places that may become more or fewer while they are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places. When they become fewer than are taken, those that are taken stay, and the next ones that are given
/// back are not there any more.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    all: usize,
    /// How many are taken beyond that.
    excess: usize,
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    places: Arc<Places>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(all: usize) -> Arc<Self> {
        let all = all.min(Semaphore::MAX_PERMITS);
        Arc::new(Self { free: Arc::new(Semaphore::new(all)), size: Mutex::new(Size { all, excess: 0 }) })
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many from now on.
    pub(super) fn resize(&self, all: usize) {
        let all = all.min(Semaphore::MAX_PERMITS);
        let mut size = self.size();
        if all >= size.all {
            let more = all - size.all;
            let still = size.excess.min(more);
            size.excess -= still;
            self.free.add_permits(more - still);
        } else {
            let fewer = size.all - all;
            size.excess += fewer - self.free.forget_permits(fewer);
        }
        size.all = all;
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.size().all
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    pub(super) fn try_take(self: &Arc<Self>) -> Option<Taken> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Taken { places: self.clone(), permit: Some(permit) })
    }

    /// Waits for one. Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Taken> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        Some(Taken { places: self.clone(), permit: Some(permit) })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut size = self.places.size();
        if let Some(permit) = self.permit.take()
            && size.excess > 0
        {
            size.excess -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_fewer_as_they_are_given_back() {
        let places = Places::new(3);
        let mut taken: Vec<_> = std::iter::from_fn(|| places.try_take()).collect();
        assert_eq!((taken.len(), places.free()), (3, 0));
        places.resize(1);
        taken.truncate(1);
        assert_eq!(places.free(), 0, "the one that is left is the only one");
        taken.clear();
        assert_eq!(places.free(), 1);
        // Down and up again while they are taken: those that were to go stay.
        places.resize(4);
        let taken: Vec<_> = std::iter::from_fn(|| places.try_take()).collect();
        places.resize(1);
        places.resize(3);
        assert_eq!((taken.len(), places.free()), (4, 0));
        drop(taken);
        assert_eq!(places.free(), 3);
        // None was taken.
        places.resize(2);
        places.resize(usize::MAX);
        places.resize(5);
        assert_eq!(std::iter::from_fn(|| places.try_take()).take(9).collect::<Vec<_>>().len(), 5);
    }
}
