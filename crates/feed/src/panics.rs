//! Sources and keepers are others' code: their panics fail one feed, or one viewer of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run`; the message of its panic if it panics. What it leaves behind must not be used again.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
    })
}
