//! The tables of `weir pc` from a made-up dump: columns, order, filters, narrow terminals.

use std::sync::Arc;

use model::settings::{OutboundPolicy, Overrides};
use model::{
    ClusterName, Condition, Direction, Endpoint, ObjectName, Place, Problem, Protocol, Service, ServiceKind,
    ServicePort, SessionAffinity, Settings, Severity, TargetPort, Update, Workload,
};
use registry::dump::{DnsDump, ListenerDump, ProblemsDump};
use registry::{Dump, Table};

use super::*;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn service(of: &str, addresses: &[&str], ports: &[(u16, &str)]) -> Service {
    let name = name(of);
    Service {
        host: format!("{}.{}.svc.cluster.local", name.name, name.namespace).into(),
        kind: match addresses {
            [] => ServiceKind::Headless,
            _ => ServiceKind::ClusterIp(addresses.iter().map(|a| a.parse().unwrap()).collect()),
        },
        ports: ports
            .iter()
            .map(|&(number, port_name)| {
                let (protocol, known_by) = Protocol::declared(None, Some(port_name));
                ServicePort {
                    number,
                    name: port_name.into(),
                    protocol,
                    known_by,
                    target: TargetPort::Number(number),
                }
            })
            .collect(),
        affinity: SessionAffinity::None,
        created: model::Created::Unknown,
        publish_not_ready: false,
        settings: Overrides::default(),
        name,
    }
}

fn endpoint(port_name: &str, address: &str, condition: Condition, pod: &str) -> Endpoint {
    Endpoint {
        port_name: port_name.into(),
        address: address.parse().unwrap(),
        condition,
        workload: Some(name(pod)),
        hostname: None,
        generation: Arc::default(),
    }
}

/// A sidecar of one of two nginx pods, with an undeclared port and a headless service.
fn dump(policy: OutboundPolicy) -> Dump {
    let mut table = Table::new(Some(name("sidecar/nginx-1")));
    let mut nginx = service(
        "sidecar/nginx",
        &["10.96.3.4", "fd00::34"],
        &[(80, "http"), (3306, "x")],
    );
    nginx.settings.retries = Some(5);
    let leaving = Condition {
        ready: false,
        serving: true,
        terminating: true,
    };
    let updates = [
        Update::Service(Box::new(nginx)),
        Update::Service(Box::new(service("data/redis", &[], &[(6379, "tcp-redis")]))),
        Update::Endpoints {
            service: name("sidecar/nginx"),
            endpoints: vec![
                endpoint("http", "10.1.0.1:8080", Condition::READY, "sidecar/nginx-1"),
                endpoint("http", "10.1.0.2:8080", Condition::NOT_READY, "sidecar/nginx-2"),
                endpoint("x", "10.1.0.2:3306", leaving, "sidecar/nginx-2"),
            ],
        },
        Update::Endpoints {
            service: name("data/redis"),
            endpoints: vec![endpoint(
                "tcp-redis",
                "10.1.0.3:6379",
                Condition::READY,
                "data/redis-0",
            )],
        },
        Update::Workload(Box::new(Workload {
            name: name("sidecar/nginx-1"),
            uid: Arc::default(),
            addresses: vec!["10.1.0.1".parse().unwrap()],
            service_account: "default".into(),
            node: Arc::default(),
            ready: true,
        })),
        Update::Mesh(Box::new(Settings {
            outbound_policy: policy,
            ..Settings::default()
        })),
    ];
    for update in updates {
        table.apply(update);
    }
    let snapshot = table.snapshot();
    let redis = &snapshot.clusters_of(&name("data/redis"))[0];
    assert!((0..3).any(|_| redis.failed(&redis.targets[0], 0)));
    let listen = |name: &str, address: &str, to: Option<&str>| ListenerDump {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        to: to.map(|to| to.parse().unwrap()),
    };
    let listeners = [
        listen("outbound", "0.0.0.0:15001", None),
        listen("outbound", "[::]:15001", None),
        listen("inbound", "0.0.0.0:15006", None),
        listen("published", "127.0.0.1:8000", Some("10.0.0.1:8080")),
    ];
    Dump::new(&snapshot, &listeners, &problems(), 2_500)
}

/// A typing error, and a port that is not for a proxy of TCP.
fn problems() -> [Problem; 2] {
    let problem = |file: &str, severity, field: &str, message: &str| Problem {
        name: model::ErrorName::ManifestField,
        file: file.into(),
        place: Place {
            document: 2,
            line: 14,
            item: (file == "list.yaml").then_some(3),
            object: "Service sidecar/web".to_owned(),
        },
        field: field.to_owned(),
        severity,
        message: message.to_owned(),
    };
    [
        problem("list.yaml", Severity::Note, "spec.ports[1]", "is UDP"),
        problem(
            "web.yaml",
            Severity::Warning,
            "spec.slector",
            "is not a known field",
        ),
    ]
}

fn table<R: Row>(rows: &[R]) -> String {
    as_table(rows, Shape::default())
}

#[test]
fn listeners_by_original_destination() {
    let dump = dump(OutboundPolicy::AllowAny);
    assert_eq!(
        table(&listeners(&dump, &ListenerFilter::default())),
        "\
ADDRESSES            PORT    MATCH           DESTINATION
10.96.3.4,fd00::34   80      ALL             Route: nginx.sidecar.svc.cluster.local:80
10.96.3.4,fd00::34   3306    App: HTTP       Route: nginx.sidecar.svc.cluster.local:3306
10.96.3.4,fd00::34   3306    ALL             Cluster: outbound|3306||nginx.sidecar.svc.cluster.local
10.1.0.3             6379    ALL             Cluster: outbound|6379||redis.data.svc.cluster.local
127.0.0.1            8000    ALL             Inbound: 10.0.0.1:8080
0.0.0.0,::           15001   Addr: *:15001   BlackHoleCluster
0.0.0.0,::           15001   ALL             PassthroughCluster
0.0.0.0              15006   Addr: *:15006   BlackHoleCluster
0.0.0.0              15006   Addr: *:8080    Cluster: inbound|8080||
0.0.0.0              15006   ALL             InboundPassthroughCluster
"
    );
    let shown = |address: Option<&str>, port, kind: Option<&str>| {
        let filter = ListenerFilter {
            address: address.map(str::to_owned),
            port,
            kind: kind.map(str::to_owned),
        };
        listeners(&dump, &filter).len()
    };
    assert_eq!(shown(Some("10.1.0.2"), None, None), 3, "a pod's own addresses");
    assert_eq!(shown(Some("fd00::34"), Some(80), None), 1);
    assert_eq!(shown(None, Some(15006), None), 3);
    assert_eq!(shown(None, None, Some("http")), 1);
    assert_eq!(shown(None, None, Some("TCP")), 1);
    let dump = self::dump(OutboundPolicy::RegistryOnly);
    let filter = ListenerFilter {
        port: Some(15001),
        ..ListenerFilter::default()
    };
    assert!(
        listeners(&dump, &filter)
            .iter()
            .all(|row| row.destination == ClusterName::BLACK_HOLE)
    );
}

#[test]
fn routes_by_host() {
    let dump = dump(OutboundPolicy::AllowAny);
    let filter = RouteFilter {
        name: Some("nginx.sidecar.svc.cluster.local:80".to_owned()),
    };
    let rows = routes(&dump, &filter);
    assert_eq!(
        table(&rows),
        "\
NAME                                 VHOST NAME                           DOMAINS                            MATCH   VIRTUAL SERVICE
nginx.sidecar.svc.cluster.local:80   nginx.sidecar.svc.cluster.local:80   nginx, nginx.sidecar + 4 more...   /*
nginx.sidecar.svc.cluster.local:80   any-host                             *                                  /*
"
    );
    assert_eq!(rows[0].domains.last().map(String::as_str), Some("[fd00::34]"));
    let names: Vec<String> = routes(&dump, &RouteFilter::default())
        .into_iter()
        .map(|row| row.name)
        .collect();
    assert!(names.contains(&"inbound|8080||".to_owned()));
    assert!(
        !names.iter().any(|name| name.contains("redis")),
        "opaque ports have no routes"
    );
}

#[test]
fn clusters_there_are() {
    let dump = dump(OutboundPolicy::AllowAny);
    assert_eq!(
        as_table(&clusters(&dump, &ClusterFilter::default()), Shape { is_wide: true, terminal: None }),
        "\
SERVICE FQDN                      PORT   SUBSET   DIRECTION   TYPE           DESTINATION RULE   PROTOCOL     KNOWN BY      ENDPOINTS
BlackHoleCluster                  -      -        -           STATIC                            -            -             -
InboundPassthroughCluster         -      -        -           ORIGINAL_DST                      -            -             -
PassthroughCluster                -      -        -           ORIGINAL_DST                      -            -             -
nginx.sidecar.svc.cluster.local   80     -        outbound    EDS            retries            http         port name     1/2
nginx.sidecar.svc.cluster.local   80     -        inbound     ORIGINAL_DST   retries            http         port name     1/1
nginx.sidecar.svc.cluster.local   3306   -        outbound    EDS            retries            undeclared   first bytes   1/1
redis.data.svc.cluster.local      6379   -        outbound    ORIGINAL_DST                      tcp          port name     1/1
"
    );
    let count = |change: &dyn Fn(&mut ClusterFilter)| {
        let mut filter = ClusterFilter::default();
        change(&mut filter);
        clusters(&dump, &filter).len()
    };
    assert_eq!(count(&|f| f.fqdn = Some("redis.data".to_owned())), 1);
    assert_eq!(count(&|f| f.fqdn = Some("Passthrough".to_owned())), 2);
    assert_eq!(count(&|f| f.direction = Some(Direction::Inbound)), 1);
    assert_eq!(count(&|f| f.port = Some(80)), 2);
    assert_eq!(count(&|f| f.subset = Some("v1".to_owned())), 0);
}

#[test]
fn endpoints_and_how_they_are() {
    let dump = dump(OutboundPolicy::AllowAny);
    let rows = endpoints(&dump, &EndpointFilter::default());
    assert_eq!(
        table(&rows),
        "\
ENDPOINT        STATUS      OUTLIER CHECK   CLUSTER
10.1.0.1:8080   HEALTHY     OK              inbound|8080||
10.1.0.1:8080   HEALTHY     OK              outbound|80||nginx.sidecar.svc.cluster.local
10.1.0.2:3306   DRAINING    OK              outbound|3306||nginx.sidecar.svc.cluster.local
10.1.0.2:8080   UNHEALTHY   OK              outbound|80||nginx.sidecar.svc.cluster.local
10.1.0.3:6379   HEALTHY     FAILED          outbound|6379||redis.data.svc.cluster.local
"
    );
    let ejected = rows.last().unwrap().cells();
    assert_eq!(
        ejected[4..],
        ["data/redis-0", "0", "1", "7.5s"].map(str::to_owned)
    );
    let json: serde_json::Value = serde_json::from_str(&as_json(&rows).unwrap()).unwrap();
    assert_eq!(json[4]["status"], "HEALTHY");
    assert_eq!(json[4]["ejected_for_ms"], 7500);
    assert_eq!(json[4]["address"], "10.1.0.3:6379");
    let count = |change: &dyn Fn(&mut EndpointFilter)| {
        let mut filter = EndpointFilter::default();
        change(&mut filter);
        endpoints(&dump, &filter).len()
    };
    assert_eq!(count(&|f| f.status = Some("unhealthy".to_owned())), 1);
    assert_eq!(count(&|f| f.address = Some("10.1.0.2".parse().unwrap())), 2);
    assert_eq!(count(&|f| f.port = Some(8080)), 3);
    assert_eq!(count(&|f| f.cluster = Some("inbound|8080||".to_owned())), 1);
}

#[test]
fn settings_with_their_defaults() {
    let rows = settings(&dump(OutboundPolicy::RegistryOnly)).unwrap();
    let row = |setting: &str| rows.iter().find(|row| row.setting == setting).unwrap();
    assert_eq!(row("outboundPolicy").value, "registry-only");
    assert_eq!(row("outboundPolicy").default, "allow-any");
    assert_eq!(row("connectTimeout").value, "5s");
    assert_eq!(row("retryBodyBytes").value, "64Ki");
    assert_eq!(row("timeout").default, "none");
    assert_eq!(row("timeout").annotation.as_deref(), Some("weir.dev/timeout"));
    assert_eq!(row("accessLog").annotation, None);
    assert_eq!(rows.len(), 20);
}

#[test]
fn yaml_says_what_json_says() {
    fn same<R: Row>(rows: &[R]) {
        let json: serde_json::Value = serde_json::from_str(&as_json(rows).unwrap()).unwrap();
        let text = as_yaml(rows).unwrap();
        assert!(text.ends_with('\n') && !text.starts_with('{'), "{text}");
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(yaml, json, "{text}");
    }
    let dump = dump(OutboundPolicy::AllowAny);
    same(&listeners(&dump, &ListenerFilter::default()));
    same(&routes(&dump, &RouteFilter::default()));
    same(&clusters(&dump, &ClusterFilter::default()));
    same(&endpoints(&dump, &EndpointFilter::default()));
    same(&services(&dump, None));
    same(&workloads(&dump, None));
    same(&settings(&dump).unwrap());
    same(&super::problems(&dump, None));
    same::<Problem>(&[]);
}

#[test]
fn problems_the_worst_first() {
    let mut dump = dump(OutboundPolicy::AllowAny);
    assert_eq!(
        table(&super::problems(&dump, None)),
        "\
SEVERITY   FILE        DOCUMENT              OBJECT                FIELD           PROBLEM
warning    web.yaml    2 (line 14)           Service sidecar/web   spec.slector    is not a known field [WEIR-MANIFEST-FIELD]
note       list.yaml   2 (line 14), item 3   Service sidecar/web   spec.ports[1]   is UDP [WEIR-MANIFEST-FIELD]
"
    );
    assert_eq!(super::problems(&dump, Some(Severity::Error)).len(), 0);
    let notes = super::problems(&dump, Some(Severity::Note));
    let json: serde_json::Value = serde_json::from_str(&as_json(&notes).unwrap()).unwrap();
    assert_eq!(json[0]["severity"], "note");
    assert_eq!(json[0]["place"]["item"], 3);
    let hint = "1 manifest has problems: weir pc problems";
    assert_eq!(problems_hint(&dump).as_deref(), Some(hint));
    assert_eq!(problems_left_out(&dump), None);
    dump.problems = ProblemsDump::default();
    assert_eq!(problems_hint(&dump), None);
}

#[test]
fn what_the_registry_holds() {
    let dump = dump(OutboundPolicy::AllowAny);
    assert_eq!(
        table(&services(&dump, None)),
        "\
NAMESPACE   SERVICE NAME   SERVICE VIP          PORTS     ENDPOINTS
data        redis          None                 6379      1/1
sidecar     nginx          10.96.3.4,fd00::34   80,3306   2/2
"
    );
    assert_eq!(
        table(&workloads(&dump, Some("sidecar"))),
        "\
NAMESPACE   POD NAME   ADDRESS    NODE   READY
sidecar     nginx-1    10.1.0.1   -      true
"
    );
    assert!(workloads(&dump, Some("data")).is_empty());
}

#[test]
fn look_ups_of_a_name_by_the_search_list_and_of_all_names() {
    let mut dump = dump(OutboundPolicy::AllowAny);
    assert!(dns_remark(&dump).is_some());
    dump.dns = Some(DnsDump {
        resolvers: vec!["10.0.0.53:53".parse().unwrap()],
        search: vec!["x.svc.cluster.local".into(), "svc.cluster.local".into()],
        ndots: 5,
        ttl: 5,
        ..DnsDump::default()
    });
    assert_eq!(dns_remark(&dump), None);
    let of = |name: &str, kind: Option<&str>| {
        let (name, kind) = (Some(name.to_owned()), kind.map(str::to_owned));
        let rows = dns(&dump, &DnsFilter { name, kind });
        let cells = rows.iter().map(|row| row.cells().join(" "));
        cells.collect::<Vec<_>>()
    };
    assert_eq!(
        of("nginx.sidecar", None),
        [
            "nginx.sidecar.x.svc.cluster.local. A forwarded - resolver 10.0.0.53 -",
            "nginx.sidecar.x.svc.cluster.local. AAAA forwarded - resolver 10.0.0.53 -",
            "nginx.sidecar.svc.cluster.local. A answered 10.96.3.4 service sidecar/nginx 5s",
            "nginx.sidecar.svc.cluster.local. AAAA answered fd00::34 service sidecar/nginx 5s",
        ]
    );
    assert_eq!(
        of("10.96.3.4", None),
        ["4.3.96.10.in-addr.arpa. PTR answered nginx.sidecar.svc.cluster.local service sidecar/nginx 5s"]
    );
    assert_eq!(
        of("_no._tcp.nginx.sidecar.svc.cluster.local.", Some("srv")),
        ["_no._tcp.nginx.sidecar.svc.cluster.local. SRV nxdomain - service sidecar/nginx -"]
    );
    let all = dns(&dump, &DnsFilter::default());
    let has = |name: &str, kind: &str| all.iter().any(|row| row.name == name && row.kind == kind);
    assert!(has("nginx.sidecar.svc.cluster.local.", "A"), "{all:?}");
    assert!(
        has("_http._tcp.nginx.sidecar.svc.cluster.local.", "SRV"),
        "{all:?}"
    );
    assert!(all.iter().all(|row| row.result == LookUpResult::Answered));
}
