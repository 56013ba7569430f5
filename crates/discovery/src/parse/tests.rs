//! What one file says: every kind of object, lists and documents; mistakes and hostile texts in a file of their own.

mod mistakes;

use model::settings::{AccessLog, Balancing, OutboundPolicy};
use model::{Created, ErrorName, KnownBy, Protocol, ServiceKind, SessionAffinity, TargetPort};

use super::*;

fn objects(text: &str) -> Vec<Object> {
    let parsed = parse("m.yaml", text);
    let errors: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let objects = parsed.objects.into_values();
    objects.map(|(_, object)| (*object).clone()).collect()
}

fn one(text: &str) -> Object {
    let mut objects = objects(text);
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

fn told(text: &str) -> Vec<String> {
    parse("m.yaml", text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// As `kubectl get service -o yaml` prints it.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {\"apiVersion\":\"v1\",\"kind\":\"Service\"}
    weir.dev/retries: \"5\"
    weir.dev/timeout: 2s
  creationTimestamp: \"2026-08-03T10:04:11Z\"
  labels:
    app: nginx
  name: nginx
  namespace: sidecar
  resourceVersion: \"23919\"
  uid: 0b6d1f4f-3f3b-4a55-9a57-6c1b2a0c8f11
spec:
  clusterIP: 10.96.3.4
  clusterIPs:
  - 10.96.3.4
  - fd00:10:96::3:4
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  - IPv6
  ipFamilyPolicy: PreferDualStack
  ports:
  - name: http
    nodePort: 30080
    port: 80
    protocol: TCP
    targetPort: web
  - appProtocol: kubernetes.io/h2c
    name: api
    port: 8080
    protocol: TCP
    targetPort: 9090
  - name: dns
    port: 53
    protocol: UDP
    targetPort: 53
  selector:
    app: nginx
  sessionAffinity: ClientIP
  sessionAffinityConfig:
    clientIP:
      timeoutSeconds: 600
  type: NodePort
status:
  loadBalancer: {}
";

#[test]
fn a_service_as_kubectl_prints_it() {
    let parsed = parse("m.yaml", SERVICE);
    let told: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "m.yaml: document 1 (line 1), Service sidecar/nginx, spec.ports: 53/UDP not captured: only TCP is; it goes where it would go without Weir [WEIR-NOT-CAPTURED]"
        ]
    );
    let Some((_, object)) = parsed.objects.into_values().next() else {
        panic!("no object")
    };
    let Object::Service(object) = &*object else {
        panic!("no service")
    };
    let service = &object.service;
    assert_eq!(&*service.host, "nginx.sidecar.svc.cluster.local");
    let addresses = ["10.96.3.4", "fd00:10:96::3:4"].map(|a| a.parse().expect("an address"));
    assert_eq!(service.kind, ServiceKind::ClusterIp(addresses.to_vec()));
    assert_eq!(object.families, [Family::V4, Family::V6]);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|p| (p.number, &*p.name, p.protocol, p.known_by))
        .collect();
    assert_eq!(
        ports,
        [
            (80, "http", Protocol::Http, KnownBy::PortNamePrefix),
            (8080, "api", Protocol::Http2, KnownBy::AppProtocol),
        ]
    );
    assert_eq!(service.ports[0].target, TargetPort::Name("web".into()));
    assert_eq!(service.ports[1].target, TargetPort::Number(9090));
    let timeout = std::time::Duration::from_secs(600);
    assert_eq!(service.affinity, SessionAffinity::ClientIp { timeout });
    assert_eq!(service.settings.retries, Some(5));
    assert_eq!(
        service.settings.timeout,
        Some(Some(std::time::Duration::from_secs(2)))
    );
}

#[test]
fn kinds_of_service() {
    let kind = |spec: &str| match one(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec: {spec}"
    )) {
        Object::Service(object) => object.service.kind,
        other => panic!("{other:?}"),
    };
    let ip = |text: &str| text.parse().expect("an address");
    assert_eq!(kind("{clusterIP: None}"), ServiceKind::Headless);
    assert_eq!(
        kind("{clusterIPs: [None], clusterIP: None}"),
        ServiceKind::Headless
    );
    assert_eq!(kind("{clusterIP: \"\"}"), ServiceKind::ClusterIp(vec![]));
    assert_eq!(kind("{}"), ServiceKind::ClusterIp(vec![]));
    assert_eq!(
        kind("{clusterIP: 10.0.0.1, type: LoadBalancer}"),
        ServiceKind::ClusterIp(vec![ip("10.0.0.1")])
    );
    assert_eq!(
        kind("{type: ExternalName, externalName: db.example.com, ports: [{port: 443}]}"),
        ServiceKind::ExternalName("db.example.com".into())
    );
}

#[test]
fn an_endpoint_slice_as_kubectl_prints_it() {
    let text = "\
addressType: IPv4
apiVersion: discovery.k8s.io/v1
endpoints:
- addresses:
  - 10.1.0.1
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: n1
  targetRef:
    kind: Pod
    name: nginx-1
    namespace: sidecar
    uid: u1
  zone: z
- addresses:
  - 10.1.0.2
  conditions:
    ready: null
  hostname: nginx-1
- addresses:
  - 10.1.0.3
  conditions:
    ready: false
    serving: true
    terminating: true
- addresses:
  - 10.1.0.4
  conditions:
    ready: false
kind: EndpointSlice
metadata:
  labels:
    kubernetes.io/service-name: nginx
  name: nginx-abc
  namespace: sidecar
ports:
- name: http
  port: 8080
  protocol: TCP
- name: dns
  port: 53
  protocol: UDP
";
    let Object::EndpointSlice(slice) = one(text) else {
        panic!("no slice")
    };
    assert_eq!(slice.service, ObjectName::new("sidecar", "nginx"));
    let told: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| {
            (
                e.address.to_string(),
                &*e.port_name,
                e.condition.as_str(),
                &*e.generation,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("10.1.0.1:8080".to_owned(), "http", "READY", "u1"),
            ("10.1.0.2:8080".to_owned(), "http", "READY", ""),
            ("10.1.0.3:8080".to_owned(), "http", "TERMINATING", ""),
            ("10.1.0.4:8080".to_owned(), "http", "NOT READY", ""),
        ]
    );
    assert_eq!(
        slice.endpoints[0].workload,
        Some(ObjectName::new("sidecar", "nginx-1"))
    );
    assert_eq!(slice.endpoints[1].hostname.as_deref(), Some("nginx-1"));
}

#[test]
fn endpoints_and_pods() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "data"},
         "subsets": [{"addresses": [{"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "db-0", "uid": "u"}}],
                      "notReadyAddresses": [{"ip": "10.1.0.2"}],
                      "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}]},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "namespace": "data", "uid": "u", "labels": {"app": "db"}},
         "spec": {"nodeName": "n1", "serviceAccountName": "db", "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "sql", "containerPort": 5432}, {"containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 1}]},
                               {"name": "i", "ports": [{"name": "no", "containerPort": 2}]}]},
         "status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd01::1"}], "hostIP": "192.0.2.1",
                    "conditions": [{"type": "Ready", "status": "False"}]}}]}"#;
    let objects = objects(text);
    let [Object::Endpoints(endpoints), Object::Pod(pod)] = &objects[..] else {
        panic!("{objects:?}")
    };
    let told: Vec<_> = endpoints
        .endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.condition.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("10.1.0.1:5432".to_owned(), "READY"),
            ("10.1.0.2:5432".to_owned(), "NOT READY")
        ]
    );
    assert_eq!(
        endpoints.endpoints[0].workload,
        Some(ObjectName::new("data", "db-0"))
    );
    assert_eq!(pod.workload.addresses.len(), 2);
    assert!(!pod.workload.ready);
    assert_eq!(pod.ports, [("sql".into(), 5432), ("side".into(), 1)]);
}

#[test]
fn settings_of_the_mesh() {
    let text = "
apiVersion: weir.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  outboundPolicy: registry-only
  connectTimeout: 250ms
  timeout: 1m30s
  perTryTimeout: none
  retries: 0
  retryBodyBytes: 128Ki
  balancing: least-request
  ejectMaxPercent: 100
  requestId: false
  tcpIdleTimeout: 2h
  accessLog: off
  dnsTtl: 1m
  automaticAddresses: false
";
    let Object::MeshConfig(settings) = one(text) else {
        panic!("no settings")
    };
    assert_eq!(settings.dns_ttl.as_secs(), 60);
    assert!(!settings.automatic_addresses);
    assert_eq!(settings.outbound_policy, OutboundPolicy::RegistryOnly);
    assert_eq!(settings.policy.connect_timeout.as_millis(), 250);
    assert_eq!(settings.policy.timeout.map(|t| t.as_secs()), Some(90));
    assert_eq!(settings.policy.per_try_timeout, None);
    assert_eq!(
        (settings.policy.retries, settings.policy.retry_body_bytes),
        (0, 131_072)
    );
    assert_eq!(settings.policy.balancing, Balancing::LeastRequest);
    assert_eq!(settings.tcp_idle_timeout.as_secs(), 7200);
    assert_eq!(settings.access_log, AccessLog::Off);
    assert!(!settings.request_id);
    assert_eq!(settings.header_timeout, model::settings::HEADER_TIMEOUT);
}

const MISTAKEN: &str = "\
# mine
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: v1
kind: Service
metadata:
  name: Web_1
spec:
  clusterip: 10.0.0.1
  slector: {app: web}
  ports:
  - port: 70000
  - {name: a, port: http, protocol: tcp, apProtocol: http}
  sessionAffinity: ClientIp
---
apiVersion: v1
kind: Service
metadata:
  name: ok
  annotations:
    weir.dev/conect-timeout: 5s
    weir.dev/access-log: json
    weir.dev/retries: many
    weir.dev/eject-time: \"5\"
spec:
  clusterIP: 10.0.0.1.2
  ports: {port: 80}
---
kind: [
---
just text
---
apiVersion: weir.dev/v1
kind: MeshConfig
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
";

/// Every mistake at once, each with its place.
#[test]
fn lists_and_documents() {
    let service =
        |name: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{}}}}");
    let (a, b) = (service("a"), service("b"));
    let bare = "{metadata: {name: a}}, {metadata: {name: b}}";
    let table = [
        (format!("{a}\n---\n{b}"), 2),
        (format!("--- {a}\n--- {b}\n"), 2),
        (format!("%YAML 1.2\n---\n{a}\n...\n---\n{b}\n..."), 2),
        (
            format!("\u{feff}# comment\n\n---\n{a}\n---\n---\n# nothing\n---\n{b}\n"),
            2,
        ),
        (format!("{a}\r\n---\r\n{b}\r\n"), 2),
        (format!("apiVersion: v1\nkind: List\nitems:\n- {a}\n- {b}\n"), 2),
        (format!("apiVersion: v1\nkind: ServiceList\nitems: [{bare}]\n"), 2),
        (
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"tab\"}}"
                .to_owned(),
            1,
        ),
        (String::new(), 0),
        ("---\n---\n".to_owned(), 0),
        (
            "a: |\n  --- not a marker\n  x".replace("a:", "apiVersion: v1\nkind: Secret\na:"),
            0,
        ),
    ];
    for (text, expected) in table {
        assert_eq!(objects(&text).len(), expected, "{text}");
    }
    let twice = format!("{a}\n---\n{a}");
    assert_eq!(
        told(&twice),
        [
            "m.yaml: document 2 (line 2), Service default/a: the same object is in document 1 (line 1) already, which is used; remove one of the two [WEIR-MANIFEST-TWICE]"
        ]
    );
}

/// Texts made to hurt. Each is refused or read, none hangs or panics.
#[test]
fn the_time_an_object_was_made() {
    let of = |time: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, creationTimestamp: {time}}}\nspec: {{clusterIP: 10.96.0.1}}\n"
        );
        let parsed = parse("m.yaml", &text);
        let told: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
        let Some((_, object)) = parsed.objects.into_values().next() else {
            panic!("no object: {told:?}")
        };
        let Object::Service(object) = &*object else {
            panic!("{object:?}")
        };
        (object.service.created, told.join("\n"))
    };
    let at = Created::At(1_767_225_600);
    assert_eq!(of("\"2026-01-01T00:00:00Z\""), (at, String::new()));
    assert_eq!(of("2026-01-01T00:00:00Z"), (at, String::new()));
    assert_eq!(of("null"), (Created::Unknown, String::new()));
    let (created, told) = of("yesterday");
    assert_eq!(created, Created::Unknown);
    assert!(
        told.contains("metadata.creationTimestamp: is not a time such as"),
        "{told}"
    );
}
