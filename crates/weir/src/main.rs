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

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// glibc's allocator keeps what workers freed; this one gives it back and is as fast.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir diverts the traffic of an unmodified application through a proxy, transparently, and proves that
/// it did.
#[derive(Parser)]
#[command(name = "weir", version = version::SHORT, long_version = version::LONG)]
#[command(after_help = "EXIT STATUS:\n  \
    0  done, and what was asked about is as it should be\n  \
    1  the answer is bad\n  \
    2  it could not be done, or the arguments say nothing; `weir run` has 125 for it, as its command may have any other\n\n\
Each subcommand's --help says more.")]
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

/// What logs, as a filter of the log names it: the crates that have something to say.
const LOGGING: &[&str] = &["weir", "proxy", "dns", "discovery", "runtime"];

/// It could not be done: neither a good answer nor a bad one.
const FAILED: u8 = 2;
/// Nobody reads what is printed, as a shell tells of a program that SIGPIPE ended.
const UNHEARD: u8 = 128 + 13;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(words(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => return mistaken(&error),
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) if errors::is_unheard(&error) => ExitCode::from(UNHEARD),
        Err(error) => {
            errors::print("weir", &error);
            ExitCode::from(FAILED)
        }
    }
}

/// Who asks how `help` is used wants help: clap takes the flag for the name of a subcommand.
fn words(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = all.collect();
    let asks = |word: &OsString| word == "-h" || word == "--help";
    let at = if words.get(1).is_some_and(|word| word == "pc") {
        2
    } else {
        1
    };
    if words.get(at).is_some_and(|word| word == "help") && words.get(at + 1).is_some_and(asks) {
        words.remove(at);
    }
    words
}

/// Help, the version, or what is wrong with the arguments.
fn mistaken(error: &clap::Error) -> ExitCode {
    print(error);
    // Nothing is wrong where help is what was missing.
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        errors::say(&format!("[{}]", model::ErrorName::Usage));
    }
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    match u8::try_from(error.exit_code()) {
        Ok(0) => ExitCode::SUCCESS,
        // Any other could be taken for the command's.
        _ if is_run => ExitCode::from(cmd::run::FAILED),
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::from(FAILED),
    }
}

fn print(error: &clap::Error) {
    if error.kind() != ErrorKind::ValueValidation {
        // Nobody is left to hear of a failure to print.
        let _ = error.print();
        return;
    }
    // As the standard library says it of a number.
    let text = match std::io::stderr().is_terminal() {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    let text = text.replace("invalid digit found in string", "a whole number is wanted");
    errors::say(text.trim_end());
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
