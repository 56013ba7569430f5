//! Well-known ports, ids and addresses.
//!
//! Source: Istio's reserved ports and the addresses of its inbound passthrough (istio.io, "Ports used
//! by the sidecar"); kept so that a reader of one system knows his way in the other.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Admin server, loopback only.
pub const ADMIN: u16 = 15000;
/// Outbound capture listener.
pub const OUTBOUND: u16 = 15001;
/// Inbound capture listener.
pub const INBOUND: u16 = 15006;
/// HBONE tunnel, never captured inbound.
pub const HBONE: u16 = 15008;
/// Prometheus metrics.
pub const METRICS: u16 = 15020;
/// Health: `GET /healthz/ready`.
pub const HEALTH: u16 = 15021;
/// DNS proxy.
pub const DNS: u16 = 15053;
/// Kept exempt from inbound capture for compatibility with Envoy's metrics port.
pub const ENVOY_METRICS: u16 = 15090;

/// UID and GID that the proxy runs as in a sidecar, unless told otherwise.
pub const PROXY_ID: u32 = 1337;

/// Source address of the proxy's connections to its own application (IPv4).
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// Source address of the proxy's connections to its own application (IPv6); must be put on `lo`.
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Whether a port is one of the proxy's own (a connection made directly to it is a loop or a mistake).
#[must_use]
pub fn is_capture_port(port: u16) -> bool {
    port == OUTBOUND || port == INBOUND
}
