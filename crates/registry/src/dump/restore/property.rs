//! A decision by a dump is the one by the snapshot that it is of.

use model::settings::OutboundPolicy;
use model::{Condition, Direction, Local, OrigDst};
use proptest::prelude::*;

use crate::dump::Dump;
use crate::testing::{LEAVING, endpoint, endpoints, mesh, put, service, socket, table, workload};
use crate::{Decision, Snapshot, Standing};

const ADDRESSES: [&str; 8] = [
    "10.96.0.1",
    "10.96.0.2",
    "fd00:96::1",
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.9",
    "192.0.2.1",
    "127.0.0.1",
];
const PORTS: [u16; 5] = [80, 443, 8080, 15001, 15006];

/// What a decision comes to, without what a dump does not tell.
fn told(snapshot: &Snapshot, direction: Direction, to: &str, now: u64) -> String {
    let to = socket(to);
    let client = if to.is_ipv4() { "10.1.0.9:1" } else { "[fd00::9]:1" };
    let standings = |cluster: &crate::Cluster| -> Vec<(String, Standing)> {
        let of = |target: &std::sync::Arc<crate::Target>| cluster.standing(target, now, socket(client).ip());
        let all = cluster.targets.iter();
        all.map(|target| (target.address.to_string(), of(target)))
            .collect()
    };
    match snapshot.decide(direction, OrigDst::new(to), Local::new(socket("127.0.0.1:15001"))) {
        Decision::Cluster(cluster) => format!("{} {:?}", cluster.name, standings(&cluster)),
        Decision::Endpoint(cluster, target) => format!("{} {}", cluster.name, target.address),
        other => format!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn of_any_registry(
        vips in prop::collection::vec((0..3_usize, 0..3_usize, any::<bool>()), 1..5),
        pods in prop::collection::vec((0..4_usize, 0..3_usize, 3..6_usize, 0..3_u8), 0..12),
        registry_only in any::<bool>(),
        fails in 0..12_usize,
    ) {
        let mut updates = vec![workload("a/me", &["10.1.0.9"])];
        for (number, (address, port, headless)) in vips.iter().enumerate() {
            let addresses = if *headless { vec![] } else { vec![ADDRESSES[*address]] };
            updates.push(put(service(&format!("a/s{number}"), &addresses, &[PORTS[*port], 8080])));
        }
        for number in 0..vips.len() {
            let mine = pods.iter().filter(|pod| pod.0 == number);
            let mine = mine.map(|(_, port, address, condition)| {
                let mut endpoint = endpoint(PORTS[*port], &format!("{}:8080", ADDRESSES[*address]));
                endpoint.condition = [Condition::READY, Condition::NOT_READY, LEAVING][usize::from(*condition)];
                endpoint
            });
            updates.push(endpoints(&format!("a/s{number}"), mine.collect()));
        }
        if registry_only {
            updates.push(mesh(|settings| settings.outbound_policy = OutboundPolicy::RegistryOnly));
        }
        let snapshot = table(Some("a/me"), updates).snapshot();
        let now = 1_000;
        for _ in 0..fails {
            for cluster in snapshot.clusters() {
                if let Some(target) = cluster.targets.first() {
                    cluster.failed(target, now);
                }
            }
        }
        let json = serde_json::to_string(&Dump::new(&snapshot, &[], &[], now)).unwrap();
        let restored = serde_json::from_str::<Dump>(&json).unwrap().snapshot_at(now);
        for direction in [Direction::Outbound, Direction::Inbound] {
            for address in ADDRESSES {
                for port in PORTS {
                    let to = match address.contains(':') {
                        true => format!("[{address}]:{port}"),
                        false => format!("{address}:{port}"),
                    };
                    prop_assert_eq!(
                        told(&restored, direction, &to, now),
                        told(&snapshot, direction, &to, now),
                        "{} {}", direction, to
                    );
                }
            }
        }
    }
}
