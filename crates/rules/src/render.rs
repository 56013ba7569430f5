//! A plan as rules: one [`Ruleset`] for each family. For iptables it holds our chains and the jumps to them,
//! and a clause with a list becomes one rule for each member; for nftables it holds the hooks themselves,
//! as the table is ours, and a list is a set.

mod conditions;

use self::conditions::tests;
pub(crate) use self::conditions::{class, ids, port_set};
use crate::asked;
use crate::family::Family;
use crate::plan::{self, Action, Clause, Condition, Plan, Sign, Zone};
use crate::ruleset::{
    Chain, ChainKind, IpProtocol, Match, PURPOSE, Policy, Rule, Ruleset, Table, TableName, Target, Test,
};

/// Chain for connections that are made in the namespace.
pub const OUTPUT_CHAIN: &str = "WEIR_OUTPUT";
/// Chain for connections that come in.
pub const INBOUND_CHAIN: &str = "WEIR_INBOUND";

/// The language that rules are written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// That of iptables, whatever keeps its rules.
    Iptables,
    /// That of nftables, in a table of our own.
    Nft,
}

/// One iptables rule set a family of the plan, ready to be compared with a dump or applied.
#[must_use]
pub fn render(plan: &Plan) -> Vec<Ruleset> {
    render_for(Dialect::Iptables, plan)
}

/// One rule set a family of the plan.
#[must_use]
pub fn render_for(dialect: Dialect, plan: &Plan) -> Vec<Ruleset> {
    let families = plan.families.iter();
    families.map(|&family| of_family(dialect, plan, family)).collect()
}

fn of_family(dialect: Dialect, plan: &Plan, family: Family) -> Ruleset {
    let [
        outbound,
        inbound,
        arriving,
        sending,
        leaving,
        tracking_arriving,
        tracking_sending,
    ] = [
        &plan.outbound,
        &plan.inbound,
        &plan.arriving,
        &plan.sending,
        &plan.leaving,
        &plan.tracking_arriving,
        &plan.tracking_sending,
    ]
    .map(|clauses| plan::of_family(clauses, family));
    let filter = [("OUTPUT", OUTPUT_CHAIN, leaving, "what leaves")];
    let mangle = [
        ("PREROUTING", INBOUND_CHAIN, arriving, "what arrives"),
        ("OUTPUT", OUTPUT_CHAIN, sending, "what is sent"),
    ];
    let nat = [
        ("PREROUTING", INBOUND_CHAIN, inbound, "connections coming in"),
        ("OUTPUT", OUTPUT_CHAIN, outbound, "connections made here"),
    ];
    let raw = [
        (
            "PREROUTING",
            INBOUND_CHAIN,
            tracking_arriving,
            "tracking of what arrives",
        ),
        (
            "OUTPUT",
            OUTPUT_CHAIN,
            tracking_sending,
            "tracking of what is sent",
        ),
    ];
    let tables = [
        table(dialect, TableName::Filter, &filter, family),
        table(dialect, TableName::Mangle, &mangle, family),
        table(dialect, TableName::Nat, &nat, family),
        table(dialect, TableName::Raw, &raw, family),
    ];
    let mut tables: Vec<_> = tables
        .into_iter()
        .filter(|table| !table.chains.is_empty())
        .collect();
    if let (Some(last), Some(words)) = (tables.last_mut(), &plan.asked) {
        // By name, as a dump of the older iptables has them.
        let ours = last.chains.iter().position(Chain::is_own);
        let place = ours.unwrap_or(last.chains.len());
        last.chains.insert(place, asked::chain(words));
    }
    Ruleset { family, tables }
}

/// Built-in chain, our chain, what it holds, what that is about.
type Hook = (&'static str, &'static str, Vec<Clause>, &'static str);

fn table(dialect: Dialect, name: TableName, hooks: &[Hook], family: Family) -> Table {
    let mut builtin = vec![];
    let mut own = vec![];
    for (hook, chain, clauses, about) in hooks {
        let (opening_only, clauses) = match dialect {
            Dialect::Iptables => opening_only(clauses),
            Dialect::Nft => (false, &clauses[..]),
        };
        let rules: Vec<_> = clauses
            .iter()
            .flat_map(|clause| rules(dialect, clause, family))
            .collect();
        if rules.is_empty() {
            continue;
        }
        let mut hooked = Chain {
            name: (*hook).to_owned(),
            kind: ChainKind::Builtin(Policy::Accept),
            rules,
        };
        if dialect == Dialect::Iptables {
            let jump = vec![jump(chain, clauses, opening_only, about)];
            own.push(Chain {
                name: (*chain).to_owned(),
                kind: ChainKind::User,
                rules: std::mem::replace(&mut hooked.rules, jump),
            });
        }
        builtin.push(hooked);
    }
    builtin.append(&mut own);
    Table {
        name,
        chains: builtin,
    }
}

/// Whether clauses are asked about the first packets of TCP connections alone, and then those clauses: what
/// their first one says, the jump to them can say.
fn opening_only(clauses: &[Clause]) -> (bool, &[Clause]) {
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    match clauses {
        [first, rest @ ..]
            if first.then == Action::Leave
                && first.when == [tcp, Condition::Continues]
                && only_protocol(clauses) == Some(IpProtocol::Tcp) =>
        {
            (true, rest)
        }
        _ => (false, clauses),
    }
}

/// Only TCP, or only UDP, is sent through a chain that decides about nothing else.
fn jump(chain: &str, clauses: &[Clause], opening_only: bool, about: &str) -> Rule {
    let mut matches = vec![];
    matches.extend(only_protocol(clauses).map(|protocol| yes(Test::Protocol(protocol))));
    if opening_only {
        matches.push(yes(Test::Opens));
    }
    matches.push(purpose(about));
    Rule {
        matches,
        target: Target::Jump(chain.to_owned()),
    }
}

fn only_protocol(clauses: &[Clause]) -> Option<IpProtocol> {
    let is_all = |protocol: &IpProtocol| {
        let mut acting = clauses.iter().filter(|clause| clause.then != Action::Leave);
        acting.all(|clause| clause.when.contains(&Condition::Protocol(*protocol)))
    };
    [IpProtocol::Tcp, IpProtocol::Udp].into_iter().find(is_all)
}

fn rules(dialect: Dialect, clause: &Clause, family: Family) -> Vec<Rule> {
    match clause.then {
        Action::Zone(zone)
            if dialect == Dialect::Iptables && clause.when.contains(&Condition::DnsAnswers) =>
        {
            in_one_decision(clause, zone, family)
        }
        _ => of_clause(dialect, clause, family),
    }
}

/// iptables cannot ask for the zone later, and asked anew whether the proxy answers, it could hear something else: a
/// mark tells what was decided.
fn in_one_decision(clause: &Clause, zone: Zone, family: Family) -> Vec<Rule> {
    let decides = Clause {
        then: Action::Mark(zone.mark),
        ..clause.clone()
    };
    let mut when = clause.when.clone();
    when.retain(|condition| matches!(condition, Condition::Protocol(_)));
    when.push(Condition::InZone(zone));
    let is_marked = Clause {
        when,
        ..clause.clone()
    };
    let both = [decides, is_marked].into_iter();
    both.flat_map(|clause| of_clause(Dialect::Iptables, &clause, family))
        .collect()
}

fn of_clause(dialect: Dialect, clause: &Clause, family: Family) -> Vec<Rule> {
    let mut alternatives: Vec<Vec<Match>> = vec![vec![]];
    for condition in &clause.when {
        let tests = tests(dialect, condition, family);
        alternatives = alternatives
            .iter()
            .flat_map(|so_far| {
                tests
                    .iter()
                    .map(|more| so_far.iter().chain(more).cloned().collect())
            })
            .collect();
    }
    let target = target(dialect, clause.then, family);
    alternatives
        .into_iter()
        .map(naming_protocol)
        .flat_map(|matches| written(dialect, clause, &target, &matches))
        .collect()
}

fn target(dialect: Dialect, then: Action, family: Family) -> Target {
    match then {
        Action::Redirect(port) => Target::Redirect(port),
        Action::Leave => Target::Return,
        Action::Drop => Target::Drop,
        Action::Tproxy {
            port,
            mark,
            connection,
        } => Target::Tproxy {
            port,
            mark,
            connection: connection.filter(|_| dialect == Dialect::Nft),
            or_next: dialect == Dialect::Nft,
        },
        Action::Untrack => Target::Notrack,
        Action::Mark(mark) => Target::Mark(mark),
        Action::SaveMark => Target::SaveMark,
        Action::RestoreMark => Target::RestoreMark,
        Action::Zone(zone) => Target::Zone(zone.number),
        Action::Remember => Target::Remember(conditions::memory(dialect, family)),
        Action::Reject => Target::Reject(
            match (dialect, family) {
                (Dialect::Nft, _) => PORT_UNREACHABLE,
                (Dialect::Iptables, Family::V4) => "icmp-port-unreachable",
                (Dialect::Iptables, Family::V6) => "icmp6-port-unreachable",
            }
            .to_owned(),
        ),
    }
}

/// A port is asked of TCP where no protocol is named.
fn naming_protocol(mut matches: Vec<Match>) -> Vec<Match> {
    let asks_port = |found: &Match| {
        matches!(
            found.test,
            Test::SourcePort(_) | Test::DestinationPort(_) | Test::DestinationPorts(_)
        )
    };
    let asks_protocol = |found: &Match| matches!(found.test, Test::Protocol(_));
    if matches.iter().any(asks_port) && !matches.iter().any(asks_protocol) {
        matches.push(yes(Test::Protocol(IpProtocol::Tcp)));
    }
    matches
}

/// The rule, and what it takes beside it.
fn written(dialect: Dialect, clause: &Clause, target: &Target, matches: &[Match]) -> Vec<Rule> {
    let bound = bound_to(clause, matches);
    let rule = |target: &Target, about: &str, more: Option<Match>| {
        let mut matches: Vec<_> = matches.iter().cloned().chain(more).collect();
        matches.sort_by_key(|found| rank(&found.test));
        matches.push(purpose(&format!("{}{about}{bound}", clause.purpose)));
        Rule {
            matches,
            target: target.clone(),
        }
    };
    let itself = rule(target, "", None);
    match (clause.then, dialect) {
        (Action::Tproxy { connection, .. }, Dialect::Iptables) => {
            let marked = connection.map(|mark| {
                // What conntrack knows already may be of another socket than the proxy's.
                let new = yes(Test::State(vec!["NEW".to_owned()]));
                rule(&Target::MarkConnection(mark), "; remembered", Some(new))
            });
            marked.into_iter().chain([itself]).collect()
        }
        // Where nobody listens, nftables goes on with the next rule; iptables drops of itself. But what opens no
        // connection may have another socket here.
        (Action::Tproxy { .. }, Dialect::Nft) => {
            let is_first = (!clause.when.contains(&Condition::Continues)).then(|| yes(Test::Opens));
            vec![itself, rule(&Target::Drop, "; no proxy", is_first)]
        }
        _ => vec![itself],
    }
}

/// The number of the cgroup that the rule would be bound to, for its comment (see [`cgroup::Cgroup::id`]).
///
/// [`cgroup::Cgroup::id`]: crate::cgroup::Cgroup::id
fn bound_to(clause: &Clause, matches: &[Match]) -> String {
    let signs = clause.when.iter().flat_map(|condition| match condition {
        Condition::SocketHas(signs) => signs.as_slice(),
        _ => &[],
    });
    let ids = signs.filter_map(|sign| match sign {
        Sign::Cgroup(cgroup) => {
            let is_it =
                |found: &Match| matches!(&found.test, Test::Cgroup(path) if path == cgroup.path.as_str());
            cgroup.id.filter(|_| matches.iter().any(is_it))
        }
        _ => None,
    });
    ids.map(|id| format!("; cgroup {id}")).collect()
}

/// What `reject` of nftables tells the sender where nothing else is said.
pub(crate) const PORT_UNREACHABLE: &str = "port-unreachable";

/// The order in which a dump shows the matches of a rule.
pub(crate) fn rank(test: &Test) -> u8 {
    match test {
        Test::Source(_) | Test::Sources(_) => 0,
        Test::Destination(_) | Test::Destinations(_) => 1,
        Test::InInterface(_) => 2,
        Test::OutInterface(_) => 3,
        Test::Protocol(_) => 4,
        Test::SourcePort(_)
        | Test::DestinationPort(_)
        | Test::DestinationPorts(_)
        | Test::DestinationServices(_)
        | Test::Opens => 5,
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
    yes(Test::Comment(format!("{PURPOSE}{text}")))
}
