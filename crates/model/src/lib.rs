//! The words of Weir. Every other crate speaks in these types; nothing here does I/O.
//!
//! Comes in: nothing. Goes out: plain values that sources build ([`Update`]), the registry joins,
//! the data path acts on and the tools print ([`event`]).

#![forbid(unsafe_code)]

pub mod addr;
pub mod duration;
pub mod endpoint;
pub mod error_name;
pub mod event;
pub mod liveness;
pub mod names;
pub mod ports;
pub mod problem;
pub mod protocol;
pub mod service;
pub mod settings;
pub mod update;
pub mod workload;

pub use addr::{Direction, Local, OrigDst, Remote};
pub use endpoint::{Condition, Endpoint};
pub use error_name::{ErrorName, Explained};
pub use names::{ClusterName, ObjectName};
pub use problem::{Place, Problem, Severity};
pub use protocol::{Handling, KnownBy, Protocol};
pub use service::{Created, Service, ServiceKind, ServicePort, SessionAffinity, TargetPort};
pub use settings::Settings;
pub use update::Update;
pub use workload::Workload;
