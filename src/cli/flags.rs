//! Errors of the library in the words of the program: with the flag that helps.

use anyhow::anyhow;

use crate::{listen::ListenError, server::StartError};

/// Why the server did not start.
pub(super) fn of_start(error: StartError) -> anyhow::Error {
    match error {
        StartError::Listen(error) => of_listen(error, "--listen"),
        StartError::PlainHttp(error) => of_listen(error, "--http"),
        error => error.into(),
    }
}

fn of_listen(error: ListenError, flag: &str) -> anyhow::Error {
    match error {
        ListenError::InUse { .. } => anyhow!("{error} with {flag}"),
        ListenError::NotLoopback { .. } => anyhow!("{error}, choose localhost:PORT or `off` for {flag}"),
        ListenError::Bind { address, source } => {
            anyhow!("cannot listen on {address}: {source} (choose another address with {flag})")
        }
        error => error.into(),
    }
}
