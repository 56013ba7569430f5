//! Captured DNS. Comes in: sockets that port 53 is redirected to, and a look-up of the names of the mesh.
//! Goes out: answers for those names; every other query is forwarded as it came to the resolvers of
//! `/etc/resolv.conf`, and their answer is passed back as it came.

#![forbid(unsafe_code)]

mod forward;
mod message;
mod serve;

use std::net::IpAddr;

pub use forward::nameservers;
pub use serve::{Handle, Sockets, start};

/// What a name of the mesh stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// Addresses, of either family; none at the moment is an answer too.
    Addresses(Vec<IpAddr>),
    /// Another name, to be looked up outside.
    Alias(String),
}

/// Looks a name up, given in lower case without its trailing dot. `None`: not a name of the mesh.
pub type Names = Box<dyn Fn(&str) -> Option<Named> + Send>;
