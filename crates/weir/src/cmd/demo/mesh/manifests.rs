//! What the sidecars of the demo are told: a Service, its `EndpointSlice`s and the Pods, as
//! `kubectl get -o yaml` would print them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use super::{APP_PORT, CLIENTS, NAMESPACE, SERVERS, SERVICE, SERVICE_V6, Stack};

/// Makes the folder, with one file in it.
pub(super) fn write(directory: &Path, stack: Stack) -> io::Result<()> {
    fs::create_dir(directory)?;
    let all = SERVERS.map(|(name, v4)| (name, stack.addresses(v4)));
    let mut text = service(stack);
    for (number, kind) in ["IPv4", "IPv6"]
        .into_iter()
        .enumerate()
        .take(stack.families().len())
    {
        let endpoints = all.iter().map(|(name, addresses)| (*name, addresses[number]));
        text += &slice(kind, endpoints);
    }
    for (app, pods) in [("client", &CLIENTS[..]), ("web", &SERVERS[..])] {
        for (name, v4) in pods {
            text += &pod(name, app, &stack.addresses(*v4));
        }
    }
    fs::write(directory.join("mesh.yaml"), text)
}

fn service(stack: Stack) -> String {
    let (v4, v6) = (SERVICE.ip(), SERVICE_V6.ip());
    let all = match stack {
        Stack::V4 => format!("'{v4}'"),
        Stack::Both => format!("'{v4}', '{v6}'"),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {NAMESPACE}}}\nspec:\n  clusterIP: {v4}\n  \
         clusterIPs: [{all}]\n  selector: {{app: web}}\n  \
         ports:\n  - {{name: http, port: {}, targetPort: {APP_PORT}}}\n",
        SERVICE.port(),
    )
}

fn slice(kind: &str, endpoints: impl Iterator<Item = (&'static str, IpAddr)>) -> String {
    let name = kind.to_lowercase();
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {kind}\nmetadata:\n  name: web-{name}\n  \
         namespace: {NAMESPACE}\n  labels: {{kubernetes.io/service-name: web}}\nports:\n\
         - {{name: http, port: {APP_PORT}, protocol: TCP}}\nendpoints:\n"
    );
    for (pod, address) in endpoints {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "- {{addresses: ['{address}'], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}, namespace: {NAMESPACE}}}}}"
        );
    }
    text
}

fn pod(name: &str, app: &str, addresses: &[IpAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(|ip| format!("{{ip: '{ip}'}}")).collect();
    let first = addresses.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {app}}}}}\n\
         spec: {{containers: []}}\nstatus:\n  podIP: {first}\n  podIPs: [{}]\n  \
         conditions: [{{type: Ready, status: 'True'}}]\n",
        all.join(", ")
    )
}
