//! The proxy recognised by its cgroup: a real one by that alone, and again after its cgroup was made anew, which
//! the kernel's match does not notice and no dump shows.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Result;
use e2e::manifests::Port;
use e2e::weir::{self, Sidecar};
use e2e::{Cgroup, Finished, Maker, Mesh, Net, Pod, RunAs, servers};
use model::ports::OUTBOUND;
use socket2::{Domain, Type};

const BACKENDS: [&str; 3] = ["iptables-nft", "iptables-legacy", "nft"];

fn init(pod: &Pod, backend: &str, arguments: &[&str]) -> Result<Finished> {
    let mut all = vec!["init", "--backend", backend];
    all.extend(arguments);
    weir::run(pod, &all)
}

#[test]
fn a_proxy_of_the_applications_own_user_is_known_by_its_cgroup_alone() -> Result<()> {
    for backend in BACKENDS {
        let mesh = Mesh::create()?;
        let cgroup = Cgroup::create()?;
        let server = mesh.pod("server", "server")?;
        let _nginx = servers::nginx(&server, mesh.dir(), 8080, "location / { return 200 hello; }")?;
        let addresses = mesh.service("web", 1, &[Port::new("http", 80, 8080)], &[&server])?;
        let client = mesh.pod("client", "client")?;
        let said = init(&client, backend, &["--sidecar", "--proxy-cgroup", &cgroup.path])?.text();
        assert!(
            said.contains(&format!("cgroup {} (left alone)", cgroup.path)),
            "{said}"
        );
        let _sidecar = Sidecar::proxy_in(
            Some(&cgroup.entering()),
            RunAs::Application,
            &client,
            &mesh.manifests,
            &[],
        )?;
        for address in addresses {
            let url = format!("http://{}/", SocketAddr::new(address, 80));
            // Nobody but the proxy knows the way to a service's address.
            let answer = client.run_as(RunAs::Application, "curl", ["-gsSf", "--max-time", "20", &url])?;
            assert_eq!(answer.text(), "hello", "{backend} {url}");
        }
    }
    Ok(())
}

/// Nobody has this address: a connection comes about only where it is captured.
const NOWHERE: &str = "192.0.2.1:80";

/// Whether a connection that is made there is captured.
fn is_captured(pod: &Pod, cgroup: &Cgroup) -> Result<bool> {
    let maker = Maker::start(pod, cgroup)?;
    let sockets = maker.sockets(&[(Domain::IPV4, Type::STREAM)])?;
    let to: SocketAddr = NOWHERE.parse()?;
    Ok(sockets[0]
        .connect_timeout(&to.into(), Duration::from_secs(20))
        .is_ok())
}

#[test]
fn a_cgroup_made_anew_is_found_and_recognised_again() -> Result<()> {
    let net = Net::create()?;
    for backend in BACKENDS {
        let (pod, cgroup) = (net.pod(backend)?, Cgroup::create()?);
        let _proxy = pod.within(|| TcpListener::bind(("0.0.0.0", OUTBOUND)))??;
        let arguments = ["-i", "*", "--proxy-cgroup", &cgroup.path, "--reconcile"];
        init(&pod, backend, &arguments)?;
        assert!(!is_captured(&pod, &cgroup)?, "{backend}");
        let said = init(&pod, backend, &arguments)?.text();
        assert!(said.contains("Nothing to do"), "{backend}: {said}");

        cgroup.make_anew()?;
        assert!(
            is_captured(&pod, &cgroup)?,
            "{backend}: a match holds on to a cgroup that is gone"
        );
        let said = init(&pod, backend, &arguments)?.text();
        assert!(said.starts_with("Captured"), "{backend}: {said}");
        assert!(!is_captured(&pod, &cgroup)?, "{backend}");
        let said = init(&pod, backend, &arguments)?.text();
        assert!(said.contains("Nothing to do"), "{backend}: {said}");

        cgroup.remove()?;
        let said = pod.try_run(
            RunAs::Root,
            &weir::binary()?.to_string_lossy(),
            ["init", "--cleanup"],
        )?;
        assert!(said.status.success(), "{backend}: {}", said.errors());
    }
    Ok(())
}

#[test]
fn what_is_not_there_is_told_with_all_else_and_nothing_is_written() -> Result<()> {
    let net = Net::create()?;
    for backend in BACKENDS {
        let pod = net.pod(backend)?;
        let arguments = [
            "init",
            "--sidecar",
            "--backend",
            backend,
            "--proxy-cgroup",
            "no/such,nor/this",
        ];
        let said = pod.try_run(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
        assert!(!said.status.success());
        for why in [
            "--proxy-cgroup: no/such: there is no such cgroup",
            "--proxy-cgroup: nor/this: there is",
        ] {
            assert!(said.errors().contains(why), "{backend}: {}", said.errors());
        }
        assert_eq!(pod.run("nft", ["list", "ruleset"])?.text(), "", "{backend}");
    }
    Ok(())
}
