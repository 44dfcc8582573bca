//! Secrets on the command line, which every user of the machine can see, and the shell remembers.

use std::{borrow::Cow, ffi::OsString};

/// What is shown instead of a secret.
pub(super) const HIDDEN: &str = "…";

/// Warnings for the secrets in these arguments, each with a better way to give it. They do not show the secrets.
pub(super) fn warnings(arguments: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |what: &str, instead: &str| {
        let text = format!("{what} is on the command line, where other users of this machine can see it: {instead}");
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    };
    for argument in arguments.into_iter().skip(1) {
        let argument = argument.to_string_lossy();
        let flag = argument.split_once('=').map_or(&*argument, |(flag, _)| flag);
        match flag {
            "--publish-token" => {
                warn(
                    "the token of --publish-token",
                    "set H3CAST_PUBLISH_TOKEN, or name a file of tokens with --tokens",
                );
            }
            "--token" => warn("the token of --token", "set H3CAST_TOKEN, or name a file with --token-file"),
            _ => {}
        }
        // What a command is run with is the user's own.
        if is_command(&argument) {
            continue;
        }
        // Other URLs with one are refused, which says so.
        if ["nats://", "tls://", "ws://", "wss://"].iter().any(|scheme| argument.contains(scheme)) {
            if has_password(&argument) {
                warn("the password in a URL", "set H3CAST_ENGINE or use --nats-creds FILE");
            } else if has_user(&argument) {
                warn("the NATS token in a URL", "set H3CAST_ENGINE or use --nats-token-file FILE");
            }
        }
        if has_token(&argument) {
            warn("the token in a URL", "set H3CAST_TOKEN, or name a file with --token-file");
        }
    }
    warnings
}

fn is_command(argument: &str) -> bool {
    argument.starts_with("exec:") || argument.split_once('=').is_some_and(|(_, source)| source.starts_with("exec:"))
}

/// Whether there is a `USER:PASSWORD@` after `://`, for one of several hosts too.
pub(super) fn has_password(argument: &str) -> bool {
    let Some((_, rest)) = argument.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// Whether anything stands before the hosts.
fn has_user(argument: &str) -> bool {
    let Some((_, rest)) = argument.split_once("://") else { return false };
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// An argument without the secrets that can be seen in it: what stands before the hosts of its URLs, and tokens in their
/// queries.
pub(super) fn hidden(argument: &str) -> Cow<'_, str> {
    // The password of another URL than those of the web may not be encoded, and then it ends at the last `@`.
    let whole = argument.split_once("://").filter(|(scheme, _)| !is_command(argument) && !is_web(scheme));
    let without = whole.and_then(|(scheme, rest)| Some(format!("{scheme}://{HIDDEN}@{}", rest.rsplit_once('@')?.1)));
    let shown = within(without.as_deref().unwrap_or(argument));
    match shown == argument {
        true => argument.into(),
        false => shown.into(),
    }
}

fn is_web(scheme: &str) -> bool {
    ["http", "https"].iter().any(|web| scheme.ends_with(web))
}

/// The same of each URL in a text.
fn within(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (authority, rest) = part.split_at(part.find(['/', '?', '#']).unwrap_or(part.len()));
        shown += "://";
        match authority.rsplit_once('@') {
            Some((_, hosts)) => shown.extend([HIDDEN, "@", hosts]),
            None => shown += authority,
        }
        for piece in rest.split_inclusive(['?', '&', '#', ';']) {
            match piece.split_once('=').filter(|(name, _)| is_secret(name)) {
                Some((name, value)) => {
                    let end = value.find(|c: char| "&#;".contains(c) || c.is_whitespace()).unwrap_or(value.len());
                    shown.extend([name, "=", HIDDEN, &value[end..]]);
                }
                None => shown += piece,
            }
        }
    }
    shown
}

/// Whether a pair of a query, by its name, holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let last = name.rsplit('_').next().unwrap_or_default();
    let names = ["token", "key", "apikey", "secret", "password", "passwd", "pwd", "auth", "jwt", "sig", "signature"];
    names.contains(&last)
}

fn has_token(argument: &str) -> bool {
    argument.contains("://") && ["?token=", "&token="].iter().any(|query| argument.contains(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> String {
        warnings(["h3cast"].iter().chain(arguments).map(OsString::from)).join("\n")
    }

    #[test]
    fn secrets_are_warned_of_and_not_repeated() {
        for (arguments, word) in [
            (&["serve", "--publish-token", "geheim"][..], "--tokens"),
            (&["--publish-token=geheim"], "H3CAST_PUBLISH_TOKEN"),
            (&["publish", "--token", "geheim"], "--token-file"),
            (&["serve", "a=nats://me:geheim@host/x"], "--nats-creds"),
            (&["serve", "a=nats://one,me:geheim@two:4222/x"], "--nats-creds"),
            (&["serve", "--engine=nats://me:geheim@host"], "H3CAST_ENGINE"),
            (&["serve", "--engine=wss://geheim@host"], "--nats-token-file"),
            (&["get", "https://host/stream?from=start&token=geheim"], "H3CAST_TOKEN"),
        ] {
            let text = of(arguments);
            assert!(text.contains(word) && !text.contains("geheim"), "{arguments:?}: {text}");
        }
        for arguments in [
            &["serve", "a=nats://host:4222/x", "log=tail:/var/log/a@b:c"][..],
            &["serve", "x=exec:curl https://me:it@host"],
            &["get", "https://host/stream?from=start", "--token-file", "x"],
            &["serve", "--tokens", "file"],
            &["get", "https://host/stream/a:b@c"],
            &["get", "https://me:geheim@host/stream"],
        ] {
            assert_eq!(of(arguments), "", "{arguments:?}");
        }
    }

    #[test]
    fn secrets_are_hidden_where_they_stand() {
        for (argument, shown) in [
            ("https://me:geheim@host/x?y", "https://…@host/x?y"),
            ("nats://geheim@host", "nats://…@host"),
            ("a=nats://one,me:geheim@two:4222/x", "a=nats://…@two:4222/x"),
            ("exec:a https://host/x@y https://me:ge'h@im@host/", "exec:a https://host/x@y https://…@host/"),
            ("https://host/?x=y&token=geheim&z", "https://host/?x=y&token=…&z"),
            ("https://host/?access_token=geheim&API-Key=geheim;x=y", "https://host/?access_token=…&API-Key=…;x=y"),
            ("https://host/#token=geheim", "https://host/#token=…"),
            ("exec:curl https://host/?token=geheim -o x", "exec:curl https://host/?token=… -o x"),
        ] {
            assert_eq!(hidden(argument), shown);
        }
        for argument in ["demo", "log=tail:/var/log/a@b:c", "https://host/?tokens=x&keyboard=y", "?token=x"] {
            assert!(matches!(hidden(argument), Cow::Borrowed(_)), "{argument}");
        }
    }
}
