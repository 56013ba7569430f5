//! Weir in a pod: the binary found or built, the rules put in by `weir init`, the sidecar running as 1337.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use model::ports::{HEALTH, INBOUND, OUTBOUND};

use crate::manifests::{Manifests, NAMESPACE};
use crate::net::Pod;
use crate::program::{Finished, Program, RunAs};
use crate::wait::eventually;

/// The `weir` program: what `WEIR_BIN` names, else the one beside this test, built first.
///
/// # Errors
/// Where it cannot be built.
pub fn binary() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    let test = env::current_exe()?;
    let profile = test
        .ancestors()
        .find(|dir| dir.ends_with("debug") || dir.ends_with("release"))
        .with_context(|| format!("{} is in no target directory: set WEIR_BIN", test.display()))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "weir"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    ensure!(
        build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success(),
        "building weir failed; set WEIR_BIN to one that is built"
    );
    Ok(profile.join("weir"))
}

/// Runs `weir ARGUMENTS` inside as root to its end; an error where it fails.
///
/// # Errors
/// As [`Pod::run`].
pub fn run(pod: &Pod, arguments: &[&str]) -> Result<Finished> {
    pod.run(&binary()?.to_string_lossy(), arguments)
}

/// The sidecar of a pod: rules in, proxy running and ready. Dropping it kills the proxy; the rules stay.
#[derive(Debug)]
pub struct Sidecar {
    /// The proxy itself.
    pub proxy: Program,
}

impl Sidecar {
    /// `weir init --sidecar`, then `weir proxy` as 1337 without any capability, until it is ready.
    ///
    /// # Errors
    /// With what either of them said.
    pub fn start(pod: &Pod, manifests: &Manifests) -> Result<Self> {
        Self::start_with(pod, manifests, &[])
    }

    /// As [`Sidecar::start`], with arguments for `weir proxy`.
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub fn start_with(pod: &Pod, manifests: &Manifests, arguments: &[&str]) -> Result<Self> {
        run(pod, &["init", "--sidecar"])?;
        Self::proxy_alone(pod, manifests, arguments)
    }

    /// The proxy without rules.
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub fn proxy_alone(pod: &Pod, manifests: &Manifests, arguments: &[&str]) -> Result<Self> {
        Self::proxy_as(RunAs::Proxy, pod, manifests, arguments)
    }

    /// As [`Sidecar::proxy_alone`], by somebody who may need to be able to do more.
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub fn proxy_as(who: RunAs, pod: &Pod, manifests: &Manifests, arguments: &[&str]) -> Result<Self> {
        Self::proxy_in(None, who, pod, manifests, arguments)
    }

    /// As [`Sidecar::proxy_as`], in a cgroup.
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub fn proxy_in(
        entering: Option<&str>,
        who: RunAs,
        pod: &Pod,
        manifests: &Manifests,
        arguments: &[&str],
    ) -> Result<Self> {
        let binary = binary()?;
        let folder = manifests.path().to_string_lossy();
        let own = format!("{NAMESPACE}/{}", pod.name);
        let mut all = vec!["proxy", "--manifests", &folder, "--as", &own];
        all.extend(arguments);
        let mut proxy = pod.start_file_in(entering, who, &binary, &[], all)?;
        pod.wait_listening(OUTBOUND)?;
        pod.wait_listening(INBOUND)?;
        let url = format!("http://127.0.0.1:{HEALTH}/healthz/ready");
        let ready = eventually("the proxy to be ready", || {
            let asked = pod.run_as(RunAs::Proxy, "curl", ["-sf", &url]);
            (asked.is_ok() || proxy.ended().is_some()).then_some(())
        });
        ready.with_context(|| proxy.said())?;
        if let Some(status) = proxy.ended() {
            return Err(anyhow!("weir proxy: {status}\n{}", proxy.said()));
        }
        Ok(Self { proxy })
    }
}
