//! `parse(print(r)) == r` for any rule set, ours or not; and what a diff asks for is what brings one
//! rule set to the other, with foreign rules where they were.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use rules::diff::{Edit, changes};
use rules::intent::SocketMark;
use rules::ruleset::{
    Chain, ChainKind, Chance, Does, ForeignTarget, ForeignTest, Holds, IpProtocol, Match, Memory,
    NewDestination, Policy, PortRange, Rule, Ruleset, Table, TableName, Target, Test,
};
use rules::{Family, parse};

fn network() -> impl Strategy<Value = IpNet> {
    (any::<[u8; 4]>(), 1..=32_u8)
        .prop_map(|(ip, length)| IpNet::from(Ipv4Net::new(ip.into(), length).unwrap().trunc()))
}

fn range() -> impl Strategy<Value = PortRange> {
    (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    })
}

fn ids() -> impl Strategy<Value = (u32, u32)> {
    (any::<u32>(), any::<u32>()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn mark() -> impl Strategy<Value = SocketMark> {
    (any::<u32>(), any::<u32>()).prop_map(|(value, mask)| SocketMark {
        value: value & mask,
        mask,
    })
}

fn protocol() -> impl Strategy<Value = IpProtocol> {
    prop_oneof![
        Just(IpProtocol::Tcp),
        Just(IpProtocol::Udp),
        Just(IpProtocol::Icmp),
        (133..=255_u8).prop_map(IpProtocol::Number),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

/// Spaces, quotes, backslashes, dashes, and letters of other scripts.
const COMMENT: &str = r#"[ -~é水]{1,40}"#;

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        network().prop_map(Test::Source),
        network().prop_map(Test::Destination),
        "[a-z]{1,8}[0-9+]".prop_map(Test::OutInterface),
        protocol().prop_map(Test::Protocol),
        range().prop_map(Test::SourcePort),
        range().prop_map(Test::DestinationPort),
        prop::collection::vec(range(), 1..5).prop_map(Test::DestinationPorts),
        ids().prop_map(|(first, last)| Test::Uid(first, last)),
        ids().prop_map(|(first, last)| Test::Gid(first, last)),
        mark().prop_map(Test::Mark),
        Just(Test::Transparent),
        Just(Test::Socket),
        Just(Test::Original),
        any::<u32>().prop_map(Test::Class),
        r#"[ -~é]{1,40}"#.prop_map(Test::Cgroup),
        family().prop_map(|family| Test::Alive(Memory::Recent(family))),
        prop::sample::subsequence(vec!["NEW", "ESTABLISHED", "INVALID"], 1..3)
            .prop_map(|states| Test::State(states.into_iter().map(str::to_owned).collect())),
        COMMENT.prop_map(Test::Comment),
        Just(Test::Foreign(ForeignTest {
            text: "-m statistic --mode nth --every 3".to_owned(),
            holds: Holds::ByChance(Chance { times: 1, of: 3 }),
        })),
        Just(Test::Other("-m limit --limit 3/min --limit-burst 7".to_owned())),
        Just(Test::Other(
            r#"-m string --string "a -m b \" c" --algo bm"#.to_owned()
        )),
    ]
}

fn one_match() -> impl Strategy<Value = Match> {
    (any::<bool>(), test()).prop_map(|(negated, test)| Match {
        // iptables has no "not" before a whole extension, and none for an option without a value.
        negated: negated
            && !matches!(
                test,
                Test::Comment(_)
                    | Test::Transparent
                    | Test::Socket
                    | Test::Original
                    | Test::Foreign(_)
                    | Test::Other(_)
            ),
        test,
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Continue),
        Just(Target::Accept),
        Just(Target::Drop),
        Just(Target::Return),
        Just(Target::Reject("tcp-reset".to_owned())),
        Just(Target::Jump("WEIR_OUTPUT".to_owned())),
        Just(Target::Jump("foreign".to_owned())),
        Just(Target::Goto("foreign".to_owned())),
        any::<u16>().prop_map(Target::Redirect),
        any::<u16>().prop_map(Target::Zone),
        family().prop_map(|family| Target::Remember(Memory::Recent(family))),
        (any::<u16>(), any::<Option<u32>>()).prop_map(|(port, mark)| Target::Tproxy {
            port,
            mark,
            connection: None,
            or_next: false,
        }),
        any::<u32>().prop_map(Target::Mark),
        any::<u32>().prop_map(Target::MarkConnection),
        Just(Target::SaveMark),
        Just(Target::RestoreMark),
        Just(Target::Notrack),
        Just(Target::Foreign(ForeignTarget {
            text: "DNAT --to-destination 10.0.0.1:80".to_owned(),
            does: Does::Dnat(NewDestination {
                addresses: Some(([10, 0, 0, 1].into(), [10, 0, 0, 1].into())),
                port: Some(80),
            }),
        })),
        Just(Target::Other(r#"LOG --log-prefix "a b""#.to_owned())),
        Just(Target::Other("TRACE".to_owned())),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (prop::collection::vec(one_match(), 0..6), target()).prop_map(|(mut matches, target)| {
        // A dump shows what iptables tests itself before what its extensions do.
        matches.sort_by_key(|found| is_extension(&found.test));
        Rule { matches, target }
    })
}

fn is_extension(test: &Test) -> bool {
    !matches!(
        test,
        Test::Source(_) | Test::Destination(_) | Test::OutInterface(_) | Test::Protocol(_)
    )
}

fn foreign_rule() -> impl Strategy<Value = Rule> {
    rule().prop_filter("ours", |rule| !rule.is_own())
}

fn chain(name: &'static str, kind: ChainKind) -> impl Strategy<Value = Chain> {
    prop::collection::vec(rule(), 0..6).prop_map(move |rules| Chain {
        name: name.to_owned(),
        kind,
        rules,
    })
}

fn table(name: TableName) -> impl Strategy<Value = Table> {
    (
        chain("OUTPUT", ChainKind::Builtin(Policy::Accept)),
        chain("INPUT", ChainKind::Builtin(Policy::Drop)),
        chain("WEIR_OUTPUT", ChainKind::User),
        chain("foreign", ChainKind::User),
    )
        .prop_map(move |(a, b, c, d)| Table {
            name,
            chains: vec![a, b, c, d],
        })
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    (table(TableName::Filter), table(TableName::Nat)).prop_map(|(filter, nat)| Ruleset {
        family: Family::V4,
        tables: vec![filter, nat],
    })
}

fn chain_of<'a>(table: &'a mut Table, name: &str) -> Option<&'a mut Chain> {
    table.chains.iter_mut().find(|chain| chain.name == name)
}

/// What `iptables-restore --noflush` would make of the edits.
fn applied(mut ruleset: Ruleset, edits: &[(TableName, Edit)]) -> Ruleset {
    for (table, edit) in edits {
        let table = ruleset
            .tables
            .iter_mut()
            .find(|there| there.name == *table)
            .unwrap();
        match edit {
            Edit::Fill(wanted) => match chain_of(table, &wanted.name) {
                Some(chain) => chain.rules.clone_from(&wanted.rules),
                None => table.chains.push(wanted.clone()),
            },
            Edit::Delete { chain, rule } => {
                let rules = &mut chain_of(table, chain).unwrap().rules;
                let index = rules.iter().position(|there| there == rule).unwrap();
                rules.remove(index);
            }
            Edit::Insert { chain, before, rule } => {
                let rules = &mut chain_of(table, chain).unwrap().rules;
                let index = before.map_or(rules.len(), |number| number - 1);
                rules.insert(index, rule.clone());
            }
            Edit::Remove(name) => table.chains.retain(|chain| chain.name != *name),
        }
    }
    ruleset
}

fn foreign(ruleset: &Ruleset) -> Vec<(TableName, String, Vec<Rule>)> {
    let mut all = vec![];
    for table in &ruleset.tables {
        for chain in table.chains.iter().filter(|chain| !chain.is_own()) {
            let rules = chain
                .rules
                .iter()
                .filter(|rule| !rule.is_own())
                .cloned()
                .collect();
            all.push((table.name, chain.name.clone(), rules));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_and_parsed_is_the_same(ruleset in ruleset()) {
        let text = ruleset.to_string();
        prop_assert_eq!(parse(Family::V4, &text).unwrap(), ruleset, "{}", text);
    }

    #[test]
    fn the_parser_survives_anything(text in "(\\*nat\n|:[a-zA-Z]{1,5} (ACCEPT|-) \\[0:0\\]\n|-A [A-Z]{1,3}( !?-?-?[a-z]{0,5}\"?){0,8}\n|COMMIT\n|[ -~]{0,30}\n){0,12}") {
        let _ = parse(Family::V6, &text);
    }

    #[test]
    fn edits_bring_one_to_the_other_and_leave_foreign_rules_alone(
        current in ruleset(),
        wanted in prop::collection::vec(foreign_rule(), 1..4),
        keep in any::<bool>(),
    ) {
        let jump = Rule { matches: vec![], target: Target::Jump("WEIR_OUTPUT".to_owned()) };
        let tables = if keep {
            vec![Table {
                name: TableName::Nat,
                chains: vec![
                    Chain { name: "OUTPUT".to_owned(), kind: ChainKind::Builtin(Policy::Accept), rules: vec![jump] },
                    Chain { name: "WEIR_OUTPUT".to_owned(), kind: ChainKind::User, rules: wanted },
                ],
            }]
        } else {
            vec![]
        };
        let wanted = Ruleset { family: Family::V4, tables };
        let edits: Vec<_> = changes(&current, &wanted).edits().map(|(table, edit)| (table, edit.clone())).collect();
        let after = applied(current.clone(), &edits);
        prop_assert_eq!(&after.own(), &wanted);
        prop_assert_eq!(foreign(&after), foreign(&current));
        prop_assert!(changes(&after, &wanted).is_empty());
    }
}
