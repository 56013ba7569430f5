//! Tests of the choice among endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::settings::Balancing;
use model::{Condition, Endpoint, Service, SessionAffinity};
use proptest::prelude::*;

use crate::testing::{
    LEAVING, endpoint, endpoints, ip, mesh, name, numbers, put, seconds, service, socket, table,
};
use crate::{Cluster, Route, Table};

const CLIENT: &str = "10.1.0.99";

fn addresses(n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("10.1.0.{i}:80")).collect()
}

fn of(addresses: &[String]) -> Vec<Endpoint> {
    addresses.iter().map(|a| endpoint(80, a)).collect()
}

fn built(change: impl FnOnce(&mut Service), list: Vec<Endpoint>) -> (Table, Arc<Cluster>) {
    let mut service = service("a/web", &["10.96.0.1", "fd00::1"], &[80]);
    change(&mut service);
    let mut table = table(Some("a/me"), [put(service), endpoints("a/web", list)]);
    let cluster = first(&mut table);
    (table, cluster)
}

fn first(table: &mut Table) -> Arc<Cluster> {
    Arc::clone(&table.snapshot().clusters_of(&name("a/web"))[0])
}

fn pick(cluster: &Cluster, now: u64, tried: &[SocketAddr]) -> Option<SocketAddr> {
    let mut random = numbers();
    cluster
        .pick(now, &mut random, ip(CLIENT), tried)
        .map(|p| p.target.address)
}

fn counts(cluster: &Cluster, now: u64, times: usize) -> BTreeMap<SocketAddr, usize> {
    let mut random = numbers();
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let pick = cluster
            .pick(now, &mut random, ip(CLIENT), &[])
            .expect("an endpoint");
        *counts.entry(pick.target.address).or_default() += 1;
    }
    counts
}

fn eject(cluster: &Cluster, address: &str, now: u64) -> bool {
    let target = cluster
        .targets
        .iter()
        .find(|t| t.address == socket(address))
        .expect("a target");
    (0..cluster.policy.eject_after).any(|_| cluster.failed(target, now))
}

#[test]
fn round_robin_is_even() {
    let (_table, cluster) = built(|_| (), of(&addresses(7)));
    assert!(counts(&cluster, 0, 700).values().all(|&n| n == 100));
}

#[test]
fn round_robin_is_even_over_workers() {
    let (_table, cluster) = built(|_| (), of(&addresses(3)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let cluster = Arc::clone(&cluster);
            std::thread::spawn(move || counts(&cluster, 0, 3000))
        })
        .collect();
    let mut all = BTreeMap::new();
    for worker in workers {
        for (address, count) in worker.join().expect("a worker") {
            *all.entry(address).or_insert(0) += count;
        }
    }
    assert!(all.values().all(|&n| n == 4000), "{all:?}");
}

#[test]
fn round_robin_leaves_out_the_ejected_and_stays_even() {
    let (_table, cluster) = built(|_| (), of(&addresses(7)));
    assert!(eject(&cluster, "10.1.0.3:80", 5));
    let counts = counts(&cluster, 5, 600);
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|&n| n == 100), "{counts:?}");
}

proptest! {
    /// However the others come and go, between two turns of an endpoint that stays each other one that
    /// stays has exactly one.
    #[test]
    fn round_robin_is_even_while_endpoints_come_and_go(
        steps in prop::collection::vec(prop::collection::btree_set(4_usize..12, 0..8), 1..60)
    ) {
        let stay = addresses(3);
        let (mut table, _) = built(|_| (), of(&stay));
        let mut order: Vec<String> = Vec::new();
        for others in steps {
            let others = others.iter().map(|i| format!("10.1.0.{i}:80"));
            table.apply(endpoints("a/web", of(&stay.iter().cloned().chain(others).collect::<Vec<_>>())));
            let picked = pick(&first(&mut table), 0, &[]).expect("an endpoint").to_string();
            order.extend(stay.contains(&picked).then_some(picked));
        }
        for (i, address) in order.iter().enumerate().skip(3) {
            prop_assert_eq!(address, &order[i - 3]);
        }
    }

    /// Whatever failed or is ejected, something is chosen, and an endpoint that was tried only when all were.
    #[test]
    fn a_choice_is_always_made_and_the_tried_are_avoided(
        n in 1_usize..9,
        ejected in prop::collection::btree_set(1_usize..9, 0..8),
        tried in prop::collection::btree_set(1_usize..9, 0..8),
        balancing in prop::sample::select(vec![Balancing::RoundRobin, Balancing::LeastRequest]),
        sticky in any::<bool>(),
    ) {
        let (_table, cluster) = built(
            |s| {
                s.settings.balancing = Some(balancing);
                s.settings.eject_max_percent = Some(100);
                if sticky {
                    s.affinity = SessionAffinity::ClientIp { timeout: seconds(60) };
                }
            },
            of(&addresses(n)),
        );
        for i in ejected.iter().filter(|&&i| i <= n) {
            eject(&cluster, &format!("10.1.0.{i}:80"), 0);
        }
        let tried_addresses: Vec<_> = tried.iter().map(|i| socket(&format!("10.1.0.{i}:80"))).collect();
        let chosen = pick(&cluster, 0, &tried_addresses).expect("an endpoint");
        let untried: BTreeSet<usize> = (1..=n).filter(|i| !tried.contains(i)).collect();
        prop_assert_eq!(tried_addresses.contains(&chosen), untried.is_empty());
        let good: Vec<_> = untried.iter().filter(|i| !ejected.contains(i)).collect();
        if !good.is_empty() {
            let is_good = good.iter().any(|i| socket(&format!("10.1.0.{i}:80")) == chosen);
            prop_assert!(is_good);
        }
    }

    /// A Host is this service's only if it is one of its names, in any case, with its port or none.
    #[test]
    fn any_host_is_answered(host in "\\PC{0,30}") {
        let (_table, cluster) = built(|_| (), Vec::new());
        prop_assert!(cluster.route(&host) == Route::AnyHost || host.to_ascii_lowercase().contains("web"));
    }
}

#[test]
fn least_request_prefers_the_less_busy() {
    let (_table, cluster) = built(
        |s| s.settings.balancing = Some(Balancing::LeastRequest),
        of(&addresses(2)),
    );
    let busy = &cluster.targets[0];
    let lease = crate::Lease::new(Arc::clone(busy));
    assert_eq!(
        counts(&cluster, 0, 50),
        BTreeMap::from([(cluster.targets[1].address, 50)])
    );
    drop(lease);
    let counts = counts(&cluster, 0, 1000);
    assert!(counts.values().all(|n| (350..650).contains(n)), "{counts:?}");
}

#[test]
fn least_request_in_a_large_cluster_leaves_out_the_ejected() {
    let (_table, cluster) = built(
        |s| s.settings.balancing = Some(Balancing::LeastRequest),
        of(&addresses(40)),
    );
    let ejected: Vec<_> = addresses(10)
        .into_iter()
        .filter(|a| eject(&cluster, a, 0))
        .collect();
    assert_eq!(ejected.len(), 10);
    let counts = counts(&cluster, 0, 3000);
    assert!(
        ejected.iter().all(|a| !counts.contains_key(&socket(a))),
        "{counts:?}"
    );
    assert!(
        counts.len() == 30 && counts.values().all(|n| (40..250).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn affinity_keeps_the_endpoint_until_silence_and_moves_only_those_it_must() {
    let sticky = |s: &mut Service| s.affinity = SessionAffinity::ClientIp { timeout: seconds(60) };
    let (mut table, cluster) = built(sticky, of(&addresses(8)));
    let before = pick(&cluster, 1_000, &[]).expect("an endpoint");
    assert!((0..100).all(|i| pick(&cluster, 1_000 + i * 50_000, &[]) == Some(before)));
    let left: Vec<String> = addresses(8)
        .into_iter()
        .filter(|a| *a != before.to_string())
        .collect();
    let mut fewer = left.clone();
    fewer.pop();
    fewer.push(before.to_string());
    table.apply(endpoints("a/web", of(&fewer)));
    assert_eq!(pick(&first(&mut table), 5_000_000, &[]), Some(before));
    table.apply(endpoints("a/web", of(&left)));
    assert_ne!(pick(&first(&mut table), 5_000_000, &[]), Some(before));

    let mut random = numbers();
    let choices: BTreeSet<_> = (1..40)
        .filter_map(|day| cluster.pick(day * 86_400_000, &mut random, ip(CLIENT), &[]))
        .map(|pick| pick.target.address)
        .collect();
    assert!(choices.len() > 3, "a lapsed affinity chooses anew: {choices:?}");
}

/// Whatever others do, each client has the endpoint that it had, until it has stayed away for too long.
#[test]
fn affinity_is_each_clients_own() {
    let sticky = |s: &mut Service| s.affinity = SessionAffinity::ClientIp { timeout: seconds(60) };
    let (_table, cluster) = built(sticky, of(&addresses(8)));
    let mut random = numbers();
    let mut of_client = |now: u64, client: u8| {
        let client = ip(&format!("10.1.9.{client}"));
        let pick = cluster.pick(now, &mut random, client, &[]);
        pick.expect("an endpoint").target.address
    };
    let first: Vec<_> = (0..100).map(|client| of_client(0, client)).collect();
    // The even ones come every 50 seconds, the odd ones only after three hours.
    for now in (50_000..10_800_000).step_by(50_000) {
        assert!(
            (0..100)
                .step_by(2)
                .all(|client| of_client(now, client) == first[usize::from(client)])
        );
    }
    let moved = (1..100)
        .step_by(2)
        .filter(|&client| of_client(10_800_000, client) != first[usize::from(client)]);
    assert!(moved.count() > 30, "those who stayed away choose anew");
}

#[test]
fn who_takes_traffic() {
    let with = |condition: Condition, address: &str| Endpoint {
        condition,
        ..endpoint(80, address)
    };
    let (r, n, l) = (Condition::READY, Condition::NOT_READY, LEAVING);
    let (a, b, c, v6) = ("10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80", "[fd01::1]:80");
    type Case<'a> = (&'a str, Vec<(Condition, &'a str)>, &'a str, Vec<&'a str>);
    let table: Vec<Case> = vec![
        ("ready only", vec![(r, a), (n, b), (l, c)], CLIENT, vec![a]),
        (
            "leaving where none is ready",
            vec![(n, b), (l, c)],
            CLIENT,
            vec![c],
        ),
        ("none", vec![(n, a), (n, b)], CLIENT, vec![]),
        ("own family", vec![(r, a), (r, v6)], CLIENT, vec![a]),
        ("own family, v6", vec![(r, a), (r, v6)], "fd09::1", vec![v6]),
        ("other family", vec![(r, a), (n, v6)], "fd09::1", vec![a]),
        (
            "ready of the other family before leaving of the own",
            vec![(r, a), (l, v6)],
            "fd09::1",
            vec![a],
        ),
        ("twice: the readier", vec![(n, a), (r, a)], CLIENT, vec![a]),
    ];
    for (what, list, client, expected) in table {
        let list = list
            .into_iter()
            .map(|(condition, a)| with(condition, a))
            .collect();
        let (_table, cluster) = built(|_| (), list);
        let usable: Vec<String> = cluster
            .usable(ip(client))
            .map(|t| t.address.to_string())
            .collect();
        assert_eq!(usable, expected, "{what}");
        let pick = cluster.pick(0, &mut numbers(), ip(client), &[]);
        assert_eq!(
            pick.map(|p| p.usable),
            (!expected.is_empty()).then_some(expected.len()),
            "{what}"
        );
    }
    let (_table, cluster) = built(|s| s.publish_not_ready = true, vec![with(n, a), with(r, b)]);
    assert_eq!(cluster.usable(ip(CLIENT)).len(), 2);
}

#[test]
fn ejection_stops_at_the_percentage_but_one_may_always_be() {
    for (endpoints, percent, expected) in [(1, 50, 1), (3, 50, 1), (4, 50, 2), (4, 0, 1), (4, 100, 4)] {
        let (_table, cluster) = built(
            |s| s.settings.eject_max_percent = Some(percent),
            of(&addresses(endpoints)),
        );
        let ejected = addresses(endpoints)
            .iter()
            .filter(|a| eject(&cluster, a, 0))
            .count();
        assert_eq!(ejected, expected, "{endpoints} endpoints, {percent} percent");
    }
    let (_table, cluster) = built(|s| s.settings.eject_after = Some(0), of(&addresses(3)));
    assert!((0..100).all(|_| !cluster.failed(&cluster.targets[0], 0)));
}

#[test]
fn a_success_breaks_the_row_of_failures() {
    let (_table, cluster) = built(|_| (), of(&addresses(3)));
    let target = &cluster.targets[0];
    assert!(!cluster.failed(target, 0));
    assert!(!cluster.failed(target, 0));
    target.state.succeeded();
    assert!(!cluster.failed(target, 0));
    assert!(!cluster.failed(target, 0));
    assert!(cluster.failed(target, 0));
    assert!(target.state.is_ejected(9_999));
    assert!(!target.state.is_ejected(10_000));
}

#[test]
fn lives_outlast_reloads_but_not_generations() {
    let (mut table, cluster) = built(|_| (), of(&addresses(3)));
    assert!(eject(&cluster, "10.1.0.1:80", 0));
    let _request = crate::UnderWay::new(&cluster.state, 20);
    table.apply(mesh(|s| s.policy.retries = 7));
    table.apply(endpoints("a/web", of(&addresses(4))));
    let after = first(&mut table);
    assert_eq!(after.policy.retries, 7);
    assert_eq!(after.state.requests(), 1);
    let ejected = |cluster: &Cluster| -> Vec<_> {
        let ejected = cluster.targets.iter().filter(|t| t.state.is_ejected(1));
        ejected.map(|t| t.address.to_string()).collect()
    };
    assert_eq!(ejected(&after), ["10.1.0.1:80"]);
    let mut reused = of(&addresses(4));
    reused[0].generation = "2".into();
    table.apply(endpoints("a/web", reused));
    assert!(ejected(&first(&mut table)).is_empty());
}

#[test]
fn host_names_of_a_service() {
    let (_table, cluster) = built(|_| (), Vec::new());
    let table = [
        ("web", Route::Default),
        ("WEB.a", Route::Default),
        ("web.a.svc", Route::Default),
        ("web.a.svc.cluster.local", Route::Default),
        ("web.a.svc.cluster.local.:80", Route::Default),
        ("web:80", Route::Default),
        ("web:8080", Route::AnyHost),
        ("web:", Route::AnyHost),
        ("web:http", Route::AnyHost),
        ("10.96.0.1", Route::Default),
        ("10.96.0.1:80", Route::Default),
        ("[fd00::1]", Route::Default),
        ("[FD00::1]:80", Route::Default),
        ("[fd00::1]:81", Route::AnyHost),
        ("fd00::1", Route::AnyHost),
        ("other.a", Route::AnyHost),
        ("example.com", Route::AnyHost),
        ("", Route::AnyHost),
        (":", Route::AnyHost),
    ];
    for (host, expected) in table {
        assert_eq!(cluster.route(host), expected, "{host}");
    }
}

/// An endpoint that is still dead when its ejection ends costs one request its patience, not every third.
#[test]
fn after_its_ejection_an_endpoint_is_tried_by_one_request_a_second() {
    for balancing in [Balancing::RoundRobin, Balancing::LeastRequest] {
        let (_table, cluster) = built(|s| s.settings.balancing = Some(balancing), of(&addresses(3)));
        assert!(eject(&cluster, "10.1.0.1:80", 0));
        let target = cluster
            .targets
            .iter()
            .find(|t| t.address == socket("10.1.0.1:80"));
        let target = target.expect("a target");
        let given = |now: u64| {
            counts(&cluster, now, 30)
                .get(&target.address)
                .copied()
                .unwrap_or(0)
        };
        assert_eq!(given(9_999), 0, "ejected");
        assert_eq!(given(10_000), 1);
        assert_eq!(given(10_999), 0, "one is on its way");
        assert_eq!(given(11_000), 1, "that takes long");
        assert!(cluster.failed(target, 11_500), "one failure is enough now");
        assert_eq!(given(31_499), 0);
        assert_eq!(given(31_500), 1);
        target.state.succeeded();
        assert!((5..=20).contains(&given(31_501)), "it is as the others");
        assert!(
            !cluster.failed(target, 31_502),
            "and may fail as often as they may"
        );
        assert!(
            !cluster.state.may_have_ejected(31_502),
            "nobody need look for ejected ones"
        );
    }
}

#[test]
fn one_that_goes_while_on_trial_is_not_looked_for_any_more() {
    let (mut table, cluster) = built(|_| (), of(&addresses(3)));
    assert!(eject(&cluster, "10.1.0.1:80", 0));
    assert!(cluster.state.may_have_ejected(20_000));
    drop(cluster);
    table.apply(endpoints("a/web", of(&addresses(3)[1..])));
    assert!(!first(&mut table).state.may_have_ejected(20_000));
}
