//! The packets that a namespace could be asked about: of every kind of sender, to every kind of destination that
//! the flags, or any rule, make a difference for. Which of them are sent is decided by [`super::choice`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netsys::probe::{Addresses, Owner, Wire};
use rules::intent::{Dns, Proxy, Selection, Signs, Tproxy};
use rules::ruleset::IpProtocol;
use rules::{Family, Intent, Mentions, Origin, Packet, State};

/// What the candidates are made from.
pub(super) struct Ground<'a> {
    pub(super) intent: &'a Intent,
    pub(super) addresses: Addresses,
    /// The namespace's own addresses.
    pub(super) own: &'a [IpAddr],
    /// Addresses that are its own to packets of the wire alone.
    pub(super) local: &'a [IpAddr],
    /// What rules speak of beyond what the flags ask for.
    pub(super) beyond: &'a Mentions,
    /// The same by the rule.
    pub(super) by_rule: &'a [Mentions],
    /// Whether a DNS proxy runs.
    pub(super) dns_answers: bool,
    /// Ports that nobody listens on and no rule speaks of: to be called, and to call from.
    pub(super) free: [u16; 2],
    /// Whether sockets of that owner can be made.
    pub(super) can_be: fn(Owner) -> bool,
}

/// A packet, and when it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) packet: Packet,
    pub(super) when: Sent,
}

/// When a packet is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// Whatever else is.
    Always,
    /// Where it tells of a rule.
    AsWitness,
    /// By a connection that goes all the way, and never alone.
    OnTheWay,
}

/// Values of one kind that are tried where rules speak of more: each is a packet or several.
const MOST: usize = 48;

/// The same of what one rule speaks of.
const FEW: usize = 3;

/// All of one family, the plainest first.
pub(super) fn of_family(ground: &Ground<'_>, family: Family) -> Vec<Candidate> {
    let mut list = List {
        ground,
        family,
        all: vec![],
    };
    list.plain();
    list.senders();
    list.destinations();
    list.ports();
    list.sources();
    list.strays();
    list.by_rule();
    list.in_a_clients_name();
    list.all
}

struct List<'a> {
    ground: &'a Ground<'a>,
    family: Family,
    all: Vec<Candidate>,
}

impl List<'_> {
    /// One of each direction.
    fn plain(&mut self) {
        let port = self.ground.free[0];
        let (near, far) = (self.near(), self.far());
        let application = self.application();
        let proxy = self.proxies().into_iter().next();
        self.add(true, self.made(application, SocketAddr::new(far, port)));
        self.add(true, self.remote(far, SocketAddr::new(self.arrival(), port)));
        for own in [near, self.loopback()] {
            self.add(true, self.made(application, SocketAddr::new(own, port)));
        }
        self.add(true, udp(self.made(application, SocketAddr::new(far, port))));
        for protocol in [IpProtocol::Udp, IpProtocol::Tcp] {
            let mut query = self.made(application, SocketAddr::new(far, 53));
            query.protocol = protocol;
            self.add(true, query);
        }
        if let Some(proxy) = proxy {
            self.add(true, self.made(proxy, SocketAddr::new(far, port)));
            self.add(true, self.made(proxy, SocketAddr::new(near, port)));
            let mut passthrough = self.made(proxy, SocketAddr::new(near, port));
            passthrough.source = self.passthrough();
            let is_used = self.ground.intent.inbound.tproxy().is_none();
            self.add(is_used, passthrough);
        }
    }

    /// Everybody, to everywhere of note.
    fn senders(&mut self) {
        let port = self.ground.free[0];
        let tunnel = self.ground.intent.inbound.tunnel_port;
        for owner in self.owners() {
            let is_beyond = self.is_beyond(owner);
            for to in [self.far(), self.near(), self.loopback()] {
                self.add(is_beyond, self.made(owner, SocketAddr::new(to, port)));
            }
            self.add(false, self.made(owner, SocketAddr::new(self.near(), tunnel)));
            for to in [self.far(), self.near()].map(|ip| SocketAddr::new(ip, Dns::PORT)) {
                self.add(false, self.made(owner, to));
                self.add(false, udp(self.made(owner, to)));
            }
            let mut passthrough = self.made(owner, SocketAddr::new(self.near(), port));
            passthrough.source = self.passthrough();
            self.add(false, passthrough);
        }
        // What is marked so outside would be led inside by its mark.
        let inside = self.ground.intent.inbound.tproxy();
        let marks = inside.map(|tproxy| [tproxy.mark.value, Tproxy::SELF_CALL.value]);
        for mark in marks.into_iter().flatten() {
            let owner = Owner {
                mark,
                ..self.application()
            };
            self.add(false, self.made(owner, SocketAddr::new(self.near(), port)));
        }
    }

    /// Networks that the flags name, and those that rules speak of beyond.
    fn destinations(&mut self) {
        let outbound = &self.ground.intent.outbound;
        let listed = match &outbound.cidrs {
            Selection::All => &[][..],
            Selection::Only(nets) => nets,
        };
        let named = listed.iter().chain(&outbound.exclude_cidrs).copied();
        let mut nets: Vec<(bool, IpNet)> = named.map(|net| (false, net)).collect();
        nets.push((false, outbound.loopback_v4.into()));
        let beyond = &self.ground.beyond.destinations;
        nets.extend(beyond.iter().take(MOST).map(|net| (true, *net)));
        let application = self.application();
        let owners = self.owners();
        for (always, net) in nets {
            for ip in self.fit_of(net) {
                let to = SocketAddr::new(ip, self.ground.free[0]);
                self.add(always, self.made(application, to));
                // What is marked is not led to the wire, and would leave.
                let stays = self.stays(ip);
                for owner in owners.iter().filter(|owner| owner.mark == 0 || stays) {
                    self.add(false, self.made(*owner, to));
                }
                for port in &outbound.exclude_ports {
                    self.add(false, self.made(application, SocketAddr::new(ip, *port)));
                }
                if always && self.ground.own.contains(&ip) && !ip.is_loopback() {
                    self.add(true, self.remote(self.far(), to));
                }
            }
        }
        for service in outbound.services.iter().flatten().take(MOST) {
            if self.is_fit(service.ip()) {
                self.add(true, self.made(application, *service));
                let other = SocketAddr::new(service.ip(), self.ground.free[0]);
                self.add(false, self.made(application, other));
            }
        }
    }

    /// Ports, both ways.
    fn ports(&mut self) {
        let Intent {
            outbound, inbound, ..
        } = self.ground.intent;
        let mut inward: BTreeSet<u16> = inbound.exclude_ports.iter().copied().collect();
        inward.insert(inbound.tunnel_port);
        if let Selection::Only(ports) = &inbound.ports {
            inward.extend(ports);
        }
        let outward = outbound.ports.iter().chain(&outbound.exclude_ports).copied();
        let beyond = &self.ground.beyond.ports;
        let beyond: Vec<u16> = beyond.iter().copied().take(MOST).collect();
        let named = inward.into_iter().chain(outward).map(|port| (false, port));
        let all: Vec<_> = named.chain(beyond.iter().map(|port| (true, *port))).collect();
        let senders = self.owners();
        for (always, port) in all {
            let to_far = SocketAddr::new(self.far(), port);
            for &sender in &senders {
                let always = always && sender == senders[0];
                self.add(always, self.made(sender, to_far));
                self.add(always, self.made(sender, SocketAddr::new(self.near(), port)));
                self.add(always, udp(self.made(sender, to_far)));
            }
            let to_near = SocketAddr::new(self.near(), port);
            self.add(always, self.remote(self.far(), to_near));
        }
    }

    /// Who calls from outside.
    fn sources(&mut self) {
        let excluded = self.ground.intent.inbound.exclude_sources.iter();
        let named = excluded.map(|net| (false, *net));
        let beyond = self.ground.beyond.sources.iter().take(MOST);
        let to = SocketAddr::new(self.near(), self.ground.free[0]);
        for (always, net) in named.chain(beyond.map(|net| (true, *net))) {
            // What comes from an address of the namespace's own is taken for a forgery.
            let own = self.ground.own;
            let is_foreign = |ip: &IpAddr| !ip.is_loopback() && !own.contains(ip);
            for ip in self.fit_of(net).into_iter().filter(is_foreign) {
                self.add(always, self.remote(ip, to));
            }
        }
        for port in self.ground.beyond.source_ports.iter().take(MOST) {
            for mut packet in [
                self.made(self.application(), SocketAddr::new(self.far(), to.port())),
                self.remote(self.far(), to),
            ] {
                packet.source_port = *port;
                self.add(true, packet);
            }
        }
    }

    /// Packets of which everything is true that one rule asks for.
    fn by_rule(&mut self) {
        for mentions in self.ground.by_rule.iter().take(MOST) {
            let mut ports: Vec<u16> = mentions.ports.iter().copied().take(FEW).collect();
            if ports.is_empty() {
                ports.push(self.ground.free[0]);
            }
            let mut to: Vec<IpAddr> = mentions
                .destinations
                .iter()
                .flat_map(|net| self.fit_of(*net))
                .collect();
            to.truncate(FEW);
            if to.is_empty() {
                to.extend([self.far(), self.near()]);
            }
            let mut from: Vec<IpAddr> = mentions
                .sources
                .iter()
                .flat_map(|net| self.fit_of(*net))
                .collect();
            from.retain(|ip| !ip.is_loopback() && !self.ground.own.contains(ip));
            from.truncate(FEW);
            if from.is_empty() {
                from.push(self.far());
            }
            let owners = self.owners_of(mentions);
            for to in to
                .iter()
                .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)))
            {
                let (stays, is_far) = (self.stays(to.ip()), to.ip() == self.far());
                for owner in owners.iter().filter(|owner| owner.mark == 0 || stays || is_far) {
                    self.add(true, self.made(*owner, to));
                }
                for from in from.iter().filter(|_| stays && !to.ip().is_loopback()) {
                    self.add(true, self.remote(*from, to));
                }
            }
        }
    }

    /// Whoever a rule could mean; the application where it means nobody.
    fn owners_of(&self, mentions: &Mentions) -> Vec<Owner> {
        let application = self.application();
        let mut all = vec![application];
        let or_own = |ids: Vec<u32>, own: u32| if ids.is_empty() { vec![own] } else { ids };
        let few = |ids: &BTreeSet<u32>| ids.iter().copied().take(FEW).collect::<Vec<_>>();
        for uid in or_own(few(&mentions.uids), application.uid) {
            for gid in or_own(few(&mentions.gids), application.gid) {
                for mark in or_own(few(&mentions.marks), 0) {
                    all.push(Owner { uid, gid, mark });
                }
            }
        }
        all.dedup();
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }

    /// Packets that open no connection, and those that are of none.
    fn strays(&mut self) {
        let port = self.ground.free[0];
        let mut strays = [
            self.made(self.application(), SocketAddr::new(self.far(), port)),
            self.remote(self.far(), SocketAddr::new(self.near(), port)),
        ];
        for stray in &mut strays {
            stray.state = State::PickedUp;
            self.add(true, stray.clone());
        }
        // And one to where connections are captured, where not all are.
        if let Selection::Only(nets) = &self.ground.intent.outbound.cidrs {
            let captured = nets
                .iter()
                .flat_map(|net| self.fit_of(*net))
                .find(|ip| !self.stays(*ip));
            if let Some(ip) = captured {
                let mut stray = self.made(self.application(), SocketAddr::new(ip, port));
                stray.state = State::PickedUp;
                self.add(true, stray);
            }
        }
        let [_, mut invalid] = strays;
        invalid.state = State::Invalid;
        self.add(false, invalid);
    }

    fn add(&mut self, always: bool, packet: Packet) {
        let when = if always { Sent::Always } else { Sent::AsWitness };
        match self.all.iter_mut().find(|known| known.packet == packet) {
            Some(known) if always => known.when = when,
            Some(_) => {}
            None => self.all.push(Candidate { packet, when }),
        }
    }

    /// What the proxy and the application say to each other where the client's address is kept.
    fn in_a_clients_name(&mut self) {
        let Some(tproxy) = self.ground.intent.inbound.tproxy() else {
            return;
        };
        let port = self.ground.free[0];
        let owner = Owner {
            mark: tproxy.mark.value,
            ..self.proxies().into_iter().next().unwrap_or(self.application())
        };
        let mut call = self.made(owner, SocketAddr::new(self.near(), port));
        call.source = self.far();
        let mut answer = self.made(self.application(), SocketAddr::new(self.far(), port));
        answer.state = State::Established;
        answer.connection_mark = tproxy.mark.value;
        // The same where conntrack does not look, with what leads the client's packets and the answers to the proxy.
        let mut client = self.remote(self.far(), SocketAddr::new(self.near(), port));
        client.state = State::Established;
        let brought = |packet: &Packet| Packet {
            state: State::Established,
            transparent: true,
            connection_mark: 0,
            ..packet.clone()
        };
        let owner = Owner {
            mark: Tproxy::CLIENT.value,
            ..owner
        };
        let mut to_client = self.made(owner, SocketAddr::new(self.far(), port));
        to_client.state = State::Untracked;
        let more = [&call, &answer, &client, &to_client].map(brought);
        let over_lo = more.clone().map(|packet| Packet {
            device: "lo".to_owned(),
            ..packet
        });
        for packet in [call, answer, client, to_client]
            .into_iter()
            .chain(more)
            .chain(over_lo)
        {
            self.all.push(Candidate {
                packet,
                when: Sent::OnTheWay,
            });
        }
    }

    fn made(&self, owner: Owner, to: SocketAddr) -> Packet {
        let stays = self.stays(to.ip());
        Packet {
            origin: Origin::Socket {
                uid: owner.uid,
                gid: owner.gid,
                mark: owner.mark,
            },
            protocol: IpProtocol::Tcp,
            source: self.near(),
            source_port: self.ground.free[1],
            destination: to.ip(),
            destination_port: to.port(),
            device: String::from(if stays { "lo" } else { Wire::DEVICE }),
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: self.ground.dns_answers,
        }
    }

    fn remote(&self, from: IpAddr, to: SocketAddr) -> Packet {
        Packet {
            origin: Origin::Remote,
            source: from,
            device: Wire::DEVICE.to_owned(),
            ..self.made(self.application(), to)
        }
    }

    /// Whether what goes there goes over `lo`.
    fn stays(&self, ip: IpAddr) -> bool {
        let ground = self.ground;
        ip.is_loopback() || ip == self.near() || ground.own.contains(&ip) || ground.local.contains(&ip)
    }

    fn near(&self) -> IpAddr {
        self.ground.addresses.near(self.family)
    }

    fn far(&self) -> IpAddr {
        self.ground.addresses.far(self.family)
    }

    /// Where the world calls the namespace: the first address of its own that others can reach.
    fn arrival(&self) -> IpAddr {
        let is_called = |ip: &&IpAddr| {
            Family::of(**ip) == self.family
                && !ip.is_loopback()
                && **ip != self.near()
                && **ip != self.passthrough()
                && is_global(**ip)
        };
        self.ground
            .own
            .iter()
            .find(is_called)
            .copied()
            .unwrap_or(self.near())
    }

    fn loopback(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    fn passthrough(&self) -> IpAddr {
        match self.family {
            Family::V4 => model::ports::PASSTHROUGH_V4.into(),
            Family::V6 => model::ports::PASSTHROUGH_V6.into(),
        }
    }

    /// Whether a packet of this family can go there.
    fn is_fit(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family && !ip.is_multicast() && !ip.is_unspecified() && {
            // Such an address says nothing without its device.
            !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
        }
    }

    /// Addresses of a network that a packet of this family can go to.
    fn fit_of(&self, net: IpNet) -> Vec<IpAddr> {
        let local = self.ground.local.iter().filter(|ip| net.contains(*ip));
        let all = within(net).into_iter().chain(local.copied());
        all.filter(|ip| self.is_fit(*ip)).collect()
    }

    fn signs(&self) -> Signs {
        match &self.ground.intent.proxy {
            Proxy::Inside(signs) => signs.clone(),
            Proxy::Outside { mark, .. } => Signs {
                marks: mark.iter().copied().collect(),
                ..Signs::default()
            },
        }
    }

    /// One who is not the proxy, and whose connections are captured where groups decide about that.
    fn application(&self) -> Owner {
        const IDS: [u32; 4] = [0, 65_534, 4_242, 4_243];
        let signs = self.signs();
        let outbound = &self.ground.intent.outbound;
        let uid = IDS.into_iter().find(|id| !signs.uids.contains(id));
        let gids = match &outbound.groups {
            Selection::Only(groups) => groups.clone(),
            Selection::All => IDS.to_vec(),
        };
        let of_another = |id: &u32| !signs.gids.contains(id) && !outbound.exclude_groups.contains(id);
        let gid = gids.into_iter().find(of_another);
        let owner = Owner {
            uid: uid.unwrap_or(IDS[3]),
            gid: gid.unwrap_or(IDS[3]),
            mark: 0,
        };
        if (self.ground.can_be)(owner) {
            owner
        } else {
            netsys::probe::myself()
        }
    }

    /// The proxy, by each of its signs.
    fn proxies(&self) -> Vec<Owner> {
        let application = self.application();
        let Signs {
            uids, gids, marks, ..
        } = self.signs();
        let both = uids.first().zip(gids.first());
        let both = both.map(|(&uid, &gid)| Owner {
            uid,
            gid,
            ..application
        });
        let mut all: Vec<_> = both.into_iter().collect();
        all.extend(uids.iter().map(|&uid| Owner { uid, ..application }));
        all.extend(gids.iter().map(|&gid| Owner { gid, ..application }));
        all.extend(marks.iter().map(|mark| Owner {
            mark: mark.value,
            ..application
        }));
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }

    /// Everybody that makes a difference.
    fn owners(&self) -> Vec<Owner> {
        let application = self.application();
        let outbound = &self.ground.intent.outbound;
        let beyond = self.ground.beyond;
        let mut gids = outbound.exclude_groups.clone();
        if let Selection::Only(groups) = &outbound.groups {
            gids.extend(groups);
            // And somebody of none of them.
            gids.push(4_242);
        }
        gids.extend(beyond.gids.iter().take(MOST));
        let marks = beyond.marks.iter().copied().take(MOST);
        let mut all = vec![application];
        all.extend(self.proxies());
        all.extend(gids.into_iter().map(|gid| Owner { gid, ..application }));
        let uids = beyond.uids.iter().take(MOST);
        all.extend(uids.map(|&uid| Owner { uid, ..application }));
        all.extend(marks.map(|mark| Owner { mark, ..application }));
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }

    fn is_beyond(&self, owner: Owner) -> bool {
        let beyond = self.ground.beyond;
        beyond.uids.contains(&owner.uid)
            || beyond.gids.contains(&owner.gid)
            || (owner.mark != 0 && beyond.marks.contains(&owner.mark))
    }
}

fn udp(packet: Packet) -> Packet {
    Packet {
        protocol: IpProtocol::Udp,
        ..packet
    }
}

/// An address of each included network, to be taken for the namespace's own by what is sent from the wire: without
/// one, nothing could tell that what stays in the namespace is left alone.
pub(super) fn local(intent: &Intent, own: &[IpAddr]) -> Vec<IpAddr> {
    let Selection::Only(nets) = &intent.outbound.cidrs else {
        return vec![];
    };
    let of = |net: &IpNet| -> Option<IpAddr> {
        let ip = match net {
            IpNet::V4(net) if net.prefix_len() < 30 => Ipv4Addr::from(u32::from(net.broadcast()) - 2).into(),
            IpNet::V6(net) if net.prefix_len() < 126 => {
                Ipv6Addr::from(u128::from(net.broadcast()) - 2).into()
            }
            _ => return None,
        };
        (!ip_is_special(ip) && !own.contains(&ip)).then_some(ip)
    };
    nets.iter().filter_map(of).take(MOST).collect()
}

fn ip_is_special(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_multicast() || ip.is_unspecified()
}

/// The first and the last address of a network that a host could have.
fn within(net: IpNet) -> Vec<IpAddr> {
    let mut hosts = net.hosts();
    let first = hosts.next();
    // Iterating to the last one of a wide network would take for ever.
    let last: IpAddr = match net {
        IpNet::V4(v4) => {
            // But for the broadcast address, where there is one.
            let beyond = u32::from(v4.prefix_len() < 31);
            Ipv4Addr::from(u32::from(v4.broadcast()) - beyond).into()
        }
        IpNet::V6(v6) => v6.broadcast().into(),
    };
    let mut all: Vec<_> = first.into_iter().chain([last]).collect();
    all.dedup();
    all
}

/// Whether others can call it.
fn is_global(ip: IpAddr) -> bool {
    !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
