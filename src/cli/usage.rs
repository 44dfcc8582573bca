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
    name_of(arg)
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
            None => conflict(error, arguments).unwrap_or_else(|| of_clap(error)),
        },
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => lacking(missing, arguments),
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
            match (value, text(ContextKind::InvalidArg).map(placeholder)) {
                ("", Some(what)) => {
                    let what = if valid.is_empty() { what } else { format!("one of {}", valid.join(", ")) };
                    format!("{}a value is missing: write {what}", subject(error, arguments))
                }
                _ => format!("{}`{value}` is not one of {}", subject(error, arguments), valid.join(", ")),
            }
        }
        ErrorKind::TooManyValues => match text(ContextKind::InvalidArg) {
            Some(flag) => format!("{flag} takes no value, and `{value}` is one"),
            None => of_clap(error),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".into(),
        _ => of_clap(error),
    }
}

/// Flags that need another one.
const NEEDS: &[(&str, &str)] = &[
    ("cert", "key"),
    ("key", "cert"),
    ("proxy-protocol", "trust-proxy"),
    ("retry-for", "resume"),
    ("take-over-drop", "take-over"),
];

/// What is missing, and for which flag.
fn lacking(missing: &[String], arguments: &[OsString]) -> String {
    let shown: Vec<_> = missing.iter().map(|arg| plain(arg)).collect();
    let shown = shown.join(" and ");
    let is_missing = |needed: &str| missing.iter().any(|arg| name_of(arg) == Some(needed));
    let needs = NEEDS.iter().filter(|(_, needed)| is_missing(needed)).map(|(flag, _)| *flag);
    // `key` is of other commands, too, and then given with what it needs.
    let given = needs.filter_map(|flag| given_as(flag, arguments)).next();
    match given {
        Some(flag) => format!("{flag} needs {shown} as well"),
        None => format!("{shown} is missing"),
    }
}

/// Flags that do not go together, or one that stands there twice.
fn conflict(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(one)) = error.get(ContextKind::InvalidArg) else { return None };
    let others = match error.get(ContextKind::PriorArg)? {
        ContextValue::String(other) => std::slice::from_ref(other),
        ContextValue::Strings(others) => others,
        _ => return None,
    };
    let shown =
        |arg: &String| name_of(arg).and_then(|name| given_as(name, arguments)).unwrap_or_else(|| plain(arg).to_owned());
    let others_shown: Vec<_> = others.iter().map(shown).collect();
    Some(match others {
        [other] if other == one => format!("{} is given twice: leave one out", shown(one)),
        _ => format!("{} cannot be used with {}: leave one out", shown(one), others_shown.join(" and ")),
    })
}

/// How a flag was given: as itself, or as its variable.
fn given_as(flag: &str, arguments: &[OsString]) -> Option<String> {
    if config::is_given(arguments, flag) {
        return Some(format!("--{flag}"));
    }
    variable(flag, arguments).filter(|variable| std::env::var_os(variable).is_some())
}

/// The name of a flag as clap shows it, `--key <PEM>`.
fn name_of(arg: &str) -> Option<&str> {
    arg.strip_prefix("--")?.split([' ', '=', '[', '<']).next()
}

/// An argument as clap shows it, without brackets.
pub(super) fn plain(arg: &str) -> String {
    arg.replace(['<', '>', '[', ']'], "")
}

/// What stands for the value of an argument.
fn placeholder(arg: &str) -> String {
    let at = arg.find(['<', '[', '=']).unwrap_or(0);
    plain(arg[at..].trim_start_matches('='))
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
