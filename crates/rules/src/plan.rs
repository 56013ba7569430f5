//! From an intent and the facts of a namespace to what should hold there: ordered clauses for each hook,
//! first match decides, the same for both families and for any back-end.
//!
//! The order of the clauses is that of istio-iptables, so that every packet fares the same; clauses that
//! could decide nothing are left out. `docs/istio-iptables.md` has the differences that are wanted.

mod clause;
mod clauses;
mod facts;
mod mistakes;
mod prune;
mod untracked;

use std::fmt;

use model::{ErrorName, ports};

pub use self::clause::{Action, Clause, Condition, Sign, Zone};
pub use self::facts::{Facts, Stack};
use self::mistakes::{cgroup_mistakes, physical, tproxy_mistakes, uncapturable, with_ids};
pub use self::prune::of_family;
pub use self::untracked::{Switch, TproxyFacts, TproxyKind, remembered};
use crate::asked;
use crate::family::Family;
use crate::intent::{Dns, Families, Inbound, Intent, Place, Proxy, Selection, Signs, Uncarried};
use crate::mistake::Mistake;

/// What should hold in a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The families that are on, each to be captured.
    pub families: Vec<Family>,
    /// For the first packet of a connection that is made here.
    pub outbound: Vec<Clause>,
    /// For the first packet of a connection that comes in.
    pub inbound: Vec<Clause>,
    /// For each packet that arrives, before [`Plan::inbound`] is asked.
    pub arriving: Vec<Clause>,
    /// For each packet that is made here, before [`Plan::outbound`] is asked.
    pub sending: Vec<Clause>,
    /// For each packet that arrives, before conntrack sees it, and before all others.
    pub tracking_arriving: Vec<Clause>,
    /// For each packet that is made here, before conntrack sees it, and before all others.
    pub tracking_sending: Vec<Clause>,
    /// For each packet that leaves, after [`Plan::outbound`] has been applied.
    pub leaving: Vec<Clause>,
    /// Which kind of TPROXY it is, if it is that.
    pub tproxy: Option<TproxyKind>,
    /// What is to be routed by its mark.
    pub policy_routes: Vec<PolicyRoute>,
    /// Whether `::6/128` must be on `lo`.
    pub passthrough_v6: bool,
    /// Whether only a back-end with sets can hold it.
    pub needs_sets: bool,
    /// The flags that it was made from, where flags can ask for it; kept with the rules.
    pub asked: Option<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether it asks for no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [
            &self.outbound,
            &self.inbound,
            &self.arriving,
            &self.sending,
            &self.tracking_arriving,
            &self.tracking_sending,
            &self.leaving,
        ]
        .iter()
        .all(|clauses| clauses.is_empty())
    }
}

/// All packets with a mark are delivered here, whatever their destination: by a rule that sends them to a
/// table of its own, and a route in it to everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyRoute {
    /// Of which family.
    pub family: Family,
    /// The mark, all of its bits.
    pub mark: u32,
    /// The table.
    pub table: u32,
}

/// As the two commands of `ip` that make it.
impl fmt::Display for PolicyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, mark, table } = self;
        let (option, everywhere) = match family {
            Family::V4 => ("-4", "0.0.0.0/0"),
            Family::V6 => ("-6", "::/0"),
        };
        write!(
            f,
            "ip {option} rule add fwmark {mark} lookup {table}; ip {option} route add local {everywhere} dev lo table {table}"
        )
    }
}

/// Decides what should hold.
///
/// # Errors
/// Everything that stands against it, at once.
pub fn plan(intent: &Intent, facts: &Facts) -> Result<Plan, Vec<Mistake>> {
    let mut mistakes = vec![];
    if intent.place == Place::Container && !facts.physical_devices.is_empty() {
        mistakes.push(physical(&facts.physical_devices));
    }
    if matches!(&intent.proxy, Proxy::Inside(signs) if signs.is_empty()) {
        mistakes.push(Mistake::of(
            ErrorName::NoProxySign,
            "--proxy-uid, --proxy-gid, --proxy-mark, --proxy-class-id, --proxy-cgroup",
            "nothing says how to recognise the proxy, so its own traffic would be captured; give one",
        ));
    }
    if matches!(intent.proxy, Proxy::Inside(_)) && intent.uncarried != Uncarried::Pass {
        mistakes.push(Mistake::new(
            "uncarried",
            "what cannot be carried is rejected only where the proxy is outside the namespace",
        ));
    }
    mistakes.extend(tproxy_mistakes(intent));
    if let Proxy::Inside(signs) = &intent.proxy {
        mistakes.extend(cgroup_mistakes(signs, &facts.cgroups));
    }
    let kind = intent
        .inbound
        .tproxy()
        .map(|tproxy| untracked::kind(tproxy, &facts.tproxy));
    let kind = kind.transpose().unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    let families = [(Family::V4, &facts.ipv4), (Family::V6, &facts.ipv6)]
        .into_iter()
        .filter(|(family, _)| match intent.families {
            Families::Only(only) => only == *family,
            Families::InUse | Families::Both => true,
        })
        .filter_map(|(family, stack)| match stack {
            Stack::Off if intent.families == Families::InUse => None,
            Stack::Off | Stack::On => Some(family),
            Stack::Uncapturable(why) => {
                mistakes.push(uncapturable(family, why));
                None
            }
        })
        .collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(decide(intent, facts, families, kind))
}

fn decide(intent: &Intent, facts: &Facts, families: Vec<Family>, kind: Option<TproxyKind>) -> Plan {
    let mut plan = Plan {
        families,
        outbound: vec![],
        inbound: vec![],
        arriving: vec![],
        sending: vec![],
        tracking_arriving: vec![],
        tracking_sending: vec![],
        leaving: vec![],
        notes: notes(intent, facts, kind.as_ref()),
        tproxy: kind,
        policy_routes: vec![],
        passthrough_v6: false,
        needs_sets: intent.outbound.services.is_some(),
        asked: asked::words(intent),
    };
    if intent.captures_nothing() {
        return plan;
    }
    let signs = match &intent.proxy {
        Proxy::Inside(signs) => with_ids(signs, &facts.cgroups),
        Proxy::Outside { .. } => Signs::default(),
    };
    plan.outbound = match &intent.proxy {
        Proxy::Inside(_) => clauses::from_inside(&signs, intent),
        Proxy::Outside { own, mark } => clauses::from_outside(own, *mark, intent),
    };
    if let (Proxy::Inside(_), Some(dns)) = (&intent.proxy, intent.captured_dns()) {
        plan.tracking_sending = clauses::dns::tracking_sending(&signs, intent, dns);
    }
    plan.inbound = clauses::inbound(intent);
    if intent.drop_invalid {
        plan.arriving.push(clauses::invalid());
    }
    if let (Proxy::Inside(_), Some(tproxy), Some(kind)) =
        (&intent.proxy, intent.inbound.tproxy(), &plan.tproxy)
    {
        plan.arriving
            .extend(clauses::tproxy::arriving(intent, tproxy, kind.is_tracked));
        plan.sending = clauses::tproxy::sending(&signs, intent, tproxy, kind.is_tracked);
        if let (false, Ok(ours)) = (kind.is_tracked, &facts.tproxy.untracked) {
            plan.tracking_arriving = clauses::tproxy::tracking_arriving(intent);
            plan.tracking_sending
                .extend(clauses::tproxy::tracking_sending(tproxy, ours));
        }
        let families = plan.families.iter();
        let in_use = families.filter(|family| **family == Family::V4 || facts.ipv6 != Stack::Off);
        plan.policy_routes = in_use
            .map(|&family| PolicyRoute {
                family,
                mark: tproxy.mark.value,
                table: tproxy.table,
            })
            .collect();
    }
    if let (Proxy::Outside { own, mark }, Uncarried::Reject) = (&intent.proxy, intent.uncarried) {
        plan.leaving = clauses::uncarried(own, *mark, &intent.outbound);
    }
    let calls_its_application = match &intent.proxy {
        Proxy::Inside(_) => intent.inbound.tproxy().is_none(),
        Proxy::Outside { mark, .. } => mark.is_some(),
    };
    plan.passthrough_v6 =
        calls_its_application && plan.families.contains(&Family::V6) && facts.ipv6 != Stack::Off;
    plan
}

fn notes(intent: &Intent, facts: &Facts, kind: Option<&TproxyKind>) -> Vec<String> {
    let mut notes = vec![];
    let open = match intent.families {
        Families::Only(Family::V4) if facts.ipv6 != Stack::Off => Some(Family::V6),
        Families::Only(Family::V6) if facts.ipv4 != Stack::Off => Some(Family::V4),
        _ => None,
    };
    notes.extend(open.map(|family| format!("{family} is on here and, as was asked, not captured")));
    if intent.outbound.groups != Selection::All && !intent.outbound.exclude_groups.is_empty() {
        notes.push(
            "groups to exclude count only where all groups are captured; here they have no effect".to_owned(),
        );
    }
    notes.extend(intent.inbound.tproxy().map(|tproxy| {
        format!(
            "TPROXY needs a proxy that has CAP_NET_ADMIN and runs as \
             `weir proxy --inbound-mode tproxy --inbound-tproxy-mark {}`",
            tproxy.mark.value
        )
    }));
    if kind.is_some_and(|kind| !kind.is_tracked) && facts.tproxy.syn_cookies_by_iptables {
        notes.push(
            "net.ipv4.tcp_syncookies is on: connections that the kernel takes by SYN cookies, which it does while a \
             listener's queue is full, are reset, or get past the proxy, where the application listens on one address \
             rather than all. Let it listen on all, use --backend nft, or set the switch to 0 in this namespace \
             (securityContext.sysctls)"
                .to_owned(),
        );
    }
    notes.extend(elsewhere(intent));
    if intent.dns.is_some() && intent.captured_dns().is_none() {
        notes.push(format!(
            "DNS is not captured, although that is asked for: outbound port {} is excluded",
            Dns::PORT
        ));
    }
    if let Some(Selection::Only(servers)) = intent.captured_dns().map(|dns| &dns.servers) {
        let of_one_link = servers.iter().filter(|server| Dns::OF_ONE_LINK.contains(*server));
        notes.extend(of_one_link.map(|server| {
            format!(
                "look-ups at {server} are not captured: who asks a server of one link has a socket that cannot reach the \
                 proxy; name another address of that server in resolv.conf"
            )
        }));
    }
    let Inbound {
        ports,
        exclude_ports,
        tunnel_port,
        ..
    } = &intent.inbound;
    if !exclude_ports.is_empty() && *ports != Selection::All {
        notes.push("-d excludes ports only where -b is '*'; here it has no effect".to_owned());
    }
    if matches!(ports, Selection::Only(list) if list.contains(tunnel_port)) {
        notes.push(format!(
            "inbound port {tunnel_port} is the tunnel's (-e) and is never captured, although -b lists it"
        ));
    }
    notes
}

/// Ports at which Weir's own proxy does not listen.
fn elsewhere(intent: &Intent) -> Option<String> {
    let Intent {
        outbound, inbound, ..
    } = intent;
    let used = [
        (!outbound.is_none()).then_some((outbound.to_port, ports::OUTBOUND)),
        (!inbound.ports.is_none()).then_some((inbound.to_port, ports::INBOUND)),
    ];
    let others = used.into_iter().flatten().filter(|(port, usual)| port != usual);
    let others: Vec<_> = others.map(|(port, _)| port.to_string()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "connections are led to port {}: `weir proxy` listens on {} and {} alone, so that is for another proxy",
            others.join(" and "),
            ports::OUTBOUND,
            ports::INBOUND
        )
    })
}
