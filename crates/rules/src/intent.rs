//! What the operator wants captured, as typed values. Made by [`crate::Flags`] for `weir init` and by
//! [`Intent::contained`] for `weir run`; read by [`crate::plan()`] only.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::ports;

use crate::cgroup::{Cgroup, ClassId};
use crate::family::Family;

/// Everything a rule set is made from, apart from the facts of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// How the proxy's own traffic is told from the application's.
    pub proxy: Proxy,
    /// What is captured of connections that are made in the namespace.
    pub outbound: Outbound,
    /// What is captured of connections that come into it.
    pub inbound: Inbound,
    /// DNS, where it is captured. See [`Intent::captured_dns`].
    pub dns: Option<Dns>,
    /// What happens to traffic that a TCP proxy cannot carry.
    pub uncarried: Uncarried,
    /// Whether the namespace may be a machine's.
    pub place: Place,
    /// Devices that are treated in their own way.
    pub devices: Devices,
    /// Which families are captured.
    pub families: Families,
    /// Whether packets that conntrack can make nothing of are dropped when they come in: left alone, they reach
    /// the application, whose answer would end a connection that the proxy has.
    pub drop_invalid: bool,
}

/// Devices that are treated in their own way. A trailing `+` stands for any ending.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Devices {
    /// Not captured, neither what comes in by them nor what leaves by them.
    pub excluded: Vec<String>,
    /// What comes in by them is a virtual machine's, and is captured as if it were made here.
    pub virtual_machines: Vec<String>,
}

/// Which families are captured.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Families {
    /// Each that the namespace speaks.
    #[default]
    InUse,
    /// Both, whatever the namespace speaks yet.
    Both,
    /// This one alone; the other one is left open.
    Only(Family),
}

/// How the proxy is recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proxy {
    /// It runs in the namespace; a socket with any of these signs is its own.
    Inside(Signs),
    /// It runs elsewhere and has sockets of the namespace passed out to it.
    Outside {
        /// Addresses of the namespace, apart from loopback: what goes there is not captured.
        own: Vec<IpAddr>,
        /// Mark on the sockets that are made inside for the proxy to connect with. With it, a call of the
        /// proxy's to an `own` address is turned inwards, to the inbound listener, as in a sidecar.
        mark: Option<SocketMark>,
    },
}

/// What the proxy's sockets have in common. Each list is a set: any member will do.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Signs {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids. Where there are user ids too, a process with the group alone is left alone but its
    /// calls to itself over `lo` are turned inwards by TPROXY only (as istio-iptables has it).
    pub gids: Vec<u32>,
    /// Socket marks.
    pub marks: Vec<SocketMark>,
    /// Class ids of net_cls.
    pub class_ids: Vec<ClassId>,
    /// Cgroups of version 2.
    pub cgroups: Vec<Cgroup>,
}

impl Signs {
    /// Whether nothing would be recognised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A value of `SO_MARK`, and which of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketMark {
    /// The value under the mask.
    pub value: u32,
    /// The bits that are compared.
    pub mask: u32,
}

impl SocketMark {
    /// One that compares all 32 bits.
    #[must_use]
    pub fn exact(value: u32) -> Self {
        Self {
            value,
            mask: u32::MAX,
        }
    }

    /// Whether a socket's mark is this one.
    #[must_use]
    pub fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// `0x539`, or `0x539/0xfff` where not all bits count.
impl fmt::Display for SocketMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)?;
        if self.mask != u32::MAX {
            write!(f, "/{:#x}", self.mask)?;
        }
        Ok(())
    }
}

/// The text was not a mark.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a mark: write VALUE or VALUE/MASK, decimal or 0x hexadecimal, at most 32 bits")]
pub struct BadMark(String);

impl FromStr for SocketMark {
    type Err = BadMark;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| match part.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => part.parse(),
        };
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        match (number(value), number(mask)) {
            (Ok(value), Ok(mask)) if value & !mask == 0 => Ok(Self { value, mask }),
            _ => Err(BadMark(text.to_owned())),
        }
    }
}

/// A choice among many: none, some, or all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection<T> {
    /// `*`.
    All,
    /// These; an empty list is none.
    Only(Vec<T>),
}

impl<T> Selection<T> {
    /// Whether nothing is chosen.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(list) if list.is_empty())
    }
}

/// Connections made in the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbound {
    /// Where captured ones go.
    pub to_port: u16,
    /// Destinations captured, on all ports.
    pub cidrs: Selection<IpNet>,
    /// Destinations left alone.
    pub exclude_cidrs: Vec<IpNet>,
    /// Destination ports captured whatever the address, unless it is excluded.
    pub ports: Vec<u16>,
    /// Destination ports left alone.
    pub exclude_ports: Vec<u16>,
    /// What counts as IPv4 loopback and is never captured.
    pub loopback_v4: Ipv4Net,
    /// Loopback destinations, address and port, that are captured all the same where the proxy is outside:
    /// what the namespace does not have there, the proxy's own loopback may.
    pub lent: Vec<(IpNet, u16)>,
    /// Exactly these destinations are captured, whatever `cidrs` and `ports` say: the virtual addresses of
    /// services, each with a port. It takes a back-end that has sets.
    pub services: Option<Vec<SocketAddr>>,
    /// Groups whose connections are captured.
    pub groups: Selection<u32>,
    /// Groups whose connections are left alone, where all others are captured.
    pub exclude_groups: Vec<u32>,
}

/// Connections that come into the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inbound {
    /// By which means.
    pub mode: InboundMode,
    /// Where captured ones go.
    pub to_port: u16,
    /// The HBONE port: never captured, and never turned inwards.
    pub tunnel_port: u16,
    /// Destination ports captured.
    pub ports: Selection<u16>,
    /// Destination ports left alone where all are captured.
    pub exclude_ports: Vec<u16>,
    /// Sources left alone: who probes the application's health from outside the mesh.
    pub exclude_sources: Vec<IpNet>,
}

/// The kernel's means for inbound capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InboundMode {
    /// NAT: the destination becomes the proxy, conntrack remembers the original.
    Redirect,
    /// The packet goes to the proxy's socket as it is, and the application sees the client's address.
    Tproxy(Tproxy),
}

/// What TPROXY needs besides a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tproxy {
    /// On what the proxy sends to its application in a client's name, and so on the answers to it.
    pub mark: SocketMark,
    /// The routing table that leads what is marked back to the proxy.
    pub table: u32,
    /// Whether conntrack follows what is captured.
    pub tracking: Tracking,
}

/// The flag that says which it is to be.
pub(crate) const TRACKING_FLAG: &str = "--inbound-tproxy-conntrack";

/// Whether conntrack follows what TPROXY captures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// It does, and its marks bring the application's answers to the proxy.
    On,
    /// It has no entry for what is captured, and sockets remember the marks.
    Off,
    /// As [`Tracking::Off`] where that is possible.
    OffIfPossible,
}

impl Tproxy {
    /// Those of istio-iptables.
    pub const USUAL: Self = Self {
        mark: SocketMark {
            value: 1337,
            mask: u32::MAX,
        },
        table: 133,
        tracking: Tracking::On,
    };
    /// On the proxy's calls to its own workload, from where they are made to where they arrive.
    pub const SELF_CALL: SocketMark = SocketMark {
        value: 1338,
        mask: u32::MAX,
    };
    /// On captured connections: on conntrack's entry, or, where there is none, on what opens one, and so on what
    /// the proxy answers.
    pub const CLIENT: SocketMark = SocketMark {
        value: 1339,
        mask: u32::MAX,
    };
}

/// DNS capture: queries to port 53, by UDP and by TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// Which servers' queries.
    pub servers: Selection<IpAddr>,
    /// Where they go.
    pub to_port: u16,
    /// What becomes of them while no DNS proxy answers there.
    pub without_proxy: WithoutProxy,
}

impl Dns {
    /// Where DNS servers listen.
    pub const PORT: u16 = 53;

    /// Servers of one link alone (`fe80::/10`). Whoever asks one has its socket bound to the link's device, from
    /// which no way leads to a proxy on loopback: their look-ups are never captured.
    pub const OF_ONE_LINK: IpNet = IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    ));
}

/// What becomes of captured queries while no DNS proxy answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WithoutProxy {
    /// They go to the server that they were made for: the rules hold while the proxy gives signs of life.
    Direct,
    /// They fail.
    Fail,
}

/// Traffic that is neither TCP nor captured DNS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uncarried {
    /// Goes its way.
    Pass,
    /// Fails at once, unless it stays in the namespace.
    Reject,
}

/// Where rules may be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A namespace of containers: no physical network device in it.
    Container,
    /// A machine too.
    Host,
}

/// IPv4 loopback for the sidecar: one address, as istio-iptables has it.
pub const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 32);

impl Intent {
    /// For `weir run`: the proxy is outside, all TCP made inside goes to it by 127.0.0.1:15001 and
    /// `[::1]:15001`, DNS to port 15053 there, loopback and the `own` addresses stay inside, sockets
    /// with `mark` pass (to an own address: to 127.0.0.1:15006 and `[::1]:15006`), the rest is rejected.
    #[must_use]
    pub fn contained(own: Vec<IpAddr>, mark: Option<SocketMark>) -> Self {
        Self {
            proxy: Proxy::Outside { own, mark },
            outbound: Outbound {
                cidrs: Selection::All,
                loopback_v4: Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8),
                ..Outbound::none()
            },
            inbound: Inbound::none(),
            dns: Some(Dns {
                servers: Selection::All,
                to_port: ports::DNS,
                without_proxy: WithoutProxy::Fail,
            }),
            uncarried: Uncarried::Reject,
            place: Place::Container,
            devices: Devices::default(),
            families: Families::InUse,
            drop_invalid: false,
        }
    }

    /// Whether anything at all would be captured.
    #[must_use]
    pub fn captures_nothing(&self) -> bool {
        let no_socket = self.outbound.groups.is_none();
        let no_sender = no_socket && self.devices.virtual_machines.is_empty();
        (self.outbound.is_none() || no_sender)
            && (self.captured_dns().is_none() || no_socket)
            && self.inbound.ports.is_none()
    }

    /// DNS, unless its port is among those that are left alone.
    #[must_use]
    pub fn captured_dns(&self) -> Option<&Dns> {
        let dns = self.dns.as_ref()?;
        (!self.outbound.exclude_ports.contains(&Dns::PORT)).then_some(dns)
    }
}

impl Outbound {
    /// Captures nothing; ports at their defaults.
    #[must_use]
    pub fn none() -> Self {
        Self {
            to_port: ports::OUTBOUND,
            cidrs: Selection::Only(vec![]),
            exclude_cidrs: vec![],
            ports: vec![],
            exclude_ports: vec![],
            loopback_v4: LOOPBACK_V4,
            lent: vec![],
            services: None,
            groups: Selection::All,
            exclude_groups: vec![],
        }
    }

    /// Whether no destination is captured.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.cidrs.is_none() && self.ports.is_empty() && self.services.is_none()
    }
}

impl Inbound {
    /// Captures nothing; ports at their defaults.
    #[must_use]
    pub fn none() -> Self {
        Self {
            mode: InboundMode::Redirect,
            to_port: ports::INBOUND,
            tunnel_port: ports::HBONE,
            ports: Selection::Only(vec![]),
            exclude_ports: vec![],
            exclude_sources: vec![],
        }
    }

    /// What TPROXY needs, where that is the means.
    #[must_use]
    pub fn tproxy(&self) -> Option<Tproxy> {
        match self.mode {
            InboundMode::Redirect => None,
            InboundMode::Tproxy(tproxy) => Some(tproxy),
        }
    }
}
