//! `weir completions SHELL`: a completion script on standard output.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use model::ErrorName;

use crate::errors::OrNamed;

/// Print a completion script for a shell
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell to complete in
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Not straight to standard output: it would panic where nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Arguments::command(), "weir", &mut script);
    let printed = io::stdout().write_all(&script);
    printed.or_named(ErrorName::Output, "cannot print")?;
    Ok(ExitCode::SUCCESS)
}
