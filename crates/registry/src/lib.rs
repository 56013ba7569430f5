//! What decides. Comes in: [`model::Update`]s, by [`Table::apply`]. Goes out: an immutable [`Snapshot`]
//! whose [`Snapshot::decide`] says where a connection goes, and [`Cluster::pick`], which chooses the
//! endpoint. No I/O, no clock, no source of randomness of its own.

#![forbid(unsafe_code)]

mod affinity;
mod assemble;
mod claims;
pub mod cluster;
pub mod cow;
pub mod decide;
pub mod dump;
pub mod lease;
mod lives;
pub mod lookup;
mod names;
pub mod snapshot;
pub mod state;
pub mod table;
#[cfg(test)]
mod testing;

pub use cluster::{Cluster, Pick, Route, Standing, Target};
pub use cow::CowMap;
pub use decide::{Decision, Deny, Why};
pub use dump::Dump;
pub use lease::{Lease, Retry, UnderWay};
pub use lookup::{Record, RecordType};
pub use names::{PortAt, Resolved};
pub use snapshot::Snapshot;
pub use state::{ClusterState, EndpointState};
pub use table::{Changed, Table};
