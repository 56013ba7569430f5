//! `weir explain` names the cause of set-ups that are broken on purpose: each is made in a pod with its proxy, felt
//! by a real client, and explained by the real program. `UPDATE_DOCS=1` writes the transcripts of docs/explain.md.

mod broken;
mod files;
mod kernel;
mod proxies;
mod rulesets;
mod transcripts;
mod world;

use anyhow::{Result, ensure};

use self::broken::{SetUp, all};
use self::world::{Said, World};

#[test]
fn each_broken_set_up_is_felt_and_explained() -> Result<()> {
    let mut world = World::create()?;
    let mut transcripts = transcripts::Transcripts::default();
    let count = all().count();
    ensure!(count >= 30, "{count} set-ups");
    let mut wrong = vec![];
    for set_up in all() {
        if let Err(error) = check(&mut world, set_up, &mut transcripts) {
            wrong.push(format!("{}: {error:#}", set_up.name));
        }
    }
    // It fills the kernel's table, which takes a while, and leaves the pod cut off: so it comes last, for its
    // transcript; that it is told is tested beside the code.
    if transcripts::are_written()
        && let Err(error) = check(&mut world, &broken::CONNTRACK_FULL, &mut transcripts)
    {
        wrong.push(format!("{}: {error:#}", broken::CONNTRACK_FULL.name));
    }
    ensure!(
        wrong.is_empty(),
        "{} of {count}:\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    transcripts.finish()
}

fn check(world: &mut World, set_up: &SetUp, transcripts: &mut transcripts::Transcripts) -> Result<()> {
    world.reset(set_up.init)?;
    (set_up.make)(world)?;
    if let Some((curl, felt)) = set_up.felt {
        let found = world.curl(curl)?;
        ensure!(
            felt.split('|').any(|felt| felt == found),
            "curl {curl} ends with {found}, not {felt}"
        );
    }
    let (status, side, named) = set_up.explained;
    let said = world.until_said(set_up.explain, |said| said.status == status)?;
    ensure!(
        said.status == status && said.side() == side,
        "weir explain {} ends with {} and blames {:?}: {}",
        set_up.explain,
        said.status,
        said.side(),
        said.text
    );
    for words in named {
        ensure!(said.text.contains(words), "`{words}` is not in {}", said.text);
    }
    if let Some(title) = set_up.transcript {
        transcripts.take(world, title, set_up)?;
    }
    Ok(())
}

/// What is printed for people is short; -v has every rule; YAML is the same as JSON.
#[test]
fn every_form_of_the_output() -> Result<()> {
    let world = World::create()?;
    world.reset("--sidecar")?;
    let text = |more: &str| -> Result<Said> { world.explain_as(&format!("--to web.mesh:80 {more}")) };
    let short = text("")?;
    ensure!(
        short.status == 0 && short.text.starts_with("WORKS  web.mesh:80 at "),
        "{}",
        short.text
    );
    ensure!(short.text.lines().count() <= 18, "{}", short.text);
    let all = text("-v --family 4")?;
    ensure!(all.text.contains("Rules asked, in order"), "{}", all.text);
    ensure!(all.text.contains("but the uid is 1000"), "{}", all.text);
    let yaml = text("-o yaml")?;
    ensure!(yaml.text.contains("outcome: works"), "{}", yaml.text);
    for (wrong, says) in [
        ("--to web.mesh", "the port is missing"),
        ("--to web.mesh:99999", "99999 is no port"),
        (
            "--to web.mesh:80 --from netns:nope",
            "--from netns:nope: cannot open",
        ),
        ("", "an error's name, such as WEIR-PORT-IN-USE"),
        (
            "--to web.mesh:80 --from pod/mesh/nobody",
            "not found on this machine",
        ),
        ("--to web.mesh:80 --from pod:x", "write pod/NAMESPACE/NAME"),
        ("--to web.mesh:80 --rules /dev/null", "no table is in it"),
        ("--to web.mesh:80 --manifests /nowhere", "/nowhere"),
    ] {
        let said = world.explain_raw(wrong)?;
        ensure!(
            said.status == 2 && said.text.contains(says),
            "{wrong}: {} {}",
            said.status,
            said.text
        );
    }
    Ok(())
}

/// The pod is found by its proxy, and by its address once that is gone.
#[test]
fn a_pod_is_found_by_its_proxy_and_by_its_address() -> Result<()> {
    // All processes of the machine are looked at, those of other tests among them.
    let name = format!("client-{}", std::process::id());
    let mut world = World::with_client(&name)?;
    world.reset("--sidecar")?;
    let words = format!("--from pod/mesh/{name} --to web.mesh:80");
    let by_proxy = world.explain_raw(&words)?;
    ensure!(by_proxy.status == 0, "{}", by_proxy.text);
    world.kill_proxy();
    // Somebody must be in the namespace: it has no name.
    let _sleep = world.client.start(e2e::RunAs::Application, "sleep", ["1000"])?;
    // And by an address that no other test's pod has.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("100.64.{high}.{low}");
    world.run(&format!("ip addr add {address}/32 dev lo"))?;
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: elsewhere\nspec:\n  containers: []\n\
         status:\n  phase: Running\n  podIP: {address}\n  podIPs:\n  - ip: {address}\n"
    );
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("pod.yaml"), pod)?;
    let folder = folder.path().display();
    let words = format!("--from pod/elsewhere/{name} --to 192.0.2.9:80 --manifests {folder}");
    let by_address = world.explain_raw(&words)?;
    ensure!(
        by_address.status == 1 && by_address.text.contains("the proxy does not listen"),
        "{}",
        by_address.text
    );
    Ok(())
}

/// One connection is made and watched: it goes the way that is explained by every back-end, and where it cannot be said
/// beforehand the kernel tells. Nothing is left behind, and what a killed trace left is taken away.
#[test]
fn a_trace_shows_what_the_kernel_does() -> Result<()> {
    let world = World::create()?;
    for (backend, named) in [
        ("nft", "inet weir nat-output"),
        ("iptables-nft", "ip nat WEIR_OUTPUT"),
        ("iptables-legacy", "has counted it"),
    ] {
        world.reset(&format!("--sidecar --backend {backend}"))?;
        // As if an earlier one had been killed.
        world.nft("table inet weir-trace { chain output { type filter hook output priority -400; }; }")?;
        let said = world.explain_as("--to web.mesh:80 --family 4 --trace")?;
        ensure!(
            said.status == 0
                && said.text.contains("the kernel did with it what is explained")
                && said.text.contains(named),
            "{backend}: {}",
            said.text
        );
        let tables = world.client.run("nft", ["list tables"])?.text();
        ensure!(!tables.contains("weir-trace"), "{backend}: {tables}");
    }
    world.reset("--sidecar --backend iptables-nft")?;
    world.run("iptables-nft -t nat -I OUTPUT -p tcp -m recent --name nobody --rcheck -j ACCEPT")?;
    let said = world.explain_as("--to web.mesh:80 --family 4 --trace")?;
    ensure!(
        said.status == 3
            && said.text.contains("ip nat WEIR_OUTPUT")
            && said.text.contains("could not be said beforehand"),
        "{}",
        said.text
    );
    Ok(())
}

/// A trace that is killed leaves its table, which changes nothing of any connection, and the next one takes it away.
#[test]
fn what_a_killed_trace_leaves_is_harmless_and_goes_with_the_next() -> Result<()> {
    let mut world = World::create()?;
    world.reset("--sidecar")?;
    let before = world.client.run("nft", ["list ruleset"])?.text();
    // Nobody answers there, so that it waits.
    world.run("iptables-nft -A OUTPUT -d 192.0.2.9 -j DROP")?;
    let from = format!("netns:{}", world.client.path());
    let mut killed = std::process::Command::new(e2e::weir::binary()?)
        .args([
            "explain",
            "--from",
            &from,
            "--to",
            "192.0.2.9:80",
            "--uid",
            "1337",
            "--trace",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let tables = || Ok::<_, anyhow::Error>(world.client.run("nft", ["list tables"])?.text());
    e2e::eventually("the table of the trace", || {
        tables().ok()?.contains("weir-trace").then_some(())
    })?;
    killed.kill()?;
    killed.wait()?;
    world.run("iptables-nft -D OUTPUT -d 192.0.2.9 -j DROP")?;
    world.run("iptables-nft -X")?;
    world.run("nft delete table ip filter")?;
    let left = world.client.run("nft", ["list ruleset"])?.text();
    ensure!(left.contains("table inet weir-trace"), "{left}");
    let others = |text: &str| {
        let mut depth = 0;
        let mut kept = vec![];
        for line in text.lines() {
            if depth > 0 || line.starts_with("table inet weir-trace") {
                depth += line.matches('{').count();
                depth -= line.matches('}').count();
            } else if !line.contains("counter packets") {
                kept.push(line.to_owned());
            }
        }
        kept
    };
    ensure!(others(&left) == others(&before), "{left}");
    // Connections go on, and the rules that are explained are as before.
    ensure!(world.curl("http://10.96.0.1/")? == "200", "the connection fails");
    let said = world.explain_as("--to web.mesh:80 --family 4 --trace")?;
    ensure!(
        said.status == 0 && said.text.contains("the kernel did with it what is explained"),
        "{}",
        said.text
    );
    ensure!(!tables()?.contains("weir-trace"), "it is still there");
    world.kill_proxy();
    Ok(())
}
