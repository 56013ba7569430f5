//! Which packets tell whether each rule of a rule set is there: a packet is a rule's witness where it would fare
//! otherwise without it. Asked by `weir verify`, which then sends these packets.

use crate::asked;
use crate::cgroup::Membership;
use crate::evaluate::{At, Fate, Packet, Verdict, evaluate_from};
use crate::ruleset::Ruleset;

/// What a choice of packets tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witnesses {
    /// The packets that are needed, by their place among those that were offered.
    pub chosen: Vec<usize>,
    /// Rules that none of the packets on offer tells of.
    pub without: Vec<At>,
}

/// Chooses from the packets, each with its sender's cgroups, the first ones first, until each rule has a witness or
/// no packet is left.
#[must_use]
pub fn witnesses(ruleset: &Ruleset, packets: &[(&Packet, &Membership)]) -> Witnesses {
    let mut left = all(ruleset);
    let mut chosen = vec![];
    for (index, sent) in packets.iter().enumerate() {
        if left.is_empty() {
            break;
        }
        let verdict = evaluate(ruleset, *sent);
        let before = left.len();
        left.retain(|at| !tells_of(ruleset, *sent, &verdict, *at));
        if left.len() < before {
            chosen.push(index);
        }
    }
    Witnesses {
        chosen,
        without: left,
    }
}

fn tells_of(ruleset: &Ruleset, sent: (&Packet, &Membership), verdict: &Verdict, at: At) -> bool {
    // A rule that did not fit changed nothing.
    verdict.path.iter().any(|fitted| fitted.at == at)
        && outcome(&evaluate(&without(ruleset, at), sent)) != outcome(verdict)
}

fn evaluate(ruleset: &Ruleset, (packet, cgroups): (&Packet, &Membership)) -> Verdict {
    evaluate_from(ruleset, packet, cgroups)
}

/// What becomes of a packet, and of those that follow it.
fn outcome(verdict: &Verdict) -> (Fate, u32, u32, bool) {
    (
        verdict.fate,
        verdict.mark,
        verdict.connection_mark,
        verdict.is_tracked,
    )
}

/// Every rule that decides.
fn all(ruleset: &Ruleset) -> Vec<At> {
    let mut all = vec![];
    for (table, held) in ruleset.tables.iter().enumerate() {
        for (chain, held) in held.chains.iter().enumerate() {
            if held.name != asked::CHAIN {
                all.extend((0..held.rules.len()).map(|rule| At { table, chain, rule }));
            }
        }
    }
    all
}

fn without(ruleset: &Ruleset, at: At) -> Ruleset {
    let mut ruleset = ruleset.clone();
    let chain = ruleset
        .tables
        .get_mut(at.table)
        .and_then(|table| table.chains.get_mut(at.chain));
    if let Some(chain) = chain
        && at.rule < chain.rules.len()
    {
        chain.rules.remove(at.rule);
    }
    ruleset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Origin, State};
    use crate::ruleset::IpProtocol;
    use crate::{Facts, Family, Flags};

    fn packet(uid: u32, to: &str, device: &str) -> Packet {
        Packet {
            origin: Origin::Socket { uid, gid: 0, mark: 0 },
            protocol: IpProtocol::Tcp,
            source: "10.0.0.1".parse().unwrap(),
            source_port: 40_000,
            destination: to.parse().unwrap(),
            destination_port: 80,
            device: device.to_owned(),
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: false,
        }
    }

    #[test]
    fn as_few_packets_as_the_order_allows_and_the_rules_without_one() {
        let flags = Flags {
            outbound_cidrs: Some("*".to_owned()),
            ..Flags::default()
        };
        let plan = crate::plan(&flags.intent().unwrap(), &Facts::fresh(&[Family::V4])).unwrap();
        let ruleset = crate::render(&plan).remove(0);
        let application = packet(0, "192.0.2.1", "eth0");
        let packets = [
            application.clone(),
            application,
            packet(1337, "192.0.2.1", "eth0"),
            packet(1337, "10.0.0.1", "lo"),
            packet(0, "10.0.0.1", "lo"),
        ];
        let nobody = Membership::none();
        let sent: Vec<_> = packets.iter().map(|packet| (packet, &nobody)).collect();
        let witnesses = witnesses(&ruleset, &sent);
        assert_eq!(witnesses.chosen, [0, 2, 3, 4]);
        // What the proxy calls from 127.0.0.6, and a group alone.
        let rule = |at: &At| ruleset.tables[at.table].chains[at.chain].rules[at.rule].to_string();
        let left: Vec<_> = witnesses.without.iter().map(rule).collect();
        assert!(left.iter().any(|rule| rule.contains("127.0.0.6")), "{left:?}");
    }
}
