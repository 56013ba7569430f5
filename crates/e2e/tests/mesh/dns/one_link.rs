//! A server of one link alone: whoever asks it has its socket bound to the link's device, so that its look-ups go
//! past the capture, and are answered.

use anyhow::{Context, Result, ensure};
use e2e::{Pod, RunAs, eventually, weir};

use super::Town;

/// Its address on `eth0`, in `fe80::/10`, with the client's device as its zone.
fn of_link(pod: &Pod) -> Result<String> {
    let addresses = "-6 -o addr show dev eth0 scope link";
    eventually("an address of the link", || {
        let text = pod.run("ip", addresses.split(' ')).ok()?.text();
        if text.contains("tentative") {
            return None;
        }
        let address = text.split_whitespace().find(|word| word.starts_with("fe80"))?;
        Some(format!("{}%eth0", address.split('/').next()?))
    })
}

#[test]
fn look_ups_at_a_server_of_one_link_go_direct() -> Result<()> {
    let town = Town::create()?;
    let file = town.resolv_conf.to_string_lossy();
    let server = of_link(&town.resolver)?;
    of_link(&town.client)?;
    for backend in ["nft", "iptables", "iptables-legacy"] {
        for closed in [&[][..], &["--dns-fail-closed"]] {
            let flags = [
                "init",
                "--sidecar",
                "--redirect-dns",
                "--capture-all-dns",
                "--resolv-conf",
                &file,
            ];
            let all = [&flags[..], &["--backend", backend], closed].concat();
            weir::run(&town.client, &all)?;
            let dig = |server: &str, transport| {
                let asked = [&format!("@{server}"), "+short", "+tries=2", "+time=10", transport];
                let names = ["db.example.com", "web.mesh"];
                let said =
                    town.client
                        .run_as(RunAs::Application, "dig", asked.iter().copied().chain(names))?;
                Ok::<_, anyhow::Error>(said.text())
            };
            eventually("look-ups that are captured", || {
                let said = dig(&town.resolver.v6.to_string(), "+notcp").ok()?;
                said.contains("10.96.0.1").then_some(())
            })
            .with_context(|| backend.to_owned())?;
            for transport in ["+notcp", "+tcp"] {
                let said = dig(&server, transport)?;
                ensure!(
                    said.lines()
                        .filter(|line| !line.starts_with(';'))
                        .eq(["192.0.2.7"]),
                    "{backend} {closed:?} {transport}: {said}"
                );
            }
        }
    }
    Ok(())
}
