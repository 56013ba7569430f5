//! The proxy's queries to the resolvers carry its mark, by which rules know them.

use anyhow::Result;
use e2e::RunAs;

use super::{Town, TownWith};

#[test]
fn queries_to_resolvers_carry_the_mark_of_the_proxy() -> Result<()> {
    let town = Town::create_with(&TownWith {
        who: RunAs::ProxyNetAdmin,
        arguments: &["--mark", "0x777"],
    })?;
    for transport in ["udp", "tcp"] {
        let unmarked =
            format!("-A OUTPUT -o eth0 -p {transport} --dport 53 -m mark ! --mark 0x777 -j REJECT");
        town.client.run("iptables", unmarked.split(' '))?;
    }
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(town.dig(&[transport, "db.example.com"])?, "192.0.2.7\n");
        // The rules are in force: without the mark there is no way to the resolver.
        let resolver = format!("@{}", town.resolver.v4);
        let direct = ["+tries=1", "+time=30", transport, &resolver, "db.example.com"];
        let refused = town.client.try_run(RunAs::Application, "dig", direct)?;
        assert!(!refused.status.success(), "{refused:?}");
    }
    Ok(())
}
