//! `weir pc clusters`: the destinations there are.

use model::{ClusterName, Direction};
use registry::Dump;
use registry::dump::ClusterDump;
use serde::Serialize;

use super::Row;

/// One cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum ClusterRow {
    /// A port of a service.
    Service(Box<ClusterDump>),
    /// One that every proxy has.
    Fixed {
        /// Its name.
        name: &'static str,
        /// `ORIGINAL_DST` or `STATIC`.
        #[serde(rename = "type")]
        kind: &'static str,
    },
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct ClusterFilter {
    /// Of services whose host name contains this.
    pub fqdn: Option<String>,
    /// Of this direction.
    pub direction: Option<Direction>,
    /// Of this service port.
    pub port: Option<u16>,
    /// Of this subset. There are none yet.
    pub subset: Option<String>,
}

impl Row for ClusterRow {
    const COLUMNS: &'static [&'static str] = &[
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
        "PROTOCOL",
        "KNOWN BY",
        "ENDPOINTS",
    ];
    const NARROW: usize = 6;

    fn cells(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        match self {
            Self::Fixed { name, kind } => {
                let mut cells = vec![(*name).to_owned(), dash(), dash(), dash(), (*kind).to_owned()];
                cells.extend([String::new(), dash(), dash(), dash()]);
                cells
            }
            Self::Service(cluster) => {
                let usable = cluster
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.usable)
                    .count();
                vec![
                    cluster.host.to_string(),
                    cluster.port.to_string(),
                    dash(),
                    cluster.direction.to_string(),
                    kind(cluster).to_owned(),
                    // Where Istio names the rule that changes the defaults, ours are annotations.
                    cluster.own_settings.join(","),
                    cluster.protocol.to_string(),
                    cluster.known_by.to_string(),
                    format!("{usable}/{}", cluster.endpoints.len()),
                ]
            }
        }
    }
}

/// The rows: the fixed ones first, then by host name, port and direction.
#[must_use]
pub fn clusters(dump: &Dump, filter: &ClusterFilter) -> Vec<ClusterRow> {
    let fixed = [
        (ClusterName::BLACK_HOLE, "STATIC"),
        (ClusterName::INBOUND_PASSTHROUGH, "ORIGINAL_DST"),
        (ClusterName::PASSTHROUGH, "ORIGINAL_DST"),
    ];
    let mut services: Vec<&ClusterDump> = dump.clusters.iter().collect();
    services.sort_by_key(|cluster| (&cluster.host, cluster.port, cluster.direction));
    fixed
        .into_iter()
        .map(|(name, kind)| ClusterRow::Fixed { name, kind })
        .chain(
            services
                .into_iter()
                .map(|cluster| ClusterRow::Service(Box::new(cluster.clone()))),
        )
        .filter(|row| filter.takes(row))
        .collect()
}

impl ClusterFilter {
    fn takes(&self, row: &ClusterRow) -> bool {
        let subset_is = |subset: &str| self.subset.as_ref().is_none_or(|wanted| wanted == subset);
        match row {
            ClusterRow::Fixed { name, .. } => {
                self.direction.is_none()
                    && self.port.is_none()
                    && subset_is("")
                    && self.fqdn.as_ref().is_none_or(|fqdn| name.contains(fqdn.as_str()))
            }
            ClusterRow::Service(cluster) => {
                self.direction
                    .is_none_or(|direction| cluster.direction == direction)
                    && self.port.is_none_or(|port| cluster.port == port)
                    && subset_is("")
                    && self
                        .fqdn
                        .as_ref()
                        .is_none_or(|fqdn| cluster.host.contains(fqdn.as_str()))
            }
        }
    }
}

/// As Envoy calls them: balanced over endpoints, or where the connection was going.
fn kind(cluster: &ClusterDump) -> &'static str {
    if cluster.headless || cluster.direction == Direction::Inbound {
        "ORIGINAL_DST"
    } else {
        "EDS"
    }
}
