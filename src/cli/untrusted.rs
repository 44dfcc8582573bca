//! What to do about a server that is not trusted.

use std::{
    fmt::Write,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    client::{Expected, Reason, Refusal},
    identity::rfc3339,
    origin::{is_loopback, split_authority},
};

/// Why, which certificate the server has, which was expected, and the command that mends it.
pub(super) fn in_words(authority: &str, refusal: &Refusal, now: SystemTime) -> String {
    let Refusal { reason, presented, expected, .. } = refusal;
    let mut text = format!("cannot connect to {authority}: the server's certificate is not trusted: {reason}\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  server has   {presented}\n               SHA-256 {}", presented.sha256.hex());
    for (number, one) in expected.iter().enumerate() {
        let _ = writeln!(text, "  {:<12} {one}", if number == 0 { "expected" } else { "or" });
    }
    for (number, line) in advice(authority, refusal, now).iter().enumerate() {
        let _ = writeln!(text, "  {:<12} {line}", if number == 0 { "what to do" } else { "" });
    }
    text.trim_end().to_owned()
}

fn advice(authority: &str, refusal: &Refusal, now: SystemTime) -> Vec<String> {
    let Refusal { reason, presented, expected, .. } = refusal;
    let here = split_authority(authority).map_or(authority, |(host, _)| host);
    let here = is_loopback(here);
    let hash = presented.sha256.hex();
    let clock = format!("check the clock of this machine: it says {}", rfc3339(now));
    match reason {
        Reason::Expired => {
            let ago = presented.validity.and_then(|(_, to)| now.duration_since(to).ok()).map(in_days);
            vec![
                format!(
                    "it expired {}: restart the server (`h3cast serve` renews the certificate in its --certs folder), \
                     or give it a new --cert and --key",
                    ago.map_or_else(|| "already".into(), |ago| format!("{ago} ago")),
                ),
                format!("or {clock}"),
            ]
        }
        Reason::NotYetValid => {
            let ahead = presented.validity.and_then(|(from, _)| from.duration_since(now).ok()).map(in_days);
            let ahead = ahead.map_or_else(|| "later".into(), |ahead| format!("in {ahead}"));
            vec![format!("{clock} (the certificate becomes valid {ahead})")]
        }
        Reason::WrongName(name) => {
            let mut lines = Vec::new();
            if let Some(own) = presented.names.iter().find(|name| !name.starts_with("*.")) {
                lines.push(format!("use a name that the certificate has: https://{}", with_host(authority, own)));
            }
            lines.push(format!(
                "or start the server with `h3cast serve --listen {}`, which puts {name} into its certificate",
                authority
            ));
            lines.push(format!("or trust this one certificate, by any name: --cert-hash {hash}"));
            lines
        }
        Reason::OtherHash => vec![
            "`h3cast cert` on the server shows its current hash; the built-in certificate is renewed about every 12 days".into(),
            format!("if the one above is the server's: --cert-hash {hash}"),
            "or trust its file, which stays right when it is renewed: --cacert FILE or --certs DIR".into(),
        ],
        Reason::Unusable(_) => vec![
            "give the server another certificate: `h3cast serve` without --cert and --key creates a suitable one".into(),
        ],
        _ => {
            let mut lines = Vec::new();
            if let Some(Expected { file, .. }) = expected.iter().find(|one| one.only_here) {
                let folder = file.parent().unwrap_or(Path::new(".")).display();
                lines.push(format!("if {folder} is the server's folder and you trust who wrote it: --certs {folder}"));
            }
            lines.push(match here {
                true => "give the folder that the server uses: --certs DIR (as in `h3cast serve --certs DIR`)".into(),
                false => "copy the server's certificate file (`h3cast cert` there names it), and give --cacert FILE".into(),
            });
            lines.push(format!(
                "or, if `h3cast cert` on the server shows the SHA-256 above: --cert-hash {hash}"
            ));
            lines
        }
    }
}

/// An authority with another host.
fn with_host(authority: &str, host: &str) -> String {
    let port = split_authority(authority).and_then(|(_, port)| port);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match port {
        Some(port) => format!("{host}:{port}/"),
        None => format!("{host}/"),
    }
}

fn in_days(time: Duration) -> String {
    let (minutes, hours) = (time.as_secs() / 60, time.as_secs() / 3600);
    match (hours / 24, hours, minutes) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (1, ..) => "1 day".into(),
        (days, ..) => format!("{days} days"),
    }
}
