//! Every form of a name, and what only looks like one.

use model::{Service, ServiceKind};

use super::*;
use crate::testing::{endpoint, endpoints, ip, put, service, table, workload};

/// A mesh as the pod `a/me` sees it: `web` with addresses, `redis` headless with a named and a nameless pod,
/// `quiet` headless without TCP ports, an alias; `google.com`, which is not what it looks like.
fn town() -> Arc<Snapshot> {
    let alias = Service {
        kind: ServiceKind::ExternalName("db.example.com".into()),
        ..service("a/alias", &[], &[443])
    };
    let mut table = table(
        Some("a/me"),
        [
            put(service("a/web", &["10.96.0.1", "fd00::1"], &[80, 8080])),
            put(service("a/redis", &[], &[6379])),
            put(service("a/quiet", &[], &[])),
            put(service("b/api", &["10.96.0.2"], &[80])),
            put(service("com/google", &["10.96.0.3"], &[80])),
            put(alias),
            workload("a/me", &["10.1.0.9", "fd01::9"]),
        ],
    );
    let mut redis = endpoint(6379, "10.1.0.5:6380");
    redis.hostname = Some("redis-0".into());
    table.apply(endpoints("a/web", vec![endpoint(80, "10.1.0.1:8080")]));
    table.apply(endpoints(
        "a/redis",
        vec![
            redis,
            endpoint(6379, "[fd01::5]:6379"),
            endpoint(6379, "10.1.0.6:6379"),
        ],
    ));
    table.snapshot()
}

fn addresses(list: &[&str]) -> Option<Resolved> {
    Some(Resolved::Addresses(list.iter().map(|a| ip(a)).collect()))
}

fn check(table: &[(&str, Option<Resolved>)]) {
    let snapshot = town();
    for (host, expected) in table {
        assert_eq!(&snapshot.resolve(host), expected, "{host}");
        assert_eq!(&snapshot.resolve(&host.to_uppercase()), expected, "{host}");
    }
}

#[test]
fn services() {
    let both = addresses(&["10.96.0.1", "fd00::1"]);
    check(&[
        ("web", both.clone()),
        ("web.a.", both.clone()),
        ("web.a.svc", both.clone()),
        ("web.a.svc.cluster.local", both.clone()),
        ("web.a.svc.cluster.local.", both),
        ("web.svc", None),
        ("web.svc.cluster.local", None),
        ("web.a.cluster.local", None),
        ("api", None),
        ("api.b", addresses(&["10.96.0.2"])),
        ("redis", addresses(&["10.1.0.5", "10.1.0.6", "fd01::5"])),
        ("quiet", None),
        ("alias.a", Some(Resolved::Alias("db.example.com".into()))),
        ("example.com", None),
        ("", None),
        (".", None),
        ("..svc", None),
        ("..svc.cluster.local", None),
    ]);
}

#[test]
fn bare_names_where_nobody_said_who_we_are() {
    let mut table = table(
        None,
        [
            put(service("a/web", &["10.96.0.1"], &[80])),
            put(service("b/web", &["10.96.0.2"], &[80])),
            put(service("default/api", &["10.96.0.3"], &[80])),
            put(service("a/api", &["10.96.0.4"], &[80])),
            put(service("b/redis", &[], &[6379])),
        ],
    );
    let mut pod = endpoint(6379, "10.1.0.5:6380");
    pod.hostname = Some("redis-0".into());
    table.apply(endpoints("b/redis", vec![pod]));
    let snapshot = table.snapshot();
    for (host, expected) in [
        ("web", None),
        ("api", addresses(&["10.96.0.3"])),
        ("redis", addresses(&["10.1.0.5"])),
        ("redis-0.redis", addresses(&["10.1.0.5"])),
        ("redis-1.redis", None),
        ("web.svc", None),
    ] {
        assert_eq!(snapshot.resolve(host), expected, "{host}");
    }
}

#[test]
fn every_name_that_is_listed_has_records() {
    let snapshot = town();
    let names = snapshot.names();
    for name in [
        "web.a.svc.cluster.local",
        "redis-0.redis.a.svc.cluster.local",
        "fd01--5.redis.a.svc.cluster.local",
        "_http-8080._tcp.web.a.svc.cluster.local",
        "alias.a.svc.cluster.local",
    ] {
        assert!(names.iter().any(|listed| listed == name), "{name}: {names:?}");
    }
    assert!(
        names
            .iter()
            .all(|name| !matches!(snapshot.resolve(name), None | Some(Resolved::Missing)))
    );
}

#[test]
fn pods_of_headless_services() {
    check(&[
        ("redis-0.redis", addresses(&["10.1.0.5"])),
        ("redis-0.redis.a.svc", addresses(&["10.1.0.5"])),
        ("redis-0.redis.a.svc.cluster.local", addresses(&["10.1.0.5"])),
        ("10-1-0-6.redis.a", addresses(&["10.1.0.6"])),
        ("fd01--5.redis.a", addresses(&["fd01::5"])),
        ("10-1-0-5.redis.a", None),
        ("redis-1.redis", None),
        ("redis-1.redis.a.svc", None),
        ("x.quiet.a.svc.cluster.local", None),
        ("x.y.a.svc.cluster.local", None),
    ]);
}

/// As a cluster's own DNS has them, before services with cluster addresses, too.
#[test]
fn pods_of_services_with_cluster_addresses() {
    let mut table = table(None, [put(service("a/kafka", &["10.96.0.1"], &[9092]))]);
    let mut first = endpoint(9092, "10.1.0.1:9092");
    first.hostname = Some("kafka-0".into());
    table.apply(endpoints("a/kafka", vec![first, endpoint(9092, "10.1.0.2:9092")]));
    let snapshot = table.snapshot();
    for (host, expected) in [
        ("kafka-0.kafka.a.svc.cluster.local", addresses(&["10.1.0.1"])),
        ("kafka-0.kafka.a", addresses(&["10.1.0.1"])),
        ("10-1-0-2.kafka.a.svc.cluster.local", addresses(&["10.1.0.2"])),
        ("kafka-1.kafka.a.svc.cluster.local", None),
        ("10-1-0-1.kafka.a.svc.cluster.local", None),
        ("_none._tcp.kafka.a.svc.cluster.local", Some(Resolved::Missing)),
    ] {
        assert_eq!(snapshot.resolve(host), expected, "{host}");
    }
}

#[test]
fn only_full_names_below_our_own_are_certainly_missing() {
    let missing = Some(Resolved::Missing);
    check(&[
        ("redis-1.redis.a.svc.cluster.local", missing.clone()),
        ("x.redis.a.svc.cluster.local", missing.clone()),
        ("x.web.a.svc.cluster.local", None),
        ("x.y.web.a.svc.cluster.local", missing.clone()),
        ("x.redis-0.redis.a.svc.cluster.local", missing.clone()),
        ("x.alias.a.svc.cluster.local", missing.clone()),
        ("_none._tcp.web.a.svc.cluster.local", missing),
        ("_dns._udp.web.a.svc.cluster.local", None),
        ("_udp.web.a.svc.cluster.local", None),
        // What a resolver with the search list of a pod sends first for `web.a` and for `example.com`.
        ("web.a.a.svc.cluster.local", None),
        ("example.com.a.svc.cluster.local", None),
        ("mail.google.com", None),
        ("google.com", addresses(&["10.96.0.3"])),
    ]);
}

#[test]
fn ports() {
    let at = |places: &[(&str, u16)]| {
        let places = places.iter().map(|&(host, port)| PortAt {
            host: format!("{host}.a.svc.cluster.local"),
            port,
        });
        Some(Resolved::Ports(places.collect()))
    };
    check(&[
        ("_http-80._tcp.web.a.svc.cluster.local", at(&[("web", 80)])),
        ("_http-8080._tcp.web", at(&[("web", 8080)])),
        (
            "_http-6379._tcp.redis.a",
            at(&[
                ("10-1-0-6.redis", 6379),
                ("fd01--5.redis", 6379),
                ("redis-0.redis", 6380),
            ]),
        ),
        ("_http-80._tcp.redis.a", None),
        ("_tcp.web.a.svc.cluster.local", addresses(&[])),
        ("_http-80.redis.a.svc.cluster.local", Some(Resolved::Missing)),
    ]);
}

#[test]
fn addresses_have_names() {
    let names = |host: &str| Some(Resolved::Names(vec![format!("{host}.a.svc.cluster.local")]));
    let nibbles = |address: &str| {
        let IpAddr::V6(v6) = ip(address) else {
            panic!("{address}")
        };
        let digits: Vec<String> = format!("{:032x}", v6.to_bits())
            .chars()
            .rev()
            .map(String::from)
            .collect();
        format!("{}.ip6.arpa", digits.join("."))
    };
    check(&[
        ("1.0.96.10.in-addr.arpa", names("web")),
        ("5.0.1.10.in-addr.arpa", names("redis-0.redis")),
        ("6.0.1.10.in-addr.arpa.", names("10-1-0-6.redis")),
        (&nibbles("fd00::1"), names("web")),
        (&nibbles("fd01::5"), names("fd01--5.redis")),
        (&nibbles("fd01::6"), None),
        ("1.0.1.10.in-addr.arpa", None),
        ("1.0.96.in-addr.arpa", None),
        ("1.0.96.10.10.in-addr.arpa", None),
        ("01.0.96.10.in-addr.arpa", None),
        ("x.0.96.10.in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("1.ip6.arpa", None),
        (&format!("1.{}", nibbles("fd00::1")), None),
    ]);
}
