//! What is measured: one row a load.

use anyhow::{Result, ensure};

/// A load that is put on every contender it applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    /// What `--rows` and the tables call it.
    pub(crate) name: &'static str,
    /// What produces it.
    pub(crate) load: Load,
}

/// A kind of load, with what varies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// Bulk TCP from client to server.
    Bulk { streams: u32 },
    /// HTTP/1.1 requests one after the other on kept connections.
    KeepAlive { path: &'static str, connections: u32 },
    /// A new connection for each request, sixteen at a time.
    Close,
    /// 2,000 requests a second on sixteen kept connections, whatever the answers take.
    FixedRate,
}

impl Load {
    /// Whether a proxy that only understands HTTP can carry it.
    pub(crate) fn is_http(self) -> bool {
        !matches!(self, Self::Bulk { .. })
    }
}

const fn keep_alive(name: &'static str, path: &'static str, connections: u32) -> Row {
    Row {
        name,
        load: Load::KeepAlive { path, connections },
    }
}

/// Every row, in the order of the report.
pub(crate) const ROWS: [Row; 13] = [
    Row {
        name: "iperf1",
        load: Load::Bulk { streams: 1 },
    },
    Row {
        name: "iperf8",
        load: Load::Bulk { streams: 8 },
    },
    keep_alive("2b-c1", "/2b", 1),
    keep_alive("2b-c16", "/2b", 16),
    keep_alive("2b-c128", "/2b", 128),
    keep_alive("1k-c1", "/1k", 1),
    keep_alive("1k-c16", "/1k", 16),
    keep_alive("1k-c128", "/1k", 128),
    keep_alive("100k-c1", "/100k", 1),
    keep_alive("100k-c16", "/100k", 16),
    keep_alive("100k-c128", "/100k", 128),
    Row {
        name: "close",
        load: Load::Close,
    },
    Row {
        name: "rate2k",
        load: Load::FixedRate,
    },
];

/// The name of the memory measurement, which is no load.
pub(crate) const IDLE: &str = "idle";

/// The name of the DNS measurement, which has contenders of its own.
pub(crate) const DNS: &str = "dns10k";

pub(crate) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).chain([IDLE, DNS]).collect()
}

/// Whether `wanted` names a row: in full, or by how it starts where none is called that.
fn is_named(row: &str, wanted: &str) -> bool {
    row == wanted || (row.starts_with(wanted) && !names().contains(&wanted))
}

/// The rows that `wanted` names; all of them for an empty list.
pub(crate) fn select(wanted: &[String]) -> Result<Vec<Row>> {
    for name in wanted {
        ensure!(
            names().iter().any(|known| is_named(known, name)),
            "no row starts with {name}; there are {}",
            names().join(", ")
        );
    }
    Ok(ROWS
        .into_iter()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|name| is_named(row.name, name)))
        .collect())
}

/// Whether a measurement that is no row is among `wanted`.
pub(crate) fn with(measurement: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|name| is_named(measurement, name))
}
