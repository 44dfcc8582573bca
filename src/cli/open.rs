//! `h3cast open`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::Uri;
use tokio::time::timeout;

use super::{BrowserName, DEFAULT_CERTS, Failure, complain, flags, print, remote};
use crate::{
    browser::{Browser, OpenError},
    identity::{Fingerprint, Stored},
    note::{self, Note},
    origin::is_loopback,
    server::{DEFAULT_HTTP_PORT, DEFAULT_PORT},
};

#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// Which browser.
    #[arg(value_enum, default_value = "chrome")]
    browser: BrowserName,
    /// The page to open. The certificate of a server that you run on this machine is found
    /// automatically.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/"))]
    url: String,
    /// Folder of the server's certificate, as --certs of `serve`. [default: certs, for a server on this
    /// machine only]
    #[arg(long, env = "H3CAST_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// The server's certificate (PEM).
    #[arg(long, env = "H3CAST_CERT", value_name = "PEM")]
    cert: Option<PathBuf>,
    /// Ignored; accepted so that the flags of `serve` can be reused.
    #[arg(long, env = "H3CAST_KEY", value_name = "PEM", hide = true)]
    key: Option<PathBuf>,
}

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a browser trusts a server by: the hashes of its certificate and of its public key.
type HashPair = (Fingerprint, Fingerprint);

pub(super) async fn run(args: OpenArgs) -> Result<(), Failure> {
    let uri = remote::url(&args.url)?;
    let note = note_for(&uri);
    let (hash, spki) = hashes(&args, &uri, note.as_ref())?;
    if !is_answered(&uri).await {
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let text = format!("nothing is listening on {authority}: start a server with `h3cast serve`");
        return Err(Failure::running(anyhow::anyhow!(text)));
    }
    let url = uri.to_string();
    let browser = Browser::from(args.browser);
    match browser.open(&url, &hash, &spki) {
        Ok(mut opened) => {
            // The profile lives as long as the browser.
            let ended = tokio::task::spawn_blocking(move || match opened.failure() {
                Some(error) => Err(error.into()),
                None => opened.process.wait().map(|_| drop(opened)).map_err(anyhow::Error::from),
            });
            ended.await.map_err(Failure::running)?.map_err(Failure::running)
        }
        Err(error) => {
            complain(&format!("{error}. Open it by hand:"));
            let plain = match note {
                Some(note) => note.http.map_or_else(|| url.clone(), |http| format!("http://{http}/")),
                None => format!("http://localhost:{DEFAULT_HTTP_PORT}/"),
            };
            print(&format!("{}\n", browser.command(&url, &plain, &spki)))?;
            match error {
                OpenError::NotFound(_) => Err(Failure::running(anyhow::anyhow!("no browser was opened"))),
                error => Err(Failure::running(error)),
            }
        }
    }
}

/// Whether something listens at a URL of this machine; browsers have many words for that nothing does. Of other
/// machines nobody knows what lies between.
async fn is_answered(uri: &Uri) -> bool {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !is_loopback(host) {
        return true;
    }
    let Ok(Ok(addresses)) = timeout(PATIENCE, tokio::net::lookup_host((host, port))).await else { return true };
    for address in addresses {
        let connecting = tokio::net::TcpStream::connect(address);
        let heard = async {
            // What listens on UDP alone, which h3cast itself never does, gives no error.
            let socket = tokio::net::UdpSocket::bind((unspecified(address), 0)).await?;
            socket.connect(address).await?;
            socket.send(&[0]).await?;
            socket.recv(&mut [0]).await
        };
        let refused = match timeout(PATIENCE, connecting).await {
            Ok(Ok(_)) => return true,
            _ => matches!(timeout(PATIENCE / 4, heard).await, Ok(Err(_))),
        };
        if !refused {
            return true;
        }
    }
    false
}

fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The note of the server at a URL of this machine.
fn note_for(uri: &Uri) -> Option<Note> {
    let (host, port) = (uri.host()?, uri.port_u16().unwrap_or(443));
    if !is_loopback(host) {
        return None;
    }
    let mut notes: Vec<Note> = note::find().into_iter().filter(|note| note.has_port(port)).collect();
    // Two servers may have the same port at different addresses.
    let exact = notes.iter().position(|note| note.has_address(host, port)).unwrap_or(0);
    (exact < notes.len()).then(|| notes.swap_remove(exact))
}

/// The certificate that the user has named, or the one that the server's note names, or one in the current
/// folder.
fn hashes(args: &OpenArgs, uri: &Uri, note: Option<&Note>) -> Result<HashPair, Failure> {
    let host = uri.host().unwrap_or_default();
    if let Some(file) = &args.cert {
        return in_file(file, args.key.as_deref().unwrap_or(file), host);
    }
    let in_folder = |folder: &Path| in_file(&folder.join("cert.pem"), &folder.join("key.pem"), host);
    if let Some(folder) = &args.certs {
        return in_folder(folder);
    }
    if let Some(hashes) = note.and_then(Note::current) {
        return Ok(hashes);
    }
    let here = uri.host().is_some_and(is_loopback);
    let default = Path::new(DEFAULT_CERTS);
    if here && default.join("cert.pem").exists() {
        return in_folder(default);
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    Err(Failure::running(match here {
        true => anyhow::anyhow!(
            "you run no server at {authority} that could be found, and there is no certificate in {DEFAULT_CERTS}/: \
             start one with `h3cast serve`, or name its folder with --certs DIR"
        ),
        false => anyhow::anyhow!("the certificate of {authority} is not known: name its file with --cert PEM"),
    }))
}

/// The certificate in a file that servers show to clients of this host.
fn in_file(file: &Path, key: &Path, host: &str) -> Result<HashPair, Failure> {
    let stored = Stored::read(file, key).map_err(|error| Failure::running(flags::of_identity(error)))?;
    let own = stored.for_host(host);
    let own = own.first().ok_or_else(|| Failure::running(anyhow::anyhow!("{} is empty", file.display())))?;
    Ok((own.hash(), own.spki_hash()))
}
