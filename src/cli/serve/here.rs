//! Where a server is reached on its own machine, by its settings.

use std::net::IpAddr;

use anyhow::anyhow;

use super::ServeArgs;
use crate::{
    Listen, PlainHttp,
    cli::Failure,
    client::Trust,
    identity::{Certificate, Stored},
    server::DEFAULT_PORT,
};

/// The URL of a server with these settings, and by what it is known there. Blocks.
pub(in crate::cli) fn find(args: &ServeArgs) -> Result<(String, Trust), Failure> {
    // Some places are kept for it there.
    if let Some(PlainHttp::At(listen)) = &args.http {
        return Ok((format!("http://{}", authority(listen, "--http")?), Trust::System));
    }
    let default = Listen::localhost(DEFAULT_PORT);
    let listen = args.listen.first().unwrap_or(&default);
    let url = format!("https://{}", authority(listen, "--listen")?);
    let certs = &args.certs;
    #[cfg(feature = "acme")]
    let is_issued = args.acme.is_on();
    #[cfg(not(feature = "acme"))]
    let is_issued = false;
    let trust = match (&certs.cert, &certs.key) {
        // Its names are those by which others come.
        (Some(cert), Some(key)) => {
            let stored =
                Stored::read(cert, key).map_err(|error| Failure::running(crate::cli::flags::of_identity(error)))?;
            Trust::Hashes(stored.for_host(listen.host()).into_iter().map(Certificate::hash).collect())
        }
        // It may be issued at any moment, and no one else answers at an address of this machine.
        _ if is_issued => Trust::Anyone,
        _ => Trust::Local { certs: Some(certs.certs.clone()), anywhere: true },
    };
    Ok((url, trust))
}

/// Whether clients accept the certificate of such a server, as far as its dates go: here it is known by itself. Also of
/// one that is asked over plain HTTP: its clients come over TLS.
pub(in crate::cli) fn accepted(args: &ServeArgs) -> Result<(), Failure> {
    let (Some(cert), Some(key)) = (&args.certs.cert, &args.certs.key) else { return Ok(()) };
    let stored = Stored::read(cert, key).map_err(|error| Failure::running(crate::cli::flags::of_identity(error)))?;
    match stored.for_host("").first().and_then(|one| one.refused_now()) {
        Some(why) => Err(Failure::running(anyhow!("the certificate {}: {why}", cert.display()))),
        None => Ok(()),
    }
}

/// How a client on this machine comes to what listens there.
fn authority(listen: &Listen, flag: &str) -> Result<String, Failure> {
    let port = match listen.port() {
        0 => return Err(Failure::running(anyhow!("{flag} has port 0, which may be any: give the server's URL"))),
        port => port,
    };
    let host = match listen.host().parse::<IpAddr>() {
        _ if listen.is_everywhere() => "localhost".to_owned(),
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => listen.host().to_owned(),
    };
    Ok(format!("{host}:{port}"))
}
