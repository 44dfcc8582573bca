//! Sources and keepers are code of the application: their panics fail one feed, or one viewer of it. The
//! transport has the same lines; neither crate knows the other (docs/decisions/0023).

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run`; the message of its panic if it panics. What it has left must not be used again.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
    })
}
