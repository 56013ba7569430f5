//! Tells the program which commit and build it is: `WEIR_COMMIT` where packaging says it, else git,
//! else "unknown". Building needs no git.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let commit = env::var("WEIR_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!(
        "cargo::rustc-env=WEIR_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    for name in ["PROFILE", "TARGET"] {
        println!(
            "cargo::rustc-env=WEIR_{name}={}",
            env::var(name).unwrap_or_default()
        );
    }
    println!("cargo::rerun-if-env-changed=WEIR_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // Every commit and checkout adds a line there. A path that is missing would mean a run each time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
