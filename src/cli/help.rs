//! `--help`: short, with what most people need; `h3cast help serve-all` has every flag.

use std::{ffi::OsString, fmt::Write};

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The flags of `serve` that its `--help` shows.
const COMMON: &[&str] = &[
    "config",
    "check",
    "listen",
    "http",
    "redirect",
    "certs",
    "cert",
    "key",
    "acme",
    "count",
    "interval",
    "chunk",
    "history",
    "lag",
    "per-viewer",
    "input",
    "restart",
    "publish-token",
    "store",
    "engine",
    "open",
    "grace",
    "log",
    "access-log",
    "memory",
    "tokens",
    "public",
];

/// The widest line, in characters.
const WIDTH: usize = 100;

/// A topic of `h3cast help`, and what it has to say.
const TOPICS: [(&str, &str); 3] = [
    ("sources", include_str!("help/sources.txt")),
    ("formats", include_str!("help/formats.txt")),
    ("trust", include_str!("help/trust.txt")),
];
/// The topic with every flag of `serve`.
const ALL: &str = "serve-all";

/// The help that these arguments ask for; `None` if they ask for none, or for that of no command.
pub(super) fn asked(arguments: &[OsString]) -> Option<String> {
    let words: Vec<_> =
        arguments.iter().skip(1).map_while(|word| word.to_str()).take_while(|word| *word != "--").collect();
    let first = words.first().copied();
    if matches!(words.as_slice(), ["version"] | ["help", "version"]) {
        return Some(Cli::command().render_version());
    }
    if first == Some("help") {
        return match words.get(1).copied() {
            None => Some(program()),
            Some(ALL) => Some(
                Cli::command()
                    .find_subcommand("serve")?
                    .clone()
                    .bin_name("h3cast serve")
                    .render_long_help()
                    .to_string(),
            ),
            Some(name) => topic(name).or_else(|| command(name)),
        };
    }
    if !words.iter().any(|word| matches!(*word, "--help" | "-h")) {
        return None;
    }
    match first.filter(|word| !word.starts_with('-')) {
        Some(name) => command(name),
        None => Some(program()),
    }
}

/// The topic of that name, in the singular or the plural.
pub(super) fn topic_of(name: &str) -> Option<&'static str> {
    topics().find(|topic| *topic == name || topic.strip_suffix('s') == Some(name))
}

/// The topics that `h3cast help` knows beside the commands.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|(topic, _)| *topic).chain([ALL])
}

fn topic(name: &str) -> Option<String> {
    let meant = topic_of(name)?;
    TOPICS.iter().find(|(topic, _)| *topic == meant).map(|(_, text)| (*text).to_owned())
}

/// The help of the program itself.
fn program() -> String {
    let mut text = String::from(
        "Stream live output to any browser over HTTP/3.\n\n\
         Usage: h3cast [COMMAND] [OPTIONS]\n\n\
         Examples:\n  \
         h3cast                            the demo; open the page that it prints\n  \
         h3cast serve log=tail:app.log     a log that grows\n  \
         make 2>&1 | h3cast serve -        what a program prints\n\n\
         Commands:\n",
    );
    let program = Cli::command();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "  {:<12} {about}", command.get_name());
    }
    text += "  help         Print this, or the help of a command or a topic\n\n\
             `h3cast COMMAND --help` has its flags, `h3cast help serve-all` every flag of serve.\n\
             Topics: `h3cast help sources`, `h3cast help formats`, `h3cast help trust`.\n\
             Without a command, the flags are those of serve. -V, --version prints the version.\n";
    text
}

/// The help of a command, in short.
fn command(name: &str) -> Option<String> {
    let command = Cli::command().find_subcommand(name)?.clone();
    let command = command.bin_name(format!("h3cast {name}")).term_width(WIDTH);
    if name != "serve" {
        return Some(command.clone().render_help().to_string());
    }
    let short = |arg: Arg| {
        let is_common = arg.get_long().is_none_or(|flag| COMMON.contains(&flag));
        // Without the levels, it says little.
        let is_log = arg.get_long() == Some("log");
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // A wider one would put every text on a line of its own.
        let arg = match arg.get_long() {
            Some("lag") => arg.value_name("[NAME=]POLICY"),
            Some("engine") => arg.value_name("ADDRESS"),
            _ => arg,
        };
        let heading = (!arg.is_positional()).then_some("Options");
        arg.hide(!is_common).hide_env(true).help(if is_log { help } else { beginning(&help) }).help_heading(heading)
    };
    let mut serve: Command = command.mut_args(short).disable_help_flag(true).after_help(
        "`h3cast help serve-all` has every flag, each with its environment variable (H3CAST_LISTEN for --listen).\n\
         `h3cast help sources` has more about sources.",
    );
    Some(serve.render_help().to_string())
}

/// The first sentence of a text, up to what explains it, without a stop.
fn beginning(text: &str) -> String {
    let end = [". ", ": "].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<String> {
        asked(&std::iter::once(&"h3cast").chain(words).map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_help_of_each_command_fits_on_a_screen() {
        let program = Cli::command();
        let names = program.get_subcommands().map(Command::get_name);
        for name in names {
            for words in [&[name, "--help"][..], &[name, "-h"], &["help", name]] {
                let text = of(words).unwrap();
                assert!(text.lines().count() < 60, "{words:?}: {} lines\n{text}", text.lines().count());
                assert!(text.contains(&format!("Usage: h3cast {name}")), "{text}");
            }
        }
        for words in [&["--help"][..], &["-h"], &["help"], &["--count", "5", "--help"]] {
            let text = of(words).unwrap();
            assert!(text.lines().count() < 40 && text.contains("Examples:"), "{words:?}: {text}");
        }
        for (topic, _) in TOPICS {
            let text = of(&["help", topic]).unwrap();
            assert!(text.lines().count() < 60 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        }
        assert_eq!(of(&["help", "source"]), of(&["help", "sources"]));
        assert_eq!(of(&["version"]).unwrap(), format!("h3cast {}\n", env!("CARGO_PKG_VERSION")));
        for words in [&["serve", "demo"][..], &["serve", "--", "--help"], &["frobnicate", "--help"], &[]] {
            assert_eq!(of(words), None, "{words:?}");
        }
    }

    #[test]
    fn every_flag_can_be_found() {
        let all = of(&["help", ALL]).unwrap();
        let program = Cli::command();
        let serve = program.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments().filter_map(Arg::get_long) {
            assert!(all.contains(&format!("--{flag}")), "{flag}");
        }
        let short = of(&["serve", "--help"]).unwrap();
        for flag in COMMON.iter().filter(|flag| cfg!(feature = "acme") || **flag != "acme") {
            assert!(short.contains(&format!("--{flag}")), "{flag}: {short}");
        }
    }
}
