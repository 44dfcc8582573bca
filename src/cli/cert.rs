//! `h3cast cert`: it looks at the certificate and changes nothing.

use std::{io::ErrorKind, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{CertsArgs, Failure, complain, flags, print};
use crate::identity::{Certificate, IdentityError, Stored, rfc3339};

#[derive(Debug, Args)]
pub(super) struct CertArgs {
    #[command(flatten)]
    certs: CertsArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl CertsArgs {
    /// The files of the certificate and the key.
    fn files(&self) -> (PathBuf, PathBuf) {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => (self.certs.join("cert.pem"), self.certs.join("key.pem")),
        }
    }

    /// The certificates that are there, and what a server would warn of.
    fn stored(&self) -> Result<(Stored, Vec<String>), IdentityError> {
        let (certificate, key) = self.files();
        match self.cert {
            Some(_) => Stored::given(&certificate, &key),
            None => Stored::read(&certificate, &key).map(|stored| (stored, Vec::new())),
        }
    }
}

fn facts(certificate: &Certificate) -> Value {
    json!({
        "names": certificate.names(),
        "not_before": rfc3339(certificate.not_before()),
        "not_after": rfc3339(certificate.not_after()),
        "sha256": certificate.hash().hex(),
        "sha256_base64": certificate.hash().base64(),
        "spki_sha256_base64": certificate.spki_hash().base64(),
    })
}

/// Shows what there is.
pub(super) fn run(args: &CertArgs) -> Result<(), Failure> {
    let (stored, warnings) = args.certs.stored().map_err(|error| Failure::running(flags::of_identity(error)))?;
    let own = stored.for_host("localhost");
    let Some((first, others)) = own.split_first() else { return Ok(()) };
    let others = others.iter().copied().chain(&stored.others);
    // Those of a chain are the CA's.
    let others: Vec<_> = others.filter(|other| other.is_made_here()).collect();
    let (certificate, key) = args.certs.files();
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or(path.clone());
    if args.certs.cert.is_none() && !first.is_made_here() {
        complain(&format!(
            "h3cast did not create this certificate and will not replace it; to serve with it, use `--cert {} --key {}`",
            certificate.display(),
            key.display()
        ));
    }
    for warning in warnings {
        complain(&format!("the certificate: {warning}"));
    }
    if args.certs.cert.is_none() {
        let now = std::time::SystemTime::now();
        if now >= first.not_after() {
            complain("this certificate has expired");
        } else if now < first.not_before() {
            complain("this certificate is not valid yet");
        }
        // Opening a named pipe would wait for its writer.
        let opened = std::fs::metadata(&key).and_then(|there| match there.is_file() {
            true => std::fs::File::open(&key).map(drop),
            false => Ok(()),
        });
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                complain(&format!("its key is not there: {}", key.display()));
            }
            // Those who may not read it can still see the certificate.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            _ => {
                if let Some(refused) = stored.refused(&certificate) {
                    complain(&format!("`h3cast serve` refuses this folder: {}", flags::of_identity(refused)));
                }
            }
        }
    }
    if args.json {
        let mut json = facts(first);
        json["certificate"] = json!(absolute(&certificate));
        json["key"] = json!(absolute(&key));
        json["others"] = others.iter().copied().map(facts).collect();
        return print(&crate::shown::json(&format!("{json:#}\n")));
    }
    let mut text = format!(
        "certificate     {}\nkey             {}\n",
        absolute(&certificate).display(),
        absolute(&key).display(),
    );
    text += &in_words(first);
    for other in others {
        text += "\nalso in this file, and trusted with it:\n";
        text += &in_words(other);
    }
    print(&text)
}

fn in_words(certificate: &Certificate) -> String {
    format!(
        "names           {}\nvalid           {} to {}\n\
         SHA-256 of the certificate (DER), for WebTransport's serverCertificateHashes and `get --cert-hash`\n  \
         hex           {}\n  base64        {}\n\
         SHA-256 of the public key (SPKI), for Chrome's --ignore-certificate-errors-spki-list\n  base64        {}\n",
        certificate.names().join(", "),
        rfc3339(certificate.not_before()),
        rfc3339(certificate.not_after()),
        certificate.hash().hex(),
        certificate.hash().base64(),
        certificate.spki_hash().base64(),
    )
}
