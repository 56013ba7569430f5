//! Rules that are replaced by others, again and again, lose no look-up and let none go past the proxy.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Pod;

use super::{LONG, MESH, Town, address, ask, mesh_name, proxy, socket};

/// How often the rules are replaced.
const REPLACEMENTS: usize = 10;
/// Between two look-ups of a client, so that the machine gets to replace rules.
const PAUSE: Duration = Duration::from_micros(500);

/// Looks a name of the mesh up, one time after the other, by sockets of its own and by one that it keeps; the
/// resolver that it asks does not know that name.
fn look_up(to: SocketAddr, end: &AtomicBool) -> Result<u32> {
    let patient = || -> std::io::Result<UdpSocket> {
        let socket = socket(to)?;
        socket.set_read_timeout(Some(LONG))?;
        Ok(socket)
    };
    let kept = patient()?;
    let mut count = 0;
    while !end.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
        for (socket, how) in [(&patient()?, "a new socket"), (&kept, "a kept socket")] {
            count += 1;
            let id = u16::try_from(count & 0xffff)?;
            let answer =
                ask(socket, id, "web.mesh").with_context(|| format!("look-up {count} of {to} by {how}"))?;
            ensure!(
                address(&answer) == Some(MESH),
                "look-up {count} of {to} by {how} went direct"
            );
        }
    }
    Ok(count)
}

fn install(town: &Town, backend: &str, excluded_port: &str) -> Result<()> {
    town.install(backend, &["-o", excluded_port]).map(drop)
}

fn replaced(backend: &str) -> Result<()> {
    let town = Town::create()?;
    install(&town, backend, "22")?;
    let _proxy = proxy(&town)?;
    mesh_name(&town, true)?;
    let (end, pod): (_, &Pod) = (&AtomicBool::new(false), &town.client);
    let look_ups = thread::scope(|scope| {
        let clients = town
            .resolver
            .at(53)
            .map(|to| scope.spawn(move || pod.within(|| look_up(to, end))));
        let replaced =
            (0..REPLACEMENTS).try_for_each(|round| install(&town, backend, ["23", "22"][round % 2]));
        end.store(true, Ordering::Relaxed);
        let counts = clients.map(|client| {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??
        });
        let counts: Vec<u32> = counts.into_iter().collect::<Result<_>>()?;
        replaced.map(|()| counts)
    })
    .with_context(|| backend.to_owned())?;
    ensure!(
        look_ups.iter().all(|count| *count > 0),
        "{backend}: {look_ups:?} look-ups"
    );
    Ok(())
}

#[test]
fn no_look_up_is_lost_or_goes_direct_while_rules_are_replaced() -> Result<()> {
    ["nft", "iptables-nft", "iptables-legacy"]
        .into_iter()
        .try_for_each(replaced)
}
