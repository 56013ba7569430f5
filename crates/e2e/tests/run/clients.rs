//! Real clients, none of which knows of a mesh.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::manifests::Port;
use e2e::{RunAs, servers};

use crate::{BOTH, Laptop};

#[test]
fn curl_wget_python_and_node() -> Result<()> {
    let laptop = Laptop::create()?;
    let url = "http://web.mesh/";
    let python = format!("import urllib.request as r; print(r.urlopen('{url}').read().decode())");
    let node = format!("fetch('{url}').then(a => a.text()).then(t => console.log(t))");
    let clients: [&[&str]; 4] = [
        &["curl", "-sf", url],
        &["wget", "-qO-", url],
        &["python3", "-c", &python],
        &["node", "-e", &node],
    ];
    for who in BOTH {
        for client in clients {
            let finished = laptop.run(who, client)?;
            assert!(
                finished.text().starts_with("web-"),
                "{who:?}: {client:?}: {finished:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn git_clones_and_fetches() -> Result<()> {
    let laptop = Laptop::create()?;
    let files = laptop.mesh.dir().join("git");
    fs::create_dir(&files)?;
    shell(
        &files,
        "git init -q -b main work && cd work && git config user.email a@example.org && git config user.name a && \
         seq 200000 > numbers && git add . && git commit -qm one && cd .. && git clone -q --bare work repo.git && \
         git -C repo.git update-server-info",
    )?;
    let pod = laptop.mesh.pod("git-1", "git")?;
    let inside = format!("location / {{ root {}; }}", files.display());
    let _server = servers::nginx(&pod, laptop.mesh.dir(), 8080, &inside)?;
    laptop
        .mesh
        .service("git", 2, &[Port::new("http", 80, 8080)], &[&pod])?;
    let clone = laptop.shared.path().join("clone");
    let script = format!(
        "git clone -q http://git.mesh/repo.git {0} && git -C {0} fetch -q && wc -l < {0}/numbers",
        clone.display()
    );
    assert_eq!(laptop.sh(RunAs::Application, &script)?.trim(), "200000");
    Ok(())
}

#[test]
fn apt_updates_and_downloads() -> Result<()> {
    let laptop = Laptop::create()?;
    let files = laptop.mesh.dir().join("apt");
    fs::create_dir_all(files.join("hello/DEBIAN"))?;
    fs::write(
        files.join("hello/DEBIAN/control"),
        "Package: weir-hello\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a test\n",
    )?;
    shell(
        &files,
        "dpkg-deb --build hello weir-hello_1_all.deb > /dev/null && dpkg-scanpackages . > Packages 2> /dev/null",
    )?;
    let pod = laptop.mesh.pod("apt-1", "apt")?;
    let inside = format!("location / {{ root {}; }}", files.display());
    let _server = servers::nginx(&pod, laptop.mesh.dir(), 8080, &inside)?;
    laptop
        .mesh
        .service("apt", 3, &[Port::new("http", 80, 8080)], &[&pod])?;
    for who in BOTH {
        let state = laptop.shared.path().join(format!("apt-{who:?}"));
        // A machine's apt of its own: its lists, its cache, its sources; the system's are not touched.
        let script = format!(
            "mkdir -p $0/lists/partial $0/cache/archives/partial $0/download && cd $0/download && \
             echo 'deb [trusted=yes] http://apt.mesh/ ./' > $0/sources.list && \
             apt='apt-get -qq -o Dir::State=$0 -o Dir::State::lists=$0/lists -o Dir::Cache=$0/cache \
             -o Dir::Etc::sourcelist=$0/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=/dev/null \
             -o APT::Sandbox::User={}' && \
             eval \"$apt update\" && eval \"$apt download weir-hello\" && ls",
            if who == RunAs::Root { "_apt" } else { "''" }
        );
        fs::create_dir(&state)?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777))?;
        let finished = laptop.run(who, &["sh", "-c", &script, state.to_str().unwrap()])?;
        assert!(
            finished.text().contains("weir-hello_1_all.deb"),
            "{who:?}: {finished:?}"
        );
    }
    Ok(())
}

#[test]
fn a_shell_script_of_several_commands() -> Result<()> {
    let laptop = Laptop::create()?;
    let script = "set -e\nfor i in 1 2 3; do curl -sf http://web/ > /dev/null; done\n\
                  (curl -sf http://web.mesh/ & curl -sf http://web.mesh/ & wait) > /dev/null\n\
                  echo a | grep -q a && echo done";
    assert_eq!(laptop.sh(RunAs::Application, script)?, "done\n");
    Ok(())
}

/// Runs a script outside, in a directory.
fn shell(directory: &Path, script: &str) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .status()?;
    ensure!(status.success(), "{script}: {status}");
    Ok(())
}
