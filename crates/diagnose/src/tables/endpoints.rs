//! `weir pc endpoints`: the addresses behind the clusters, and how they are.

use std::net::IpAddr;

use model::ClusterName;
use registry::Dump;
use registry::dump::EndpointDump;
use serde::Serialize;

use super::Row;

/// One endpoint of one cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EndpointRow {
    /// Its cluster.
    pub cluster: ClusterName,
    /// What its readiness comes to.
    pub status: Status,
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: EndpointDump,
}

/// What readiness comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Ready.
    Healthy,
    /// Serves while it terminates.
    Draining,
    /// Not ready.
    Unhealthy,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct EndpointFilter {
    /// At this address.
    pub address: Option<IpAddr>,
    /// At this port.
    pub port: Option<u16>,
    /// Of this cluster.
    pub cluster: Option<String>,
    /// With this status, in any case.
    pub status: Option<String>,
}

impl Status {
    /// The word of the filter and of JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Draining => "DRAINING",
            Self::Unhealthy => "UNHEALTHY",
        }
    }

    fn of(endpoint: &EndpointDump) -> Self {
        let condition = endpoint.condition;
        if condition.ready {
            Self::Healthy
        } else if condition.terminating && condition.serving {
            Self::Draining
        } else {
            Self::Unhealthy
        }
    }
}

impl Row for EndpointRow {
    const COLUMNS: &'static [&'static str] = &[
        "ENDPOINT",
        "STATUS",
        "OUTLIER CHECK",
        "CLUSTER",
        "WORKLOAD",
        "IN FLIGHT",
        "EJECTIONS",
        "EJECTED FOR",
    ];
    const NARROW: usize = 4;

    fn cells(&self) -> Vec<String> {
        let endpoint = &self.endpoint;
        let is_ejected = endpoint.ejected_for_ms.is_some();
        let dash = || "-".to_owned();
        vec![
            endpoint.address.to_string(),
            self.status.as_str().to_owned(),
            if is_ejected { "FAILED" } else { "OK" }.to_owned(),
            self.cluster.to_string(),
            endpoint.workload.as_ref().map_or_else(dash, ToString::to_string),
            endpoint.in_flight.to_string(),
            endpoint.ejections.to_string(),
            endpoint
                .ejected_for_ms
                .map_or_else(dash, |ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100)),
        ]
    }
}

/// The rows, sorted by address and cluster.
#[must_use]
pub fn endpoints(dump: &Dump, filter: &EndpointFilter) -> Vec<EndpointRow> {
    let mut rows: Vec<EndpointRow> = dump
        .clusters
        .iter()
        .flat_map(|cluster| {
            cluster.endpoints.iter().map(|endpoint| EndpointRow {
                cluster: cluster.name.clone(),
                status: Status::of(endpoint),
                endpoint: endpoint.clone(),
            })
        })
        .filter(|row| filter.takes(row))
        .collect();
    rows.sort_by(|a, b| (a.endpoint.address, &a.cluster).cmp(&(b.endpoint.address, &b.cluster)));
    rows
}

impl EndpointFilter {
    fn takes(&self, row: &EndpointRow) -> bool {
        let address = row.endpoint.address;
        self.address.is_none_or(|ip| address.ip() == ip)
            && self.port.is_none_or(|port| address.port() == port)
            && self
                .cluster
                .as_ref()
                .is_none_or(|cluster| row.cluster.as_str() == cluster)
            && self
                .status
                .as_ref()
                .is_none_or(|status| row.status.as_str().eq_ignore_ascii_case(status))
    }
}
