//! Tests of the decision.

use model::settings::OutboundPolicy;
use model::{Created, Direction, Local, Service, ServiceKind};

use crate::testing::{dst, endpoint, endpoints, listener, mesh, name, put, service, socket, table, workload};
use crate::{Decision, Snapshot, Table};

/// A decision in words.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Cluster(cluster) => cluster.name.to_string(),
        Decision::Endpoint(cluster, target) => format!("{} at {}", cluster.name, target.address),
        Decision::Passthrough(why) => format!("passthrough: {}", why.as_str()),
        Decision::Deny(why) => format!("deny: {}", why.as_str()),
    }
}

fn outbound(snapshot: &Snapshot, to: &str) -> String {
    told(&snapshot.decide(Direction::Outbound, dst(to), listener()))
}

fn inbound(snapshot: &Snapshot, to: &str) -> String {
    let local = Local::new(socket("10.1.0.9:15006"));
    told(&snapshot.decide(Direction::Inbound, dst(to), local))
}

fn town() -> Table {
    let alias = Service {
        kind: ServiceKind::ExternalName("db.example.com".into()),
        ..service("a/alias", &[], &[443])
    };
    let mut table = table(
        Some("a/me"),
        [
            put(service("a/web", &["10.96.0.1", "fd00::1"], &[80, 8080])),
            put(service("a/redis", &[], &[6379])),
            put(service("b/api", &["10.96.0.2"], &[80])),
            put(alias),
            workload("a/me", &["10.1.0.9", "fd01::9"]),
        ],
    );
    let mut mine = endpoint(80, "10.1.0.9:8080");
    mine.workload = Some(name("a/me"));
    let mut redis = endpoint(6379, "10.1.0.5:6379");
    redis.hostname = Some("redis-0".into());
    table.apply(endpoints("a/web", vec![endpoint(80, "10.1.0.1:8080"), mine]));
    table.apply(endpoints(
        "a/redis",
        vec![redis, endpoint(6379, "[fd01::5]:6379")],
    ));
    // The same pod port as a/web's, by another service.
    table.apply(endpoints(
        "b/api",
        vec![endpoint(80, "10.1.0.1:8080"), endpoint(80, "10.1.0.9:9090")],
    ));
    table
}

#[test]
fn outbound_decisions() {
    let mut town = town();
    let web = "outbound|80||web.a.svc.cluster.local";
    let redis = "outbound|6379||redis.a.svc.cluster.local";
    let unknown = "passthrough: no service owns the destination";
    let table = [
        ("10.96.0.1:80", web.to_owned()),
        ("[fd00::1]:80", web.to_owned()),
        ("[::ffff:10.96.0.1]:80", web.to_owned()),
        (
            "10.96.0.1:8080",
            "outbound|8080||web.a.svc.cluster.local".to_owned(),
        ),
        (
            "10.96.0.1:81",
            "deny: the service at this address has no such port".to_owned(),
        ),
        ("10.96.0.2:80", "outbound|80||api.b.svc.cluster.local".to_owned()),
        ("10.1.0.1:8080", format!("{web} at 10.1.0.1:8080")),
        ("10.1.0.1:8081", unknown.to_owned()),
        ("10.1.0.5:6379", format!("{redis} at 10.1.0.5:6379")),
        ("[fd01::5]:6379", format!("{redis} at [fd01::5]:6379")),
        (
            "10.1.0.9:9090",
            "outbound|80||api.b.svc.cluster.local at 10.1.0.9:9090".to_owned(),
        ),
        ("93.184.215.14:443", unknown.to_owned()),
        ("10.1.0.1:15001", unknown.to_owned()),
        ("10.1.0.9:15001", "deny: made to the proxy's own port".to_owned()),
        ("[fd01::9]:15006", "deny: made to the proxy's own port".to_owned()),
        ("127.0.0.1:15001", "deny: made to the proxy's own port".to_owned()),
        ("10.1.0.9:15021", unknown.to_owned()),
    ];
    let snapshot = town.snapshot();
    for (to, expected) in table {
        assert_eq!(outbound(&snapshot, to), expected, "{to}");
    }
    town.apply(mesh(|s| s.outbound_policy = OutboundPolicy::RegistryOnly));
    let snapshot = town.snapshot();
    let denied = "deny: no service owns the destination and the mesh is registry-only";
    assert_eq!(outbound(&snapshot, "93.184.215.14:443"), denied);
    assert_eq!(outbound(&snapshot, "10.1.0.1:8081"), denied);
    assert_eq!(outbound(&snapshot, "10.96.0.1:80"), web);
}

#[test]
fn a_connection_made_to_the_listener_itself_is_a_loop_even_where_nobody_knows_who_we_are() {
    let snapshot = table(None, []).snapshot();
    let made_to_us = dst("192.0.2.7:15001");
    let told_loop = told(&snapshot.decide(Direction::Outbound, made_to_us, Local::new(made_to_us.socket())));
    assert_eq!(told_loop, "deny: made to the proxy's own port");
    assert_eq!(
        outbound(&snapshot, "192.0.2.7:15001"),
        "passthrough: no service owns the destination"
    );
}

#[test]
fn inbound_decisions() {
    let mut town = town();
    let unknown = "passthrough: no service of this workload owns the port";
    let table = [
        ("10.1.0.9:8080", "inbound|8080|| at 10.1.0.9:8080"),
        ("[fd01::9]:8080", "inbound|8080|| at [fd01::9]:8080"),
        ("10.1.0.9:80", unknown),
        // Claimed by address and not by name: the slice names another pod.
        ("10.1.0.9:9090", unknown),
        ("10.1.0.1:8080", unknown),
        ("10.1.0.9:15006", "deny: made to the proxy's own port"),
        ("10.1.0.9:15001", "deny: made to the proxy's own port"),
    ];
    let snapshot = town.snapshot();
    for (to, expected) in table {
        assert_eq!(inbound(&snapshot, to), expected, "{to}");
    }
    let cluster = &snapshot.inbound[&8080];
    assert_eq!((&*cluster.host, cluster.port), ("web.a.svc.cluster.local", 80));
    assert_eq!((cluster.policy.retries, cluster.policy.eject_after), (0, 0));
}

#[test]
fn inbound_ports_follow_our_endpoints() {
    let mut table = table(
        Some("a/me"),
        [
            put(service("a/web", &[], &[80])),
            put(service("a/aaa", &[], &[90])),
        ],
    );
    let anonymous = |port, address| model::Endpoint {
        workload: None,
        ..endpoint(port, address)
    };
    table.apply(endpoints("a/web", vec![anonymous(80, "10.1.0.9:8080")]));
    assert!(
        table.snapshot().inbound.is_empty(),
        "whose address that is, is not known yet"
    );
    table.apply(workload("a/me", &["10.1.0.9"]));
    assert_eq!(table.snapshot().inbound[&8080].port, 80);
    table.apply(endpoints("a/aaa", vec![anonymous(90, "10.1.0.9:8080")]));
    assert_eq!(
        table.snapshot().inbound[&8080].port,
        90,
        "the lowest service name has the port where neither is older"
    );
    let mut old = service("a/web", &[], &[80]);
    old.created = Created::At(1);
    table.apply(put(old));
    assert_eq!(table.snapshot().inbound[&8080].port, 80, "the older one has it");
    table.apply(model::Update::ServiceGone(name("a/aaa")));
    assert_eq!(table.snapshot().inbound[&8080].port, 80);
    table.apply(model::Update::WorkloadGone(name("a/me")));
    assert!(table.snapshot().inbound.is_empty());
}
