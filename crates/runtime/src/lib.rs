//! How anything runs. Comes in: what a component wants to show or be told (metrics, routes, a drain).
//! Goes out: threads, servers and signals that know nothing of meshes. Every other crate with a
//! life of its own stands on this one; it names no domain type.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod clock;
pub mod drain;
pub mod lines;
pub mod metrics;
pub mod nearest;
pub mod random;
pub mod ready;
pub mod server;
pub mod tap;
pub mod telemetry;
pub mod thread;
