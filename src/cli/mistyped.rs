//! Suggestions for typos: commands and sources that are a letter or two off, or in the wrong place.

use std::{borrow::Cow, ffi::OsString, path::Path};

use clap::CommandFactory;

use super::{Cli, help, secrets, usage, values};
use crate::source::{BadSource, Kind, Source};

/// How alike two words must be for one to be meant by the other.
const ALIKE: f64 = 0.8;
/// So many letters may be wrong in a word: one, or one of so many.
const WRONG: usize = 3;

/// Words of other programs, and the commands that they stand for here.
const COMMANDS: &[(&str, &str)] = &[
    ("start", "serve"),
    ("run", "serve"),
    ("stream", "serve"),
    ("read", "get"),
    ("cat", "get"),
    ("view", "get"),
    ("follow", "get"),
    ("watch", "get"),
    ("subscribe", "get"),
    ("sub", "get"),
    ("pub", "publish"),
    ("send", "publish"),
    ("post", "publish"),
    ("put", "publish"),
    ("list", "feeds"),
    ("ls", "feeds"),
    ("status", "health"),
    ("ping", "health"),
    ("browse", "open"),
    ("browser", "open"),
    ("certificate", "cert"),
    ("benchmark", "bench"),
    ("complete", "completions"),
    ("manual", "man"),
    ("commands", "help"),
    ("usage", "help"),
];
/// Words for a source's scheme, its own and others.
const SCHEMES: &[(&str, &str)] = &[
    ("demo", "demo"),
    ("publish", "publish"),
    ("exec", "exec"),
    ("file", "file"),
    ("tail", "tail"),
    ("cmd", "exec"),
    ("command", "exec"),
    ("run", "exec"),
    ("shell", "exec"),
    ("sh", "exec"),
    ("path", "file"),
    ("follow", "tail"),
    ("log", "tail"),
    ("pub", "publish"),
    ("stdin", "-"),
    ("pipe", "-"),
];

/// Reads a source, as `FromStr` does; what is none is told with what may have been meant.
pub(super) fn source(text: &str) -> Result<Source, String> {
    text.parse().map_err(|error: BadSource| {
        let shown = secrets::hidden(text);
        let shown = values::short(&shown);
        match (&error, meant(&shown)) {
            #[cfg(feature = "nats")]
            (BadSource::Unknown(_), _) if crate::nats::Ensure::is_setting(&shown) => {
                format!("{INVALID}`{shown}`: stream settings go after `=`, without a space: --ensure-stream={shown}")
            }
            (BadSource::Unknown(_), Some(meant)) => format!("invalid source `{shown}`: {meant}"),
            (BadSource::Unknown(_), None) if !shown.contains(':') => {
                format!("{INVALID}`{shown}`: {}", command_line(&shown, None))
            }
            (BadSource::Unknown(_), None) => BadSource::Unknown(shown.clone().into()).to_string(),
            (BadSource::Name(given), _) => BadSource::Name(secrets::hidden(given).into()).to_string(),
            _ => error.to_string(),
        }
    })
}

/// How the sentence about a source that is none begins.
const INVALID: &str = "invalid source ";

/// How to serve what a command prints: one with a name, as a source has it, and its further words.
fn command_line(text: &str, further: Option<&str>) -> String {
    let (name, word) = match text.split_once('=') {
        Some((name, word)) => (format!("{name}="), word),
        None => (String::new(), text),
    };
    let line = further.map_or_else(|| word.to_owned(), |further| format!("{word} {further}"));
    format!(
        "for what a command prints, write {}, or pipe it: {line} | h3cast serve {name}- \
         (`h3cast help sources` lists what else can be served)",
        quoted(&format!("{name}exec:{line}"))
    )
}

/// What to say where a command stands among the arguments of `serve` as it is: its first word would be a source, and is
/// none. `None` if it is not that.
pub(super) fn bare_command(arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().enumerate().skip(2);
    loop {
        let (at, word) = words.next()?;
        let word = word.to_str()?;
        if word == "--" {
            return None;
        }
        if word.starts_with('-') && word != "-" {
            if usage::takes_value("serve", word) {
                words.next();
            }
            continue;
        }
        if word.parse::<Source>().is_ok() {
            continue;
        }
        let unknown = matches!(word.parse::<Source>(), Err(BadSource::Unknown(_)));
        // Up to the first flag of `serve`, which is more likely meant for that than for the command.
        let rest = arguments[at + 1..].iter().map(|word| word.to_string_lossy());
        let further: Vec<_> = rest.take_while(|word| !usage::is_flag("serve", word)).map(|word| shown(&word)).collect();
        if unknown && let Some(begun) = command_of(&arguments[at - 1]) {
            let whole = std::iter::once(shown(begun)).chain([shown(word)]).chain(further).collect::<Vec<_>>().join(" ");
            let word = secrets::hidden(word);
            return Some(format!(
                "{INVALID}`{word}`: a command of several words is one argument: write {}",
                quoted(&whole)
            ));
        }
        // Other sources, or flags of `serve`, are no words of a command.
        let is_ours = |word: &OsString| {
            let word = word.to_string_lossy();
            usage::is_flag("serve", &word) || (word != "-" && word.parse::<Source>().is_ok())
        };
        let is_command = unknown
            && !word.contains([':', '='])
            && arguments.get(at + 1).is_some_and(|next| !is_ours(next))
            && meant(word).is_none();
        let text = || {
            format!("{INVALID}`{}`: {}", secrets::hidden(word), command_line(&shown(word), Some(&further.join(" "))))
        };
        return is_command.then(text);
    }
}

/// An argument of `serve` that is a command, of which the next argument may be a part.
fn command_of(argument: &OsString) -> Option<&str> {
    let text = argument.to_str()?;
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    ([text, value].iter().any(|text| text.starts_with("exec:")) && text.parse::<Source>().is_ok()).then_some(text)
}

/// What a source that is none may have been meant to be.
fn meant(text: &str) -> Option<String> {
    let (name, rest) = match text.split_once('=') {
        Some((name, rest)) => (format!("{name}="), rest),
        None => (String::new(), text),
    };
    if rest.is_empty() && !name.is_empty() {
        return Some(format!("write what to stream after the name, as in {name}tail:FILE or {name}exec:COMMAND"));
    }
    if rest.starts_with("http://") || rest.starts_with("https://") {
        return Some(format!(
            "for the output of another server, run a client: {}",
            quoted(&format!("{name}exec:curl -sN {rest}"))
        ));
    }
    let Some((scheme, what)) = rest.split_once(':') else {
        if let Some(meant) = path(&name, rest) {
            return Some(meant);
        }
        let scheme = alike(rest, SCHEMES)?;
        let what = if matches!(scheme, "exec" | "file" | "tail") { ":…" } else { "" };
        return Some(format!("did you mean {name}{scheme}{what}?"));
    };
    if matches!(scheme, "demo" | "publish" | "-") {
        return Some(format!("{scheme} takes no value: write {name}{scheme}"));
    }
    // A colon between the name and the source.
    if name.is_empty() && what.parse::<Kind>().is_ok() && format!("{scheme}={what}").parse::<Source>().is_ok() {
        return Some(format!("a name ends with an equals sign: write {}", quoted(&format!("{scheme}={what}"))));
    }
    let scheme = alike(scheme, SCHEMES)?;
    let meant = match scheme {
        "exec" | "file" | "tail" => format!("{name}{scheme}:{what}"),
        _ => format!("{name}{scheme}"),
    };
    Some(format!("did you mean {}?", quoted(&meant)))
}

/// How to serve a file, if a source is the path of one, which need not be there.
fn path(name: &str, path: &str) -> Option<String> {
    let found = std::fs::metadata(path);
    if found.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
        return Some("it is a folder; name one of its files, as in tail:FILE or file:FILE".into());
    }
    let is_path = ["/", "./", "../", "~/"].iter().any(|begin| path.starts_with(begin)) || path.contains('\\');
    let is_name = !path.contains('/') && Path::new(path).extension().is_some_and(|end| end == "log" || end == "txt");
    if found.is_err() && !is_path && !is_name {
        return None;
    }
    let tail = quoted(&format!("{name}tail:{path}")).into_owned();
    Some(match found {
        // Pipes and devices have no beginning.
        Ok(found) if !found.is_file() => format!("to stream what comes from there, write {tail}"),
        _ => format!(
            "to stream a file, write {tail} (what is appended to it) or {} (from its beginning, for each viewer)",
            quoted(&format!("{name}file:{path}"))
        ),
    })
}

/// What to say of a word that stands where a command does, among these arguments.
pub(super) fn command(word: &str, arguments: &[OsString]) -> String {
    if word == "-" || word.parse::<Source>().is_ok() {
        return format!("`{}` is something to stream: write `{}`", secrets::hidden(word), serve(arguments));
    }
    if word.starts_with("https://") {
        return format!("to read a feed, write `h3cast get {}`", shown(word));
    }
    if let Some(topic) = help::topic_of(word) {
        return format!("there is no command `{word}`: write `h3cast help {topic}`");
    }
    let program = Cli::command();
    let own = program.get_subcommands().map(|command| (command.get_name(), command.get_name()));
    let topics: Vec<_> = help::topics().map(|topic| (topic, format!("help {topic}"))).collect();
    let topics = topics.iter().map(|(topic, command)| (*topic, command.as_str()));
    let known: Vec<_> = own.chain(COMMANDS.iter().copied()).chain(topics).collect();
    if let Some(command) = alike(word, &known) {
        return format!("there is no command `{word}`: did you mean `h3cast {command}`?");
    }
    if (word.contains([':', '=']) || path("", word).is_some())
        && let Err(error) = source(word)
    {
        return format!("{error} (streams are served by `h3cast serve SOURCE`)");
    }
    format!("there is no command `{word}`: `h3cast --help` lists them all")
}

/// `h3cast serve` with these arguments, without the secrets in them.
fn serve(arguments: &[OsString]) -> String {
    let mut line = "h3cast serve".to_owned();
    let mut is_value_secret = false;
    for argument in arguments.iter().skip(1) {
        let argument = argument.to_string_lossy();
        line.push(' ');
        if std::mem::take(&mut is_value_secret) {
            line.push_str(secrets::HIDDEN);
            continue;
        }
        match argument
            .strip_prefix("--")
            .map(|flag| flag.split_once('=').map_or((flag, None), |(flag, value)| (flag, Some(value))))
        {
            Some((flag, Some(_))) if usage::is_secret(flag) => line.extend(["--", flag, "=", secrets::HIDDEN]),
            Some((flag, value)) => {
                is_value_secret = value.is_none() && usage::is_secret(flag);
                line.push_str(&shown(&argument));
            }
            None => line.push_str(&shown(&argument)),
        }
    }
    line
}

/// A word as a shell takes it, without the secrets in it.
fn shown(word: &str) -> String {
    quoted(&secrets::hidden(word)).into_owned()
}

/// Of words and what they stand for, that of the one most like this.
fn alike<'a>(word: &str, known: &[(&str, &'a str)]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let few = |name: &str| strsim::osa_distance(&word, name) <= (name.len() / WRONG).max(1);
    let alike = known.iter().filter(|(name, _)| few(name));
    let alike = alike.map(|(name, meant)| (strsim::jaro_winkler(&word, name), *meant));
    let best = alike.filter(|(alike, _)| *alike > ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, meant)| meant)
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_=:/.,@%+[]".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_of_nats_is_repeated() {
        for scheme in ["nats", "nat", "natss", "NATS"] {
            for secret in
                ["hunter22", "7777?hunter22", "7777/hunter22", "7777#hunter22", "hunt@er22", "7777://hunter22"]
            {
                for text in [format!("{scheme}://me:{secret}@h/x?what"), format!("a={scheme}://{secret}@h/x?what")] {
                    let told = source(&text).unwrap_err();
                    assert!(!told.contains("7777") && !told.contains("er22"), "{text}: {told}");
                }
            }
        }
    }

    #[test]
    fn a_source_that_is_none_is_told_with_what_was_meant() {
        for (text, expected) in [
            ("log=tial:app.log", "did you mean log=tail:app.log?"),
            ("exce:make test", "did you mean 'exec:make test'?"),
            ("cmd:date", "did you mean exec:date?"),
            ("stdin", "did you mean -?"),
            ("log=stdin", "did you mean log=-?"),
            ("dmeo", "did you mean demo?"),
            ("log:tail:app.log", "a name ends with an equals sign: write log=tail:app.log"),
            ("log=", "write what to stream after the name, as in log=tail:FILE or log=exec:COMMAND"),
            ("demo:5", "demo takes no value: write demo"),
            ("Cargo.toml", "to stream a file, write tail:Cargo.toml (what is appended to it) or file:Cargo.toml"),
            ("https://example.org/x?a&b", "run a client: 'exec:curl -sN https://example.org/x?a&b'"),
            ("frob:x", "write demo, -, exec:COMMAND"),
            (
                "foo",
                "for what a command prints, write exec:foo, or pipe it: foo | h3cast serve - (`h3cast help sources`",
            ),
            #[cfg(feature = "nats")]
            (
                "replicas=3,max-age=1w",
                "stream settings go after `=`, without a space: --ensure-stream=replicas=3,max-age=1w",
            ),
            #[cfg(feature = "nats")]
            ("max-age=24", "stream settings go after `=`, without a space: --ensure-stream=max-age=24"),
            ("subject=ls", "write subject=exec:ls, or pipe it: ls | h3cast serve subject=-"),
            ("a=foo", "write a=exec:foo, or pipe it: foo | h3cast serve a=-"),
            ("/var/log/nothing", "write tail:/var/log/nothing (what is appended to it) or file:/var/log/nothing"),
            ("a=~/x y", "write 'a=tail:~/x y' (what"),
            ("nothing.log", "write tail:nothing.log (what is appended"),
            ("src", "it is a folder; name one of its files"),
            ("/dev/null", "to stream what comes from there, write tail:/dev/null"),
        ] {
            let told = source(text).unwrap_err();
            assert!(told.starts_with(&format!("invalid source `{text}`: ")) && told.contains(expected), "{told}");
        }
        assert_eq!(source("log=tail:app.log"), Ok("log=tail:app.log".parse().unwrap()));
    }

    #[test]
    fn a_command_that_is_none_is_told_with_what_was_meant() {
        let told = |words: &[&str], word: &str| {
            let arguments: Vec<OsString> = std::iter::once(&"h3cast").chain(words).map(OsString::from).collect();
            command(word, &arguments)
        };
        for (words, word, expected) in [
            (&["log=tail:app.log"][..], "log=tail:app.log", "write `h3cast serve log=tail:app.log`"),
            (&["--count", "5", "-"], "-", "`-` is something to stream: write `h3cast serve --count 5 -`"),
            (&["log=exec:make test"], "log=exec:make test", "write `h3cast serve 'log=exec:make test'`"),
            (&["sevre"], "sevre", "there is no command `sevre`: did you mean `h3cast serve`?"),
            (&["pub"], "pub", "did you mean `h3cast publish`?"),
            (
                &["https://localhost:4433/stream"],
                "https://localhost:4433/stream",
                "write `h3cast get https://localhost:4433/stream`",
            ),
            (&["log=tial:a"], "log=tial:a", "did you mean log=tail:a?"),
            (&["sources"], "sources", "there is no command `sources`: write `h3cast help sources`"),
            (&["foo"], "foo", "there is no command `foo`: `h3cast --help` lists them all"),
            (&["/var/log/nothing"], "/var/log/nothing", "write tail:/var/log/nothing"),
            (&["help", "soruces"], "soruces", "did you mean `h3cast help sources`?"),
            (&["frobnicate"], "frobnicate", "there is no command `frobnicate`: `h3cast --help` lists them all"),
        ] {
            let told = told(words, word);
            assert!(told.contains(expected), "{told}");
        }
    }
}
