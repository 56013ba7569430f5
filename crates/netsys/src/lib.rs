//! The one place that speaks to the kernel: namespaces, sockets, pipes, rules. Unsafe code is in
//! [`sys`] alone; everything above it is safe functions over owned descriptors.

pub mod cgroups;
pub mod conntrack;
pub mod contain;
pub mod ebpf;
pub mod fdpass;
pub mod limits;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod passthrough;
pub mod pipe;
pub mod policies;
pub mod probe;
pub mod process;
pub mod route_to;
pub mod routes;
pub mod rules;
pub mod sock;
pub mod socket_table;
mod sys;
pub mod sysctl;
pub mod terminal;
