//! The binary: one subcommand each, arguments to configuration to a running composition.

#![forbid(unsafe_code)]

mod cmd;
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
    Pc(cmd::pc::Args),
    Completions(cmd::completions::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            // The one place where an error chain is printed.
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Proxy(args) => cmd::proxy::run(args),
        Command::Run(args) => cmd::run::run(args),
        Command::Demo(args) => cmd::demo::run(&args),
        Command::Init(args) => cmd::init::run(&args),
        Command::Pc(args) => cmd::pc::run(args),
        Command::Completions(args) => cmd::completions::run(&args),
    }
}
