//! Real servers, each an instance of its own with its files in a directory of the test's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::net::Pod;
use crate::program::{APP_ID, Program, RunAs};

/// nginx with one worker on a port of both families; `inside` is what stands in its `server { }` block,
/// such as `location / { return 200 hello; }`. It is listening when this returns.
///
/// # Errors
/// Where `dir` is not writable, nginx is missing, or the port is taken.
pub fn nginx(pod: &Pod, dir: &Path, port: u16, inside: &str) -> Result<Program> {
    let http = format!("server {{ listen {port}; listen [::]:{port}; {inside} }}");
    let nginx = nginx_with(pod, dir, "worker_processes 1;", &http)?;
    pod.wait_listening(port)?;
    Ok(nginx)
}

/// nginx with main-level directives and a whole `http` block of your own. Wait for it with
/// [`Pod::wait_listening`].
///
/// # Errors
/// As [`nginx`].
pub fn nginx_with(pod: &Pod, dir: &Path, main: &str, http: &str) -> Result<Program> {
    let at = dir.display();
    let name = &pod.name;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{name}-{kind};\n"))
        .concat();
    let path = dir.join(format!("nginx-{name}.conf"));
    fs::write(
        &path,
        format!(
            "daemon off;\nuser root;\npid {at}/nginx-{name}.pid;\nerror_log stderr warn;\n{main}\n\
             events {{ worker_connections 8192; }}\n\
             http {{\naccess_log off;\ndefault_type text/plain;\nkeepalive_requests 1000000000;\n{temporary}{http}\n}}\n"
        ),
    )?;
    let path = path.to_str().context("a directory whose name is text")?;
    pod.start(RunAs::Root, "nginx", ["-e", "stderr", "-c", path])
}

/// Redis on every address of the pod, without persistence.
///
/// # Errors
/// Where Redis is missing or does not come up.
pub fn redis(pod: &Pod, dir: &Path, port: u16) -> Result<Program> {
    let port_text = port.to_string();
    let dir = dir.to_str().context("a directory whose name is text")?;
    let arguments = [
        "--port",
        &port_text,
        "--bind",
        "0.0.0.0",
        "::",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        dir,
    ];
    let redis = pod.start(RunAs::Root, "redis-server", arguments)?;
    pod.wait_listening(port)?;
    Ok(redis)
}

/// MariaDB on every address of the pod, with an empty data directory, letting everybody in.
///
/// # Errors
/// Where MariaDB is missing or does not come up.
pub fn mariadb(pod: &Pod, dir: &Path, port: u16) -> Result<Program> {
    let data = dir.join("mariadb");
    fs::create_dir(&data)?;
    let arguments = [
        "--no-defaults".to_owned(),
        "--user=root".to_owned(),
        "--skip-grant-tables".to_owned(),
        // Without the grant tables it would not listen by itself.
        "--skip-networking=0".to_owned(),
        format!("--datadir={}", data.display()),
        format!("--socket={}", dir.join("mariadb.sock").display()),
        "--bind-address=*".to_owned(),
        format!("--port={port}"),
    ];
    let mariadb = pod.start(RunAs::Root, "mariadbd", arguments)?;
    pod.wait_listening(port).with_context(|| mariadb.said())?;
    Ok(mariadb)
}

/// PostgreSQL on every address of the pod, with a new cluster, letting everybody in as `weir`.
///
/// # Errors
/// Where PostgreSQL is missing or does not come up.
pub fn postgres(pod: &Pod, dir: &Path, port: u16) -> Result<Program> {
    let data = dir.join("postgres");
    fs::create_dir(&data)?;
    std::os::unix::fs::chown(&data, Some(APP_ID), Some(APP_ID))?;
    open_to_all(dir)?;
    let data = data.display().to_string();
    let programs = postgres_programs()?;
    let program = |name: &str| programs.join(name).display().to_string();
    let init = ["-D", &data, "-U", "weir", "-A", "trust", "--no-sync"];
    pod.run_as(RunAs::Application, &program("initdb"), init)?;
    let all = "host all all all trust\n";
    fs::write(format!("{data}/pg_hba.conf"), all)?;
    let port_text = port.to_string();
    let arguments = ["-D", &data, "-p", &port_text, "-h", "*", "-k", &data, "-F"];
    let postgres = pod.start(RunAs::Application, &program("postgres"), arguments)?;
    pod.wait_listening(port).with_context(|| postgres.said())?;
    Ok(postgres)
}

/// Debian keeps the server's programs out of the `PATH`, in a directory for each version.
fn postgres_programs() -> Result<PathBuf> {
    const VERSIONS: &str = "/usr/lib/postgresql";
    let versions = fs::read_dir(VERSIONS).context("PostgreSQL is not installed")?;
    let found = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .find(|bin| bin.join("postgres").exists());
    found.context("PostgreSQL's server is not installed")
}

/// Lets programs that are not root enter the test's directory.
///
/// # Errors
/// Where it is not ours.
pub fn open_to_all(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// unbound on port 53 of both families, by UDP and TCP, that knows the `local-data` lines of `zone` and asks
/// nobody; as root.
///
/// # Errors
/// Where it does not start.
pub fn unbound(pod: &Pod, dir: &Path, zone: &str) -> Result<Program> {
    let conf = dir.join("unbound.conf");
    fs::write(
        &conf,
        format!(
            "server:\nusername: \"\"\nchroot: \"\"\npidfile: \"\"\ndirectory: \"{}\"\nuse-syslog: no\ndo-daemonize: no\n\
             interface: 0.0.0.0\ninterface: ::\naccess-control: 0.0.0.0/0 allow\naccess-control: ::/0 allow\nnum-threads: 1\n\
             module-config: \"iterator\"\nrrset-roundrobin: no\n{zone}remote-control:\ncontrol-enable: no\n",
            dir.display()
        ),
    )?;
    let conf = conf.to_string_lossy();
    let unbound = pod.start(RunAs::Root, "unbound", ["-d", "-c", &conf])?;
    pod.wait_listening(53).with_context(|| unbound.said())?;
    Ok(unbound)
}
