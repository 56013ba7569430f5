//! What the proxy does with a connection that reaches it: the data path's own decision, the endpoints that it
//! chooses among and why others lose, and the proxy's way on to them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::settings::Balancing;
use model::{Direction, Handling, KnownBy, Local, OrigDst, SessionAffinity, ports};
use netsys::route_to::Question as RouteQuestion;
use netsys::socket_table::Listener;
use registry::{Cluster, Decision, Deny, Standing, Target};
use rules::ruleset::{IpProtocol, Test};
use rules::{Family, Fate, Origin, Packet, State, Verdict};

use super::{Candidate, End, Finding, Mesh, Side, Story};

impl Story<'_> {
    /// From the outbound listener on.
    pub(super) fn outbound(&mut self, listener: Option<Listener>) -> End {
        match self.decide(Direction::Outbound, listener) {
            Err(end) => end,
            Ok(Decision::Cluster(cluster)) => self.balanced(&cluster, listener),
            Ok(Decision::Endpoint(cluster, target)) => {
                self.of_cluster(&cluster, "an endpoint of a service has this address and port");
                self.direct_endpoint(&cluster, &target, listener)
            }
            Ok(Decision::Passthrough(why)) => {
                self.step("cluster", format!("PassthroughCluster: {}", why.as_str()));
                let to = self.question.to;
                self.onward(to, listener)
                    .unwrap_or_else(|| End::Works(format!("the proxy passes it on to {to}, byte for byte")))
            }
            Ok(Decision::Deny(why)) => self.denied(why),
        }
    }

    /// From the inbound listener on: to the application itself.
    pub(super) fn inbound(&mut self, listener: Option<Listener>) -> End {
        let to = self.question.to;
        match self.decide(Direction::Inbound, listener) {
            Err(end) => return end,
            Ok(Decision::Cluster(cluster) | Decision::Endpoint(cluster, _)) => {
                self.of_cluster(&cluster, "a service has this port of the pod");
            }
            Ok(Decision::Passthrough(why)) => {
                self.step("cluster", format!("InboundPassthroughCluster: {}", why.as_str()));
            }
            Ok(Decision::Deny(why)) => return self.denied(why),
        }
        if self.listener(IpProtocol::Tcp, to).is_err() {
            self.step("endpoint", format!("nobody listens at {to}"));
            return End::fails(
                format!("the proxy calls the application at {to}, where nobody listens"),
                Finding::new(
                    Side::Endpoint,
                    format!("no process of this namespace listens at {to}"),
                    "start the application on that port; one that listens on 127.0.0.1 alone is not reached from outside",
                ),
            );
        }
        self.step("endpoint", format!("the application at {to}"));
        End::Works(format!("the proxy hands it to the application at {to}"))
    }

    fn decide(&mut self, direction: Direction, listener: Option<Listener>) -> Result<Decision, End> {
        let port = match direction {
            Direction::Outbound => ports::OUTBOUND,
            Direction::Inbound => ports::INBOUND,
        };
        let (snapshot, from) = match self.mesh {
            Mesh::Known { snapshot, from, .. } => (snapshot, from),
            Mesh::Unknown(why) => {
                self.remark(format!("what the proxy then does is not known: {why}"));
                return Err(End::Works(format!(
                    "it is captured: it goes to the proxy on port {port}"
                )));
            }
        };
        self.step(
            "listener",
            format!("{direction}, port {port}; the registry is that of {from}"),
        );
        let ip = listener.map_or(IpAddr::from([0, 0, 0, 0]), |listener| listener.address.ip());
        let local = Local::new(SocketAddr::new(ip, port));
        Ok(snapshot.decide(direction, OrigDst::new(self.question.to), local))
    }

    pub(super) fn denied(&mut self, why: Deny) -> End {
        let to = self.question.to;
        self.step("cluster", format!("BlackHoleCluster: {}", why.as_str()));
        let service = self
            .snapshot()
            .and_then(|snapshot| snapshot.by_vip_ip.get(&to.ip()));
        let (side, what, fix) = match why {
            Deny::Loop => (
                Side::Client,
                format!(
                    "{to} is the proxy's own port: a connection made to it is closed, as it would come back to it"
                ),
                String::from("connect to the service or the application, not to the proxy"),
            ),
            Deny::RegistryOnly => (
                Side::Registry,
                format!("no service owns {to}, and outboundPolicy is registry-only"),
                String::from(
                    "describe the destination by a Service and its EndpointSlice, or set outboundPolicy: allow-any in the MeshConfig",
                ),
            ),
            Deny::UnknownServicePort => {
                let ports: Vec<_> = service
                    .iter()
                    .flat_map(|service| &service.ports)
                    .map(|port| port.number.to_string())
                    .collect();
                let host = service.map_or_else(String::new, |service| service.host.to_string());
                (
                    Side::Client,
                    format!("{host} has no port {}: it has {}", to.port(), ports.join(", ")),
                    String::from("call one of its ports, or add this one to the Service"),
                )
            }
        };
        End::fails("the proxy closes it at once", Finding::new(side, what, fix))
    }

    /// Service, protocol, route and cluster.
    fn of_cluster(&mut self, cluster: &Cluster, why: &str) {
        self.step("service", format!("{} ({why})", cluster.host));
        self.step("protocol", protocol(cluster));
        if cluster.known_by == KnownBy::FirstBytes {
            self.remark(undeclared(cluster));
        }
        if cluster.protocol.handling() == Handling::Http1 {
            let host = match self.question.host.parse::<IpAddr>() {
                Ok(_) => self.question.to.to_string(),
                Err(_) => format!("{}:{}", self.question.host, self.question.to.port()),
            };
            let route = cluster.route(&host).as_str();
            self.step(
                "route",
                format!("{}:{}, {route} for Host {host}", cluster.host, cluster.port),
            );
        }
        self.step("cluster", cluster.name.as_str());
    }

    fn balanced(&mut self, cluster: &Arc<Cluster>, listener: Option<Listener>) -> End {
        self.of_cluster(cluster, "a service owns this address and port");
        let standings = self.standings(cluster);
        let of = |wanted: fn(&Standing) -> bool| -> Vec<&Arc<Target>> {
            let those = standings.iter().filter(|(_, standing)| wanted(standing));
            those.map(|(target, _)| target).collect()
        };
        let candidates = of(|standing| *standing == Standing::Candidate);
        let ejected = of(|standing| matches!(standing, Standing::Ejected(_) | Standing::OnTrial));
        if candidates.is_empty() {
            return self.none_usable(cluster, &standings, !ejected.is_empty());
        }
        self.step("endpoint", among(cluster, &candidates));
        self.tell_lost(&standings);
        for target in &candidates {
            if let Some(end) = self.onward(target.address, listener) {
                return end;
            }
        }
        let addresses: Vec<_> = candidates
            .iter()
            .map(|target| target.address.to_string())
            .collect();
        End::Works(format!("by the proxy to {}", any_of(&addresses)))
    }

    /// Those that lost, by the reason.
    fn tell_lost(&mut self, all: &[(Arc<Target>, Standing)]) {
        const SHOWN: usize = 4;
        let mut reasons: Vec<(String, Vec<String>)> = vec![];
        for (target, standing) in all
            .iter()
            .filter(|(_, standing)| *standing != Standing::Candidate)
        {
            let reason = lost(*standing);
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(named(target)),
                None => reasons.push((reason, vec![named(target)])),
            }
        }
        for (reason, mut names) in reasons {
            let more = names.len().saturating_sub(SHOWN);
            names.truncate(SHOWN);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            self.step("lost", format!("{reason}: {}{more}", names.join(", ")));
        }
    }

    fn direct_endpoint(
        &mut self,
        cluster: &Cluster,
        target: &Arc<Target>,
        listener: Option<Listener>,
    ) -> End {
        let to = target.address;
        self.step(
            "endpoint",
            format!("{}, which the client named itself", named(target)),
        );
        self.told.endpoints.push(candidate(target, None));
        if let Some(end) = self.onward(to, listener) {
            return end;
        }
        let condition = target.condition;
        if !condition.ready && !condition.serving {
            self.remark(format!(
                "{to} of {} is not ready; it is called all the same, as it was named",
                cluster.host
            ));
        }
        End::Works(format!("by the proxy to {to}"))
    }

    fn standings(&mut self, cluster: &Cluster) -> Vec<(Arc<Target>, Standing)> {
        let Mesh::Known { now, .. } = self.mesh else {
            return vec![];
        };
        let client = self.question.to.ip();
        let mut all: Vec<_> = cluster
            .targets
            .iter()
            .map(|target| (Arc::clone(target), cluster.standing(target, *now, client)))
            .collect();
        all.sort_by_key(|(target, standing)| (*standing, target.address));
        for (target, standing) in &all {
            let lost = (*standing != Standing::Candidate).then(|| lost(*standing));
            self.told.endpoints.push(candidate(target, lost));
        }
        all
    }

    fn none_usable(&mut self, cluster: &Cluster, all: &[(Arc<Target>, Standing)], any_ejected: bool) -> End {
        self.tell_lost(all);
        let port = match cluster.port_name.is_empty() {
            true => cluster.port.to_string(),
            false => format!("{} ({})", cluster.port, cluster.port_name),
        };
        let host = &cluster.host;
        if any_ejected {
            return End::fails(
                "every endpoint is ejected: they are tried all the same, and have just failed",
                Finding::new(
                    Side::Endpoint,
                    format!(
                        "each of the {} endpoints of {host} failed {} times in a row",
                        all.len(),
                        cluster.policy.eject_after.max(1)
                    ),
                    "see why they refuse or reset connections: is the application listening on the port of its EndpointSlice?",
                ),
            );
        }
        if all.is_empty() {
            let others = self.others_of(cluster);
            let (what, fix) = match others {
                Some(names) => (
                    format!(
                        "the port {port} of {host} has no endpoint, while {names} has: the port's name or its targetPort does not match"
                    ),
                    String::from(
                        "name the port in the EndpointSlice as in the Service, and the targetPort as the container's port",
                    ),
                ),
                None => (
                    format!("{host} has no endpoint for port {port}"),
                    format!(
                        "is a pod running that its selector matches, and is there an EndpointSlice with \
                         kubernetes.io/service-name: {}? `weir pc problems` tells mistakes in manifests",
                        cluster.service.name
                    ),
                ),
            };
            return End::fails(
                "the service has no endpoint: HTTP gets 503, anything else is closed",
                Finding::new(Side::Registry, what, fix),
            );
        }
        End::fails(
            "no endpoint takes traffic: HTTP gets 503, anything else is closed",
            Finding::new(
                Side::Endpoint,
                format!("none of the {} endpoints of {host} is ready", all.len()),
                "see why the pods are not ready (their readiness probes); publishNotReadyAddresses would call them all the same",
            ),
        )
    }

    /// Ports of the same service that have endpoints.
    fn others_of(&self, cluster: &Cluster) -> Option<String> {
        let all = self.snapshot()?.clusters_of(&cluster.service);
        let with: Vec<_> = all
            .iter()
            .filter(|other| other.port != cluster.port && !other.targets.is_empty())
            .map(|other| format!("port {} ({})", other.port, other.port_name))
            .collect();
        (!with.is_empty()).then(|| with.join(", "))
    }

    /// The proxy's own packet to the next hop; none where nothing is in its way, or nothing is known.
    fn onward(&mut self, to: SocketAddr, listener: Option<Listener>) -> Option<End> {
        let uid = listener?.uid;
        let question = RouteQuestion {
            to: to.ip(),
            mark: 0,
            uid,
        };
        let route = match self.network.route(question) {
            Ok(route) => route,
            Err(error) => {
                return Some(End::fails(
                    format!("the proxy cannot reach {to}: {error}"),
                    Finding::new(
                        Side::Proxy,
                        format!("there is no route to {} in the proxy's namespace", to.ip()),
                        "mend the namespace's routes (`ip route`), or the address in the EndpointSlice",
                    ),
                ));
            }
        };
        let packet = Packet {
            origin: Origin::Socket {
                uid,
                gid: uid,
                mark: 0,
            },
            protocol: IpProtocol::Tcp,
            source: route.source.unwrap_or(to.ip()),
            source_port: 40_001,
            destination: to.ip(),
            destination_port: to.port(),
            device: if route.is_local {
                String::from("lo")
            } else {
                route.device
            },
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: true,
        };
        let verdict = self.rules.installed.evaluate(&packet);
        match verdict.fate {
            Fate::Drop | Fate::Reject => {
                Some(self.stopped(&verdict, &format!("what the proxy sends to {to}")))
            }
            Fate::Redirect {
                port: ports::OUTBOUND,
            } if self.is_recognised_by_uid(&packet) => Some(looped(&self.rules.installed, &verdict, uid)),
            _ => None,
        }
    }

    /// Whether the proxy is told from others by its uid alone: a group or a mark of it is not to be seen.
    fn is_recognised_by_uid(&self, packet: &Packet) -> bool {
        let rules = self.rules.installed.of(Family::of(packet.destination));
        let tests = rules
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules)
            .filter(|rule| {
                rule.comment()
                    .is_some_and(|text| text.contains("made by the proxy"))
            })
            .flat_map(|rule| &rule.matches);
        let mut by_uid = false;
        for found in tests {
            match found.test {
                Test::Uid(..) | Test::Uids(_) => by_uid = true,
                Test::Mark(_) | Test::Class(_) | Test::Classes(_) | Test::Cgroup(_) | Test::Other(_) => {
                    return false;
                }
                _ => {}
            }
        }
        by_uid
    }
}

fn looped(installed: &rules::Installed, verdict: &Verdict, uid: u32) -> End {
    let by = verdict
        .decided_by()
        .map_or_else(String::new, |step| super::rule::told(installed, step));
    End::fails(
        "the proxy's own connections are captured again, so that they come back to it and never leave",
        Finding::new(
            Side::Proxy,
            format!("the proxy runs as uid {uid}, by which the rules do not recognise it: {by}"),
            "run it as the uid of `weir init -u` (1337), or give weir init its uid",
        ),
    )
}

fn protocol(cluster: &Cluster) -> String {
    match cluster.known_by {
        KnownBy::FirstBytes => String::from("not declared: whichever side speaks first decides"),
        known_by => format!("{}, by {known_by} `{}`", cluster.protocol, cluster.port_name),
    }
}

fn undeclared(cluster: &Cluster) -> String {
    let name = match cluster.port_name.is_empty() {
        true => format!("port {} has no name", cluster.port),
        false => format!("the port name `{}` declares no protocol", cluster.port_name),
    };
    format!(
        "{name}: what is detected is balanced by request only where it is HTTP/1; declare it by appProtocol, or by a name \
         such as http, http-NAME, grpc, tls, tcp, mysql, redis or mongo"
    )
}

fn among(cluster: &Cluster, candidates: &[&Arc<Target>]) -> String {
    let names: Vec<_> = candidates.iter().map(|target| named(target)).collect();
    if let [only] = &names[..] {
        return format!("{only}, the only one that takes traffic");
    }
    let how = match (cluster.affinity, cluster.policy.balancing) {
        (SessionAffinity::ClientIp { .. }, _) => "the one that this client keeps (session affinity)",
        (SessionAffinity::None, Balancing::RoundRobin) => "each in turn",
        (SessionAffinity::None, Balancing::LeastRequest) => "the less busy of two drawn at random",
    };
    format!("one of {}, {how}: {}", names.len(), names.join(", "))
}

fn lost(standing: Standing) -> String {
    match standing {
        Standing::Candidate => String::new(),
        Standing::Ejected(rest) => format!(
            "ejected for {}.{} s more: it failed too often",
            rest / 1000,
            rest % 1000 / 100
        ),
        Standing::OnTrial => String::from("its ejection has ended, and it is being tried just now"),
        Standing::OtherFamily => String::from("of the other address family than the client called"),
        Standing::Leaving => String::from("terminating, and others are ready"),
        Standing::NotReady => String::from("not ready"),
    }
}

fn named(target: &Target) -> String {
    match &target.workload {
        Some(workload) => format!("{} {workload}", target.address),
        None => target.address.to_string(),
    }
}

fn candidate(target: &Target, lost: Option<String>) -> Candidate {
    Candidate {
        address: target.address,
        workload: target.workload.as_ref().map(ToString::to_string),
        lost,
    }
}

fn any_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    match names {
        [only] => only.clone(),
        _ if names.len() > SHOWN => format!("one of {} endpoints", names.len()),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
        [] => String::new(),
    }
}
