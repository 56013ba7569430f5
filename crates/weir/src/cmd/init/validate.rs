//! `--run-validation`, as the injectors of Istio give it: what the flags ask for is verified before the proxy runs.
//! Where it is broken the exit status is the one that repair controllers look for.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use diagnose::place::Shell;
use diagnose::verify::{Outcome, Question, verify};
use model::ErrorName;

use super::{Args, say};
use crate::cmd::place;

/// As istio-iptables has it.
const BROKEN: u8 = 126;
/// Likewise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Verifies what was asked for, where that is asked for.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if !args.validates() {
        return Ok(ExitCode::SUCCESS);
    }
    let question = Question {
        intent: Some(args.intent()?),
        before_proxy: true,
        patience: PATIENCE,
        shell: args.netns().map_or_else(Shell::here, place::shell),
    };
    // Where it cannot be verified nothing is known to be broken: that is no reason to have the pod made anew.
    let report = verify(&question)?;
    say(&report.conclusion())?;
    if report.verdict != Outcome::Broken {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "weir: --run-validation: this namespace is not captured as asked [{}]",
        ErrorName::CaptureBroken
    );
    Ok(ExitCode::from(BROKEN))
}
