//! Errors of the command line, in the words of the program.

use std::{borrow::Cow, ffi::OsString};

use clap::{
    CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Cli, Failure, config, mistyped, secrets};

/// The failure that an error of these arguments is.
pub(super) fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let mut told = in_words(error, arguments);
    // What it was given is repeated without the secrets in it.
    for argument in arguments {
        let argument = argument.to_string_lossy();
        if let Cow::Owned(shown) = secrets::hidden(&argument) {
            let value =
                |of: &str| of.split_once('=').filter(|_| of.starts_with("--")).map(|(_, value)| value.to_owned());
            told = told.replace(&*argument, &shown);
            if let (Some(value), Some(shown)) = (value(&argument), value(&shown)) {
                told = told.replace(&value, &shown);
            }
        }
    }
    Failure::usage(anyhow::anyhow!(told))
}

/// The flag that an error is about, without its `--`.
pub(super) fn flag(error: &clap::Error) -> Option<&str> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.strip_prefix("--")?;
    flag.split([' ', '=', '[', '<']).next()
}

/// An error of these arguments in one sentence: what was given, what may be, and where to look.
pub(super) fn in_words(error: &clap::Error, arguments: &[OsString]) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => match text(ContextKind::InvalidSubcommand) {
            Some(word) => mistyped::command(word, arguments),
            None => of_clap(error),
        },
        ErrorKind::ArgumentConflict => match text(ContextKind::InvalidSubcommand) {
            Some(word) if Cli::command().find_subcommand(word).is_some() => {
                format!("flags come after the command: write `h3cast {word}` first")
            }
            Some(word) => mistyped::command(word, arguments),
            None => of_clap(error),
        },
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => format!("{} is missing", missing.join(" and ")),
            _ => of_clap(error),
        },
        ErrorKind::UnknownArgument => match text(ContextKind::InvalidArg) {
            Some(word) => unknown(word, text(ContextKind::SuggestedArg), arguments),
            None => of_clap(error),
        },
        ErrorKind::ValueValidation => {
            let Some(sentence) = std::error::Error::source(error).map(ToString::to_string) else {
                return of_clap(error);
            };
            // Of NAME=VALUE, the value may be all that is wrong.
            let given = value.split_once('=').map_or(value, |(_, given)| given);
            let sentence = match flag(error) {
                Some(flag) if !sentence.contains(given) && !is_secret(flag) => {
                    format!("`{value}` cannot be used: {sentence}")
                }
                _ => sentence,
            };
            format!("{}{sentence}", subject(error, arguments))
        }
        ErrorKind::InvalidValue => {
            let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) else { return of_clap(error) };
            let valid = valid.join(", ");
            match value {
                "" => format!("{}a value is missing: write one of {valid}", subject(error, arguments)),
                _ => format!("{}`{value}` is not one of {valid}", subject(error, arguments)),
            }
        }
        _ => of_clap(error),
    }
}

/// What an error is about: a flag, or the variable that stands for it; nothing for what needs no name.
fn subject(error: &clap::Error, arguments: &[OsString]) -> String {
    let Some(flag) = flag(error) else { return String::new() };
    let variable = variable(flag, arguments).filter(|variable| std::env::var_os(variable).is_some());
    match variable {
        Some(variable) if !config::is_given(arguments, flag) => format!("{variable}: "),
        _ => format!("--{flag}: "),
    }
}

/// The environment variable of a flag of the command that these arguments are for.
fn variable(flag: &str, arguments: &[OsString]) -> Option<String> {
    let program = Cli::command();
    let name = command_name(arguments);
    let command = name.and_then(|name| program.find_subcommand(name)).unwrap_or(&program);
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    Some(arg.get_env()?.to_str()?.to_owned())
}

pub(super) fn is_secret(flag: &str) -> bool {
    let program = Cli::command();
    let commands = std::iter::once(&program).chain(program.get_subcommands());
    let mut all = commands.flat_map(clap::Command::get_arguments);
    all.any(|arg| arg.get_long() == Some(flag) && arg.is_hide_env_values_set())
}

/// The command that is named first, if one is.
fn command_name(arguments: &[OsString]) -> Option<&str> {
    arguments.get(1)?.to_str().filter(|word| !word.starts_with('-'))
}

fn unknown(word: &str, alike: Option<&str>, arguments: &[OsString]) -> String {
    let name = command_name(arguments);
    if !word.starts_with('-') || word == "-" {
        return match name {
            // Flags of `serve`, and a source.
            None => mistyped::command(word, arguments),
            Some(name) => format!("unexpected argument `{word}` (`h3cast {name} --help` lists what it takes)"),
        };
    }
    let help = match name {
        None | Some("serve") => "h3cast help serve-all".to_owned(),
        Some(name) => format!("h3cast {name} --help"),
    };
    match alike {
        _ if word[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            format!("`{word}` is a negative number, which no flag takes")
        }
        Some(alike) => format!("there is no flag `{word}`: did you mean `{alike}`?"),
        None => format!("there is no flag `{word}` (`{help}` lists them all)"),
    }
}

/// What clap says of it, without the ways to call the program.
pub(super) fn of_clap(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("error: ");
    let ends = ["\n\nUsage:", "\n\nFor more information"];
    ends.iter().fold(text, |text, end| text.split(end).next().unwrap_or_default()).trim().to_owned()
}
