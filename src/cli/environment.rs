//! Environment variables that look like settings, and are none.

use std::{collections::BTreeSet, ffi::OsString};

use clap::CommandFactory;

use super::Cli;

/// What the names of all settings begin with.
const PREFIX: &str = "H3CAST_";
/// So many letters may be wrong in a name: one of so many.
const WRONG: (usize, usize) = (2, 3);

/// Warnings for names that are a letter or two off that of a setting: these would have no effect, without a word. Others
/// may be of scripts, or of links between containers (`H3CAST_PORT`).
pub(super) fn warnings(variables: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut known = BTreeSet::new();
    names(&Cli::command(), &mut known);
    let mut warnings = Vec::new();
    for name in variables {
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if known.contains(rest) {
            continue;
        }
        let most = WRONG.0.min(rest.len() / WRONG.1);
        let alike = known.iter().map(|known| (strsim::osa_distance(rest, known), known));
        if let Some((_, known)) = alike.filter(|(wrong, _)| *wrong <= most).min() {
            warnings.push(format!("{PREFIX}{rest} is not a setting, and has no effect: {PREFIX}{known} is one"));
        }
    }
    warnings
}

/// The names that commands have, without the prefix.
fn names(command: &clap::Command, known: &mut BTreeSet<String>) {
    let all = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()?.strip_prefix(PREFIX));
    known.extend(all.map(String::from));
    command.get_subcommands().for_each(|command| names(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_settings_are_warned_of() {
        let warned = |name: &str| warnings([name.into()]);
        let text = "H3CAST_LISTN is not a setting, and has no effect: H3CAST_LISTEN is one";
        assert_eq!(warned("H3CAST_LISTN"), [text]);
        assert_eq!(warned("H3CAST_PUBLISH_TOKNE").len(), 1);
        for name in [
            "H3CAST_LISTEN",
            "H3CAST_TOKEN",
            "H3CAST_BIN",
            "H3CAST_CHAT",
            "H3CAST_PORT",
            "H3CAST_SERVICE_HOST",
            "LISTN",
        ] {
            assert!(warned(name).is_empty(), "{name}: {:?}", warned(name));
        }
    }
}
