//! Errors of the command line, in the words of the program.

use std::{borrow::Cow, ffi::OsString};

use clap::{
    CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Cli, Failure, config, familiar, mistyped, secrets, values};

/// The failure that an error of these arguments is.
pub(super) fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let mut told = in_words(error, arguments);
    // What it was given is repeated without the secrets in it, and in short.
    let of_variable = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(Cow::Borrowed(value.as_str())),
        _ => None,
    };
    for given in arguments.iter().skip(1).map(|argument| argument.to_string_lossy()).chain(of_variable) {
        let value = given.split_once('=').filter(|_| given.starts_with("--")).map(|(_, value)| value);
        for given in std::iter::once(&*given).chain(value) {
            let hidden = secrets::hidden(given);
            if let Cow::Owned(hidden) = &hidden {
                told = told.replace(given, hidden);
            }
            if let Cow::Owned(short) = values::short(&hidden) {
                told = told.replace(&*hidden, &short);
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
            let of_source = || matches!(text(ContextKind::InvalidArg), Some(arg) if arg.contains("SOURCE"));
            if let Some(command) = of_source().then(|| mistyped::bare_command(arguments)).flatten() {
                return command;
            }
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
        ErrorKind::InvalidUtf8 => not_utf8(arguments),
        _ => of_clap(error),
    }
}

/// What is not valid UTF-8: an argument, or a variable of the command.
fn not_utf8(arguments: &[OsString]) -> String {
    if let Some((at, argument)) = arguments.iter().enumerate().skip(1).find(|(_, argument)| argument.to_str().is_none())
    {
        let shown = argument.to_string_lossy();
        let is_value = |flag: &str| takes_value(command_name(arguments).unwrap_or("serve"), flag);
        let before = arguments[at - 1].to_str().filter(|before| is_value(before));
        return match (before, shown.split_once('=').filter(|_| shown.starts_with("--"))) {
            (Some(flag), _) => format!("{flag}: the value is not valid UTF-8"),
            (None, Some((flag, _))) => format!("{flag}: the value is not valid UTF-8"),
            (None, None) => format!("the argument `{shown}` is not valid UTF-8"),
        };
    }
    let program = Cli::command();
    let command = command_name(arguments).and_then(|name| program.find_subcommand(name)).unwrap_or(&program);
    // Those of `serve` are looked at for every command.
    let mut variables = command.get_arguments().chain(program.get_arguments()).filter_map(clap::Arg::get_env);
    let is_wrong = |name: &&std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
    match variables.find(is_wrong) {
        Some(name) => format!("{}: the value is not valid UTF-8", name.display()),
        None => "an argument is not valid UTF-8".into(),
    }
}

/// Flags that need another one.
const NEEDS: &[(&str, &str)] = &[
    ("cert", "key"),
    ("key", "cert"),
    ("retain", "store"),
    ("fsync", "store"),
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

/// Whether this word is a flag of a command, as it stands or with a value.
pub(super) fn is_flag(command: &str, word: &str) -> bool {
    with_flag(command, word, |_| true)
}

/// Whether the word after this one is its value.
pub(super) fn takes_value(command: &str, word: &str) -> bool {
    let takes = |arg: &clap::Arg| {
        arg.get_action().takes_values() && arg.get_num_args().is_none_or(|values| values.min_values() > 0)
    };
    !word.contains('=') && with_flag(command, word, takes)
}

fn with_flag(command: &str, word: &str, is: impl Fn(&clap::Arg) -> bool) -> bool {
    let mut program = Cli::command();
    program.build();
    let Some(command) = program.find_subcommand(command) else { return false };
    let name = word.split('=').next().unwrap_or_default();
    let named = |arg: &&clap::Arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => name.strip_prefix('-').is_some_and(|short| arg.get_short().is_some_and(|own| short == own.to_string())),
    };
    command.get_arguments().find(named).is_some_and(is)
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
    if name == Some("serve")
        && let Some(command) = mistyped::bare_command(arguments)
    {
        return command;
    }
    if let Some(instead) = familiar::instead(name.unwrap_or("serve"), word, arguments) {
        return format!("there is no flag `{word}`: {instead}");
    }
    let help = match name {
        None | Some("serve") => "h3cast help serve-all".to_owned(),
        Some(name) => format!("h3cast {name} --help"),
    };
    match alike {
        _ if word[1..].starts_with(|c: char| c.is_ascii_digit()) => match name {
            Some("get") => format!("there is no flag `{word}`: write `--last N` to begin with the last N chunks"),
            _ => format!("`{word}` is a negative number, which no flag takes"),
        },
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
