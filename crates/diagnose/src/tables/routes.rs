//! `weir pc routes`: which route of a service a request takes, by its Host.

use model::{Direction, Handling};
use registry::dump::ClusterDump;
use registry::{Dump, Route};
use serde::Serialize;

use super::Row;

/// Domains shown in a table; the rest is counted.
const DOMAINS_SHOWN: usize = 2;

/// One virtual host of one service port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RouteRow {
    /// `nginx.sidecar.svc.cluster.local:80`, or `inbound|8080||`.
    pub name: String,
    /// The virtual host within it.
    pub virtual_host: String,
    /// Host names that it takes, `*` for any.
    pub domains: Vec<String>,
    /// Paths that it takes.
    #[serde(rename = "match")]
    pub matches: &'static str,
    /// Cluster that it leads to.
    pub cluster: String,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct RouteFilter {
    /// Of this name.
    pub name: Option<String>,
}

impl Row for RouteRow {
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "VHOST NAME",
        "DOMAINS",
        "MATCH",
        "VIRTUAL SERVICE",
        "CLUSTER",
    ];
    const NARROW: usize = 5;

    fn cells(&self) -> Vec<String> {
        let shown = self
            .domains
            .iter()
            .take(DOMAINS_SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let domains = match self.domains.len().saturating_sub(DOMAINS_SHOWN) {
            0 => shown,
            more => format!("{shown} + {more} more..."),
        };
        vec![
            self.name.clone(),
            self.virtual_host.clone(),
            domains,
            self.matches.to_owned(),
            String::new(),
            self.cluster.clone(),
        ]
    }
}

/// The rows, in the order of the clusters; within one name the first that takes the Host is used.
#[must_use]
pub fn routes(dump: &Dump, filter: &RouteFilter) -> Vec<RouteRow> {
    let carries_http =
        |cluster: &&ClusterDump| matches!(cluster.protocol.handling(), Handling::Http1 | Handling::Detect);
    let mut rows: Vec<RouteRow> = dump
        .clusters
        .iter()
        .filter(carries_http)
        .flat_map(of_cluster)
        .collect();
    rows.retain(|row| filter.name.as_ref().is_none_or(|name| row.name == *name));
    rows
}

fn of_cluster(cluster: &ClusterDump) -> Vec<RouteRow> {
    let row = |name: &str, virtual_host: String, domains: Vec<String>| RouteRow {
        name: name.to_owned(),
        virtual_host,
        domains,
        matches: "/*",
        cluster: cluster.name.to_string(),
    };
    let any = || vec!["*".to_owned()];
    if cluster.direction == Direction::Inbound {
        let host = format!("inbound|http|{}", cluster.port);
        return vec![row(cluster.name.as_str(), host, any())];
    }
    let name = format!("{}:{}", cluster.host, cluster.port);
    // The shortest name first: it is the one that people write.
    let mut domains: Vec<String> = cluster.domains.iter().map(ToString::to_string).collect();
    domains.sort_by_key(|domain| {
        (
            !domain.starts_with(|c: char| c.is_ascii_alphabetic()),
            domain.len(),
        )
    });
    vec![
        row(&name, name.clone(), domains),
        // The original destination chose the service, so another Host does not lead elsewhere.
        row(&name, Route::AnyHost.as_str().to_owned(), any()),
    ]
}
