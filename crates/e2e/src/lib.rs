//! Namespace kit: pods as network namespaces on one virtual switch, programs in them, manifests that
//! describe them, and Weir as their sidecar. Tests of all crates and the benchmark are built on it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let net = e2e::Net::create()?;
//! let client = net.pod("client")?;
//! let server = net.pod("server")?;
//! let dir = tempfile::tempdir()?;
//! let _nginx = e2e::servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
//! let url = format!("http://{}:8080/", server.v4);
//! assert_eq!(client.run("curl", ["-s", &url])?.text(), "hello");
//! # Ok(()) }
//! ```
//!
//! Everything needs root and says so; nothing is skipped. Namespaces have no name and live by their
//! descriptors, programs die with the test, so that a crash leaves nothing behind.

#![forbid(unsafe_code)]

mod cgroup;
mod class;
pub mod http;
mod maker;
pub mod manifests;
pub mod mesh;
mod net;
mod program;
pub mod servers;
mod steady;
mod wait;
pub mod weir;

pub use cgroup::Cgroup;
pub use class::Class;
pub use maker::Maker;
pub use mesh::Mesh;
pub use net::{Net, Pod, connect};
pub use program::{APP_ID, Finished, Program, RunAs};
pub use steady::{Account, steady, steady_over};
pub use wait::{eventually, until};
