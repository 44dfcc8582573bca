//! The keys of a file of settings, and the arguments that they stand for.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use anyhow::anyhow;
use clap::{
    ArgAction, CommandFactory,
    error::{ContextKind, ContextValue},
};
use toml::de::{DeTable, DeValue};

use super::{Places, SOURCES};
use crate::cli::{Cli, Failure, secrets, usage};

/// Flags that are no keys.
const NO_KEYS: &[&str] = &["config", "check", "help", "version"];
/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.8;

/// A file of settings.
pub(super) struct Settings<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

/// A key, and the arguments that it stands for.
pub(super) type Flag = (String, Vec<OsString>);

impl Settings<'_> {
    /// The flags that it sets, and its sources.
    pub(super) fn arguments(&self, given: &[OsString]) -> Result<(Vec<Flag>, Vec<OsString>), Failure> {
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
                if let DeValue::Table(_) = value.get_ref() {
                    let text = format!(
                        "unknown section `{name}`: sections are not used, write each setting on a line of its own"
                    );
                    return Err(self.wrong(at, &text));
                }
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
            DeValue::Array(_) => Err(self.wrong(at, &format!("`{name}` takes one value, not a list"))),
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

    fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].matches('\n').count() + 1
    }

    fn wrong(&self, at: usize, what: &str) -> Failure {
        Failure::usage(anyhow!("{}:{}: {what}", self.file.display(), self.line(at)))
    }

    /// An error of the command line that comes from this file, and its text; `is_cause` tells whether it goes with a key.
    pub(super) fn told(
        &self,
        flags: &[Flag],
        (error, text): (&clap::Error, &str),
        is_cause: impl Fn(&str) -> bool,
    ) -> Failure {
        let is_named = |name: &str| {
            let flag = format!("--{name}");
            let ends =
                |at: usize| !text[at + flag.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            text.match_indices(&flag).any(|(at, _)| ends(at))
        };
        let at = |name: &str| key_at(self.text, name).unwrap_or(0);
        let about = flags.iter().find(|(name, _)| usage::flag(error) == Some(name));
        if let Some((name, _)) = about.or_else(|| flags.iter().find(|(name, _)| is_named(name))) {
            // A value that is a secret is not repeated.
            let text = if is_secret(name) { &format!("`{name}` has no valid value") } else { text };
            return self.wrong(at(name), text);
        }
        if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
            && let Some(at) = self.source_at(value)
        {
            return self.wrong(at, text);
        }
        let cause = flags.iter().map(|(name, _)| name).find(|name| is_cause(name));
        match (cause, error.get(ContextKind::InvalidArg)) {
            (Some(name), Some(ContextValue::Strings(missing))) => {
                let missing: Vec<_> = missing.iter().map(|arg| usage::plain(arg)).collect();
                self.wrong(at(name), &format!("`{name}` needs {} as well", missing.join(" and ")))
            }
            (Some(name), _) => self.wrong(at(name), text),
            (None, _) => Failure::usage(anyhow!("{}: {text}", self.file.display())),
        }
    }

    /// Where one of the sources is.
    fn source_at(&self, source: &str) -> Option<usize> {
        let table = DeTable::parse(self.text).ok()?;
        let DeValue::Array(sources) = table.get_ref().get(SOURCES)?.get_ref() else { return None };
        let is = |value: &DeValue<'_>| matches!(value, DeValue::String(text) if text.as_ref() == source);
        sources.iter().find(|value| is(value.get_ref())).map(|value| value.span().start)
    }

    pub(super) fn places(&self, flags: &[Flag]) -> Places {
        let mut places = Places::of(self.file);
        for (name, arguments) in flags {
            let values = arguments.iter().filter_map(|argument| Some(argument.to_str()?.split_once('=')?.1.to_owned()));
            let values: Vec<_> = values.collect();
            let is_secret = is_secret(name) || values.iter().any(|value| secrets::has_password(value));
            places.add(name, self.line(key_at(self.text, name).unwrap_or(0)), values, is_secret);
        }
        places
    }
}

/// Whether the values of a flag are not to be shown.
fn is_secret(name: &str) -> bool {
    let serve = Cli::command();
    let arg = serve.get_arguments().find(|arg| arg.get_long() == Some(name));
    arg.is_some_and(clap::Arg::is_hide_env_values_set)
}

/// Where a key is.
fn key_at(text: &str, name: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    table.get_ref().keys().find(|key| key.get_ref() == name).map(|key| key.span().start)
}

fn is_switch(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

pub(in crate::cli) fn is_given(arguments: &[OsString], name: &str) -> bool {
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
    let names = names.filter(|known| !NO_KEYS.contains(known)).chain([SOURCES]);
    let alike = names.map(|known| (strsim::jaro_winkler(&bare, known), known)).filter(|(alike, _)| *alike > ALIKE);
    match alike.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((_, known)) => format!("there is no setting `{name}`: `{known}` is one"),
        None => format!("there is no setting `{name}`: `h3cast help serve-all` lists them all as flags"),
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
            ("frobnicate = 1", "there is no setting `frobnicate`: `h3cast help serve-all` lists them all as flags"),
            ("source = 'x'", "there is no setting `source`: `sources` is one"),
            ("\n[server]\nlisten = 'x'", "h3cast.toml:2: unknown section `server`: sections are not used"),
            ("config = 'x'", "there is no setting `config`: --config is for the command line only"),
            ("check = true", "there is no setting `check`: --check is for the command line only"),
            ("listen = [\n'localhost:0',\n[1]]", "h3cast.toml:3: the list `listen` holds texts and numbers"),
            ("restart = 'yes'", "h3cast.toml:1: `restart` is true or false"),
            ("count = [1, 2]", "`count` takes one value, not a list"),
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
}
