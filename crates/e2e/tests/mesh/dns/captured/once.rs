//! By iptables, too, it is decided once for a packet whether it is captured: what the rules hear of the proxy while the
//! packet is on its way through them changes nothing.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::eventually;

use super::{ADDRESS, LONG, MESH, Town, address, ask, mesh_name, proxy, socket};

const BACKENDS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// Makes or takes away the sign of life when a look-up has passed the table `raw`, and `nat` has not seen it.
fn meddle(town: &Town, backend: &str, to: SocketAddr, what: &str) -> Result<()> {
    let (version, mask) = match to {
        SocketAddr::V4(_) => ("iptables", "0.0.0.0"),
        SocketAddr::V6(_) => ("ip6tables", "::"),
    };
    let program = backend.replace("iptables", version);
    let rule = format!(
        "-t mangle -A OUTPUT -p udp --dport 53 -m recent {what} --name WEIR_DNS --mask {mask} --rsource"
    );
    town.client.run(&program, rule.split(' ')).map(drop)
}

fn look_up(town: &Town, to: SocketAddr, name: &str) -> Result<Vec<u8>> {
    let asked = town.client.within(|| {
        let socket = socket(to)?;
        socket.set_read_timeout(Some(LONG))?;
        ask(&socket, 3, name)
    })?;
    Ok(asked?)
}

#[test]
fn a_sign_of_life_that_comes_or_goes_meanwhile_changes_nothing() -> Result<()> {
    for backend in BACKENDS {
        let town = Town::create()?;
        town.install(backend, &[])?;
        for to in town.resolver.at(53) {
            meddle(&town, backend, to, "--set")?;
            let answer =
                look_up(&town, to, "db.example.com").with_context(|| format!("{backend}: to nobody"))?;
            ensure!(address(&answer) == Some(ADDRESS), "{backend}: {answer:?}");
        }
        for program in ["iptables", "ip6tables"] {
            let program = backend.replace("iptables", program);
            town.client.run(&program, ["-t", "mangle", "-F", "OUTPUT"])?;
        }

        let _proxy = proxy(&town)?;
        mesh_name(&town, true)?;
        for to in town.resolver.at(53) {
            meddle(&town, backend, to, "--remove")?;
            // The sign before may have been long ago.
            eventually(&format!("{backend}: a captured look-up"), || {
                let answer = look_up(&town, to, "web.mesh").ok()?;
                (address(&answer) == Some(MESH)).then_some(())
            })?;
        }
    }
    Ok(())
}
