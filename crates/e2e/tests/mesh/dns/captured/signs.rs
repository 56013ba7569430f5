//! The DNS proxy known to the rules by one sign alone: its mark, its class of net_cls, its cgroup of version 2. Its
//! signs of life count, what applications ask is captured, what it asks itself is not, and all of that ends with it.

use anyhow::{Context, Result, ensure};
use e2e::weir::Sidecar;
use e2e::{Cgroup, Class, RunAs};

use super::{ADDRESS, LONG, Town, address, ask, mesh_name, socket};

const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];
const CLASS: u32 = 0x10_0007;

/// Installs rules that know the proxy by that flag, starts the proxy, and sees to it that both work until it ends.
fn known_by(flag: &[&str; 2], start: impl Fn(&Town, &[&str]) -> Result<Sidecar>) -> Result<()> {
    for backend in BACKENDS {
        let town = Town::create()?;
        let file = town.resolv_conf.to_string_lossy();
        let said = town.install(backend, flag)?.text();
        ensure!(!said.contains("uid"), "{said}");
        let what = || format!("{backend} {flag:?}");
        let mut sidecar = start(&town, &["--dns", "--resolv-conf", &file]).with_context(what)?;
        mesh_name(&town, true).with_context(what)?;
        for to in town.resolver.at(53) {
            let asked = town.client.within(|| {
                let socket = socket(to)?;
                socket.set_read_timeout(Some(LONG))?;
                ask(&socket, 2, "db.example.com")
            })?;
            // Captured again and again, it would never come to the resolver.
            let answer = asked.with_context(what)?;
            ensure!(address(&answer) == Some(ADDRESS), "{}: {answer:?}", what());
        }
        sidecar.proxy.kill();
        mesh_name(&town, false).with_context(what)?;
    }
    Ok(())
}

#[test]
fn a_dns_proxy_is_known_by_its_mark_alone() -> Result<()> {
    known_by(&["--proxy-mark", "0x777"], |town, arguments| {
        let all = [arguments, &["--mark", "0x777"]].concat();
        Sidecar::proxy_as(RunAs::ProxyNetAdmin, &town.client, &town.mesh.manifests, &all)
    })
}

#[test]
fn a_dns_proxy_of_the_applications_own_user_is_known_by_its_cgroup_alone() -> Result<()> {
    let cgroup = Cgroup::create()?;
    known_by(&["--proxy-cgroup", &cgroup.path], |town, arguments| {
        by_its_own_user(&cgroup.entering(), town, arguments)
    })
}

#[test]
fn a_dns_proxy_of_the_applications_own_user_is_known_by_its_class_alone() -> Result<()> {
    let net = e2e::Net::create()?;
    let class = Class::create(&net.pod("keeper")?, CLASS)?;
    known_by(&["--proxy-class-id", &CLASS.to_string()], |town, arguments| {
        by_its_own_user(&class.entering(), town, arguments)
    })
}

/// As the applications' user, in a cgroup.
fn by_its_own_user(entering: &str, town: &Town, arguments: &[&str]) -> Result<Sidecar> {
    let (client, manifests) = (&town.client, &town.mesh.manifests);
    Sidecar::proxy_in(Some(entering), RunAs::Application, client, manifests, arguments)
}
