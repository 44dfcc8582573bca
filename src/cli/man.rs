//! `h3cast man`: a manual page for each command.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{Cli, Failure};
use crate::identity::rfc3339;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder to write to. It is created if it does not exist.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

/// Writes the pages.
pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    let written = || {
        std::fs::create_dir_all(dir)?;
        let (commands, date) = (commands(), date());
        let names: Vec<_> = commands.iter().map(name).collect();
        commands.iter().try_for_each(|command| {
            let others: Vec<_> = names.iter().copied().filter(|other| *other != name(command)).collect();
            std::fs::write(dir.join(format!("{}.1", name(command))), page(command, &others, &date)?)
        })
    };
    written().with_context(|| format!("cannot write the manual pages to {}", dir.display())).map_err(Failure::running)
}

/// Today, or what packagers set for reproducible builds:
/// <https://reproducible-builds.org/specs/source-date-epoch/>.
fn date() -> String {
    let set = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = set.map_or_else(SystemTime::now, |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    rfc3339(time).split('T').next().unwrap_or_default().to_owned()
}

/// The program and its commands.
fn commands() -> Vec<Command> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<_> = shown.cloned().map(with_usage).collect();
    // Its own flags are those of `serve`, which has a page for them.
    let program = with_usage(program).mut_args(|arg| arg.hide(true));
    [program].into_iter().chain(commands).collect()
}

/// With the usage of `--help`: the synopsis of clap_mangen lists every flag there is.
fn with_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    command.override_usage(usage.trim_start_matches("Usage: ").to_owned())
}

/// As in h3cast-serve.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, others: &[&str], date: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).title(name(command).to_uppercase()).date(date);
    let man = man.source(concat!("h3cast ", env!("CARGO_PKG_VERSION"))).manual("h3cast manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        // As it stands in `--help`: clap_mangen would run its lines into one paragraph.
        rest.control("SH", ["NOTES"]).control("nf", []);
        for line in text.to_string().lines() {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    let others: Vec<_> = others.iter().map(|name| format!("{name}(1)")).collect();
    rest.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    rest.to_writer(&mut page)?;
    // Before possible values clap_mangen has an empty line between two breaks, of which mandoc warns.
    Ok(String::from_utf8_lossy(&page).replace(".br\n\n.br\n", ".sp\n").into_bytes())
}
