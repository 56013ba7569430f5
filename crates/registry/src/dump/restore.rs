//! The way back: a snapshot made of a dump, so that the function that answers on the data path also answers
//! for a dump that was saved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::settings::Overrides;
use model::{Direction, Endpoint, ObjectName, Service, ServicePort, SessionAffinity, TargetPort, Update};

use super::{ClusterDump, Dump, EndpointDump, ServiceDump};
use crate::snapshot::Snapshot;
use crate::table::Table;

impl Dump {
    /// The registry as the proxy saw it: names, addresses, ports, endpoints. What a dump does not hold is at its
    /// default: a service's own settings, and what endpoints have lived through.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut clusters: BTreeMap<&ObjectName, Vec<&ClusterDump>> = BTreeMap::new();
        for cluster in &self.clusters {
            if cluster.direction == Direction::Outbound {
                clusters.entry(&cluster.service).or_default().push(cluster);
            }
        }
        let mut table = Table::new(self.own.clone());
        table.apply(Update::Mesh(Box::new(self.settings.clone())));
        for workload in &self.workloads {
            table.apply(Update::Workload(Box::new(workload.clone())));
        }
        for dumped in &self.services {
            let of_it = clusters.get(&dumped.name).map_or(&[][..], Vec::as_slice);
            table.apply(Update::Service(Box::new(service(dumped, of_it))));
            table.apply(Update::Endpoints {
                service: dumped.name.clone(),
                endpoints: of_it.iter().flat_map(|cluster| endpoints(cluster)).collect(),
            });
        }
        table.snapshot()
    }

    /// The same with the endpoints ejected that were, so that choices are made among the same ones. `now` is
    /// milliseconds on a clock of the caller's, as for [`crate::Cluster::standing`], at the time of the dump.
    #[must_use]
    pub fn snapshot_at(&self, now: u64) -> Arc<Snapshot> {
        let snapshot = self.snapshot();
        for cluster in snapshot.clusters() {
            let Some(dumped) = self.clusters.iter().find(|dumped| dumped.name == cluster.name) else {
                continue;
            };
            for target in &cluster.targets {
                let mut known = dumped.endpoints.iter();
                let rest = known
                    .find(|known| known.address == target.address)
                    .and_then(|known| known.ejected_for_ms)
                    .map(Duration::from_millis);
                // An endpoint of two clusters has one life.
                if let (Some(rest), false) = (rest, target.state.is_ejected(now)) {
                    target.state.eject(now, rest, rest);
                }
            }
        }
        snapshot
    }
}

fn service(dumped: &ServiceDump, clusters: &[&ClusterDump]) -> Service {
    let ports = clusters.iter().map(|cluster| ServicePort {
        number: cluster.port,
        name: Arc::clone(&cluster.port_name),
        protocol: cluster.protocol,
        known_by: cluster.known_by,
        // Whatever it is, the endpoints have it already.
        target: TargetPort::Number(cluster.port),
    });
    Service {
        name: dumped.name.clone(),
        host: Arc::clone(&dumped.host),
        kind: dumped.kind.clone(),
        ports: ports.collect(),
        affinity: clusters
            .first()
            .map_or(SessionAffinity::None, |cluster| cluster.affinity),
        created: dumped.created,
        publish_not_ready: dumped.publish_not_ready,
        settings: Overrides::default(),
    }
}

fn endpoints(cluster: &ClusterDump) -> impl Iterator<Item = Endpoint> {
    let one = |endpoint: &EndpointDump| Endpoint {
        port_name: Arc::clone(&cluster.port_name),
        address: endpoint.address,
        condition: endpoint.condition,
        workload: endpoint.workload.clone(),
        hostname: endpoint.hostname.clone(),
        generation: Arc::clone(&endpoint.generation),
    };
    cluster.endpoints.iter().map(one)
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::RecordType;
    use crate::testing::{LEAVING, endpoint, endpoints, put, service, table, workload};

    #[test]
    fn what_is_made_of_a_dump_says_what_the_snapshot_says() {
        let mut quiet = service("a/quiet", &["10.96.0.1"], &[80]);
        quiet.created = model::Created::At(7);
        let mut eager = service("a/eager", &[], &[80]);
        eager.publish_not_ready = true;
        let mut table = table(
            Some("a/me"),
            [
                put(service("a/web", &["10.96.0.1", "fd00::1"], &[80, 81])),
                put(quiet),
                put(eager),
                put(service("b/redis", &[], &[6379])),
                workload("a/me", &["10.1.0.9"]),
            ],
        );
        let mut named = endpoint(6379, "10.1.0.1:6379");
        named.hostname = Some("redis-0".into());
        let mut leaving = endpoint(80, "10.1.0.3:80");
        leaving.condition = LEAVING;
        table.apply(endpoints("b/redis", vec![named, endpoint(6379, "10.1.0.2:6379")]));
        table.apply(endpoints("a/eager", vec![leaving]));
        let snapshot = table.snapshot();
        let dump = Dump::new(&snapshot, &[], &[], 0);
        let restored = dump.snapshot();

        let again = Dump::new(&restored, &[], &[], 0);
        assert_eq!((again.services, again.clusters), (dump.services, dump.clusters));
        assert_eq!(restored.names(), snapshot.names());
        for name in snapshot.names().iter().map(String::as_str).chain([
            "1.0.96.10.in-addr.arpa",
            "web",
            "redis-0.redis.b",
        ]) {
            let of = |snapshot: &Snapshot| snapshot.look_up(name, RecordType::Any);
            assert!(of(&snapshot).is_some(), "{name}");
            assert_eq!(of(&restored), of(&snapshot), "{name}");
        }
    }
}
