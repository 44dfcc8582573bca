//! A certificate for localhost in memory alone.

use std::time::SystemTime;

use super::NAMES;
use crate::identity::{
    Generations, Identity, IdentityError, Lifetimes, Origin,
    key::{Generation, Key},
};

/// Creates certificates that are in no file.
#[derive(Debug, Default)]
pub(in crate::identity) struct Localhost {
    lifetimes: Lifetimes,
}

impl Identity {
    /// A certificate for `localhost`, `127.0.0.1` and `[::1]`, created now and in memory alone: for tests, examples,
    /// and servers whose clients learn its [hash](Self::hashes) each time that they start. It is valid for 13 days,
    /// so that browsers accept it by that hash (`serverCertificateHashes`), and a server that runs for longer renews
    /// it, announced 3 days ahead.
    ///
    /// Clients that are to trust it after a restart need one that stays: [`self_signed`](Self::self_signed).
    ///
    /// # Errors
    ///
    /// When the system has no randomness for a key.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use h3cast_transport::{Identity, Server};
    ///
    /// let identity = Identity::localhost()?;
    /// // For a page: `new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] })`.
    /// println!("sha-256: {}", identity.hashes()[0].base64());
    /// # #[cfg(feature = "server")] {
    /// let server = Server::builder(identity).listen("localhost:0".parse()?).build().await?;
    /// # drop(server);
    /// # }
    /// # Ok(()) }
    /// ```
    pub fn localhost() -> Result<Self, IdentityError> {
        let localhost = Localhost::default();
        let state = Generations { current: localhost.create(SystemTime::now())?, next: None, previous: Vec::new() };
        Ok(Self::new(Origin::Localhost(localhost), state))
    }
}

impl Localhost {
    fn create(&self, now: SystemTime) -> Result<Generation, IdentityError> {
        let key = Key::generate()?;
        let (begin, end) = (now - self.lifetimes.backdate, now + self.lifetimes.validity);
        let certificate = key.certify(&NAMES.map(String::from), begin, end)?;
        Ok(Generation::new(key, &certificate, &[]))
    }

    /// What is to be served at that time: a successor is there before it is needed, and takes over before the end.
    pub(in crate::identity) fn renewed(
        &self,
        before: &Generations,
        now: SystemTime,
    ) -> Result<Generations, IdentityError> {
        let Generations { current, next, previous } = before.clone();
        let previous = previous.into_iter().filter(|one| one.is_valid(now)).collect();
        let left = current.left(now);
        let next = match next.filter(|next| !next.left(now).is_zero()) {
            None if left <= self.lifetimes.announce => Some(self.create(now)?),
            next => next,
        };
        Ok(match next {
            Some(next) if left <= self.lifetimes.replace => Generations { current: next, next: None, previous },
            next => Generations { current, next, previous },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::DAY;

    #[test]
    fn a_successor_is_announced_and_takes_over() {
        let localhost = Localhost::default();
        let now = SystemTime::now();
        let mut state = Generations { current: localhost.create(now).unwrap(), next: None, previous: Vec::new() };
        let first = state.current.newest().clone();
        state = localhost.renewed(&state, now + 9 * DAY).unwrap();
        assert!(state.next.is_none() && *state.current.newest() == first);
        state = localhost.renewed(&state, now + 10 * DAY).unwrap();
        let second = state.next.as_ref().unwrap().newest().clone();
        assert!(*state.current.newest() == first && second != first);
        state = localhost.renewed(&state, now + 11 * DAY).unwrap();
        assert_eq!(state.next.as_ref().unwrap().newest(), &second, "there is one already");
        state = localhost.renewed(&state, now + 12 * DAY).unwrap();
        assert!(state.next.is_none() && *state.current.newest() == second);
        // A computer that has slept for long.
        state = localhost.renewed(&state, now + 100 * DAY).unwrap();
        assert!(state.current.newest().is_valid(now + 100 * DAY));
    }
}
