//! A DNS proxy that the rules do not know: they lead its own look-ups back to it.

use anyhow::Result;
use e2e::{RunAs, weir};

use super::{Town, TownWith};

#[test]
fn look_ups_of_the_proxys_own_that_come_back_end_and_are_told() -> Result<()> {
    let town = Town::create_with(&TownWith {
        who: RunAs::Root,
        arguments: &[],
    })?;
    let file = town.resolv_conf.to_string_lossy();
    weir::run(
        &town.client,
        &[
            "init",
            "--sidecar",
            "--redirect-dns",
            "--dns-fail-closed",
            "--resolv-conf",
            &file,
        ],
    )?;
    let server = format!("@{}", town.resolver.v4);
    for transport in ["+notcp", "+tcp", "+notcp"] {
        for (name, expected) in [("db.example.com", "SERVFAIL"), ("web.mesh", "NOERROR")] {
            let asked = [&server, name, transport, "+tries=1", "+time=25"];
            let said = town.client.run_as(RunAs::Application, "dig", asked)?.text();
            assert!(
                said.contains(&format!("status: {expected}")),
                "{transport} {name}: {said}"
            );
        }
    }
    let log = town.sidecar.proxy.said();
    assert_eq!(log.matches("WEIR-LOOP").count(), 1, "{log}");
    Ok(())
}
