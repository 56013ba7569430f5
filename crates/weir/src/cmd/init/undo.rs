//! `--host`: a process of its own that takes the change back unless it is confirmed in time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::Result;
use model::ErrorName;
use netsys::rules::Own;
use netsys::rules::undo::{Pending, confirm, encode};

use crate::errors::{OrNamed, fail};

/// What the process says when it waits; anything else is why it does not.
const WAITING: &str = "waiting";

/// A process that waits.
pub(super) struct Waiting {
    seconds: u64,
}

/// Starts it before anything is changed, with what is there now.
pub(super) fn start(own: &Own, seconds: u64) -> Result<Waiting> {
    let program = env::current_exe().or_named(ErrorName::System, "cannot find my own program")?;
    let mut child = Command::new(program)
        .args(["init", "--undo-after", &seconds.to_string()])
        // What this process was told by its environment is no business of the other.
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .or_named(
            ErrorName::Confirm,
            "cannot start the process that would undo the change",
        )?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(encode(own).as_bytes())?;
    }
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    match said.trim() {
        WAITING => Ok(Waiting { seconds }),
        "" => fail!(
            Confirm,
            "the process that would undo the change did not start, so nothing was changed"
        ),
        why => fail!(Confirm, "{why}"),
    }
}

impl Waiting {
    /// There is nothing to undo.
    pub(super) fn call_off(&self) {
        // Where it does not listen it is gone, and else it puts back what is there.
        let _ = confirm();
    }

    pub(super) fn how_to_confirm(&self, netns: Option<&str>) -> String {
        let netns = netns.map(|name| format!(" --netns {name}")).unwrap_or_default();
        format!(
            "This is undone in {} s unless you confirm it, best from a new connection:\n  weir init{netns} --confirm\n",
            self.seconds
        )
    }
}

/// What the process does.
pub(super) fn wait(seconds: u64) -> Result<()> {
    let mut before = String::new();
    io::stdin().read_to_string(&mut before)?;
    let pending = match Pending::arm(&before) {
        Ok(pending) => pending,
        Err(error) => {
            writeln!(io::stdout(), "{error}")?;
            return Ok(());
        }
    };
    writeln!(io::stdout(), "{WAITING}")?;
    if pending.wait(Duration::from_secs(seconds)).is_err() {
        // Somebody else was changing the rules for long, or a program failed: once more, and then it is
        // up to the operator.
        thread::sleep(Duration::from_secs(1));
        if let Ok(pending) = Pending::arm(&before) {
            pending.wait(Duration::ZERO)?;
        }
    }
    Ok(())
}
