//! `weir run`, as a person at a laptop uses it: real commands in a network of their own, as root and as an
//! ordinary user, in front of real servers.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod clients;
mod confined;
mod identity;
mod inbound;
mod journey;
mod life;
mod loopback;
mod names;
mod resolvers;
mod traffic;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::manifests::Port;
use e2e::mesh::Mesh;
use e2e::{Finished, Pod, Program, RunAs, servers};
use tempfile::TempDir;

/// Whoever runs a test twice runs it as these.
const BOTH: [RunAs; 2] = [RunAs::Root, RunAs::Application];

/// A laptop and two web servers behind the service `web` (10.96.0.1 and fd00:96::1, port 80).
struct Laptop {
    mesh: Mesh,
    pod: Pod,
    /// A directory that every user can read and write.
    shared: TempDir,
    weir: PathBuf,
    _servers: Vec<Program>,
}

impl Laptop {
    fn create() -> Result<Self> {
        let mesh = Mesh::create()?;
        let pod = mesh.net.pod("laptop")?;
        let web = [mesh.pod("web-1", "web")?, mesh.pod("web-2", "web")?];
        mesh.service("web", 1, &[Port::new("http", 80, 8080)], &[&web[0], &web[1]])?;
        let mut servers = vec![];
        for pod in &web {
            let inside = format!("location / {{ return 200 {}; }}", pod.name);
            servers.push(servers::nginx(pod, mesh.dir(), 8080, &inside)?);
        }
        let shared = tempfile::tempdir()?;
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777))?;
        // The build may lie where other users cannot go.
        let weir = shared.path().join("weir");
        // By a process of its own: a program that is being written when another test's thread forks is busy.
        let copied = Command::new("cp").arg(e2e::weir::binary()?).arg(&weir).status()?;
        ensure!(copied.success(), "copying weir: {copied}");
        Ok(Self {
            mesh,
            pod,
            shared,
            weir,
            _servers: servers,
        })
    }

    fn arguments(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let manifests = self.mesh.manifests.path().to_str().unwrap();
        let all = [&["run", "--manifests", manifests], options, &["--"], command].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    /// `weir run OPTIONS -- COMMAND` to its end.
    fn run_with(&self, who: RunAs, options: &[&str], command: &[&str]) -> Result<Finished> {
        self.pod
            .try_run(who, self.weir.to_str().unwrap(), self.arguments(options, command))
    }

    /// `weir run -- COMMAND` to its end.
    fn run(&self, who: RunAs, command: &[&str]) -> Result<Finished> {
        self.run_with(who, &[], command)
    }

    /// `weir run -- sh -c SCRIPT`, which must succeed; its standard output.
    fn sh(&self, who: RunAs, script: &str) -> Result<String> {
        let finished = self.run(who, &["sh", "-c", script])?;
        assert!(finished.status.success(), "{script}: {finished:?}");
        Ok(finished.text())
    }

    /// `weir run -- COMMAND` in the background.
    fn start(&self, who: RunAs, command: &[&str]) -> Result<Program> {
        self.start_with(who, &[], command)
    }

    /// `weir run OPTIONS -- COMMAND` in the background.
    fn start_with(&self, who: RunAs, options: &[&str], command: &[&str]) -> Result<Program> {
        self.pod
            .start(who, self.weir.to_str().unwrap(), self.arguments(options, command))
    }
}
