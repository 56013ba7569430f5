//! The binary: one subcommand each, arguments to configuration to a running composition.

#![forbid(unsafe_code)]

mod cmd;
mod errors;
mod servers;
mod sidecar;
mod socket;
mod version;

#[cfg(test)]
mod documents;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// glibc's allocator keeps what workers freed; this one gives it back and is as fast.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir diverts the traffic of an unmodified application through a proxy, transparently, and proves that
/// it did.
#[derive(Parser)]
#[command(name = "weir", version = version::SHORT, long_version = version::LONG)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Proxy(cmd::proxy::Args),
    Run(cmd::run::Args),
    Demo(cmd::demo::Args),
    Init(Box<cmd::init::Args>),
    Check(cmd::check::Args),
    Verify(Box<cmd::verify::Args>),
    Pc(cmd::pc::Args),
    Explain(Box<cmd::explain::Args>),
    Completions(cmd::completions::Args),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return mistaken(&error),
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            errors::print("weir", &error);
            ExitCode::FAILURE
        }
    }
}

/// Help, the version, or what is wrong with the arguments.
fn mistaken(error: &clap::Error) -> ExitCode {
    // Nobody is left to hear of a failure to print.
    let _ = error.print();
    if error.use_stderr() {
        eprintln!("[{}]", model::ErrorName::Usage);
    }
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    match u8::try_from(error.exit_code()) {
        Ok(0) => ExitCode::SUCCESS,
        // Any other could be taken for the command's.
        _ if is_run => ExitCode::from(cmd::run::FAILED),
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Proxy(args) => cmd::proxy::run(args),
        Command::Run(args) => cmd::run::run(args),
        Command::Demo(args) => cmd::demo::run(&args),
        Command::Init(args) => cmd::init::run(&args),
        Command::Check(args) => cmd::check::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Pc(args) => cmd::pc::run(args),
        Command::Explain(args) => cmd::explain::run(&args),
        Command::Completions(args) => cmd::completions::run(&args),
    }
}
