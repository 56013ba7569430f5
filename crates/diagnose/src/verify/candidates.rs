//! The packets that a namespace could be asked about: of every kind of sender, to every kind of destination that
//! the flags, or any rule, make a difference for. Which of them are sent is decided by [`super::choice`].

mod by_device;
mod by_rule;
mod list;
mod places;
mod senders;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use netsys::probe::Owner;
use rules::intent::{Dns, Selection, Tproxy};
use rules::ruleset::IpProtocol;
use rules::{Family, Intent, Origin, Packet, State};

use self::list::List;
pub(super) use self::list::{Candidate, Ground, Sent};
use self::places::MOST;
pub(super) use self::places::local;
use super::seats::Seat;

/// All of one family, the plainest first.
pub(super) fn of_family(ground: &Ground<'_>, family: Family) -> Vec<Candidate> {
    let mut list = List {
        ground,
        family,
        all: vec![],
    };
    list.plain();
    list.senders();
    list.look_ups();
    list.destinations();
    list.ports();
    list.sources();
    list.strays();
    list.devices();
    list.by_rule();
    list.in_a_clients_name();
    list.all
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
        for (owner, seat) in self.everybody() {
            self.sender(owner, seat, seat.is_some() || self.is_beyond(owner));
        }
        // What is marked so outside would be led inside by its mark.
        let inside = self.ground.intent.inbound.tproxy();
        let marks = inside.map(|tproxy| [tproxy.mark.value, Tproxy::SELF_CALL.value]);
        for mark in marks.into_iter().flatten() {
            let owner = Owner {
                mark,
                ..self.application()
            };
            let to = SocketAddr::new(self.near(), self.ground.free[0]);
            self.add(false, self.made(owner, to));
        }
    }

    /// One of them; whether its plain packets are sent whatever else is.
    fn sender(&mut self, owner: Owner, seat: Option<&Seat>, always: bool) {
        let port = self.ground.free[0];
        for to in [self.far(), self.near(), self.loopback()] {
            self.add_from(seat, always, self.made(owner, SocketAddr::new(to, port)));
        }
        let tunnel = SocketAddr::new(self.near(), self.ground.intent.inbound.tunnel_port);
        self.add_from(seat, false, self.made(owner, tunnel));
        let look_ups = [self.far(), self.near(), self.loopback()].map(|ip| SocketAddr::new(ip, Dns::PORT));
        for to in look_ups {
            self.add_from(seat, false, self.made(owner, to));
            self.add_from(seat, false, udp(self.made(owner, to)));
        }
        let mut passthrough = self.made(owner, SocketAddr::new(self.near(), port));
        passthrough.source = self.passthrough();
        self.add_from(seat, false, passthrough);
    }

    /// Look-ups of servers that the flags name.
    fn look_ups(&mut self) {
        let dns = self.ground.intent.captured_dns();
        let servers = match dns.map(|dns| &dns.servers) {
            Some(Selection::Only(servers)) => &servers[..],
            Some(Selection::All) | None => &[],
        };
        let fit: Vec<_> = servers.iter().copied().filter(|ip| self.is_fit(*ip)).collect();
        let senders = self.everybody();
        for ip in fit.into_iter().take(MOST) {
            let to = SocketAddr::new(ip, Dns::PORT);
            let stays = self.stays(ip);
            for (owner, seat) in senders.iter().filter(|(owner, _)| owner.mark == 0 || stays) {
                self.add_from(*seat, false, udp(self.made(*owner, to)));
                self.add_from(*seat, false, self.made(*owner, to));
            }
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
        let senders = self.everybody();
        for (always, net) in nets {
            for ip in self.fit_of(net) {
                let to = SocketAddr::new(ip, self.ground.free[0]);
                self.add(always, self.made(application, to));
                // What is marked is not led to the wire, and would leave.
                let stays = self.stays(ip);
                for (owner, seat) in senders.iter().filter(|(owner, _)| owner.mark == 0 || stays) {
                    self.add_from(*seat, false, self.made(*owner, to));
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
        let senders = self.everybody();
        for (always, port) in all {
            let to_far = SocketAddr::new(self.far(), port);
            for (index, &(owner, seat)) in senders.iter().enumerate() {
                let always = always && index == 0;
                self.add_from(seat, always, self.made(owner, to_far));
                self.add_from(seat, always, self.made(owner, SocketAddr::new(self.near(), port)));
                self.add_from(seat, always, udp(self.made(owner, to_far)));
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

    /// Packets that open no connection, and those that are of none.
    fn strays(&mut self) {
        let port = self.ground.free[0];
        let mut strays = [
            self.made(self.application(), SocketAddr::new(self.far(), port)),
            self.remote(self.far(), SocketAddr::new(self.near(), port)),
        ];
        let is_tproxy = self.ground.intent.inbound.tproxy().is_some();
        // It is led to the proxy where one that a cookie answers would be.
        let of_none = if is_tproxy { State::Stray } else { State::PickedUp };
        for (stray, state) in strays.iter_mut().zip([State::PickedUp, of_none]) {
            stray.state = state;
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

    /// What the proxy and the application say to each other where the client's address is kept.
    fn in_a_clients_name(&mut self) {
        let Some(tproxy) = self.ground.intent.inbound.tproxy() else {
            return;
        };
        let port = self.ground.free[0];
        let proxy = self.proxies().into_iter().next();
        let seat = self.ground.seats.first().filter(|_| proxy.is_none());
        let owner = Owner {
            mark: tproxy.mark.value,
            ..proxy.unwrap_or(self.application())
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
        // And what goes on with connections: captured ones, also where a cookie is all that is known of them, those
        // from before the rules, and those of whoever is behind the namespace.
        let captured = Packet {
            connection_mark: Tproxy::CLIENT.value,
            ..brought(&client)
        };
        let calls_itself = Packet {
            origin: to_client.origin,
            device: "lo".to_owned(),
            ..captured
        };
        let completing = [&captured, &calls_itself].map(|packet| Packet {
            state: State::Passing,
            transparent: false,
            ..packet.clone()
        });
        let [open, passing] = [State::PickedUp, State::Passing].map(|state| Packet {
            state,
            ..client.clone()
        });
        for packet in [
            call,
            answer,
            client,
            to_client,
            captured,
            calls_itself,
            open,
            passing,
        ]
        .into_iter()
        .chain(completing)
        .chain(more)
        .chain(over_lo)
        {
            let is_proxys = matches!(packet.origin, Origin::Socket { mark, .. } if mark != 0);
            self.all.push(Candidate {
                packet,
                seat: seat.filter(|_| is_proxys).cloned(),
                when: Sent::OnTheWay,
            });
        }
    }
}

fn udp(packet: Packet) -> Packet {
    Packet {
        protocol: IpProtocol::Udp,
        ..packet
    }
}
