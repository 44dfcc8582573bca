//! Errors of the library in the words of the program: with the flag that helps.

use anyhow::anyhow;

use super::holder::Holder;
use crate::{
    identity::{IdentityError, PemError},
    listen::ListenError,
    server::StartError,
};

/// Why a server did not start that was to `take_over` or not: a port that it needs may be `held`.
pub(super) fn of_start(error: StartError, held: Option<&Holder>, take_over: bool) -> anyhow::Error {
    match error {
        StartError::Listen(error) => of_listen(error, "--listen", held, take_over),
        StartError::PlainHttp(error) => of_listen(error, "--http", held, take_over),
        StartError::Redirect(error) => of_listen(error, "--redirect", held, take_over),
        StartError::Identity(error) => of_identity(error),
        StartError::NoTrustedProxy => anyhow!("--proxy-protocol needs --trust-proxy, with the address of the proxy"),
        error => error.into(),
    }
}

fn of_listen(error: ListenError, flag: &str, held: Option<&Holder>, take_over: bool) -> anyhow::Error {
    match error {
        ListenError::InUse { address } => match held {
            Some(holder) => anyhow!(holder.describe(address, flag, take_over)),
            None => anyhow!("{error} with {flag}"),
        },
        ListenError::NotLoopback { .. } => anyhow!("{error}, choose localhost:PORT or `off` for {flag}"),
        ListenError::Bind { address, source }
            if source.kind() == std::io::ErrorKind::PermissionDenied && (1..1024).contains(&address.port()) =>
        {
            anyhow!(
                "cannot listen on {address}: {source} (ports below 1024 need the right CAP_NET_BIND_SERVICE, as in AmbientCapabilities= of systemd, or sockets that systemd passes; otherwise choose another port with {flag})"
            )
        }
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
        IdentityError::Pem { reason: PemError::Swapped(_), .. } => {
            anyhow!("{error} (--cert takes the certificate and --key the key)")
        }
        IdentityError::Missing { .. } => anyhow!("{error}: `h3cast serve` creates one when it starts"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    /// Files that may name flags, and why.
    const EXCEPT: [(&str, &str); 2] = [
        ("src/browser.rs", "the flags are those of browsers"),
        ("crates/transport/src/identity/made/folder.rs", "files of earlier versions are known by this mark"),
    ];

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => files(&path, found),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }

    /// Whether a line of code has a flag in a text.
    fn names_a_flag(line: &str) -> bool {
        let begins = |(at, _): (usize, &str)| {
            let before = line[..at].chars().next_back();
            let after = line[at + 2..].chars().next();
            before.is_none_or(|c| " `\"(".contains(c)) && after.is_some_and(|c| c.is_ascii_lowercase())
        };
        !line.trim_start().starts_with("//") && line.match_indices("--").any(begins)
    }

    #[test]
    fn low_ports_need_a_right() {
        let told = |address: &str, kind: std::io::ErrorKind| {
            let error = super::ListenError::Bind { address: address.parse().unwrap(), source: kind.into() };
            super::of_listen(error, "--listen", None, false).to_string()
        };
        let denied = std::io::ErrorKind::PermissionDenied;
        assert!(told("0.0.0.0:443", denied).contains("CAP_NET_BIND_SERVICE"));
        for (address, kind) in [("0.0.0.0:4433", denied), ("0.0.0.0:443", std::io::ErrorKind::AddrNotAvailable)] {
            assert!(told(address, kind).ends_with("(choose another address with --listen)"));
        }
    }

    #[test]
    fn only_the_program_names_its_flags() {
        for (line, expected) in [
            (r#"#[error("use --certs")]"#, true),
            ("    give `--token` instead", true),
            (r#"listen.bind("--listen")"#, true),
            ("    /// `--help` names it.", false),
            (r#""-----BEGIN {label}-----""#, false),
            (r#""there -- or not""#, false),
        ] {
            assert_eq!(names_a_flag(line), expected, "{line}");
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = Vec::new();
        files(&root.join("src"), &mut all);
        // A package of the program alone is without its crates.
        for name in ["proto", "feed", "transport"] {
            let folder = root.join("crates").join(name).join("src");
            if folder.is_dir() {
                files(&folder, &mut all);
            }
        }
        let (mut named, mut excepted) = (Vec::new(), 0);
        for path in all {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if name == "src/main.rs" || name == "src/cli.rs" || name.starts_with("src/cli/") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> =
                text.lines().enumerate().filter(|(_, line)| names_a_flag(line)).map(|(at, _)| at + 1).collect();
            match EXCEPT.iter().any(|(except, _)| *except == name) {
                true => excepted += usize::from(!lines.is_empty()),
                false => named.extend(lines.iter().map(|line| format!("{name}:{line}"))),
            }
        }
        assert!(named.is_empty(), "a library names the setting, and src/cli/flags.rs the flag: {named:?}");
        assert_eq!(excepted, if root.join("crates").is_dir() { EXCEPT.len() } else { 1 }, "an exception has no reason");
    }
}
