//! A file of settings for `h3cast serve`: each flag is a key, without its `--`.
//!
//! What it says becomes arguments, so that both are read and checked by the same code. A flag that stands on the command
//! line, or whose environment variable is set, takes the place of its key.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use super::{Cli, Command, Failure};

/// The key of the positional arguments.
pub(super) const SOURCES: &str = "sources";
/// The longest file, in bytes.
const LONGEST: u64 = 1 << 20;
/// Flags that are no keys.
const NO_KEYS: &[&str] = &["config", "check", "help", "version"];
/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.8;

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

/// Reads the command line, and the file of settings that it names.
pub(super) fn parse(arguments: &[OsString]) -> Result<(Cli, Given), Failure> {
    read_all(arguments, When::Start)
}

/// The same while the server runs: the file may have changed.
pub(super) fn parse_again(arguments: &[OsString]) -> Result<(Cli, Given), Failure> {
    read_all(arguments, When::Later)
}

fn read_all(arguments: &[OsString], when: When) -> Result<(Cli, Given), Failure> {
    let Some((file, at)) = named(arguments) else {
        return parsed(arguments.to_vec()).map_err(|error| match when {
            When::Start => error.exit(),
            When::Later => Failure::usage(anyhow!("{}", text_of(&error))),
        });
    };
    let text = read(&file, when)?;
    let settings = Settings { file: &file, text: &text };
    let (flags, sources) = settings.arguments(arguments)?;
    let with = |sources: &[OsString]| {
        let (before, after) = arguments.split_at(at.min(arguments.len()));
        let serve = (at == 1).then(|| "serve".into());
        let flags = flags.iter().flat_map(|(_, arguments)| arguments).cloned();
        // A source may begin with a dash.
        let ends = arguments.last().is_some_and(|last| last == "--");
        let dashes = (!sources.is_empty() && !ends).then(|| OsString::from("--"));
        let sources = dashes.into_iter().chain(sources.iter().cloned());
        before.iter().cloned().chain(serve).chain(flags).chain(after.iter().cloned()).chain(sources).collect::<Vec<_>>()
    };
    let told = |error: clap::Error| settings.told(arguments, &flags, error, when);
    let parsed_without = parsed(with(&[])).map_err(told)?;
    match &parsed_without.0.command {
        // Sources on the command line take the place of those in the file.
        Some(Command::Serve(command)) if command.sources.is_empty() && !sources.is_empty() => {
            parsed(with(&sources)).map_err(told)
        }
        _ => Ok(parsed_without),
    }
}

fn parsed(arguments: Vec<OsString>) -> Result<(Cli, Given), clap::Error> {
    let mut command = Cli::command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    let given = given(&command, &matches);
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, given))
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

fn text_of(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("error: ");
    let ends = ["\n\nUsage:", "\n\nFor more information"];
    ends.iter().fold(text, |text, end| text.split(end).next().unwrap_or_default()).trim().to_owned()
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
    match text.len() as u64 > LONGEST {
        true => Err(failed("it has more than 1 MiB".into())),
        false => Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()),
    }
}

/// A file of settings.
struct Settings<'a> {
    file: &'a Path,
    text: &'a str,
}

/// A key, and the arguments that it stands for.
type Flag = (String, Vec<OsString>);

impl Settings<'_> {
    /// The flags that it sets, and its sources.
    fn arguments(&self, given: &[OsString]) -> Result<(Vec<Flag>, Vec<OsString>), Failure> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, &format!("not valid TOML: {}", error.message()))
        })?;
        let serve = Cli::command();
        let known = |name: &str| serve.get_arguments().find(|arg| arg.get_long() == Some(name));
        let (mut flags, mut sources) = (Vec::new(), Vec::new());
        for (key, value) in table.get_ref() {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            if name == SOURCES {
                sources = self.sources(value.span().start, value.get_ref())?;
                continue;
            }
            let Some(arg) = known(name).filter(|_| !NO_KEYS.contains(&name)) else {
                return Err(self.wrong(at, &unknown(name, serve.get_arguments().filter_map(clap::Arg::get_long))));
            };
            let arguments = self.values(name, arg, value.span().start, value.get_ref())?;
            let in_environment =
                arg.get_env().and_then(std::env::var_os).is_some_and(|value| !value.is_empty() || is_switch(arg));
            if !in_environment && !is_given(given, name) {
                flags.push((name.to_owned(), arguments));
            }
        }
        Ok((flags, sources))
    }

    fn sources(&self, at: usize, value: &DeValue<'_>) -> Result<Vec<OsString>, Failure> {
        let wrong = || self.wrong(at, "`sources` is a list of texts, as in [\"log=tail:app.log\"]");
        let DeValue::Array(list) = value else { return Err(wrong()) };
        let text = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(OsString::from(text.as_ref())),
            _ => None,
        };
        list.iter().map(|value| text(value.get_ref()).ok_or_else(wrong)).collect()
    }

    fn values(&self, name: &str, arg: &clap::Arg, at: usize, value: &DeValue<'_>) -> Result<Vec<OsString>, Failure> {
        let argument = |value: &str| OsString::from(format!("--{name}={value}"));
        let repeats = matches!(arg.get_action(), ArgAction::Append);
        let of_feeds =
            arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str().starts_with("[NAME=]")));
        if is_switch(arg) {
            return match value {
                DeValue::Boolean(true) => Ok(vec![format!("--{name}").into()]),
                DeValue::Boolean(false) => Ok(Vec::new()),
                _ => Err(self.wrong(at, &format!("`{name}` is true or false"))),
            };
        }
        match value {
            DeValue::Array(list) if repeats => list
                .iter()
                .map(|value| match scalar(value.get_ref()) {
                    Some(text) => Ok(argument(&text)),
                    None => Err(self.wrong(value.span().start, &format!("the list `{name}` holds texts and numbers"))),
                })
                .collect(),
            DeValue::Array(_) => Err(self.wrong(at, &format!("`{name}` takes one value, and no list"))),
            DeValue::Table(table) if of_feeds => table
                .iter()
                .map(|(feed, value)| match scalar(value.get_ref()) {
                    Some(text) => Ok(argument(&format!("{}={text}", feed.get_ref()))),
                    None => Err(self.wrong(feed.span().start, &format!("`{name}` of one feed takes one value"))),
                })
                .collect(),
            DeValue::Table(_) => Err(self.wrong(at, &format!("`{name}` is not set by feeds: write {name} = …"))),
            // What a switch with a value means without one.
            DeValue::Boolean(true) if arg.get_num_args().is_some_and(|values| values.min_values() == 0) => {
                Ok(vec![format!("--{name}").into()])
            }
            value => match scalar(value) {
                Some(text) => Ok(vec![argument(&text)]),
                None => Err(self.wrong(at, &format!("`{name}` takes a text or a number"))),
            },
        }
    }

    fn wrong(&self, at: usize, what: &str) -> Failure {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        Failure::usage(anyhow!("{}:{line}: {what}", self.file.display()))
    }

    /// An error of the command line that may come from this file: then it says so.
    fn told(&self, given: &[OsString], flags: &[Flag], error: clap::Error, when: When) -> Failure {
        if when == When::Start && (!error.use_stderr() || parsed(given.to_vec()).is_err()) {
            error.exit();
        }
        let text = &*text_of(&error);
        let is_named = |name: &str| {
            let flag = format!("--{name}");
            let ends =
                |at: usize| !text[at + flag.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            text.match_indices(&flag).any(|(at, _)| ends(at))
        };
        let named = flags.iter().find(|(name, _)| is_named(name));
        let at = named.and_then(|(name, _)| key_at(self.text, name)).unwrap_or(0);
        // A value that is a secret is not repeated.
        let serve = Cli::command();
        let is_secret = |name: &str| {
            let arg = serve.get_arguments().find(|arg| arg.get_long() == Some(name));
            arg.is_some_and(clap::Arg::is_hide_env_values_set)
        };
        match named {
            Some((name, _)) if is_secret(name) => self.wrong(at, &format!("`{name}` has no valid value")),
            Some(_) => self.wrong(at, text),
            None => Failure::usage(anyhow!("{}: {text}", self.file.display())),
        }
    }
}

/// Where a key is.
fn key_at(text: &str, name: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    table.get_ref().keys().find(|key| key.get_ref() == name).map(|key| key.span().start)
}

fn is_switch(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

fn is_given(arguments: &[OsString], name: &str) -> bool {
    let is = |argument: &OsStr| {
        let text = argument.to_string_lossy();
        text.strip_prefix("--").is_some_and(|text| text.split('=').next() == Some(name))
    };
    arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| is(argument))
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let bare = name.trim_start_matches('-').replace('_', "-");
    if NO_KEYS.contains(&&*bare) {
        return format!("there is no setting `{name}`: --{bare} is for the command line only");
    }
    let names = names.filter(|known| !NO_KEYS.contains(known));
    let alike = names.map(|known| (strsim::jaro_winkler(&bare, known), known)).filter(|(alike, _)| *alike > ALIKE);
    match alike.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((_, known)) => format!("there is no setting `{name}`: `{known}` is one"),
        None => format!("there is no setting `{name}`: `h3cast serve --help` has each as a flag"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    /// The arguments of a file, with these on the command line.
    fn arguments(text: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let settings = Settings { file: Path::new("h3cast.toml"), text };
        let (flags, sources) = settings.arguments(&given(words)).map_err(|failure| failure.in_words())?;
        let all = flags.into_iter().flat_map(|(_, arguments)| arguments).chain(sources);
        Ok(all.map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_become_arguments() {
        let text = r#"
            sources = ["log=tail:app.log", "-"]
            listen = ["0.0.0.0:443", "[::]:443"]
            history = { log = "64M", other = 1000 }
            lag = "block"
            per-viewer = true
            restart = false
            count = 0
        "#;
        let expected = [
            "--count=0",
            "--history=log=64M",
            "--history=other=1000",
            "--lag=block",
            "--listen=0.0.0.0:443",
            "--listen=[::]:443",
            "--per-viewer",
            "log=tail:app.log",
            "-",
        ];
        let mut found = arguments(text, &["h3cast", "serve"]).unwrap();
        found[..7].sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_command_line_takes_the_place_of_keys() {
        let text = "count = 1\nlag = 'block'\ninterval = '1s'";
        let words = ["h3cast", "--count", "5", "--lag=log=skip", "--", "--interval"];
        assert_eq!(arguments(text, &words).unwrap(), ["--interval=1s"]);
    }

    #[test]
    fn each_flag_has_its_key() {
        let serve = Cli::command();
        let mut seen = 0;
        for arg in serve.get_arguments() {
            let Some(name) = arg.get_long().filter(|name| !NO_KEYS.contains(name)) else { continue };
            let value = if is_switch(arg) { "true" } else { "'value'" };
            let text = format!("{name} = {value}");
            let expected = if is_switch(arg) { format!("--{name}") } else { format!("--{name}=value") };
            assert_eq!(arguments(&text, &["h3cast"]), Ok(vec![expected]), "{name}");
            assert_eq!(key_at(&format!("\n{text}"), name), Some(1), "{name}");
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("\nlisen = 'x'", "h3cast.toml:2: there is no setting `lisen`: `listen` is one"),
            ("publish_token = 'x'", "h3cast.toml:1: there is no setting `publish_token`: `publish-token` is one"),
            ("frobnicate = 1", "there is no setting `frobnicate`: `h3cast serve --help` has each as a flag"),
            ("config = 'x'", "there is no setting `config`: --config is for the command line only"),
            ("check = true", "there is no setting `check`: --check is for the command line only"),
            ("listen = [\n'localhost:0',\n[1]]", "h3cast.toml:3: the list `listen` holds texts and numbers"),
            ("restart = 'yes'", "h3cast.toml:1: `restart` is true or false"),
            ("count = [1, 2]", "`count` takes one value, and no list"),
            ("count = { log = 1 }", "`count` is not set by feeds"),
            ("count = 1979-05-27", "`count` takes a text or a number"),
            ("sources = 'demo'", "`sources` is a list of texts"),
            ("count = 1\ncount = 2", "h3cast.toml:2: not valid TOML"),
            ("count = ", "h3cast.toml:1: not valid TOML"),
        ] {
            let error = arguments(text, &["h3cast"]).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_serve_reads_it() {
        let named = |words: &[&str]| named(&given(words)).map(|(file, at)| (file.to_string_lossy().into_owned(), at));
        assert_eq!(named(&["h3cast", "--config", "a"]), Some(("a".into(), 1)));
        assert_eq!(named(&["h3cast", "serve", "demo", "--config=a"]), Some(("a".into(), 2)));
        assert_eq!(named(&["h3cast", "get", "--config=a"]), None);
        assert_eq!(named(&["h3cast", "serve", "--", "--config=a"]), None);
        assert_eq!(named(&["h3cast", "serve", "--config"]), None);
    }
}
