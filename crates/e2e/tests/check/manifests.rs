//! Mistakes in manifests.

use anyhow::{Context, Result};
use e2e::manifests::Manifests;

use crate::stage::Stage;

const POD: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]}
status:
  phase: Running
  podIP: 10.77.0.9
  podIPs: [{ip: 10.77.0.9}]
  conditions: [{type: Ready, status: 'True'}]
";

pub(crate) const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";

const SLICE: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.77.0.9], conditions: {ready: true}, targetRef: {kind: Pod, name: web-0, namespace: shop}}]
";

/// What is replaced in the whole of the three, by what, and what must be named.
const PLANTS: [(&str, &str, &[&str]); 10] = [
    (
        "{name: http, port: 80, targetPort: http}",
        "{name: http, port: 80, appProtocol: gprc, targetPort: http}",
        &["warning WEIR-UNKNOWN-PROTOCOL did you mean `grpc`?"],
    ),
    (
        "ready: true",
        "ready: false",
        &["warning WEIR-NO-ENDPOINTS its only endpoint is not ready"],
    ),
    (
        "name: web-0, namespace: shop}}",
        "name: web-9, namespace: shop}}",
        &["warning WEIR-STRAY-ENDPOINT shop/web-9"],
    ),
    (
        "ports: [{name: http, port: 8080",
        "ports: [{name: htp, port: 8080",
        &[
            "warning WEIR-MANIFEST-MISMATCH did you mean `http`?",
            "warning WEIR-NO-ENDPOINTS Service shop/web port 80",
        ],
    ),
    (
        "  selector: {app: web}\n",
        "  slector: {app: web}\n",
        &["warning WEIR-MANIFEST-UNKNOWN did you mean `selector`?"],
    ),
    (
        "port: 80,",
        "port: 80000,",
        &["error WEIR-MANIFEST-FIELD spec.ports[0].port"],
    ),
    (
        "clusterIP: 10.96.0.10",
        "clusterIP: 10.96.0.300",
        &["error WEIR-MANIFEST-FIELD spec.clusterIP"],
    ),
    ("kind: Service\n", "kind: [\n", &["error WEIR-MANIFEST-SYNTAX"]),
    ("status: 'True'", "status: 'True'", &[]),
    (
        "  ports: [{name: http, port: 80",
        "  ports: [{name: dns, port: 53, protocol: UDP}, {name: http, port: 80",
        &["note WEIR-NOT-CAPTURED 53/UDP not captured"],
    ),
];

fn check(stage: &Stage, files: &[(&str, &str)], expected: &[&str]) -> Result<()> {
    let folder = Manifests::create()?;
    for (name, text) in files {
        folder.write(name, text)?;
    }
    let said = stage.check(&format!("--manifests {}", folder.path().display()))?;
    said.is(expected).with_context(|| format!("{files:#?}"))
}

#[test]
fn mistakes_are_named() -> Result<()> {
    let stage = Stage::set()?;
    let whole = [POD, SERVICE, SLICE].concat();
    for (good, bad, expected) in PLANTS {
        let text = whole.replacen(good, bad, 1);
        assert!(whole.contains(good), "{good}");
        check(&stage, &[("web.yaml", &text)], expected)?;
    }
    Ok(())
}

#[test]
fn mistakes_of_two_objects_are_named() -> Result<()> {
    let stage = Stage::set()?;
    let other = |service: &str| service.replace("name: web,", "name: other,");
    let whole = [POD, SERVICE].concat();
    check(&stage, &[("web.yaml", &whole)], &[])?;
    check(
        &stage,
        &[(
            "web.yaml",
            &whole.replace("name: http, port: 80", "name: htpp-web, port: 80"),
        )],
        &["warning WEIR-UNKNOWN-PROTOCOL `htpp-web` names no protocol"],
    )?;
    check(
        &stage,
        &[("web.yaml", &whole), ("other.yaml", &other(SERVICE))],
        &["warning WEIR-ADDRESS-TWICE 10.96.0.10 is also the address of Service shop/other"],
    )?;
    check(
        &stage,
        &[("web.yaml", &whole), ("copy.yaml", SERVICE)],
        &["error WEIR-MANIFEST-TWICE Service shop/web"],
    )?;
    check(
        &stage,
        &[(
            "web.yaml",
            &whole.replace("targetPort: http", "targetPort: admin"),
        )],
        &["warning WEIR-MANIFEST-MISMATCH no selected pod has a TCP container port named `admin`"],
    )?;
    check(
        &stage,
        &[(
            "web.yaml",
            &whole.replace("selector: {app: web}", "selector: {app: wbe}"),
        )],
        &["warning WEIR-NO-ENDPOINTS no endpoint"],
    )
}
