//! Two pods on two wires, with listeners that tell where a connection has arrived, and sockets of anybody.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Cgroup, Class, Maker, Net, Pod, until};
use model::ports;
use netsys::sock::{original_dst, transparent};
use rules::cgroup::Membership;
use rules::ruleset::IpProtocol;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use socket2::{Domain, Socket, Type};

/// Destination ports, each with a listener in both pods. 15001 and 15006 are the stand-in for the proxy.
pub(crate) const PORTS: [u16; 7] = [22, 80, 8080, 15001, 15006, 15008, 15020];
/// Those with a listener for UDP too.
pub(crate) const UDP_PORTS: [u16; 2] = [22, 8080];
/// Where connections stay open.
pub(crate) const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// Addresses of others, by the first wire: each is one of the second pod's.
pub(crate) const ELSEWHERE: [&str; 6] = [
    "10.77.0.2",
    "10.96.0.10",
    "192.0.2.7",
    "fd00:77::2",
    "fd00:96::10",
    "2001:db8::7",
];
/// The second wire: the first pod's addresses on it, and the second's.
pub(crate) const NEAR: [&str; 2] = ["10.79.0.1", "fd00:79::1"];
pub(crate) const FAR: [&str; 2] = ["10.79.0.2", "fd00:79::2"];

/// What the suite is about.
pub(crate) struct World {
    pub(crate) pod: Pod,
    pub(crate) other: Pod,
    /// Connections that stay open: the near end of each.
    pub(crate) open: Vec<TcpStream>,
    /// Who makes sockets in each cgroup; they leave before it goes.
    makers: [(Group, Maker); 2],
    class: Class,
    cgroup: Cgroup,
    other_cgroup: Cgroup,
    // Dropped last: the pods are plugged into it.
    _net: Net,
}

/// Which cgroups a sender is in, apart from the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// None.
    None,
    /// One of net_cls, with the class id [`CLASS`].
    Class,
    /// [`World::cgroup`], of version 2.
    Path,
    /// Another one beside it.
    Other,
}

/// The class id of a sender.
const CLASS: u32 = 0x10_0001;

impl World {
    pub(crate) fn create() -> Result<Self> {
        let net = Net::create()?;
        let (pod, other) = (net.pod("client")?, net.pod("server")?);
        for pod in [&pod, &other] {
            pod.widen()?;
            // So that what conntrack knows of a connection that has ended does not meet a later one.
            for state in ["time_wait", "close", "fin_wait", "last_ack"] {
                pod.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{state}"), "1")?;
            }
            for timeout in ["udp_timeout", "udp_timeout_stream"] {
                pod.sysctl(&format!("net/netfilter/nf_conntrack_{timeout}"), "1")?;
            }
        }
        for address in ELSEWHERE
            .iter()
            .filter(|address| !address.ends_with("77.0.2") && !address.ends_with("77::2"))
        {
            let (family, length, via): (_, _, IpAddr) = match address.contains(':') {
                true => ("-6", 128, other.v6.into()),
                false => ("-4", 32, other.v4.into()),
            };
            other.ip(&format!("{family} addr add {address}/{length} dev lo"))?;
            pod.ip(&format!("{family} route add {address}/{length} via {via}"))?;
        }
        e2e::connect((&pod, "eth1"), (&other, "eth1"))?;
        for (pod, [v4, v6]) in [(&pod, NEAR), (&other, FAR)] {
            pod.ip(&format!("addr add {v4}/24 dev eth1"))?;
            pod.ip(&format!("addr add {v6}/64 dev eth1 nodad"))?;
        }
        for pod in [&pod, &other] {
            listen(pod, &PORTS, &UDP_PORTS)?;
            echo(pod)?;
        }
        let class = Class::create(&pod, CLASS)?;
        let (cgroup, other_cgroup) = (Cgroup::create()?, Cgroup::create()?);
        let makers = [
            (Group::Path, Maker::start(&pod, &cgroup)?),
            (Group::Other, Maker::start(&pod, &other_cgroup)?),
        ];
        Ok(Self {
            pod,
            other,
            open: vec![],
            makers,
            class,
            cgroup,
            other_cgroup,
            _net: net,
        })
    }

    /// The cgroups as a rule's flags name them: `CGROUP` and `CLASS` in that text.
    pub(crate) fn named(&self, text: &str) -> String {
        let class = format!("{CLASS:#x}");
        text.replace("CGROUP", &self.cgroup.path).replace("CLASS", &class)
    }

    /// What is known of a sender in that group.
    pub(crate) fn membership(&self, group: Group) -> Membership {
        let none = Membership::none();
        match group {
            Group::None => none,
            Group::Class => Membership {
                class_id: Some(CLASS),
                ..none
            },
            Group::Path => Membership {
                path: Some(self.cgroup.path.clone()),
                ..none
            },
            Group::Other => Membership {
                path: Some(self.other_cgroup.path.clone()),
                ..none
            },
        }
    }

    /// Sockets of that sender, one for each destination.
    pub(crate) fn sockets(
        &self,
        sender: (u32, u32, u32),
        group: Group,
        to: &[(IpProtocol, SocketAddr)],
    ) -> Result<Vec<Socket>> {
        match self.makers.iter().find(|(its, _)| *its == group) {
            Some((_, maker)) => maker.sockets(&to.iter().map(kind).collect::<Vec<_>>()),
            None => sockets(
                &self.pod,
                sender,
                Some(&self.class).filter(|_| group == Group::Class),
                to,
            ),
        }
    }

    /// Sockets of the other pod.
    pub(crate) fn remote_sockets(&self, to: &[(IpProtocol, SocketAddr)]) -> Result<Vec<Socket>> {
        sockets(&self.other, (0, 0, 0), None, to)
    }

    /// Connections both ways, on both wires, in both families, that stay open.
    pub(crate) fn open_some(&mut self) -> Result<()> {
        for (from, to, second) in [(&self.pod, &self.other, FAR), (&self.other, &self.pod, NEAR)] {
            let second = [second[0].parse()?, second[1].parse()?];
            for address in to.addresses().into_iter().chain(second) {
                let stream = from.within(|| TcpStream::connect((address, ECHO)))??;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.open.push(stream);
            }
        }
        Ok(())
    }

    /// Whether a byte goes there and comes back.
    pub(crate) fn is_alive(mut stream: &TcpStream) -> bool {
        let mut byte = [0];
        stream.write_all(&[42]).is_ok() && stream.read_exact(&mut byte).is_ok() && byte == [42]
    }
}

/// Both ends of each connection that conntrack knows of in the pod, as its first packet had them.
pub(crate) fn tracked(pod: &Pod) -> Result<Vec<[SocketAddr; 2]>> {
    let listed = pod.within(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"))??;
    let ends = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
        let end = |address: &str, port: &str| -> Option<SocketAddr> {
            let (ip, port) = (field(address)?.parse().ok()?, field(port)?.parse().ok()?);
            Some(SocketAddr::new(ip, port))
        };
        Some([end("src=", "sport=")?, end("dst=", "dport=")?])
    };
    Ok(listed.lines().filter_map(ends).collect())
}

/// Sends every byte back, for as long as a connection lasts.
fn echo(pod: &Pod) -> Result<()> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for ip in any {
        let listener = listener(pod, SocketAddr::new(ip, ECHO))?;
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
    }
    Ok(())
}

pub(crate) fn listener(pod: &Pod, at: SocketAddr) -> Result<TcpListener> {
    let listener = pod.within(|| -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        if at.port() == ports::INBOUND {
            // As the proxy's own: what TPROXY brings goes to no other.
            transparent(&socket)?;
        }
        socket.bind(&at.into())?;
        socket.listen(128)?;
        Ok(socket.into())
    })??;
    Ok(listener)
}

/// Where a connection arrived.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    /// The port of the listener that it came to.
    pub(crate) listener: u16,
    /// The address of the socket that took it.
    pub(crate) local: SocketAddr,
    /// Where it was going, as conntrack says; the same without a redirect.
    pub(crate) original: SocketAddr,
}

/// Takes connections on these ports of both families and tells each where it has arrived; answers datagrams.
pub(crate) fn listen(pod: &Pod, tcp: &[u16], udp: &[u16]) -> Result<()> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for ip in any {
        for &port in tcp {
            let listener = listener(pod, SocketAddr::new(ip, port))?;
            // Ends with the test's process.
            thread::spawn(move || {
                for stream in listener.incoming().map_while(std::result::Result::ok) {
                    let Ok(local) = stream.local_addr() else { continue };
                    let original = original_dst(&stream, local).map_or(local, |original| original.socket());
                    // A client that is gone fails its own test.
                    let _ = (&stream).write_all(format!("{port} {local} {original}").as_bytes());
                }
            });
        }
    }
    let text = pod.run("ip", ["-o", "addr"])?.text();
    let addresses = text.lines().filter_map(|line| line.split_whitespace().nth(3));
    for address in addresses.filter_map(|net| net.split('/').next()?.parse::<IpAddr>().ok()) {
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            continue;
        }
        for &port in udp {
            let socket = pod.within(|| UdpSocket::bind((address, port)))??;
            let at = socket.local_addr()?;
            thread::spawn(move || {
                let mut buffer = [0; 8];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{port} {at} {at}").as_bytes(), peer);
                }
            });
        }
    }
    Ok(())
}

fn arrival(text: &str) -> Result<Arrival> {
    let (listener, rest) = text.split_once(' ').context("an answer")?;
    let (local, original) = rest.split_once(' ').context("an answer of two addresses")?;
    Ok(Arrival {
        listener: listener.parse()?,
        local: local.parse()?,
        original: original.parse()?,
    })
}

/// What kind of socket goes there.
fn kind(to: &(IpProtocol, SocketAddr)) -> (Domain, Type) {
    let kind = match to.0 {
        IpProtocol::Udp => Type::DGRAM,
        _ => Type::STREAM,
    };
    (Domain::for_address(to.1), kind)
}

/// Sockets of a thread that has those ids, and that class, one for each destination.
pub(crate) fn sockets(
    pod: &Pod,
    sender: (u32, u32, u32),
    class: Option<&Class>,
    to: &[(IpProtocol, SocketAddr)],
) -> Result<Vec<Socket>> {
    let (uid, gid, mark) = sender;
    // The packet filter looks at who made the socket, so the thread changes its ids first; it ends with
    // them. The mark needs a right that the thread has then given up.
    let sockets = pod.within(|| -> Result<Vec<Socket>> {
        class.map_or(Ok(()), Class::enter)?;
        set_thread_gid(Gid::from_raw(gid))?;
        set_thread_uid(Uid::from_raw(uid))?;
        to.iter()
            .map(|to| {
                let (domain, kind) = kind(to);
                Ok(Socket::new(domain, kind, None)?)
            })
            .collect()
    })??;
    for socket in &sockets {
        socket.set_mark(mark)?;
    }
    Ok(sockets)
}

/// Asks by datagrams, of which any may be lost on the way there or back.
fn ask(mut socket: &Socket) -> Result<Arrival> {
    const TRY: Duration = Duration::from_millis(500);
    socket.set_read_timeout(Some(TRY))?;
    let mut buffer = [0; 256];
    let length = until(PATIENCE, "an answer to a datagram", || {
        socket
            .write_all(b"?")
            .and_then(|()| socket.read(&mut buffer))
            .ok()
    })?;
    arrival(std::str::from_utf8(&buffer[..length])?)
}

/// Connects and reads where it arrived.
pub(crate) fn connect(
    socket: &Socket,
    protocol: IpProtocol,
    source: Option<IpAddr>,
    to: SocketAddr,
) -> Result<Arrival> {
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = socket;
    if protocol == IpProtocol::Udp {
        return ask(socket);
    }
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    arrival(&text)
}
