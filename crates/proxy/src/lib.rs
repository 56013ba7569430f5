//! The data path. Comes in: listeners, a watched [`registry::Snapshot`]. Goes out: relayed bytes, and a
//! report of each connection. A connection runs through `listen`, `capture`, `route`, `detect`, `dial`,
//! `relay` or `http`, and `report`; [`connection`] sees all stages.
//!
//! One thread and one single-threaded runtime a worker; nothing on the way is shared but the registry's
//! atomics and the metrics.

#![forbid(unsafe_code)]

mod buffers;
mod capture;
mod config;
mod connection;
mod detect;
mod dial;
mod http;
pub mod http1;
mod life;
mod listen;
mod outcome;
mod own;
mod peers;
mod relay;
mod report;
mod route;
mod sni;
mod start;
mod worker;

pub use config::{Config, Inbound, Kernel, Listeners, Published, Sockets, passthrough_source};
pub use report::Reports;
pub use start::{Handle, Served, StartError, start_proxy};
