//! Faults that tests ask for. In debug builds only: elsewhere there is nothing of it.
//!
//! `H3CAST_FAULT=PLACE=panic` panics at that place, once; `PLACE=block` blocks the thread there for
//! good. With `@N` it strikes at the Nth time. Several are separated by commas.

#[cfg(debug_assertions)]
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

/// A place where a test can have something go wrong.
#[cfg(debug_assertions)]
pub(crate) fn point(place: &str) {
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
    let Some((_, left)) = faults.get_mut(place) else { return };
    *left -= 1;
    if *left > 0 {
        return;
    }
    let fault = faults.remove(place);
    drop(faults);
    match fault.as_ref().map(|(fault, _)| fault.as_str()) {
        Some("panic") => panic!("a test asks for a panic at `{place}`"),
        Some("block") => loop {
            std::thread::park();
        },
        _ => {}
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_place: &str) {}
