//! What is rendered is what the kernel then holds: applied, dumped and parsed, on both variants of iptables.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use netsys::netns::Netns;
use netsys::rules::{Backend, Programs, apply, dump};
use rules::{Facts, Family, Intent, Plan, SocketMark, plan, render};

fn contained() -> Result<Plan> {
    let own: Vec<IpAddr> = vec!["100.64.0.2".parse()?, "fd00:77::2".parse()?];
    let intent = Intent::contained(own, Some(SocketMark::exact(0x77)));
    plan(&intent, &Facts::fresh(&Family::ALL)).map_err(|mistakes| anyhow!("{mistakes:?}"))
}

#[test]
fn a_dump_is_what_was_rendered_and_a_second_run_changes_nothing() -> Result<()> {
    for wanted in render(&contained()?) {
        for backend in [Backend::IptablesNft, Backend::IptablesLegacy] {
            let programs =
                Programs::find(wanted.family, backend).context("both variants must be installed")?;
            Netns::create()?.run(|| -> Result<()> {
                let first = apply(&programs, &dump(&programs)?, &wanted)?;
                assert!(!first.is_empty());
                assert_eq!(dump(&programs)?.own(), wanted);
                let second = apply(&programs, &dump(&programs)?, &wanted)?;
                assert!(second.is_empty(), "{second}");
                Ok(())
            })??;
        }
    }
    Ok(())
}
