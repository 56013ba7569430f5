//! Who the command is, and how others find its proxy.

use anyhow::Result;
use e2e::{RunAs, eventually};
use rustix::process::Signal;

use crate::{BOTH, Laptop};

#[test]
fn as_a_pod_it_has_its_addresses_and_short_names() -> Result<()> {
    let laptop = Laptop::create()?;
    // A service of the same name elsewhere: the pod's own namespace decides.
    laptop.mesh.manifests.write(
        "other.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: other}\nspec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}\n",
    )?;
    let script = "ip -o addr show eth0 scope global | sed 's,.*inet6* \\([^/]*\\)/.*,\\1,' | sort; \
                  getent ahostsv4 web | head -n 1 | cut -d ' ' -f 1; curl -sf http://web/ > /dev/null && echo answered";
    for who in BOTH {
        let finished = laptop.run_with(who, &["--as", "mesh/web-1"], &["sh", "-c", script])?;
        assert_eq!(
            finished.text(),
            "10.77.0.2\nfd00:77::2\n10.96.0.1\nanswered\n",
            "{finished:?}"
        );
        // Without a pod, a name that two namespaces have is nobody's.
        let nobody = laptop.run(who, &["getent", "ahostsv4", "web"])?;
        assert!(!nobody.text().contains("10.96.0"), "{nobody:?}");
    }
    Ok(())
}

#[test]
fn pc_finds_it_from_outside_and_from_inside() -> Result<()> {
    let laptop = Laptop::create()?;
    let weir = laptop.weir.to_str().unwrap();
    let mut program = laptop.start(RunAs::Application, &["sh", "-c", "echo ready; exec sleep 1000"])?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    let id = program.id().to_string();
    let clusters = laptop
        .pod
        .run_as(RunAs::Application, weir, ["pc", "clusters", "--proxy", &id])?;
    assert!(
        clusters.text().contains("web.mesh.svc.cluster.local"),
        "{clusters:?}"
    );
    program.signal(Signal::TERM)?;
    program.wait()?;
    let inside = laptop.sh(
        RunAs::Application,
        &format!("{weir} pc endpoints --proxy $(ps -o ppid= -p $PPID)"),
    )?;
    assert!(inside.contains("10.77.0.2:8080"), "{inside}");
    Ok(())
}

/// As root, the machine's owner asks of the inside of somebody's `weir run`, by the pod that it runs as: the namespace,
/// the command's user, and the proxy that is outside.
#[test]
fn explain_finds_what_runs_inside_by_its_pod() -> Result<()> {
    let laptop = Laptop::create()?;
    let weir = laptop.weir.to_str().unwrap();
    // All processes of the machine are looked at, those of other tests among them.
    let name = format!("laptop-{}", std::process::id());
    laptop.mesh.manifests.write(
        "pod.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: mesh}}\nspec: {{containers: []}}\n\
             status: {{phase: Running, podIP: 10.77.0.99, podIPs: [{{ip: 10.77.0.99}}]}}\n"
        ),
    )?;
    let mut program = laptop.start_with(
        RunAs::Application,
        &["--as", &format!("mesh/{name}")],
        &["sh", "-c", "echo ready; exec sleep 1000"],
    )?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    for (from, to, says) in [
        (
            format!("pod:mesh/{name}"),
            "web.mesh:80",
            "by the proxy to 10.77.0.",
        ),
        (
            format!("pod/mesh/{name}"),
            "10.96.0.1:80",
            "as uid 1000, gid 1000, by eth0; process ",
        ),
        (format!("pod/mesh/{name}"), "web.mesh:80", "(sleep)"),
    ] {
        let words = ["explain", "--from", &from, "--to", to, "--family", "4"];
        let said = laptop.pod.run(weir, words)?.text();
        assert!(said.starts_with("WORKS") && said.contains(says), "{said}");
    }
    program.signal(Signal::TERM)?;
    program.wait()?;
    Ok(())
}

#[test]
fn changed_manifests_are_followed() -> Result<()> {
    let laptop = Laptop::create()?;
    let command = [
        "sh",
        "-c",
        "echo ready; until curl -sf http://10.96.0.50/; do sleep 0.05; done",
    ];
    let mut program = laptop.start(RunAs::Application, &command)?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    laptop.mesh.manifests.write(
        "late.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: mesh}\n\
         spec: {clusterIP: 10.96.0.50, ports: [{name: http, port: 80}]}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: late-1, namespace: mesh, labels: {kubernetes.io/service-name: late}}\n\
         ports: [{name: http, port: 8080, protocol: TCP}]\nendpoints: [{addresses: [10.77.0.2]}]\n",
    )?;
    assert_eq!(program.wait()?.code(), Some(0));
    assert!(program.said().contains("web-1"), "{}", program.said());
    Ok(())
}

/// By a name, so that there is no try too early: who knows the address has a route to it.
#[test]
fn what_changed_manifests_name_is_reachable_in_a_family_without_default_route() -> Result<()> {
    for (families, gone) in [
        ("some IPv6", &["-6 route del default"][..]),
        (
            "no IPv6",
            &["-6 route del default", "-6 addr flush dev eth0 scope global"],
        ),
        ("no default route", &["-6 route del default", "route del default"]),
    ] {
        let laptop = Laptop::create()?;
        for change in gone {
            laptop.pod.ip(change)?;
        }
        let script = "echo ready; for family in 4 6; do \
                      until getent ahostsv$family late.mesh | grep -qE '^(10.96.0.50|fd00:96::50) '; do sleep 0.02; done; \
                      curl -${family}sS http://late.mesh/ || exit 1; echo; done";
        for who in BOTH {
            let mut program = laptop.start(who, &["sh", "-c", script])?;
            eventually("the command", || program.said().contains("ready").then_some(()))?;
            laptop.mesh.manifests.write(
                "late.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: mesh}\n\
                 spec: {clusterIP: 10.96.0.50, clusterIPs: [10.96.0.50, 'fd00:96::50'], ports: [{name: http, port: 80}]}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: late-1, namespace: mesh, labels: {kubernetes.io/service-name: late}}\n\
                 ports: [{name: http, port: 8080, protocol: TCP}]\nendpoints: [{addresses: [10.77.0.2]}]\n",
            )?;
            let status = program.wait()?;
            assert_eq!(status.code(), Some(0), "{families}, {who:?}: {}", program.said());
            assert_eq!(
                program.said().matches("web-1").count(),
                2,
                "{families}: {}",
                program.said()
            );
            laptop.mesh.manifests.remove("late.yaml")?;
        }
    }
    Ok(())
}
