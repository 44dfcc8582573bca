//! A file of settings for `h3cast serve`: each flag is a key, without its `--`.
//!
//! What it says becomes arguments, so that both are read and checked by the same code. A flag that stands on the command
//! line, or whose environment variable is set, takes the place of its key.

mod keys;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{ArgMatches, CommandFactory, FromArgMatches, parser::ValueSource};

pub(super) use self::keys::is_given;
use self::keys::{Flag, Settings};
pub(super) use self::places::Places;
use super::{Cli, Command, Failure, usage};

/// The key of the positional arguments.
pub(super) const SOURCES: &str = "sources";
/// The longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// The values of each flag of `serve`, wherever they come from, by its name; those of `sources` too.
pub(super) type Given = BTreeMap<String, Vec<OsString>>;

/// When the command line is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// At the start: what clap answers by itself (`--help`, an error) ends the program.
    Start,
    /// While the server runs, and keeps running whatever is found.
    Later,
}

/// The command line, with what the file of settings adds to it.
pub(super) struct Parsed {
    pub(super) cli: Cli,
    pub(super) given: Given,
    pub(super) places: Places,
}

/// Reads the command line, and the file of settings that it names.
pub(super) fn parse(arguments: &[OsString]) -> Result<Parsed, Failure> {
    read_all(arguments, When::Start)
}

/// The same while the server runs: the file may have changed.
pub(super) fn parse_again(arguments: &[OsString]) -> Result<Parsed, Failure> {
    read_all(arguments, When::Later)
}

fn read_all(arguments: &[OsString], when: When) -> Result<Parsed, Failure> {
    let Some((file, at)) = named(arguments) else {
        let (cli, given) = parsed(arguments.to_vec()).map_err(|error| {
            if when == When::Start && !error.use_stderr() {
                error.exit();
            }
            usage::failure(&error, arguments)
        })?;
        return Ok(Parsed { cli, given, places: Places::default() });
    };
    let text = read(&file, when)?;
    let settings = Settings { file: &file, text: &text };
    let (flags, sources) = settings.arguments(arguments)?;
    let with = |flags: &[&Flag], sources: &[OsString]| {
        let (before, after) = arguments.split_at(at.min(arguments.len()));
        let serve = (at == 1).then(|| "serve".into());
        let flags = flags.iter().flat_map(|(_, arguments)| arguments).cloned();
        // A source may begin with a dash.
        let ends = arguments.last().is_some_and(|last| last == "--");
        let dashes = (!sources.is_empty() && !ends).then(|| OsString::from("--"));
        let sources = dashes.into_iter().chain(sources.iter().cloned());
        before.iter().cloned().chain(serve).chain(flags).chain(after.iter().cloned()).chain(sources).collect::<Vec<_>>()
    };
    let all: Vec<_> = flags.iter().collect();
    let told = |error: clap::Error| {
        if when == When::Start && !error.use_stderr() {
            error.exit();
        }
        // Without the file it would be the same.
        if when == When::Start && parsed(arguments.to_vec()).is_err() {
            return usage::failure(&error, arguments);
        }
        // The one without which there would be no such error.
        let without = |name: &str| {
            let others: Vec<_> = all.iter().copied().filter(|(other, _)| other != name).collect();
            parsed(with(&others, &[])).err().is_none_or(|other| other.to_string() != error.to_string())
        };
        settings.told(&flags, (&error, &usage::in_words(&error, arguments)), without)
    };
    let (mut cli, mut given) = parsed(with(&all, &[])).map_err(told)?;
    // Sources on the command line take the place of those in the file.
    if matches!(&cli.command, Some(Command::Serve(command)) if command.sources.is_empty()) && !sources.is_empty() {
        (cli, given) = parsed(with(&all, &sources)).map_err(told)?;
    }
    Ok(Parsed { cli, given, places: settings.places(&flags) })
}

fn parsed(arguments: Vec<OsString>) -> Result<(Cli, Given), clap::Error> {
    let mut command = Cli::command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    let given = given(&command, &matches);
    let stated = stated(&command, &matches);
    let mut cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    match &mut cli.command {
        None => cli.serve.stated = stated,
        Some(Command::Serve(command)) => command.args.stated = stated,
        Some(_) => {}
    }
    Ok((cli, given))
}

/// The flags of `serve` that have no default value here.
fn stated(command: &clap::Command, matches: &ArgMatches) -> BTreeSet<String> {
    let serve = matches.subcommand_matches("serve").unwrap_or(matches);
    let is_stated = |id: &str| {
        let is_known = serve.try_contains_id(id).is_ok();
        is_known && !matches!(serve.value_source(id), None | Some(ValueSource::DefaultValue))
    };
    let flags = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg.get_id().as_str())));
    flags.filter(|(_, id)| is_stated(id)).map(|(name, _)| name.to_owned()).collect()
}

/// What `serve` was given.
fn given(command: &clap::Command, matches: &ArgMatches) -> Given {
    let serve = matches.subcommand_matches("serve").unwrap_or(matches);
    let values = |id: &str| -> Option<Vec<OsString>> {
        // Without `serve` there are no sources.
        serve.try_get_raw(id).ok().flatten().map(|values| values.map(OsStr::to_os_string).collect())
    };
    let flags = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg.get_id().as_str())));
    flags.chain([(SOURCES, SOURCES)]).filter_map(|(name, id)| Some((name.to_owned(), values(id)?))).collect()
}

/// The file that `serve` is to read, and where its arguments begin; `None` if there is none, or for another command.
fn named(arguments: &[OsString]) -> Option<(PathBuf, usize)> {
    let first = arguments.get(1).map(OsString::as_os_str);
    let at = match first {
        Some(word) if word == "serve" => 2,
        // Flags alone are of `serve` too.
        Some(word) if !word.as_encoded_bytes().starts_with(b"-") => return None,
        _ => 1,
    };
    let mut rest = arguments.iter().skip(at).take_while(|argument| *argument != "--");
    // These do not need it, and answer also when it is wrong.
    if rest.clone().any(|argument| ["-h", "--help", "-V", "--version"].iter().any(|word| argument == word)) {
        return None;
    }
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            // Without a value, clap says what is missing.
            return rest.next().map(|file| (file.into(), at));
        }
        if let Some(file) = argument.as_encoded_bytes().strip_prefix(b"--config=") {
            let file = argument.to_str().map_or_else(
                // Not Unicode, and so not to be cut: clap takes it apart.
                || String::from_utf8_lossy(file).into_owned().into(),
                |argument| PathBuf::from(&argument["--config=".len()..]),
            );
            return Some((file, at));
        }
    }
    let file = std::env::var_os("H3CAST_CONFIG").filter(|file| !file.is_empty())?;
    Some((file.into(), at))
}

fn read(file: &Path, when: When) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |why: String| Failure::usage(anyhow!("--config: cannot read {}: {why}", file.display()));
    // There is nothing more in a pipe, or it never ends.
    if when == When::Later && std::fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return Err(failed("it is not a regular file, and can be read at the start only".into()));
    }
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    opened.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    // Whoever writes it may not be done: taken for a file without settings, it would lift all limits.
    if when == When::Later && text.trim().is_empty() {
        let why =
            "it is empty; it may be in the middle of being written (to go back to all defaults, put a comment in it)";
        return Err(failed(why.into()));
    }
    match text.len() as u64 > LONGEST {
        true => Err(failed("it has more than 1 MiB".into())),
        false => Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serve_reads_it() {
        let given = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<OsString>>();
        let named = |words: &[&str]| named(&given(words)).map(|(file, at)| (file.to_string_lossy().into_owned(), at));
        assert_eq!(named(&["h3cast", "--config", "a"]), Some(("a".into(), 1)));
        assert_eq!(named(&["h3cast", "serve", "demo", "--config=a"]), Some(("a".into(), 2)));
        assert_eq!(named(&["h3cast", "get", "--config=a"]), None);
        assert_eq!(named(&["h3cast", "serve", "--", "--config=a"]), None);
        assert_eq!(named(&["h3cast", "serve", "--config"]), None);
    }
}
