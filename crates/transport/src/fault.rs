//! Faults that tests ask for. In debug builds only: elsewhere there is nothing of it.
//!
//! `H3CAST_FAULT=PLACE=panic` panics at that place, once; `PLACE=block` blocks the thread there for
//! good; `PLACE=pause` blocks it for 400 ms; `PLACE=error` fails where something can; `PLACE=stop` stops the process until
//! SIGCONT. With `@N` it strikes at the Nth time. Several are separated by commas.

use std::io;
#[cfg(debug_assertions)]
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

/// A place where a test can have something go wrong.
#[inline]
pub fn point(place: &str) {
    // What cannot fail there has no error.
    let _ = fallible(place);
}

/// The same where something can fail.
#[cfg(debug_assertions)]
pub fn fallible(place: &str) -> io::Result<()> {
    match due(place).as_deref() {
        Some("panic") => panic!("a test asks for a panic at `{place}`"),
        Some("error") => Err(io::Error::other(format!("a test asks for an error at `{place}`"))),
        #[cfg(unix)]
        Some("stop") => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
            // Another thread may take the signal, and this one would run on for a moment.
            std::thread::sleep(std::time::Duration::from_millis(100));
            Ok(())
        }
        Some("pause") => {
            std::thread::sleep(std::time::Duration::from_millis(400));
            Ok(())
        }
        Some("block") => {
            tracing::warn!("a test blocks `{place}`");
            loop {
                std::thread::park();
            }
        }
        _ => Ok(()),
    }
}

/// Release builds have no fault points.
#[cfg(not(debug_assertions))]
#[inline]
pub fn fallible(_place: &str) -> io::Result<()> {
    Ok(())
}

/// What is to happen there now.
#[cfg(debug_assertions)]
fn due(place: &str) -> Option<String> {
    static FAULTS: LazyLock<Mutex<HashMap<String, (String, u64)>>> = LazyLock::new(|| {
        let text = std::env::var("H3CAST_FAULT").unwrap_or_default();
        let faults = text.split(',').filter_map(|fault| {
            let (place, fault) = fault.split_once('=')?;
            let (fault, times) = fault.split_once('@').unwrap_or((fault, "1"));
            Some((place.to_owned(), (fault.to_owned(), times.parse().ok()?)))
        });
        Mutex::new(faults.collect())
    });
    let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, left) = faults.get_mut(place)?;
    *left = left.saturating_sub(1);
    if *left > 0 {
        return None;
    }
    faults.remove(place).map(|(fault, _)| fault)
}
