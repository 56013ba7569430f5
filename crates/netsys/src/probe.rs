//! What it takes to see where packets go in a namespace, without one of them leaving it: a wire to nowhere, packets
//! put together by hand, sockets of anybody, and a tap that sees what passes any device. Caller: `weir verify`.
//! Everything acts on the namespace of the calling thread. Needs `CAP_NET_ADMIN` and `CAP_NET_RAW` there.

mod owner;
mod segment;
mod tap;
mod wire;

pub use owner::{Owner, RawSocket, as_owner, can_be, myself};
pub use segment::{Flags, Payload, Segment};
pub use tap::{Passed, Seen, Tap};
pub use wire::{Addresses, Wire, remove_leftovers};

#[cfg(test)]
mod tests;
