//! Flags that other programs have, and what does the same here.

use std::ffi::OsString;

/// A flag of some commands, and what to say of it: `{}` stands for its value.
struct Familiar {
    commands: &'static [&'static str],
    names: &'static [&'static str],
    /// What stands for a value that is not given; none for a switch.
    value: Option<&'static str>,
    instead: &'static str,
}

/// The commands that connect to a server.
const CLIENTS: &[&str] = &["get", "publish", "feeds", "bench"];

const FAMILIAR: &[Familiar] = &[
    of(&["get"], &["-f", "-F", "--follow"], None, "`get` follows a feed until it ends, so leave it out"),
    of(&["get"], &["-n", "--tail", "--lines"], Some("N"), "write `--last {}` to begin with the last {} chunks"),
    of(
        &["get"],
        &["-c", "--head", "--limit", "--count"],
        Some("N"),
        "put `limit={}` in the URL to end after that many chunks",
    ),
    of(&["get"], &["--since", "--from", "--start"], None, "put `from=start` in the URL, or write `--last N`"),
    of(&["get"], &["-O", "--output-document"], Some("FILE"), "write `--output {}`"),
    of(&["get"], &["-C", "--continue", "--continue-at"], None, "write `--resume` with `--output FILE`"),
    of(&["get"], &["--retry", "--reconnect"], None, "write `--resume`"),
    of(&["get"], &["-N", "--no-buffer"], None, "chunks are printed as they arrive, so leave it out"),
    of(
        &["get", "publish"],
        &["-s", "-q", "--silent", "--quiet"],
        None,
        "redirect standard error (2> /dev/null) for silence",
    ),
    of(&["get", "publish"], &["-H", "--header"], None, "a token is given with `--token-file` or H3CAST_TOKEN"),
    of(CLIENTS, &["-k", "--no-check-certificate"], None, "write `--insecure`"),
    of(CLIENTS, &["--ca", "--cert", "--ca-certificate"], Some("FILE"), "write `--cacert {}`"),
    of(
        &["publish"],
        &["-f", "-T", "--file", "--upload-file"],
        Some("FILE"),
        "standard input is published: write `< {}`",
    ),
    of(
        &["publish"],
        &["-d", "--data", "-m", "--message"],
        None,
        "standard input is published: pipe it into `h3cast publish`",
    ),
    of(&["publish"], &["--retry", "--resume"], None, "`publish` reconnects and resumes anyway, so leave it out"),
    of(
        &["serve"],
        &["-p", "--port"],
        Some("PORT"),
        "write `--listen localhost:{}`, or `--listen :{}` for every interface",
    ),
    of(
        &["serve"],
        &["-l", "-b", "--bind", "--host", "--addr", "--address", "--interface"],
        Some("HOST"),
        "write `--listen HOST:PORT`, or `--listen :PORT` for every interface",
    ),
    of(&["serve"], &["-v", "--verbose", "--debug"], None, "write `--log debug`"),
    of(&["serve"], &["-q", "-s", "--quiet", "--silent"], None, "write `--log error`"),
    of(&["serve"], &["-c", "--conf", "--config-file"], Some("FILE"), "write `--config {}`"),
    of(&["serve"], &["-t", "--test", "--dry-run"], None, "write `--check`"),
    of(&["serve"], &["--tls-cert", "--ssl-cert", "--certificate"], Some("PEM"), "write `--cert {}`"),
    of(&["serve"], &["--tls-key", "--ssl-key", "--private-key"], Some("PEM"), "write `--key {}`"),
    of(&["serve"], &["--cors", "--origin"], Some("ORIGIN"), "write `--allow-origin {}`"),
    of(
        &["serve"],
        &["--token"],
        None,
        "`--publish-token` is for those who publish, and `--tokens FILE` for readers too",
    ),
    of(
        &["serve"],
        &["-d", "--daemon", "-D", "--detach"],
        None,
        "it runs in the foreground: have systemd or the shell run it",
    ),
];

const fn of(
    commands: &'static [&'static str],
    names: &'static [&'static str],
    value: Option<&'static str>,
    instead: &'static str,
) -> Familiar {
    Familiar { commands, names, value, instead }
}

/// What to write instead of a flag that there is not, of a command with these arguments.
pub(super) fn instead(command: &str, flag: &str, arguments: &[OsString]) -> Option<String> {
    let familiar = FAMILIAR.iter().find(|known| known.commands.contains(&command) && known.names.contains(&flag))?;
    let Some(placeholder) = familiar.value else { return Some(familiar.instead.to_owned()) };
    let value = value_of(flag, arguments).unwrap_or_else(|| placeholder.to_owned());
    Some(familiar.instead.replace("{}", &value))
}

/// The value of a flag, if it is given and may be shown: `--flag=VALUE`, `--flag VALUE`, `-fVALUE` or `-f VALUE`.
fn value_of(flag: &str, arguments: &[OsString]) -> Option<String> {
    let at = arguments.iter().position(|word| word.to_str().is_some_and(|word| word.starts_with(flag)))?;
    let attached = arguments[at].to_str()?[flag.len()..].trim_start_matches('=');
    let value = if attached.is_empty() { arguments.get(at + 1)?.to_str()? } else { attached };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!value.is_empty() && !value.starts_with('-') && value.chars().all(is_plain)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Otherwise what is said of them would never be read.
    #[test]
    fn they_are_no_flags_of_ours() {
        let program = Cli::command();
        for known in FAMILIAR {
            for command in known.commands {
                let own = program.find_subcommand(command).unwrap().get_arguments();
                let own: Vec<_> = own
                    .flat_map(|arg| {
                        let short = arg.get_short().map(|short| format!("-{short}"));
                        short.into_iter().chain(arg.get_long().map(|long| format!("--{long}")))
                    })
                    .collect();
                for name in known.names {
                    assert!(!own.iter().any(|own| own == name), "{command} has {name}");
                }
            }
        }
    }

    #[test]
    fn values_are_taken_over_where_they_can_be_shown() {
        let of = |words: &[&str]| {
            let arguments: Vec<OsString> = ["h3cast", "get"].iter().chain(words).map(OsString::from).collect();
            instead("get", "--tail", &arguments).unwrap()
        };
        assert_eq!(of(&["--tail", "10"]), "write `--last 10` to begin with the last 10 chunks");
        assert_eq!(of(&["--tail=10", "x"]), "write `--last 10` to begin with the last 10 chunks");
        for words in [&["--tail"][..], &["--tail", "https://me:geheim@host/"], &["--tail", "--format"]] {
            assert_eq!(of(words), "write `--last N` to begin with the last N chunks");
        }
        assert_eq!(instead("publish", "--tail", &[]), None);
    }
}
