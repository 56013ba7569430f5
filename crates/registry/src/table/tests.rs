//! Tests of the table: what updates make of snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Created, Direction, Endpoint, OrigDst, Service, ServiceKind, Update};
use proptest::prelude::*;

use crate::testing::{
    LEAVING, endpoint, endpoints, ip, listener, mesh, name, numbers, put, service, socket, table, workload,
};
use crate::{Changed, Decision, Snapshot, Table};

/// A small world, so that services often claim the same addresses.
fn updates() -> impl Strategy<Value = Update> {
    let which = || prop::sample::select(vec!["a/x", "a/y", "b/x", "b/z"]);
    let vip = prop::sample::select(vec!["10.96.0.1", "10.96.0.2", "10.1.0.1", "fd00::1"]);
    let a_service = (
        which(),
        prop::collection::btree_set(vip, 0..3),
        prop::collection::btree_set(prop::sample::select(vec![80_u16, 81]), 0..3),
        any::<bool>(),
        prop::sample::select(vec![Created::At(1), Created::At(2), Created::Unknown]),
    )
        .prop_map(|(who, vips, ports, alias, created)| {
            let vips: Vec<_> = vips.into_iter().collect();
            let ports: Vec<_> = ports.into_iter().collect();
            let mut service = service(who, &vips, &ports);
            service.created = created;
            if alias && vips.is_empty() {
                service.kind = ServiceKind::ExternalName("example.com".into());
            }
            put(service)
        });
    let an_endpoint = (
        prop::sample::select(vec![80_u16, 81]),
        prop::sample::select(vec!["10.1.0.1:80", "10.1.0.2:80", "10.1.0.9:81", "[fd01::1]:80"]),
        any::<bool>(),
    )
        .prop_map(|(port, address, leaving)| {
            let mut endpoint = endpoint(port, address);
            if leaving {
                endpoint.condition = LEAVING;
            }
            if address.starts_with("10.1.0.9") {
                endpoint.workload = Some(name("a/me"));
            }
            endpoint
        });
    prop_oneof![
        4 => a_service,
        4 => (which(), prop::collection::vec(an_endpoint, 0..5)).prop_map(|(who, list)| endpoints(who, list)),
        2 => which().prop_map(|who| Update::ServiceGone(name(who))),
        1 => any::<bool>().prop_map(|here| if here {
            workload("a/me", &["10.1.0.9"])
        } else {
            Update::WorkloadGone(name("a/me"))
        }),
        1 => (0..3_u32).prop_map(|retries| mesh(|s| s.policy.retries = retries)),
    ]
}

/// Where each address of the small world goes, in words that two snapshots can be compared by.
fn decisions(snapshot: &Snapshot) -> BTreeMap<(String, OrigDst), String> {
    let mut all = BTreeMap::new();
    for host in [
        "10.96.0.1",
        "10.96.0.2",
        "10.1.0.1",
        "10.1.0.2",
        "10.1.0.9",
        "[fd00::1]",
        "[fd01::1]",
    ] {
        for port in [80, 81, 82] {
            let to = crate::testing::dst(&format!("{host}:{port}"));
            for direction in [Direction::Outbound, Direction::Inbound] {
                let decision = snapshot.decide(direction, to, listener());
                all.insert((direction.to_string(), to), described(&decision));
            }
        }
    }
    all
}

fn described(decision: &Decision) -> String {
    match decision {
        Decision::Cluster(c) | Decision::Endpoint(c, _) => {
            let targets: Vec<_> = c.targets.iter().map(|t| (t.address, t.condition)).collect();
            let usable = [c.ring(false), c.ring(true)];
            format!(
                "{} {} {:?} {targets:?} {usable:?} {:?}",
                c.name, c.service, c.policy, c.domains
            )
        }
        Decision::Passthrough(why) => format!("{why:?}"),
        Decision::Deny(why) => format!("{why:?}"),
    }
}

/// Every address that a service owns or that an update may give it.
fn touched(update: &Update, table: &Table) -> Option<(BTreeSet<std::net::IpAddr>, BTreeSet<SocketAddr>)> {
    let (who, new_service, new_endpoints): (_, Option<&Service>, &[Endpoint]) = match update {
        Update::Service(service) => (&service.name, Some(service), &[]),
        Update::ServiceGone(name) => (name, None, &[]),
        Update::Endpoints { service, endpoints } => (service, None, endpoints),
        Update::Workload(_) | Update::WorkloadGone(_) | Update::Mesh(_) => return None,
    };
    let services = table
        .next
        .services
        .get(who)
        .map(|s| &**s)
        .into_iter()
        .chain(new_service);
    let vips = services.flat_map(super::virtual_addresses).copied().collect();
    let old = table.endpoints.get(who).map_or(&[][..], |e| e);
    Some((vips, old.iter().chain(new_endpoints).map(|e| e.address).collect()))
}

proptest! {
    /// Adding, changing or removing a service never changes the decision for an address that it does not
    /// own before or after (row B14).
    #[test]
    fn non_interference(updates in prop::collection::vec(updates(), 1..25)) {
        let mut table = table(Some("a/me"), []);
        for update in updates {
            let before = decisions(&table.snapshot());
            let touched = touched(&update, &table);
            table.apply(update);
            let after = decisions(&table.snapshot());
            let Some((vips, addresses)) = touched else { continue };
            let own = addresses.iter().any(|a| a.ip() == ip("10.1.0.9"));
            for (key, decision) in before {
                let (direction, to) = &key;
                let is_its_own = vips.contains(&to.ip())
                    || addresses.contains(&to.socket())
                    || direction == "inbound" && own;
                prop_assert!(is_its_own || after[&key] == decision, "{key:?}: {decision} -> {}", after[&key]);
            }
        }
    }

    /// One change at a time or all at once and in another order, the result is the same; and a second time
    /// changes nothing.
    #[test]
    fn incremental_is_the_same_as_from_scratch(updates in prop::collection::vec(updates(), 1..25)) {
        let mut step_by_step = table(Some("a/me"), []);
        for update in updates {
            step_by_step.apply(update.clone());
            step_by_step.snapshot();
            prop_assert_eq!(step_by_step.apply(update), Changed::No);
        }
        let snapshot = step_by_step.snapshot();
        let mut at_once = table(Some("a/me"), [Update::Mesh(Box::new((*snapshot.settings).clone()))]);
        for workload in snapshot.workloads.values() {
            at_once.apply(Update::Workload(Box::new((**workload).clone())));
        }
        for (service, list) in &step_by_step.endpoints {
            at_once.apply(Update::Endpoints { service: service.clone(), endpoints: list.to_vec() });
        }
        for service in snapshot.services.values() {
            at_once.apply(put((**service).clone()));
        }
        let fresh = at_once.snapshot();
        prop_assert_eq!(decisions(&fresh), decisions(&snapshot));
        let sizes = |s: &Snapshot| {
            (s.by_vip.len(), s.by_vip_ip.len(), s.by_endpoint.len(), s.by_service.len(), s.inbound.len())
        };
        prop_assert_eq!(sizes(&fresh), sizes(&snapshot));
    }
}

#[test]
fn nothing_new_gives_the_same_snapshot() {
    let mut table = table(None, [put(service("a/web", &["10.96.0.1"], &[80]))]);
    let first = table.snapshot();
    assert_eq!(first.version, 1);
    assert_eq!(
        table.apply(put(service("a/web", &["10.96.0.1"], &[80]))),
        Changed::No
    );
    assert_eq!(table.apply(Update::ServiceGone(name("a/none"))), Changed::No);
    assert_eq!(table.apply(endpoints("a/none", Vec::new())), Changed::No);
    assert!(Arc::ptr_eq(&first, &table.snapshot()));
}

/// One change among 10,000 services puts only its own clusters together anew.
#[test]
fn a_change_costs_what_it_changes() {
    let mut table = Table::new(None);
    for i in 0..10_000_u32 {
        let who = format!("n{}/s{i}", i % 50);
        table.apply(put(service(
            &who,
            &[&format!("10.{}.{}.{}", 96 + (i >> 16), (i >> 8) & 255, i & 255)],
            &[80],
        )));
        let pods = (0..3).map(|p| endpoint(80, &format!("10.{}.{}.{}:80", 128 + p, (i >> 8) & 255, i & 255)));
        table.apply(endpoints(&who, pods.collect()));
    }
    let before = table.snapshot();
    let mut random = numbers();
    for _ in 0..10 {
        let i = random() % 10_000;
        let who = format!("n{}/s{i}", i % 50);
        table.apply(endpoints(
            &who,
            vec![endpoint(80, &format!("192.0.2.{}:80", i & 255))],
        ));
        let after = table.snapshot();
        table.apply(endpoints(
            &who,
            before.clusters_of(&name(&who))[0]
                .targets
                .iter()
                .map(|t| endpoint(80, &t.address.to_string()))
                .collect(),
        ));
        let anew = after
            .clusters()
            .iter()
            .zip(before.clusters())
            .filter(|(a, b)| !Arc::ptr_eq(a, b))
            .count();
        assert!(anew <= 10, "{anew} clusters were put together anew");
    }
}

#[test]
fn the_oldest_service_has_an_address_that_several_claim() {
    let at = |name: &str, created| {
        let mut service = service(name, &["10.96.0.1"], &[80]);
        service.created = created;
        put(service)
    };
    let mut table = table(None, []);
    let mut winner = |update| {
        table.apply(update);
        let snapshot = table.snapshot();
        let vip = &snapshot.by_vip_ip.get(&ip("10.96.0.1")).expect("a service").name;
        let by_port = &snapshot
            .by_vip
            .get(&socket("10.96.0.1:80"))
            .expect("a cluster")
            .service;
        assert_eq!(vip, by_port);
        vip.to_string()
    };
    assert_eq!(winner(at("b/b", Created::Unknown)), "b/b");
    assert_eq!(
        winner(at("a/a", Created::Unknown)),
        "a/a",
        "by name where neither has a time"
    );
    assert_eq!(
        winner(at("c/c", Created::At(20))),
        "c/c",
        "what was applied is older than what was not"
    );
    assert_eq!(winner(at("d/d", Created::At(20))), "c/c");
    assert_eq!(winner(at("d/d", Created::At(10))), "d/d", "its time changed");
    assert_eq!(
        winner(at("e/e", Created::At(30))),
        "d/d",
        "a newer one takes nothing away"
    );
    assert_eq!(winner(Update::ServiceGone(name("d/d"))), "c/c");
}
