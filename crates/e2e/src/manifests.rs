//! A folder of Kubernetes manifests that grows and changes while Weir watches it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::net::Pod;

/// The namespace of every object made here.
pub const NAMESPACE: &str = "mesh";

/// The folder. It is removed when dropped.
#[derive(Debug)]
pub struct Manifests(TempDir);

impl Manifests {
    /// An empty folder, readable by every user.
    ///
    /// # Errors
    /// Where the temporary directory is not writable.
    pub fn create() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().context("making a manifests folder")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self(dir))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file whole or not at all, as an editor and `kubectl` do: beside it, then renamed over it.
    ///
    /// # Errors
    /// Where the folder is not writable.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let beside = self.path().join(format!(".{file}.new"));
        fs::write(&beside, text)?;
        fs::rename(&beside, self.path().join(file)).with_context(|| format!("writing {file}"))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.path().join(file)).with_context(|| format!("removing {file}"))
    }

    /// Writes a service together with its endpoints and their Pods to `NAME.yaml`.
    ///
    /// # Errors
    /// Where the folder is not writable.
    pub fn service(&self, service: &Service, pods: &[&Pod]) -> Result<()> {
        let mut text = service.yaml();
        for slice in service.slices(pods) {
            text.push_str(&slice);
        }
        self.write(&format!("{}.yaml", service.name), &text)
    }

    /// Writes a Pod to `pod-NAME.yaml`: who it is, and by `app: NAME` which service selects it.
    ///
    /// # Errors
    /// Where the folder is not writable.
    pub fn pod(&self, pod: &Pod, app: &str) -> Result<()> {
        let mut text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {NAMESPACE}\n  labels:\n    app: {app}\n\
             spec:\n  containers: []\nstatus:\n  phase: Running\n  podIP: {}\n  podIPs:\n",
            pod.name, pod.v4
        );
        for ip in pod.addresses() {
            text.push_str(&format!("  - ip: '{ip}'\n"));
        }
        text.push_str("  conditions:\n  - type: Ready\n    status: 'True'\n");
        self.write(&format!("pod-{}.yaml", pod.name), &text)
    }
}

/// A Service of type `ClusterIP`, selecting `app: NAME`.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its addresses, of either family or both.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its annotations, such as `weir.dev/retries`.
    pub annotations: Vec<(String, String)>,
}

/// One port of a [`Service`].
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name, which declares the protocol (`http`, `tcp-db`); empty for an unnamed, undeclared one.
    pub name: String,
    /// The port clients use.
    pub port: u16,
    /// The port the endpoints listen on.
    pub target: u16,
}

impl Port {
    /// A port of that name, with another one behind it.
    #[must_use]
    pub fn new(name: &str, port: u16, target: u16) -> Self {
        Self {
            name: name.to_owned(),
            port,
            target,
        }
    }
}

impl Service {
    /// A service without annotations.
    #[must_use]
    pub fn new(name: &str, addresses: &[IpAddr], ports: &[Port]) -> Self {
        Self {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            ports: ports.to_vec(),
            annotations: Vec::new(),
        }
    }

    /// With one annotation more.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The Service document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {0}\n  namespace: {NAMESPACE}\n",
            self.name
        );
        if !self.annotations.is_empty() {
            text.push_str("  annotations:\n");
            for (key, value) in &self.annotations {
                let _ = writeln!(text, "    {key}: '{value}'");
            }
        }
        let _ = write!(
            text,
            "spec:\n  type: ClusterIP\n  selector:\n    app: {}\n",
            self.name
        );
        if let Some(first) = self.addresses.first() {
            let _ = write!(text, "  clusterIP: '{first}'\n  clusterIPs:\n");
            for ip in &self.addresses {
                let _ = writeln!(text, "  - '{ip}'");
            }
        }
        text.push_str("  ports:\n");
        for port in &self.ports {
            let _ = writeln!(
                text,
                "  - port: {}\n    targetPort: {}\n    protocol: TCP",
                port.port, port.target
            );
            if !port.name.is_empty() {
                let _ = writeln!(text, "    name: {}", port.name);
            }
        }
        text
    }

    /// One `EndpointSlice` a family, every pod ready.
    #[must_use]
    pub fn slices(&self, pods: &[&Pod]) -> [String; 2] {
        let of = |address: fn(&Pod) -> IpAddr| -> Vec<(&str, IpAddr)> {
            pods.iter().map(|pod| (pod.name.as_str(), address(pod))).collect()
        };
        [
            self.slice("IPv4", &of(|pod| pod.v4.into())),
            self.slice("IPv6", &of(|pod| pod.v6.into())),
        ]
    }

    /// One `EndpointSlice` of a family (`IPv4`, `IPv6`), every named endpoint ready.
    #[must_use]
    pub fn slice(&self, family: &str, endpoints: &[(&str, IpAddr)]) -> String {
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\nmetadata:\n  \
             name: {0}-{1}\n  namespace: {NAMESPACE}\n  labels:\n    kubernetes.io/service-name: {0}\nports:\n",
            self.name,
            family.to_lowercase()
        );
        for port in &self.ports {
            let _ = writeln!(
                text,
                "- name: '{}'\n  port: {}\n  protocol: TCP",
                port.name, port.target
            );
        }
        text.push_str(if endpoints.is_empty() {
            "endpoints: []\n"
        } else {
            "endpoints:\n"
        });
        for (name, ip) in endpoints {
            let _ = writeln!(
                text,
                "- addresses: ['{ip}']\n  conditions: {{ready: true, serving: true, terminating: false}}\n  \
                 targetRef: {{kind: Pod, name: {name}, namespace: {NAMESPACE}}}"
            );
        }
        text
    }
}
