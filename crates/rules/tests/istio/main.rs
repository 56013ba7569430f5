//! Standing in for istio-iptables: for the same flags, each packet has the same fate under Weir's rules
//! as under a rule set laid out as istio-iptables documents its own (see docs/istio-iptables.md), and as
//! under Weir's rules for nftables, which survive being printed and read back.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

mod packets;
mod setting;

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rules::plan::Facts;
use rules::ruleset::{Chain, Ruleset};
use rules::{Family, Fate, Packet, asked, evaluate, nft, parse, plan, render};

use self::packets::{packets, picked_up};
use self::setting::{setting, setting_of_any_mode};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_goes_the_same_way(setting in setting_of_any_mode()) {
        let intent = setting.flags().intent().unwrap();
        // Without a capture flag Weir installs nothing at all: written down as a difference.
        prop_assume!(!intent.captures_nothing());
        let plan = plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
        let native = nft::render(&plan);
        // A family without a rule has no table, and nothing is left of it in the text.
        let some: Vec<_> = native.iter().filter(|ruleset| !ruleset.tables.is_empty()).cloned().collect();
        for inet in [true, false] {
            let text = nft::transaction(&[], &native, inet);
            prop_assert_eq!(&nft::parse(&text), &some, "{}", text);
        }
        for (ours, native) in render(&plan).into_iter().zip(native) {
            let model = parse(ours.family, &setting.model(ours.family)).unwrap();
            let packets = packets().into_iter().filter(|packet| Family::of(packet.destination) == ours.family);
            for packet in picked_up().filter(|packet| Family::of(packet.destination) == ours.family).step_by(11) {
                // istio-iptables redirects them: written down as a difference.
                for ruleset in [&ours, &native] {
                    prop_assert_eq!(evaluate(ruleset, &packet).fate, Fate::Direct, "{:?}\n{}", packet, ruleset);
                }
            }
            for packet in packets {
                let (we, they) = (evaluate(&ours, &packet), evaluate(&model, &packet));
                prop_assert_ne!(they.fate, Fate::Unknown, "{:?}", they.path.last());
                // What is redirected there by istio-iptables goes direct by Weir while there is no DNS proxy.
                let goes_direct = they.fate == TO_DNS && !packet.dns_answers && !setting.dns.fail_closed;
                let wanted = if goes_direct { Fate::Direct } else { they.fate };
                if !setting.differs(&packet) {
                    prop_assert_eq!(listener(we.fate), listener(wanted), "{:?}\nours:\n{}theirs:\n{}", packet, ours, model);
                }
                let by_nft = outcome(&native, &packet);
                prop_assert_eq!(
                    by_nft, outcome(&ours, &packet), "{:?}\nnftables:\n{}iptables:\n{}", packet, native, ours
                );
            }
        }
    }
}

const TO_DNS: Fate = Fate::Redirect { port: 15053 };

/// Where a packet goes, in which zone of conntrack, and whether it is remembered.
type Outcome = (Fate, u16, bool);

fn outcome(ruleset: &Ruleset, packet: &Packet) -> Outcome {
    let verdict = evaluate(ruleset, packet);
    (verdict.fate, verdict.zone, verdict.is_remembered)
}

proptest! {
    // The same settings in each run: a stranger one than these may well leave a rule idle, which is no fault of the
    // change that is being tested.
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    })]

    #[test]
    fn without_any_one_rule_some_packet_fares_otherwise(setting in setting()) {
        let intent = setting.flags().intent().unwrap();
        prop_assume!(!intent.captures_nothing());
        // There the rule for a group decides nothing where the zone has told already.
        prop_assume!(!setting.dns.is_for("127.0.0.5"));
        let plan = plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
        for ruleset in render(&plan).into_iter().chain(nft::render(&plan)) {
            if let Some(idle) = idle_rule(&ruleset) {
                prop_assert!(false, "{} decides nothing in\n{}", idle, ruleset);
            }
        }
    }
}

/// The listener that it comes to. With TPROXY what the proxy calls of its own workload comes to it as it is, where
/// istio-iptables redirects it.
fn listener(fate: Fate) -> Result<u16, Fate> {
    match fate {
        Fate::Redirect { port } | Fate::Tproxy { port } => Ok(port),
        other => Err(other),
    }
}

/// A rule without which every packet fares the same.
fn idle_rule(ruleset: &Ruleset) -> Option<String> {
    type Place = (&'static str, String, usize);
    let mut through: HashMap<Place, Vec<(Packet, Outcome)>> = HashMap::new();
    for packet in packets().into_iter().chain(picked_up()) {
        if Family::of(packet.destination) != ruleset.family {
            continue;
        }
        let verdict = evaluate(ruleset, &packet);
        for step in &verdict.path {
            let table = &ruleset.tables[step.at.table];
            let place = (table.name.as_str(), step.chain.clone(), step.number);
            through
                .entry(place)
                .or_default()
                .push((packet.clone(), outcome(ruleset, &packet)));
        }
    }
    for (t, table) in ruleset.tables.iter().enumerate() {
        let decide = |(_, chain): &(usize, &Chain)| chain.name != asked::CHAIN;
        for (c, chain) in table.chains.iter().enumerate().filter(decide) {
            for (r, rule) in chain.rules.iter().enumerate() {
                let mut without = ruleset.clone();
                without.tables[t].chains[c].rules.remove(r);
                let asked = through.get(&(table.name.as_str(), chain.name.clone(), r + 1));
                let matters = |(packet, before): &(Packet, Outcome)| outcome(&without, packet) != *before;
                if !asked.is_some_and(|packets| packets.iter().any(matters)) {
                    return Some(format!("{} {}{rule}", table.name.as_str(), chain.name));
                }
            }
        }
    }
    None
}
