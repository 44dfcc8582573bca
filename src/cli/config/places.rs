//! Where in the file of settings each of them is, for errors and warnings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::anyhow;

use crate::{auth::Exposed, cli::Failure};

/// The shortest value by which a setting is recognised in an error.
const TELLING: usize = 4;

/// The settings that come from a file, and neither from the command line nor from the environment.
#[derive(Debug, Default)]
pub(in crate::cli) struct Places {
    file: PathBuf,
    /// By the name of the setting.
    all: BTreeMap<String, Place>,
    /// One of them is a secret.
    has_secret: bool,
}

#[derive(Debug)]
struct Place {
    line: usize,
    values: Vec<String>,
}

impl Places {
    pub(super) fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    pub(super) fn add(&mut self, name: &str, line: usize, values: Vec<String>, is_secret: bool) {
        self.has_secret |= is_secret;
        self.all.insert(name.to_owned(), Place { line, values });
    }

    /// A failure with the place of the setting that it is about, if that is known: the flag that it names first, or else
    /// one whose value it repeats.
    pub(in crate::cli) fn located(&self, failure: Failure) -> Failure {
        let text = failure.in_words();
        let by_name = first_flag(&text).map(|name| self.all.get(name));
        let place = by_name.unwrap_or_else(|| {
            let is_in = |value: &String| value.len() >= TELLING && text.contains(value.as_str());
            self.all.values().find(|place| place.values.iter().any(is_in))
        });
        match place {
            Some(Place { line, .. }) => {
                Failure { error: anyhow!("{}:{line}: {text}", self.file.display()), code: failure.code }
            }
            None => failure,
        }
    }

    /// What to say of a file that others can change, or read although it holds a secret. Blocks.
    pub(in crate::cli) fn warning(&self) -> Option<String> {
        let exposed = if self.has_secret { Exposed::of(&self.file) } else { Exposed::of_public(&self.file) };
        (!exposed.is_none()).then(|| exposed.warning(&self.file).to_string())
    }
}

/// The first flag in a text, without its `--`.
fn first_flag(text: &str) -> Option<&str> {
    let begins = |at: &usize| text[..*at].chars().next_back().is_none_or(|before| " `\"(\n".contains(before));
    let at = text.match_indices("--").map(|(at, _)| at).find(begins)?;
    let name = &text[at + 2..];
    let ends = name.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-').unwrap_or(name.len());
    Some(&name[..ends]).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_where_its_setting_is() {
        let mut places = Places::of(Path::new("h3cast.toml"));
        places.add("public", 3, vec!["log".into()], false);
        places.add("cert", 5, vec!["mine.pem".into()], false);
        for (text, expected) in [
            ("--public has no effect without --tokens", "h3cast.toml:3: --public has no effect without --tokens"),
            ("--tokens: none, give --public", "--tokens: none, give --public"),
            ("cannot read mine.pem: log", "h3cast.toml:5: cannot read mine.pem: log"),
            ("nothing of it", "nothing of it"),
            ("--public-a is another", "--public-a is another"),
        ] {
            assert_eq!(places.located(Failure::usage(anyhow!(text))).in_words(), expected);
        }
    }
}
