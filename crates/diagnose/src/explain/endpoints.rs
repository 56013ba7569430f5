//! The endpoints that the proxy chooses among, and why others lose.

use std::sync::Arc;

use model::SessionAffinity;
use model::settings::Balancing;
use netsys::socket_table::Listener;
use registry::{Cluster, Standing, Target};

use super::{Candidate, End, Finding, Mesh, Side, Story};

impl Story<'_> {
    pub(super) fn balanced(&mut self, cluster: &Arc<Cluster>, listener: Option<Listener>) -> End {
        self.of_cluster(cluster, "a service owns this address and port");
        let standings = self.standings(cluster);
        let of = |wanted: fn(&Standing) -> bool| -> Vec<&Arc<Target>> {
            let those = standings.iter().filter(|(_, standing)| wanted(standing));
            those.map(|(target, _)| target).collect()
        };
        let candidates = of(|standing| *standing == Standing::Candidate);
        let ejected = of(|standing| matches!(standing, Standing::Ejected(_) | Standing::OnTrial));
        if candidates.is_empty() {
            self.tell_lost(&standings);
            let called: Vec<_> = ejected.iter().map(|target| target.address).collect();
            if let Some(end) = self.probe_endpoints(&called, listener) {
                return end;
            }
            return self.none_usable(cluster, &standings, !ejected.is_empty());
        }
        self.step("endpoint", among(cluster, &candidates));
        self.tell_lost(&standings);
        for target in &candidates {
            if let Some(end) = self.onward(target.address, listener) {
                return end;
            }
        }
        let addresses: Vec<_> = candidates.iter().map(|target| target.address).collect();
        if let Some(end) = self.probe_endpoints(&addresses, listener) {
            return end;
        }
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
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

    pub(super) fn direct_endpoint(
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
        if let Some(end) = self
            .onward(to, listener)
            .or_else(|| self.probe_endpoints(&[to], listener))
        {
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
        answer: None,
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
