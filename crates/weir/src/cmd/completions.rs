//! `weir completions SHELL`: a completion script on standard output.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell to complete in
    shell: Shell,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every subcommand runs by the same signature"
)]
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    clap_complete::generate(
        args.shell,
        &mut crate::Arguments::command(),
        "weir",
        &mut io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}
