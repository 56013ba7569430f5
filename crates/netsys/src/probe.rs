//! What it takes to see where packets go in a namespace, without one of them leaving it: a wire to nowhere, packets
//! put together by hand, sockets of anybody, and a tap that sees what passes any device. Caller: `weir verify`.
//! Everything acts on the namespace of the calling thread. Needs `CAP_NET_ADMIN` and `CAP_NET_RAW` there.

mod addresses;
mod device;
mod filter;
mod owner;
mod routing;
mod segment;
mod tap;
mod wire;

pub use addresses::Addresses;
pub use device::{Device, TOO_LONG};
pub use owner::{Owner, RawSocket, as_owner, can_be, in_cgroup, made_in_cgroup, myself, socket_of};
pub use segment::{Flags, Payload, Segment};
pub use tap::{Passed, Seen, Tap};
pub use wire::{Wire, remove_leftovers};

#[cfg(test)]
mod tests;
