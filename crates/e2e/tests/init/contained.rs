//! The rules of `weir run` against the kernel: TCP to the proxy, DNS to its socket, what cannot be carried
//! refused at once, what is marked let through; and `rules::evaluate` says the same.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::{Net, Pod};
use netsys::netns::Netns;
use netsys::rules::{dump, install_fresh};
use netsys::sock::original_dst;
use rules::ruleset::{IpProtocol, Ruleset};
use rules::{Facts, Family, Fate, Intent, Origin, Packet, SocketMark, State, evaluate, plan};
use socket2::{Domain, Socket, Type};

const MARK: u32 = 0x77;

struct Contained {
    pod: Pod,
    held: Vec<Ruleset>,
    net: Net,
}

fn contained() -> Result<Contained> {
    let net = Net::create()?;
    let pod = net.pod("command")?;
    let intent = Intent::contained(pod.addresses().into(), Some(SocketMark::exact(MARK)));
    let plan = plan(&intent, &Facts::fresh(&Family::ALL)).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let held = pod.within(|| -> Result<Vec<Ruleset>> {
        let programs = install_fresh(&plan)?;
        programs
            .iter()
            .map(|programs| Ok(dump(programs)?.own()))
            .collect()
    })??;
    assert_eq!(held, rules::render(&plan));
    Ok(Contained { pod, held, net })
}

impl Contained {
    fn fate(&self, protocol: IpProtocol, mark: u32, to: SocketAddr) -> Result<Fate> {
        let family = Family::of(to.ip());
        let held = self
            .held
            .iter()
            .find(|held| held.family == family)
            .context("both families")?;
        let [v4, v6] = self.pod.addresses();
        let source = if to.is_ipv4() { v4 } else { v6 };
        let is_own = self.pod.addresses().contains(&to.ip());
        let packet = Packet {
            origin: Origin::Socket { uid: 0, gid: 0, mark },
            protocol,
            source,
            source_port: 40_000,
            destination: to.ip(),
            destination_port: to.port(),
            device: if is_own { "lo" } else { "eth0" }.to_owned(),
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: true,
        };
        Ok(evaluate(held, &packet).fate)
    }

    fn netns(&self) -> &Netns {
        self.pod.netns()
    }
}

fn elsewhere(port: u16) -> Result<[SocketAddr; 2]> {
    Ok([
        SocketAddr::new("192.0.2.7".parse()?, port),
        SocketAddr::new("2001:db8::7".parse()?, port),
    ])
}

/// Where REDIRECT leads in the OUTPUT chain.
fn proxy(to: SocketAddr, port: u16) -> SocketAddr {
    let loopback: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, port)
}

#[test]
fn tcp_arrives_at_the_proxy_with_its_destination() -> Result<()> {
    let contained = contained()?;
    for to in elsewhere(80)? {
        assert_eq!(
            contained.fate(IpProtocol::Tcp, 0, to)?,
            Fate::Redirect { port: 15001 }
        );
        let listener = contained.netns().run(|| TcpListener::bind(proxy(to, 15001)))??;
        let _client = contained.pod.dial(to)?;
        let (stream, _) = listener.accept()?;
        assert_eq!(original_dst(&stream, stream.local_addr()?)?.socket(), to);
    }
    Ok(())
}

#[test]
fn dns_is_answered_for_whatever_server_was_asked() -> Result<()> {
    let contained = contained()?;
    let own = SocketAddr::new(contained.pod.v4.into(), 53);
    for to in elsewhere(53)?.into_iter().chain([own]) {
        assert_eq!(
            contained.fate(IpProtocol::Udp, 0, to)?,
            Fate::Redirect { port: 15053 }
        );
        let server = contained.netns().run(|| UdpSocket::bind(proxy(to, 15053)))??;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = contained.netns().run(|| UdpSocket::bind(any))??;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        client.send_to(b"question", to)?;
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"answer", from)?;
        let (length, from) = client.recv_from(&mut buffer)?;
        assert_eq!((&buffer[..length], from), (&b"answer"[..], to));
    }
    Ok(())
}

#[test]
fn what_cannot_be_carried_fails_at_once() -> Result<()> {
    let contained = contained()?;
    for to in elsewhere(123)? {
        assert_eq!(contained.fate(IpProtocol::Udp, 0, to)?, Fate::Reject);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = contained.netns().run(|| UdpSocket::bind(any))??;
        // A resolver connects to learn its source address: that must go on working.
        socket.connect(to)?;
        assert!(contained.pod.addresses().contains(&socket.local_addr()?.ip()));
        let error = socket.send(b"x").err().context("UDP was let through")?;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    Ok(())
}

#[test]
fn what_stays_inside_and_what_is_marked_passes() -> Result<()> {
    let contained = contained()?;
    for own in contained.pod.at(8080) {
        assert_eq!(contained.fate(IpProtocol::Tcp, 0, own)?, Fate::Direct);
        let listener = contained.netns().run(|| TcpListener::bind(own))??;
        let client = contained.pod.dial(own)?;
        let (_, from) = listener.accept()?;
        assert_eq!(from, client.local_addr()?);

        let server = contained.netns().run(|| UdpSocket::bind(own))??;
        assert_eq!(contained.fate(IpProtocol::Udp, 0, own)?, Fate::Direct);
        let any = if own.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        contained
            .netns()
            .run(|| UdpSocket::bind(any))??
            .send_to(b"x", own)?;
        server.set_read_timeout(Some(Duration::from_secs(10)))?;
        assert_eq!(server.recv(&mut [0; 4])?, 1);
    }
    let other = contained.net.pod("other")?;
    let to = SocketAddr::new(other.v4.into(), 8080);
    assert_eq!(contained.fate(IpProtocol::Tcp, MARK, to)?, Fate::Direct);
    let listener = other.within(|| TcpListener::bind(to))??;
    let client = marked(&contained, Type::STREAM, to)?;
    client.connect(&to.into())?;
    let (stream, _) = listener.accept()?;
    assert_eq!(stream.local_addr()?, to);
    for to in elsewhere(123)? {
        assert_eq!(contained.fate(IpProtocol::Udp, MARK, to)?, Fate::Direct);
        marked(&contained, Type::DGRAM, to)?.send_to(b"x", &to.into())?;
    }
    Ok(())
}

fn marked(contained: &Contained, kind: Type, to: SocketAddr) -> Result<Socket> {
    let socket = contained
        .netns()
        .run(|| Socket::new(Domain::for_address(to), kind, None))??;
    socket.set_mark(MARK)?;
    Ok(socket)
}
