//! One rule set in place of another by iptables, which commits each table by itself: also between two commits
//! everything is captured that is captured before and after.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::diff::{Edit, changes};
use rules::plan::Facts;
use rules::ruleset::{Chain, ChainKind, IpProtocol, Policy, Ruleset, Table, TableName};
use rules::{Family, Fate, Flags, Origin, Packet, State, evaluate, plan, render};

const SETTINGS: [fn(&mut Flags); 5] = [
    |_| {},
    |flags| flags.drop_invalid = Some("true".to_owned()),
    |flags| flags.mode = Some("TPROXY".to_owned()),
    |flags| {
        flags.mode = Some("TPROXY".to_owned());
        flags.drop_invalid = Some("true".to_owned());
    },
    |flags| {
        flags.outbound_exclude_ports = Some("22".to_owned());
        flags.inbound_ports = Some("80".to_owned());
    },
];

fn rendered(change: fn(&mut Flags)) -> Vec<Ruleset> {
    let mut flags = Flags {
        sidecar: true,
        ..Flags::default()
    };
    change(&mut flags);
    render(&plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap())
}

fn packets(family: Family) -> [Packet; 2] {
    let [own, other] = match family {
        Family::V4 => ["10.0.0.1", "10.0.0.2"],
        Family::V6 => ["fd00::1", "fd00::2"],
    }
    .map(|text| text.parse().unwrap());
    let inbound = Packet {
        origin: Origin::Remote,
        protocol: IpProtocol::Tcp,
        source: other,
        source_port: 40_000,
        destination: own,
        destination_port: 80,
        device: "eth0".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    };
    let outbound = Packet {
        origin: Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark: 0,
        },
        source: own,
        destination: other,
        ..inbound.clone()
    };
    [inbound, outbound]
}

/// The table, made where it is not there, as iptables does.
fn table(ruleset: &mut Ruleset, name: TableName) -> &mut Table {
    if ruleset.table(name).is_none() {
        ruleset.tables.push(Table { name, chains: vec![] });
    }
    ruleset
        .tables
        .iter_mut()
        .find(|table| table.name == name)
        .unwrap()
}

fn chain<'a>(table: &'a mut Table, name: &str) -> &'a mut Chain {
    if table.chain(name).is_none() {
        table.chains.push(Chain {
            name: name.to_owned(),
            kind: ChainKind::Builtin(Policy::Accept),
            rules: vec![],
        });
    }
    table.chains.iter_mut().find(|chain| chain.name == name).unwrap()
}

fn apply(table: &mut Table, edit: &Edit) {
    match edit {
        Edit::Fill(filled) => {
            table.chains.retain(|chain| chain.name != filled.name);
            table.chains.push(filled.clone());
        }
        Edit::Delete { chain: name, rule } => chain(table, name).rules.retain(|there| there != rule),
        Edit::Insert {
            chain: name,
            before,
            rule,
        } => {
            let rules = &mut chain(table, name).rules;
            rules.insert(before.map_or(rules.len(), |number| number - 1), rule.clone());
        }
        Edit::Remove(name) => table.chains.retain(|chain| chain.name != *name),
    }
}

/// What the kernel holds after each commit.
fn states(current: &Ruleset, wanted: &Ruleset) -> Vec<Ruleset> {
    let mut states = vec![];
    let (mut now, mut open) = (current.clone(), None);
    for (name, edit) in changes(current, wanted).edits() {
        if open.is_some_and(|open| open != name) {
            states.push(now.clone());
        }
        open = Some(name);
        apply(table(&mut now, name), edit);
    }
    assert_eq!(changes(&now, wanted).edits().count(), 0);
    states
}

#[test]
fn what_is_captured_before_and_after_is_captured_in_between() {
    let mut between = 0;
    for (from, to) in SETTINGS
        .into_iter()
        .flat_map(|from| SETTINGS.map(|to| (from, to)))
    {
        for (current, wanted) in rendered(from).iter().zip(&rendered(to)) {
            for state in states(current, wanted) {
                between += 1;
                for packet in packets(current.family) {
                    let fate = evaluate(&state, &packet).fate;
                    let is_captured = matches!(fate, Fate::Redirect { .. } | Fate::Tproxy { .. });
                    assert!(
                        is_captured,
                        "{packet:?} meets {fate:?} between\n{current}and\n{wanted}by\n{state}"
                    );
                }
            }
        }
    }
    assert!(between > 20, "{between}");
}
