//! `h3cast completions`: what a shell needs to complete the words of this command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, print};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell whose completions to print.
    shell: Shell,
}

/// Prints the script of the shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "h3cast", &mut script);
    print(&String::from_utf8(script).map_err(Failure::running)?)
}
