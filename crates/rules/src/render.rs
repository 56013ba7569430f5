//! A plan as iptables rules: one [`Ruleset`] for each family, holding our chains and the jumps to them.
//! A clause with a list becomes one rule for each member.

use ipnet::IpNet;

use crate::plan::{Action, Clause, Condition, Family, Plan, Sign};
use crate::ruleset::{
    Chain, ChainKind, IpProtocol, Match, Policy, PortRange, Rule, Ruleset, Table, TableName, Target, Test,
};

/// Chain for connections that are made in the namespace.
pub const OUTPUT_CHAIN: &str = "WEIR_OUTPUT";
/// Chain for connections that come in.
pub const INBOUND_CHAIN: &str = "WEIR_INBOUND";

/// One rule set a family of the plan, ready to be compared with a dump or applied.
#[must_use]
pub fn render(plan: &Plan) -> Vec<Ruleset> {
    plan.families
        .iter()
        .map(|&family| of_family(plan, family))
        .collect()
}

fn of_family(plan: &Plan, family: Family) -> Ruleset {
    let filter = [("OUTPUT", OUTPUT_CHAIN, &plan.leaving, "what leaves")];
    let nat = [
        (
            "PREROUTING",
            INBOUND_CHAIN,
            &plan.inbound,
            "connections coming in",
        ),
        ("OUTPUT", OUTPUT_CHAIN, &plan.outbound, "connections made here"),
    ];
    let tables = [
        table(TableName::Filter, &filter, family),
        table(TableName::Nat, &nat, family),
    ];
    Ruleset {
        family,
        tables: tables
            .into_iter()
            .filter(|table| !table.chains.is_empty())
            .collect(),
    }
}

/// Built-in chain, our chain, what it holds, what that is about.
type Hook<'a> = (&'static str, &'static str, &'a Vec<Clause>, &'static str);

fn table(name: TableName, hooks: &[Hook<'_>], family: Family) -> Table {
    let mut builtin = vec![];
    let mut own = vec![];
    for &(hook, chain, clauses, about) in hooks {
        let rules: Vec<_> = clauses.iter().flat_map(|clause| rules(clause, family)).collect();
        if rules.is_empty() {
            continue;
        }
        builtin.push(Chain {
            name: hook.to_owned(),
            kind: ChainKind::Builtin(Policy::Accept),
            rules: vec![jump(chain, clauses, about)],
        });
        own.push(Chain {
            name: chain.to_owned(),
            kind: ChainKind::User,
            rules,
        });
    }
    builtin.append(&mut own);
    Table {
        name,
        chains: builtin,
    }
}

/// Only TCP is sent through a chain that decides about nothing else.
fn jump(chain: &str, clauses: &[Clause], about: &str) -> Rule {
    let acts_on_tcp_only = clauses
        .iter()
        .filter(|clause| clause.then != Action::Leave)
        .all(|clause| clause.when.contains(&Condition::Protocol(IpProtocol::Tcp)));
    let mut matches = vec![];
    if acts_on_tcp_only {
        matches.push(yes(Test::Protocol(IpProtocol::Tcp)));
    }
    matches.push(purpose(about));
    Rule {
        matches,
        target: Target::Jump(chain.to_owned()),
    }
}

fn rules(clause: &Clause, family: Family) -> Vec<Rule> {
    let mut alternatives: Vec<Vec<Match>> = vec![vec![]];
    for condition in &clause.when {
        let tests = tests(condition, family);
        alternatives = alternatives
            .iter()
            .flat_map(|so_far| {
                tests
                    .iter()
                    .map(|more| so_far.iter().chain(more).cloned().collect())
            })
            .collect();
    }
    let target = match clause.then {
        Action::Redirect(port) => Target::Redirect(port),
        Action::Leave => Target::Return,
        Action::Reject => Target::Reject(
            match family {
                Family::V4 => "icmp-port-unreachable",
                Family::V6 => "icmp6-port-unreachable",
            }
            .to_owned(),
        ),
    };
    alternatives
        .into_iter()
        .map(|mut matches| {
            let asks_port = |found: &Match| matches!(found.test, Test::DestinationPort(_));
            let asks_protocol = |found: &Match| matches!(found.test, Test::Protocol(_));
            if matches.iter().any(asks_port) && !matches.iter().any(asks_protocol) {
                matches.push(yes(Test::Protocol(IpProtocol::Tcp)));
            }
            matches.sort_by_key(|found| rank(&found.test));
            matches.push(purpose(clause.purpose));
            Rule {
                matches,
                target: target.clone(),
            }
        })
        .collect()
}

/// The ways in which a condition can hold: any one of the outer list, all of an inner one.
fn tests(condition: &Condition, family: Family) -> Vec<Vec<Match>> {
    let own_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter()
            .copied()
            .filter(|net| Family::of(net.addr()) == family)
            .collect()
    };
    let one = |test| vec![vec![yes(test)]];
    match condition {
        Condition::Protocol(protocol) => one(Test::Protocol(*protocol)),
        Condition::OverLoopback => one(Test::OutInterface("lo".to_owned())),
        Condition::From(address) if Family::of(*address) == family => one(Test::Source((*address).into())),
        Condition::From(_) => vec![],
        Condition::To(nets) => own_family(nets)
            .into_iter()
            // The kernel does not keep a match on everything.
            .map(|net| match net.prefix_len() {
                0 => vec![],
                _ => vec![yes(Test::Destination(net))],
            })
            .collect(),
        Condition::NotTo(nets) => {
            let nots = own_family(nets)
                .into_iter()
                .map(|net| not(Test::Destination(net)));
            vec![nots.collect()]
        }
        Condition::ToPort(ports) => ports
            .iter()
            .map(|&port| vec![yes(Test::DestinationPort(PortRange::from(port)))])
            .collect(),
        Condition::NotToPort(port) => vec![vec![not(Test::DestinationPort(PortRange::from(*port)))]],
        Condition::SocketHas(signs) => signs.iter().map(|sign| vec![yes(socket_test(*sign))]).collect(),
    }
}

fn socket_test(sign: Sign) -> Test {
    match sign {
        Sign::Uid(id) => Test::Uid(id, id),
        Sign::Gid(id) => Test::Gid(id, id),
        Sign::Mark(mark) => Test::Mark(mark),
    }
}

/// The order in which a dump shows the matches of a rule.
fn rank(test: &Test) -> u8 {
    match test {
        Test::Source(_) => 0,
        Test::Destination(_) => 1,
        Test::InInterface(_) => 2,
        Test::OutInterface(_) => 3,
        Test::Protocol(_) => 4,
        Test::SourcePort(_) | Test::DestinationPort(_) => 5,
        _ => 6,
    }
}

fn yes(test: Test) -> Match {
    Match { negated: false, test }
}

fn not(test: Test) -> Match {
    Match { negated: true, test }
}

fn purpose(text: &str) -> Match {
    yes(Test::Comment(format!("weir: {text}")))
}
