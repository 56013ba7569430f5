//! Which proxy `weir pc` asks, where several namespaces have one: that of the namespace it runs in, or the one that
//! is named; and never another's without saying so.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use e2e::manifests::Port;
use e2e::{Finished, Mesh, Pod, Program, RunAs, eventually, servers, weir};
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

/// Runs `weir pc journey` of the pod's proxy until it is dropped.
fn watch(pod: &Pod, arguments: &[&str]) -> Result<Program> {
    let weir = weir::binary()?.to_string_lossy().into_owned();
    let all = [&["pc", "journey", "--proxy", "127.0.0.1:15000"], arguments].concat();
    pod.start(RunAs::Root, &weir, all)
}

#[test]
fn what_happens_is_told_to_whoever_watches() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    let ports = [Port::new("http", 80, 8080)];
    let web = mesh.service("web", 1, &ports, &[&server])?;
    let other = mesh.service("other", 2, &ports, &[&server])?;
    let (client, sidecar) = mesh.client()?;
    let ask = |to: IpAddr| {
        client.run_as(
            RunAs::Application,
            "curl",
            ["-sf", &format!("http://{}/", SocketAddr::new(to, 80))],
        )
    };

    let blocks = watch(&client, &[])?;
    let lines = watch(&client, &["--service", "other", "-o", "json"])?;
    // Who watches may need a moment to be there.
    eventually("a journey", || {
        ask(web[0]).ok()?;
        ask(other[0]).ok()?;
        let is_told = |program: &Program, word: &str| program.said().contains(word);
        (is_told(&blocks, "done      200") && is_told(&lines, "\"ended\"")).then_some(())
    })?;
    let said = blocks.said();
    for hop in [
        "→ 10.96.0.1:80  from ",
        "rule      not looked at from here",
        "service   web.mesh.svc",
        "answer    200 after ",
    ] {
        assert!(said.contains(hop), "{hop} is not in\n{said}");
    }
    let said = lines.said();
    let (last, _) = said.rsplit_once('\n').unwrap_or_default();
    let steps = last
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .collect::<Result<Vec<_>, _>>()?;
    let services: Vec<_> = steps
        .iter()
        .filter_map(|step| step["step"]["decided"]["service"].as_str())
        .collect();
    assert!(
        !services.is_empty() && services.iter().all(|name| name.starts_with("other.")),
        "{said}"
    );
    let captured = &steps[0]["step"]["captured"];
    assert!(
        captured["original_dst"] == "10.96.0.2:80" && steps[0]["at_us"].is_u64(),
        "{said}"
    );

    // Enough is enough, and who goes makes room.
    let two_more = [watch(&client, &[])?, watch(&client, &[])?];
    let weir = weir::binary()?.to_string_lossy().into_owned();
    let fifth = || {
        client.try_run(
            RunAs::Root,
            "timeout",
            ["5", &weir, "pc", "journey", "--proxy", "127.0.0.1:15000"],
        )
    };
    eventually("all four to be there", || {
        fifth()
            .ok()?
            .errors()
            .contains("enough follow already")
            .then_some(())
    })?;
    drop((two_more, blocks, lines));
    // Status 124 is that of `timeout`: it followed until then.
    eventually("room for another", || {
        (fifth().ok()?.status.code() == Some(124)).then_some(())
    })?;
    ask(web[0])?;
    drop(sidecar);
    Ok(())
}
