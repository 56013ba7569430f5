//! The roles an address plays in one connection, each its own type so that they cannot be mixed up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps an address; an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) becomes plain IPv4.
            #[must_use]
            pub fn new(address: SocketAddr) -> Self {
                Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }

            /// The socket address.
            #[must_use]
            pub fn socket(self) -> SocketAddr {
                self.0
            }

            /// The IP address.
            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            #[must_use]
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role! {
    /// Where the application meant a captured connection to go, before the kernel redirected it.
    OrigDst
}
role! {
    /// Our own end of an accepted connection (`getsockname`).
    Local
}
role! {
    /// The other end of an accepted connection (`getpeername`).
    Remote
}

/// Which of the two capture listeners a connection came in by, seen from the workload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the workload to somewhere else (listener 15001).
    Outbound,
    /// From somewhere else to the workload (listener 15006).
    Inbound,
}

impl Direction {
    /// `outbound` or `inbound`: the first field of a cluster name and a metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
