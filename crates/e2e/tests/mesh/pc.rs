//! Which proxy `weir pc` asks, where several namespaces have one: that of the namespace it runs in, or the one that
//! is named; and never another's without saying so.

use std::path::Path;

use anyhow::Result;
use e2e::{Finished, Mesh, Pod, Program, RunAs, eventually, weir};
use model::ports::{ADMIN, HEALTH};

/// `weir` as root inside, whose socket files are in `runtime`.
fn try_weir(pod: &Pod, runtime: &Path, arguments: &[&str]) -> Result<Finished> {
    let variable = format!("XDG_RUNTIME_DIR={}", runtime.display());
    let weir = weir::binary()?.to_string_lossy().into_owned();
    let all = [&[variable.as_str(), &weir, "pc"], arguments].concat();
    pod.try_run(RunAs::Root, "env", all)
}

/// A proxy of root's in this pod, ready.
fn proxy(mesh: &Mesh, pod: &Pod, runtime: &Path) -> Result<Program> {
    let own = format!("mesh/{}", pod.name);
    let folder = mesh.manifests.path().to_string_lossy();
    let runtime = runtime.to_string_lossy();
    let arguments = ["proxy", "--manifests", &folder, "--as", &own];
    let variables = [("XDG_RUNTIME_DIR", &*runtime)];
    let program = pod.start_file(RunAs::Root, &weir::binary()?, &variables, arguments)?;
    let url = format!("http://127.0.0.1:{HEALTH}/healthz/ready");
    eventually("the proxy to be ready", || pod.run("curl", ["-sf", &url]).ok())?;
    Ok(program)
}

/// Whose proxy told the listeners as JSON: `/config_dump` says it.
fn own(finished: &Finished) -> Result<String> {
    assert!(finished.status.success(), "{}", finished.errors());
    let dump: serde_json::Value = serde_json::from_slice(&finished.stdout)?;
    Ok(dump["own"]["name"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn each_namespace_has_its_own_and_another_is_told() -> Result<()> {
    let mesh = Mesh::create()?;
    let runtime = tempfile::tempdir()?;
    let [one, two] = [mesh.pod("one", "client")?, mesh.pod("two", "client")?];
    let without = mesh.net.pod("without")?;
    let pc = |pod: &Pod, arguments: &[&str]| try_weir(pod, runtime.path(), arguments);

    // Of another user in its own namespace, and root's in another one: the namespace's own is meant.
    let _sidecar = weir::Sidecar::proxy_alone(&one, &mesh.manifests, &[])?;
    let mut elsewhere = proxy(&mesh, &two, runtime.path())?;
    let found = pc(&one, &["dump"])?;
    assert_eq!((own(&found)?.as_str(), found.errors().as_str()), ("one", ""));
    let found = pc(&two, &["dump"])?;
    assert_eq!((own(&found)?.as_str(), found.errors().as_str()), ("two", ""));

    // Without one of its own, the only other is asked, and told.
    let id = elsewhere.id();
    let found = pc(&without, &["dump"])?;
    assert_eq!(own(&found)?, "two");
    let told =
        format!("weir: no proxy in this network namespace; this is the proxy of mesh/two, process {id}, in ");
    assert!(found.errors().starts_with(&told), "{}", found.errors());

    // All that root has, in a table.
    let listed = pc(&without, &["proxies"])?;
    let row = listed.text().lines().nth(1).unwrap_or_default().to_owned();
    assert!(
        listed.status.success() && row.starts_with(&format!("{id} ")) && row.contains("mesh/two"),
        "{row}"
    );

    // What a killed one leaves is no proxy, and is cleared away by the next.
    elsewhere.kill();
    let file = runtime.path().join(format!("weir/{id}.sock"));
    assert!(file.exists());
    let none = pc(&without, &["services"])?;
    assert_eq!(none.status.code(), Some(2));
    assert!(
        none.errors().contains("no running proxy found"),
        "{}",
        none.errors()
    );
    let _next = proxy(&mesh, &two, runtime.path())?;
    assert!(!file.exists());
    Ok(())
}

#[test]
fn root_asks_the_proxy_of_any_process() -> Result<()> {
    let mesh = Mesh::create()?;
    let runtime = tempfile::tempdir()?;
    let (client, sidecar) = mesh.client()?;
    let application = client.start(RunAs::Application, "sleep", ["60"])?;
    let node = mesh.net.pod("node")?;
    let pc = |arguments: &[&str]| try_weir(&node, runtime.path(), arguments);
    let [proxy, application] = [sidecar.proxy.id(), application.id()].map(|id| id.to_string());

    for named in [["--proxy", &proxy], ["--pid", &proxy]] {
        let found = pc(&[&["dump"][..], &named].concat())?;
        assert_eq!(
            (own(&found)?.as_str(), found.errors().as_str()),
            ("client", ""),
            "{named:?}"
        );
    }
    let found = pc(&["dump", "--pid", &application])?;
    assert_eq!(own(&found)?, "client");
    let told = format!(
        "weir: process {application} is no proxy; this is that of its network namespace: the proxy of mesh/client, process {proxy}\n"
    );
    assert_eq!(found.errors(), told);
    let found = pc(&["dump", "--netns", &client.path()])?;
    assert_eq!(own(&found)?, "client");

    let here = pc(&["dump", "--pid", &std::process::id().to_string()])?;
    assert_eq!(here.status.code(), Some(2));
    let error = format!(
        "no proxy answers in the network namespace of process {}",
        std::process::id()
    );
    assert!(here.errors().contains(&error), "{}", here.errors());
    let gone = pc(&["dump", "--pid", "4194305"])?;
    assert!(
        gone.errors().contains("there is no such process"),
        "{}",
        gone.errors()
    );
    assert!(
        here.errors().contains(&format!("127.0.0.1:{ADMIN}")),
        "{}",
        here.errors()
    );
    Ok(())
}
