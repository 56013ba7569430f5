//! What a rule set, rendered or dumped, does with a packet, and by which rules.
//! Asked by the tools that explain, and by tests that hold it against the kernel.
//!
//! It knows what [`Test`] and [`Target`] name, and answers [`Fate::Unknown`] where a rule that could
//! decide is beyond that: never a guess.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::cgroup::Membership;
use crate::installed::{Base, HookPoint, base_of};
use crate::ruleset::{
    Chain, ChainKind, IpProtocol, Match, PURPOSE, Policy, PortRange, Rule, Ruleset, Target, Test,
};

/// A packet: in most questions the first one of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Where it starts.
    pub origin: Origin,
    /// What is in its IP header.
    pub protocol: IpProtocol,
    /// Source address.
    pub source: IpAddr,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// The device that it leaves or comes in by, as routing says before any rule: `lo` for an address
    /// of the namespace's own.
    pub device: String,
    /// What conntrack makes of it.
    pub state: State,
    /// The mark of its connection.
    pub connection_mark: u32,
    /// Whether a transparent socket of the namespace has its connection: one that TPROXY brought.
    pub transparent: bool,
    /// Whether the DNS proxy has given a sign of life lately.
    pub dns_answers: bool,
}

/// What conntrack makes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum State {
    /// The one that opens a connection.
    #[default]
    New,
    /// Of an open connection, the first one that conntrack sees: it was not looking when the connection began.
    /// NAT is asked about it too.
    PickedUp,
    /// Of a connection that both sides have spoken in.
    Established,
    /// Of no connection, and none begins with it.
    Invalid,
    /// None of its business: a rule has said so, or it is said of the packet.
    Untracked,
}

impl State {
    /// Whether NAT is asked.
    fn is_first(self) -> bool {
        matches!(self, Self::New | Self::PickedUp)
    }

    fn name(self) -> &'static str {
        match self {
            Self::New | Self::PickedUp => "NEW",
            Self::Established => "ESTABLISHED",
            Self::Invalid => "INVALID",
            Self::Untracked => "UNTRACKED",
        }
    }
}

/// Where a packet starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A socket of the namespace.
    Socket {
        /// User id of the process that made it.
        uid: u32,
        /// Group id of that process.
        gid: u32,
        /// Its `SO_MARK`.
        mark: u32,
    },
    /// Another machine or namespace.
    Remote,
}

/// What becomes of the packet, and the rules that fitted it on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The end.
    pub fate: Fate,
    /// Its mark then; what is routed by marks goes by this one.
    pub mark: u32,
    /// The mark of its connection then.
    pub connection_mark: u32,
    /// Whether conntrack knows of it then.
    pub is_tracked: bool,
    /// The zone in which conntrack knows it; 0 where no rule says.
    pub zone: u16,
    /// Whether it is remembered as a sign of life of the DNS proxy.
    pub is_remembered: bool,
    /// Every rule that fitted, in order; the jump to a chain comes before what is in it.
    pub path: Vec<Step>,
    /// Which of the path decided; none where the packet passed every chain to its end.
    pub(crate) decided: Option<usize>,
    /// Every rule that was asked, in order, where [`crate::Installed::evaluate`] was.
    pub asked: Vec<Asked>,
}

/// A rule that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Which it is.
    pub at: At,
    /// Those of its tests that do not hold.
    pub failed: Tests,
    /// Those of its tests of which nothing can be said.
    pub unknown: Tests,
    /// What the packet was like when it was asked.
    pub met: Met,
}

/// Some of a rule's tests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tests(u128);

impl Tests {
    /// A rule of iptables has fewer; what one had beyond would count as the last.
    const MOST: usize = 127;

    fn add(&mut self, number: usize) {
        self.0 |= 1 << number.min(Self::MOST);
    }

    /// Whether it is none of them.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their numbers in the rule, from 0.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..=Self::MOST).filter(move |number| self.0 & (1 << number) != 0)
    }
}

/// A rule's place in what is evaluated, as numbers from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct At {
    /// The table: in the list of a [`Ruleset`], or of an [`crate::Installed`].
    pub table: usize,
    /// The chain in it.
    pub chain: usize,
    /// The rule in that.
    pub rule: usize,
}

/// What of a packet changes on its way through the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// Its destination port.
    pub destination_port: u16,
    /// Its mark.
    pub mark: u32,
    /// Whether it is on its way in.
    pub is_inward: bool,
}

/// The end of a packet's way through the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// To a listener of the namespace.
    Redirect {
        /// Its port.
        port: u16,
    },
    /// To a transparent listener of the namespace, with its destination as it is.
    Tproxy {
        /// Its port.
        port: u16,
    },
    /// To where it was going.
    Direct,
    /// It vanishes.
    Drop,
    /// It vanishes, and the sender is told.
    Reject,
    /// The last rule of the path could decide, and it cannot be said how.
    Unknown,
}

/// A rule that fitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its table: `nat`; one of nftables with its family, `inet weir`.
    pub table: Cow<'static, str>,
    /// Its chain.
    pub chain: String,
    /// Its number there, from 1, as `iptables -L --line-numbers` counts.
    pub number: usize,
    /// The rule.
    pub rule: Rule,
    /// Its place in what was evaluated.
    pub at: At,
}

impl Step {
    /// What the rule is for: its comment, without the prefix of ours; empty where it has none.
    #[must_use]
    pub fn purpose(&self) -> &str {
        let comment = self.rule.comment().unwrap_or_default();
        comment.strip_prefix(PURPOSE).unwrap_or(comment)
    }
}

/// `nat WEIR_OUTPUT 3: -p tcp -j REDIRECT --to-ports 15001`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}:{}", self.table, self.chain, self.number, self.rule)
    }
}

impl Verdict {
    /// The rule that decided; none where no rule did and the packet passed every chain to its end.
    #[must_use]
    pub fn decided_by(&self) -> Option<&Step> {
        self.decided.and_then(|index| self.path.get(index))
    }
}

/// Follows a packet through the chains in the order in which the kernel asks them.
#[must_use]
pub fn evaluate(ruleset: &Ruleset, packet: &Packet) -> Verdict {
    evaluate_from(ruleset, packet, &Membership::default())
}

/// As [`evaluate`], for a packet of a process whose cgroups are known.
#[must_use]
pub fn evaluate_from(ruleset: &Ruleset, packet: &Packet, cgroups: &Membership) -> Verdict {
    let tables = ruleset.tables.iter().enumerate();
    let mut hooked = vec![];
    for (number, table) in tables {
        for (chain, hook) in table.chains.iter().enumerate() {
            let base = match hook.kind {
                ChainKind::Builtin(_) => base_of(table.name, &hook.name),
                ChainKind::User => None,
            };
            hooked.extend(base.map(|base| Hooked {
                base,
                table: (number, Cow::Borrowed(table.name.as_str())),
                chain,
                chains: &table.chains,
            }));
        }
    }
    follow(hooked, packet, cgroups, Telling::Path)
}

/// The same through any chains that the kernel asks; those of one hook and priority in the order given.
pub(crate) fn follow(
    mut hooked: Vec<Hooked<'_>>,
    packet: &Packet,
    cgroups: &Membership,
    telling: Telling,
) -> Verdict {
    hooked.sort_by_key(|hooked| hooked.base.priority);
    let mut walk = Walk {
        hooked: hooked.into(),
        cgroups,
        view: View::of(packet),
        path: vec![],
        telling,
        asked: vec![],
        count: 0,
        decided: None,
        depth: 0,
        redirected: None,
    };
    let fate = walk.fate(packet);
    Verdict {
        fate,
        mark: walk.view.mark,
        connection_mark: walk.view.connection_mark,
        is_tracked: walk.view.state != State::Untracked,
        zone: walk.view.zone,
        is_remembered: walk.view.is_remembered,
        path: walk.path,
        decided: walk.decided,
        asked: walk.asked,
    }
}

/// What is to be told of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// The rules that fitted.
    Path,
    /// All that were asked, too.
    All,
}

/// A chain that the kernel asks, and those that it may jump to.
pub(crate) struct Hooked<'a> {
    /// When it is asked.
    pub(crate) base: Base,
    /// Its table: the number and the name.
    pub(crate) table: (usize, Cow<'static, str>),
    /// Which chain of its table it is.
    pub(crate) chain: usize,
    /// All of its table.
    pub(crate) chains: &'a [Chain],
}

/// Jumps within jumps.
const DEEPEST: usize = 128;
/// Rules that are asked about one packet.
const MOST_ASKED: usize = 200_000;

/// The packet as the chain that is asked sees it.
struct View {
    protocol: IpProtocol,
    source: IpAddr,
    source_port: u16,
    /// Unknown after an inbound redirect, which goes to whatever address the device has.
    destination: Option<IpAddr>,
    destination_port: u16,
    in_device: Option<String>,
    out_device: Option<String>,
    /// Uid and gid; there is no socket on the way in.
    owner: Option<(u32, u32)>,
    mark: u32,
    connection_mark: u32,
    zone: u16,
    is_remembered: bool,
    dns_answers: bool,
    state: State,
    opens: bool,
    transparent: bool,
}

impl View {
    fn of(packet: &Packet) -> Self {
        let device = Some(packet.device.clone());
        let (owner, mark, in_device, out_device) = match packet.origin {
            Origin::Socket { uid, gid, mark } => (Some((uid, gid)), mark, None, device),
            Origin::Remote => (None, 0, device, None),
        };
        Self {
            protocol: packet.protocol,
            source: packet.source,
            source_port: packet.source_port,
            destination: Some(packet.destination),
            destination_port: packet.destination_port,
            in_device,
            out_device,
            owner,
            mark,
            connection_mark: packet.connection_mark,
            zone: 0,
            is_remembered: false,
            dns_answers: packet.dns_answers,
            state: packet.state,
            opens: packet.protocol == IpProtocol::Tcp && packet.state == State::New,
            transparent: packet.transparent,
        }
    }
}

struct Walk<'a> {
    /// In the order of their priorities.
    hooked: Rc<[Hooked<'a>]>,
    cgroups: &'a Membership,
    view: View,
    path: Vec<Step>,
    telling: Telling,
    asked: Vec<Asked>,
    /// How many rules were asked.
    count: usize,
    decided: Option<usize>,
    /// How many chains have been entered by jumps and not been left.
    depth: usize,
    /// Where it goes instead: a [`Fate::Redirect`] or a [`Fate::Tproxy`].
    redirected: Option<Fate>,
}

/// Whether NAT is still to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    Asked,
    Over,
}

/// How a chain ended.
enum End {
    /// At its end or by RETURN: the caller goes on.
    Returned,
    /// The table is done with the packet.
    Accepted,
    /// Nothing more is asked.
    Final(Fate),
}

/// Whether a test holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    Unknown,
}

impl Walk<'_> {
    fn fate(&mut self, packet: &Packet) -> Fate {
        match self.pass(packet) {
            Err(fate) => fate,
            Ok(()) => self.redirected.unwrap_or(Fate::Direct),
        }
    }

    fn pass(&mut self, packet: &Packet) -> Result<(), Fate> {
        match packet.origin {
            Origin::Remote => self.hook(HookPoint::Prerouting, Nat::Asked)?,
            Origin::Socket { .. } => {
                self.hook(HookPoint::Output, Nat::Asked)?;
                if self.redirected.is_some() {
                    self.view.out_device = Some("lo".to_owned());
                }
                // Source NAT moves nothing.
                self.hook(HookPoint::Postrouting, Nat::Over)?;
                if self.view.out_device.as_deref() != Some("lo") {
                    return Ok(());
                }
                self.view.in_device = self.view.out_device.take();
                self.view.owner = None;
                // Over `lo` the connection has been through NAT already.
                self.hook(HookPoint::Prerouting, Nat::Over)?;
            }
        }
        self.hook(HookPoint::Input, Nat::Over)
    }

    fn hook(&mut self, point: HookPoint, nat: Nat) -> Result<(), Fate> {
        let hooked = Rc::clone(&self.hooked);
        for hooked in hooked.iter().filter(|hooked| hooked.base.point == point) {
            self.base_chain(hooked, nat)?;
        }
        Ok(())
    }

    fn base_chain(&mut self, hooked: &Hooked<'_>, nat: Nat) -> Result<(), Fate> {
        // Where it goes is settled once.
        let is_settled = matches!(self.redirected, Some(Fate::Redirect { .. }));
        if hooked.base.is_nat && (nat == Nat::Over || !self.view.state.is_first() || is_settled) {
            return Ok(());
        }
        match self.chain(hooked, hooked.chain) {
            End::Final(fate) => Err(fate),
            End::Returned if hooked.chains[hooked.chain].kind == ChainKind::Builtin(Policy::Drop) => {
                self.decided = None;
                Err(Fate::Drop)
            }
            End::Returned | End::Accepted => Ok(()),
        }
    }

    fn chain(&mut self, hooked: &Hooked<'_>, number: usize) -> End {
        // The kernel takes no rules that are as deep as this, or run in a circle; a file may hold anything.
        if self.depth >= DEEPEST || self.count >= MOST_ASKED {
            return self.decide(End::Final(Fate::Unknown));
        }
        self.depth += 1;
        let end = self.rules(hooked, number);
        self.depth -= 1;
        end
    }

    fn rules(&mut self, hooked: &Hooked<'_>, number: usize) -> End {
        let chain = &hooked.chains[number];
        for (index, rule) in chain.rules.iter().enumerate() {
            let at = At {
                table: hooked.table.0,
                chain: number,
                rule: index,
            };
            let fit = self.ask(rule, at);
            if fit == Fit::No || (fit == Fit::Unknown && only_watches(&rule.target)) {
                continue;
            }
            self.path.push(Step {
                table: hooked.table.1.clone(),
                chain: chain.name.clone(),
                number: index + 1,
                rule: rule.clone(),
                at,
            });
            if fit == Fit::Unknown {
                return self.decide(End::Final(Fate::Unknown));
            }
            if let Some(end) = self.target(hooked, &rule.target) {
                return end;
            }
        }
        End::Returned
    }

    /// None where the next rule is asked.
    fn target(&mut self, hooked: &Hooked<'_>, target: &Target) -> Option<End> {
        match target {
            Target::Continue => None,
            Target::Accept => Some(self.decide(End::Accepted)),
            Target::Return => Some(self.decide(End::Returned)),
            Target::Drop => Some(self.decide(End::Final(Fate::Drop))),
            Target::Reject(_) => Some(self.decide(End::Final(Fate::Reject))),
            Target::Redirect(port) => {
                self.redirect(*port);
                Some(self.decide(End::Accepted))
            }
            Target::Tproxy { port, mark } => {
                self.redirected = Some(Fate::Tproxy { port: *port });
                self.view.mark = mark.unwrap_or(self.view.mark);
                Some(self.decide(End::Accepted))
            }
            Target::Mark(mark) => {
                self.view.mark = *mark;
                None
            }
            Target::SaveMark => {
                if self.view.state != State::Untracked {
                    self.view.connection_mark = self.view.mark;
                }
                None
            }
            Target::RestoreMark => {
                if self.view.state != State::Untracked {
                    self.view.mark = self.view.connection_mark;
                }
                None
            }
            Target::Notrack => {
                self.view.state = State::Untracked;
                None
            }
            Target::Zone(zone) => {
                // Only the first one counts.
                if self.view.zone == 0 {
                    self.view.zone = *zone;
                }
                None
            }
            Target::Remember(_) => {
                self.view.is_remembered = true;
                self.view.dns_answers = true;
                None
            }
            Target::Jump(name) | Target::Goto(name) => {
                let Some(chain) = hooked.chains.iter().position(|chain| chain.name == *name) else {
                    return Some(self.decide(End::Final(Fate::Unknown)));
                };
                match self.chain(hooked, chain) {
                    End::Returned if matches!(target, Target::Jump(_)) => None,
                    end => Some(end),
                }
            }
            Target::Other(_) if only_watches(target) => None,
            Target::Other(text) => match new_mark(text, self.view.mark) {
                Some(mark) => {
                    self.view.mark = mark;
                    None
                }
                None => Some(self.decide(End::Final(Fate::Unknown))),
            },
        }
    }

    /// Notes the last step as the one that decided. A redirect stands, whatever lets it pass later.
    fn decide(&mut self, end: End) -> End {
        let passes = matches!(end, End::Accepted | End::Returned);
        let last = self.path.last();
        let redirects =
            last.is_some_and(|step| matches!(step.rule.target, Target::Redirect(_) | Target::Tproxy { .. }));
        if !passes || self.redirected.is_none() || redirects {
            self.decided = self.path.len().checked_sub(1);
        }
        end
    }

    fn redirect(&mut self, port: u16) {
        self.redirected = Some(Fate::Redirect { port });
        self.view.destination_port = port;
        self.view.destination = match (self.view.owner, self.view.source) {
            (None, _) => None,
            (Some(_), IpAddr::V4(_)) => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            (Some(_), IpAddr::V6(_)) => Some(std::net::Ipv6Addr::LOCALHOST.into()),
        };
    }

    /// Whether the rule fits; notes what stands against it.
    fn ask(&mut self, rule: &Rule, at: At) -> Fit {
        self.count += 1;
        let (mut failed, mut unknown) = (Tests::default(), Tests::default());
        for (number, found) in rule.matches.iter().enumerate() {
            match self.match_fits(found) {
                Fit::No if self.telling == Telling::Path => return Fit::No,
                Fit::No => failed.add(number),
                Fit::Unknown => unknown.add(number),
                Fit::Yes => {}
            }
        }
        let fit = match (failed.is_empty(), unknown.is_empty()) {
            (false, _) => Fit::No,
            (true, false) => Fit::Unknown,
            (true, true) => Fit::Yes,
        };
        if self.telling == Telling::Path {
            return fit;
        }
        self.asked.push(Asked {
            at,
            failed,
            unknown,
            met: Met {
                destination_port: self.view.destination_port,
                mark: self.view.mark,
                is_inward: self.view.in_device.is_some(),
            },
        });
        fit
    }

    fn match_fits(&self, found: &Match) -> Fit {
        // There is no connection whose mark could be this one, or another.
        if matches!(found.test, Test::ConnectionMark(_)) && self.view.state == State::Untracked {
            return Fit::No;
        }
        match self.holds(&found.test) {
            None => Fit::Unknown,
            Some(holds) if holds != found.negated => Fit::Yes,
            Some(_) => Fit::No,
        }
    }

    /// None where it cannot be said.
    fn holds(&self, test: &Test) -> Option<bool> {
        let view = &self.view;
        let device = |there: &Option<String>, name: &str| {
            let there = there.as_deref().unwrap_or_default();
            match name.strip_suffix('+') {
                Some(start) => there.starts_with(start),
                None => there == name,
            }
        };
        let has_ports = matches!(
            view.protocol,
            IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Sctp
        );
        let within = |range: &PortRange, port| has_ports && (range.first..=range.last).contains(&port);
        Some(match test {
            Test::Source(net) => net.contains(&view.source),
            Test::Sources(addresses) => addresses.contains(view.source),
            Test::Destination(net) => net.contains(&view.destination?),
            Test::Destinations(addresses) => addresses.contains(view.destination?),
            Test::InInterface(name) => device(&view.in_device, name),
            Test::OutInterface(name) => device(&view.out_device, name),
            Test::Protocol(protocol) => *protocol == view.protocol,
            Test::SourcePort(range) => within(range, view.source_port),
            Test::DestinationPort(range) => within(range, view.destination_port),
            Test::DestinationPorts(ranges) => ranges.iter().any(|range| within(range, view.destination_port)),
            Test::DestinationServices(services) => {
                let to = SocketAddr::new(view.destination?, view.destination_port);
                has_ports && services.binary_search(&to).is_ok()
            }
            Test::Opens => view.opens,
            Test::Transparent => view.transparent,
            Test::Uid(first, last) => (*first..=*last).contains(&view.owner?.0),
            Test::Uids(ranges) => within_any(ranges, view.owner?.0),
            Test::Gid(first, last) => (*first..=*last).contains(&view.owner?.1),
            Test::Gids(ranges) => within_any(ranges, view.owner?.1),
            Test::Mark(mark) => mark.matches(view.mark),
            // As the owner, these are the socket's, which there is none of on the way in.
            Test::Class(id) => view.owner.and(self.cgroups.class_id)? == *id,
            Test::Classes(ranges) => within_any(ranges, view.owner.and(self.cgroups.class_id)?),
            Test::Cgroup(path) => view.owner.and(self.cgroups.is_below(path))?,
            Test::ConnectionMark(mark) => mark.matches(view.connection_mark),
            Test::State(states) => is_in(view.state, states)?,
            Test::Zone(zone) => *zone == view.zone,
            Test::Alive(_) => view.dns_answers,
            Test::Comment(_) => true,
            Test::Other(_) => return None,
        })
    }
}

fn within_any(ranges: &[(u32, u32)], id: u32) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&id))
}

/// Targets that look at a packet, or change what no test here looks at.
fn only_watches(target: &Target) -> bool {
    const WATCHERS: [&str; 8] = [
        "LOG", "NFLOG", "TRACE", "AUDIT", "TCPMSS", "DSCP", "TOS", "CHECKSUM",
    ];
    match target {
        Target::Continue => true,
        Target::Other(text) => {
            text.split(' ')
                .next()
                .is_some_and(|name| WATCHERS.contains(&name))
                || text.starts_with("CONNMARK --save-mark")
                // Which of two tables of connections it is kept in.
                || text.starts_with("CT --zone")
                || text.starts_with("ct zone set ")
        }
        _ => false,
    }
}

/// What `MARK --set-xmark VALUE/MASK` makes of a mark.
fn new_mark(target: &str, mark: u32) -> Option<u32> {
    let text = target.strip_prefix("MARK --set-xmark ")?;
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((mark & !number(mask)?) ^ number(value)?)
}

/// None where a state has a name that is not known.
fn is_in(state: State, states: &[String]) -> Option<bool> {
    const ALL: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];
    if states.iter().any(|name| name == state.name()) {
        return Some(true);
    }
    let all_known = states.iter().all(|name| ALL.contains(&name.as_str()));
    all_known.then_some(false)
}
