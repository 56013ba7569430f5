//! The proxy whose word counts is that of the client's namespace, and it may have nothing to say.

use anyhow::{Context, Result, ensure};
use e2e::RunAs;
use e2e::weir::{Sidecar, binary};
use rustix::process::Signal;

use super::world::{Said, World};

/// In the client's pod, as a user.
fn inside(world: &World, who: RunAs, words: &str) -> Result<Said> {
    let program = binary()?;
    let arguments = ["explain"].into_iter().chain(words.split(' '));
    let finished = world.client.try_run(who, &program.to_string_lossy(), arguments)?;
    Ok(Said {
        status: finished.status.code().unwrap_or(-1),
        text: format!("{}{}", finished.text(), finished.errors()),
    })
}

/// What the proxy of another namespace knows is not asked where this one's is gone.
#[test]
fn no_other_namespaces_proxy_answers() -> Result<()> {
    let mut world = World::create()?;
    world.reset("--sidecar")?;
    let other = world.mesh.pod("other", "other")?;
    let _proxy = Sidecar::proxy_alone(&other, &world.mesh.manifests, &[])?;
    // Who runs proxies as this user does sees them all.
    let said = inside(&world, RunAs::Proxy, "--to 10.96.0.1:80 --uid 1000")?;
    ensure!(said.text.contains("(of mesh/client)"), "{}", said.text);
    world.kill_proxy();
    let said = inside(&world, RunAs::Proxy, "--to 10.96.0.1:80 --uid 1000")?;
    ensure!(
        said.status == 3
            && !said.text.contains("mesh/other")
            && said.text.contains("nobody listens on port 15001"),
        "{} {}",
        said.status,
        said.text
    );
    let said = inside(&world, RunAs::Root, "--to web.mesh:80 --uid 1000")?;
    ensure!(
        said.status == 1 && said.side_of_text() == "proxy" && !said.text.contains("mesh/other"),
        "{} {}",
        said.status,
        said.text
    );
    Ok(())
}

/// A proxy that is stopped is neither dead nor well, by name and by address.
#[test]
fn a_proxy_that_hangs_is_to_blame() -> Result<()> {
    let world = World::create()?;
    world.reset("--sidecar --redirect-dns")?;
    let proxy = &world.sidecar.as_ref().context("a proxy")?.proxy;
    proxy.signal(Signal::STOP)?;
    for to in ["web.mesh:80", "10.96.0.1:80"] {
        let said = world.explain_as(&format!("--to {to}"))?;
        ensure!(
            said.status == 1
                && said.side_of_text() == "proxy"
                && said.text.contains("the proxy listens and does not answer")
                && said.text.contains("weir: waiting for the proxy"),
            "{to}: {} {}",
            said.status,
            said.text
        );
    }
    proxy.signal(Signal::CONT)?;
    let said = world.until_said("--to web.mesh:80 --family 4", |said| said.status == 0)?;
    ensure!(said.status == 0, "{}", said.text);
    Ok(())
}

/// Who may not read rules is told what the proxy knows, and that no more than that is known.
#[test]
fn without_root_the_registry_is_asked() -> Result<()> {
    let world = World::create()?;
    world.reset("--sidecar")?;
    for (to, named) in [
        ("10.96.0.1:80", "if they do: by the proxy to"),
        ("10.96.0.3:80", "if they do: the service has no endpoint"),
    ] {
        let said = inside(&world, RunAs::Application, &format!("--to {to}"))?;
        let flat = said.text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            said.status == 3 && flat.contains("the rules were not read") && flat.contains(named),
            "{to}: {} {}",
            said.status,
            said.text
        );
    }
    Ok(())
}
