//! `weir pc listeners`: where connections are accepted or taken to, by their original destination.

use model::settings::OutboundPolicy;
use model::{ClusterName, Direction, Handling, ports};
use registry::Dump;
use registry::dump::{ClusterDump, ListenerDump};
use serde::Serialize;

use super::Row;

/// One match of one listener. Only the two capture listeners are sockets; the others are virtual, chosen by
/// the original destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ListenerRow {
    /// Addresses, one or both families.
    pub addresses: Vec<String>,
    /// Port.
    pub port: u16,
    /// What the port carries.
    #[serde(rename = "type")]
    pub kind: ListenerKind,
    /// Which connections: `ALL`, `App: HTTP`, `Addr: *:8080`.
    #[serde(rename = "match")]
    pub matches: String,
    /// Where they go: `Route: …`, `Cluster: …`, or one of the fixed clusters.
    pub destination: String,
    /// Whether it is the address of a pod behind a service that has one of its own.
    #[serde(skip)]
    is_direct: bool,
}

/// What a port carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ListenerKind {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "HTTP+TCP")]
    HttpAndTcp,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct ListenerFilter {
    /// Of this address. Without it the pods of services that have an address of their own are left out.
    pub address: Option<String>,
    /// Of this port.
    pub port: Option<u16>,
    /// `HTTP`, `TCP` or `HTTP+TCP`, in any case.
    pub kind: Option<String>,
}

impl ListenerKind {
    /// The word of the filter and of JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
            Self::HttpAndTcp => "HTTP+TCP",
        }
    }

    fn of(handling: Handling) -> Self {
        match handling {
            Handling::Http1 => Self::Http,
            Handling::Detect => Self::HttpAndTcp,
            Handling::Opaque | Handling::Tls | Handling::Http2 => Self::Tcp,
        }
    }
}

impl Row for ListenerRow {
    const COLUMNS: &'static [&'static str] = &["ADDRESSES", "PORT", "MATCH", "DESTINATION", "TYPE"];
    const NARROW: usize = 4;

    fn cells(&self) -> Vec<String> {
        vec![
            self.addresses.join(","),
            self.port.to_string(),
            self.matches.clone(),
            self.destination.clone(),
            self.kind.as_str().to_owned(),
        ]
    }
}

/// The rows, sorted by port, address and kind.
#[must_use]
pub fn listeners(dump: &Dump, filter: &ListenerFilter) -> Vec<ListenerRow> {
    let mut rows = capture_outbound(dump);
    rows.extend(capture_inbound(dump));
    rows.extend(dump.listeners.iter().filter_map(published));
    for cluster in dump
        .clusters
        .iter()
        .filter(|c| c.direction == Direction::Outbound)
    {
        if !cluster.addresses.is_empty() {
            let addresses: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
            rows.extend(of_cluster(cluster, &addresses, cluster.port, false));
        }
        for endpoint in cluster.endpoints.iter().filter(|endpoint| endpoint.direct) {
            let address = [endpoint.address.ip().to_string()];
            rows.extend(of_cluster(
                cluster,
                &address,
                endpoint.address.port(),
                !cluster.headless,
            ));
        }
    }
    rows.retain(|row| filter.takes(row));
    // Within one listener the order of the rows is the order of the matches, so the sort must be stable.
    rows.sort_by(|a, b| {
        (a.port, &a.addresses, a.kind.as_str()).cmp(&(b.port, &b.addresses, b.kind.as_str()))
    });
    rows
}

impl ListenerFilter {
    fn takes(&self, row: &ListenerRow) -> bool {
        let address = match &self.address {
            Some(address) => row.addresses.contains(address),
            None => !row.is_direct,
        };
        address
            && self.port.is_none_or(|port| row.port == port)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| row.kind.as_str().eq_ignore_ascii_case(kind))
    }
}

fn of_cluster(cluster: &ClusterDump, addresses: &[String], port: u16, is_direct: bool) -> Vec<ListenerRow> {
    let kind = ListenerKind::of(cluster.protocol.handling());
    let row = |matches: &str, destination: String| ListenerRow {
        addresses: addresses.to_vec(),
        port,
        kind,
        matches: matches.to_owned(),
        destination,
        is_direct,
    };
    let route = format!("Route: {}:{}", cluster.host, cluster.port);
    let tcp = format!("Cluster: {}", cluster.name);
    match kind {
        ListenerKind::Http => vec![row("ALL", route)],
        ListenerKind::Tcp => vec![row("ALL", tcp)],
        ListenerKind::HttpAndTcp => vec![row("App: HTTP", route), row("ALL", tcp)],
    }
}

fn capture_outbound(dump: &Dump) -> Vec<ListenerRow> {
    let unknown = match dump.settings.outbound_policy {
        OutboundPolicy::AllowAny => ClusterName::PASSTHROUGH,
        OutboundPolicy::RegistryOnly => ClusterName::BLACK_HOLE,
    };
    let (addresses, port) = capture(&dump.listeners, Direction::Outbound, ports::OUTBOUND);
    vec![
        capture_row(
            &addresses,
            port,
            format!("Addr: *:{port}"),
            ClusterName::BLACK_HOLE,
        ),
        capture_row(&addresses, port, "ALL".to_owned(), unknown),
    ]
}

fn capture_inbound(dump: &Dump) -> Vec<ListenerRow> {
    let (addresses, port) = capture(&dump.listeners, Direction::Inbound, ports::INBOUND);
    let mut rows = vec![capture_row(
        &addresses,
        port,
        format!("Addr: *:{port}"),
        ClusterName::BLACK_HOLE,
    )];
    for cluster in dump.clusters.iter().filter(|c| c.direction == Direction::Inbound) {
        let own_port = cluster
            .endpoints
            .first()
            .map_or(0, |endpoint| endpoint.address.port());
        rows.push(ListenerRow {
            addresses: addresses.clone(),
            port,
            kind: ListenerKind::of(cluster.protocol.handling()),
            matches: format!("Addr: *:{own_port}"),
            destination: format!("Cluster: {}", cluster.name),
            is_direct: false,
        });
    }
    rows.push(capture_row(
        &addresses,
        port,
        "ALL".to_owned(),
        ClusterName::INBOUND_PASSTHROUGH,
    ));
    // One listener carries all kinds; sorted by kind its matches would lose their order.
    rows.iter_mut()
        .for_each(|row| row.kind = ListenerKind::HttpAndTcp);
    rows
}

/// A port that stands for one of the workload, and hands what comes there to the inbound listener's matches.
fn published(listener: &ListenerDump) -> Option<ListenerRow> {
    let to = listener.to?;
    let addresses = [listener.address.ip().to_string()];
    let destination = format!("Inbound: {to}");
    Some(capture_row(
        &addresses,
        listener.address.port(),
        "ALL".to_owned(),
        &destination,
    ))
}

fn capture_row(addresses: &[String], port: u16, matches: String, destination: &str) -> ListenerRow {
    ListenerRow {
        addresses: addresses.to_vec(),
        port,
        kind: ListenerKind::HttpAndTcp,
        matches,
        destination: destination.to_owned(),
        is_direct: false,
    }
}

/// Addresses and port of a capture listener; of a proxy that names none, the well-known ones.
fn capture(listeners: &[ListenerDump], direction: Direction, port: u16) -> (Vec<String>, u16) {
    let of = || {
        listeners
            .iter()
            .filter(|listener| listener.name == direction.as_str())
    };
    let mut addresses: Vec<String> = of().map(|listener| listener.address.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        addresses.push("0.0.0.0".to_owned());
    }
    (
        addresses,
        of().next().map_or(port, |listener| listener.address.port()),
    )
}
