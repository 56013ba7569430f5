//! The tables of `weir pc`: what a proxy would do with traffic, from its dump. Comes in: a
//! [`registry::Dump`] and a filter. Goes out: rows, each printable as a table and as JSON.
//!
//! Columns, cluster names and filters are those that users of `istioctl proxy-config` know.

mod clusters;
mod dns;
mod endpoints;
mod layout;
mod listeners;
mod problems;
mod routes;
mod services;
mod settings;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use clusters::{ClusterFilter, ClusterRow, clusters};
pub use dns::{DnsFilter, DnsRow, LookUpResult, dns, dns_remark};
pub use endpoints::{EndpointFilter, EndpointRow, Status, endpoints};
pub use listeners::{ListenerFilter, ListenerKind, ListenerRow, listeners};
pub use problems::{problems, problems_hint, problems_left_out};
pub use routes::{RouteFilter, RouteRow, routes};
pub use services::{ServiceRow, services, workloads};
pub use settings::{SettingRow, settings};

/// A row of a table.
pub trait Row: Serialize {
    /// Column headings; the first `NARROW` of them are always shown, the rest on demand.
    const COLUMNS: &'static [&'static str];
    /// Columns that are always shown.
    const NARROW: usize = Self::COLUMNS.len();
    /// Whether the last column is wrapped and not cut where the terminal is too narrow: it is prose.
    const WRAPS_LAST: bool = false;

    /// A cell for each column.
    fn cells(&self) -> Vec<String>;
}

/// How a table is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// All columns.
    pub is_wide: bool,
    /// Columns of the terminal: cells are cut to fit. `None`: nothing is cut.
    pub terminal: Option<usize>,
}

/// The rows as a table, headings first.
#[must_use]
pub fn as_table<R: Row>(rows: &[R], shape: Shape) -> String {
    let count = if shape.is_wide {
        R::COLUMNS.len()
    } else {
        R::NARROW
    };
    let cells = rows
        .iter()
        .map(|row| row.cells().into_iter().take(count).collect());
    let width = shape.terminal;
    layout::lines(&R::COLUMNS[..count], cells.collect(), width, R::WRAPS_LAST)
}

/// The rows as YAML: the same values as [`as_json`].
///
/// # Errors
/// Where a row cannot be written as YAML.
pub fn as_yaml<R: Row>(rows: &[R]) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&rows)
}

/// The rows as JSON.
///
/// # Errors
/// Where a row cannot be written as JSON.
pub fn as_json<R: Row>(rows: &[R]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(rows)
}
