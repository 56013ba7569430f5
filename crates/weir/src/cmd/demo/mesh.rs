//! The mesh of the demo: pods on a switch, and a resolver that is in no mesh.

mod manifests;
mod pod;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;

use anyhow::Result;
use model::ErrorName;
use netsys::netlink::{Changes, LinkIndex};
use netsys::netns::Netns;
use rules::Family;
use runtime::telemetry::Level;

pub(super) use self::pod::{FLAGS, Pod};

use super::names;
use crate::errors::{OrNamed, fail};

/// The service's name, as its clients ask for it, and its addresses.
pub(super) const HOST: &str = "web";
pub(super) const SERVICE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80));
pub(super) const SERVICE_V6: SocketAddr = SocketAddr::V6(SocketAddrV6::new(
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10),
    80,
    0,
    0,
));
/// Where the applications listen.
pub(super) const APP_PORT: u16 = 8080;
/// Kubernetes namespace of everything here.
pub(super) const NAMESPACE: &str = "demo";
/// `/tmp` is the process's own.
const MANIFESTS: &str = "/tmp/manifests";
const CLIENTS: [(&str, Ipv4Addr); 2] = [
    ("client-a", Ipv4Addr::new(10, 244, 0, 1)),
    ("client-b", Ipv4Addr::new(10, 244, 0, 2)),
];
const SERVERS: [(&str, Ipv4Addr); 3] = [
    ("web-1", Ipv4Addr::new(10, 244, 0, 11)),
    ("web-2", Ipv4Addr::new(10, 244, 0, 12)),
    ("web-3", Ipv4Addr::new(10, 244, 0, 13)),
];
const RESOLVER: (&str, Ipv4Addr) = ("dns", names::RESOLVER);

/// All pods, clients first, the cluster's resolver, which is in no mesh, and the switch between them.
pub(super) struct Mesh {
    pods: Vec<Pod>,
    resolver: Child,
    _switch: Netns,
}

/// Whose addresses the pods get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    V4,
    Both,
}

impl Stack {
    /// What the calling thread's namespace speaks.
    fn here() -> Result<Self> {
        Ok(if netsys::links::ipv6_is_on()? {
            Self::Both
        } else {
            Self::V4
        })
    }

    fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::Both => &Family::ALL,
        }
    }

    /// Of a pod by its IPv4 address: `10.244.0.11` and `fd00:244::11`.
    fn addresses(self, v4: Ipv4Addr) -> Vec<IpAddr> {
        let [.., last] = v4.octets();
        let digits = u16::from_str_radix(&last.to_string(), 16).unwrap_or_default();
        let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, digits);
        match self {
            Self::V4 => vec![v4.into()],
            Self::Both => vec![v4.into(), v6.into()],
        }
    }
}

impl Mesh {
    /// Builds it and waits until every sidecar accepts, and the clients' look-ups come to theirs. The namespaces
    /// are the caller's to change.
    pub(super) fn start(level: &Level) -> Result<Self> {
        let switch = Netns::create().or_named(ErrorName::Namespace, "cannot make a network namespace")?;
        let stack = switch.run(Stack::here)??;
        manifests::write(Path::new(MANIFESTS), stack)
            .or_named(ErrorName::System, "cannot write the manifests")?;
        let names = CLIENTS.iter().chain(&SERVERS).chain(&[RESOLVER]);
        let mut netnses: Vec<_> = names
            .map(|&(name, v4)| Ok((name, stack.addresses(v4), Netns::create()?)))
            .collect::<Result<_>>()
            .or_named(ErrorName::Namespace, "cannot make a network namespace")?;
        plug(&switch, &netnses)?;
        names::arrange()?;
        let (name, _, netns) = netnses.pop().or_named(ErrorName::Defect, "no resolver")?;
        let socket = netns.run(|| UdpSocket::bind((names::RESOLVER, 53)))??;
        let resolver = pod::start_app(name, &netns, &["--resolve"], socket.into())?;
        let pods = netnses
            .into_iter()
            .map(|(name, addresses, netns)| pod::start(name, addresses, netns, (stack, level)));
        let mut pods: Vec<_> = pods.collect::<Result<_>>()?;
        pods[..CLIENTS.len()]
            .iter_mut()
            .try_for_each(Pod::wait_for_names)?;
        Ok(Self {
            pods,
            resolver,
            _switch: switch,
        })
    }

    /// The service's addresses, one a family that the machine speaks.
    pub(super) fn services(&self) -> &'static [SocketAddr] {
        match self.pods.first().map(|pod| pod.addresses.len()) {
            Some(2) => &[SERVICE, SERVICE_V6],
            _ => &[SERVICE],
        }
    }

    pub(super) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub(super) fn pods_mut(&mut self) -> &mut [Pod] {
        &mut self.pods
    }

    pub(super) fn clients(&self) -> Result<[&Pod; 2]> {
        match &self.pods[..] {
            [one, other, ..] => Ok([one, other]),
            _ => fail!(Defect, "the mesh has no two clients; please report this"),
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().skip(CLIENTS.len())
    }

    /// Ends a pod as a crash does: its application is killed, its sidecar closes everything at once.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.iter_mut().find(|pod| pod.name == name);
        pod.or_named(ErrorName::Defect, "a pod of the mesh is not there")?
            .stop()
    }

    /// Ends every process and thread of it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.pods.iter_mut().try_for_each(Pod::stop)?;
        pod::end(&mut self.resolver)
    }
}

/// Hangs every pod on a bridge in the switch.
fn plug(switch: &Netns, pods: &[(&str, Vec<IpAddr>, Netns)]) -> Result<()> {
    const BRIDGE: LinkIndex = LinkIndex(2);
    const FIRST_PORT: u32 = 10;
    const ETH0: LinkIndex = LinkIndex(2);
    let mut changes = Changes::new();
    changes.bridge((BRIDGE, "br0"));
    for (number, (name, _, netns)) in (FIRST_PORT..).zip(pods) {
        let port = LinkIndex(number);
        changes
            .veth_into((port, name), (ETH0, "eth0"), netns.as_fd())
            .join(port, BRIDGE);
    }
    switch.run(|| changes.commit())??;
    for (_, addresses, netns) in pods {
        let mut changes = Changes::new();
        changes.up(ETH0);
        for &address in addresses {
            let everywhere = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            changes
                .address(ETH0, address)
                .route(everywhere.parse()?, ETH0, address);
        }
        netns.run(|| changes.commit())??;
    }
    Ok(())
}
