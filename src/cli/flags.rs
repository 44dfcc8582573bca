//! Errors of the library in the words of the program: with the flag that helps.

use anyhow::anyhow;

use crate::{identity::IdentityError, listen::ListenError, server::StartError};

/// Why the server did not start.
pub(super) fn of_start(error: StartError) -> anyhow::Error {
    match error {
        StartError::Listen(error) => of_listen(error, "--listen"),
        StartError::PlainHttp(error) => of_listen(error, "--http"),
        StartError::Identity(error) => of_identity(error),
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

/// Why there is no certificate.
pub(super) fn of_identity(error: IdentityError) -> anyhow::Error {
    match error {
        IdentityError::Foreign { path, found } => anyhow!(
            "{} {found}; h3cast replaces only what it created and can read, and leaves this file alone. To serve with a certificate of your own, use `--cert {} --key {}`; otherwise choose another folder with --certs, or move the file away",
            path.display(),
            path.with_file_name("cert.pem").display(),
            path.with_file_name("key.pem").display()
        ),
        IdentityError::Missing { .. } => anyhow!("{error}: `h3cast serve` creates one when it starts"),
        error => error.into(),
    }
}
