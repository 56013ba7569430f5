//! Look-ups that are answered: by UDP and TCP, as an application asks, through the rules to the DNS proxy that runs
//! and back. What is asked is two questions at once, which every server refuses by itself (RFC 9619): a question
//! that it took would be passed on to a resolver, and leave the namespace.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use netsys::probe::{Owner, socket_of};
use netsys::sock;
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Origin};
use runtime::random::Random;
use socket2::{Domain, Socket, Type};

use super::choice::Probe;
use super::proxy::Proxies;
use super::report::{Finding, Outcome};
use super::roundtrip::joined;

/// Between two attempts by UDP.
const AGAIN: Duration = Duration::from_millis(500);

/// The name of a finding.
const BY_UDP: &str = "look-up by UDP";

/// A question, by whom and where to.
struct LookUp<'a> {
    first: &'a Finding,
    protocol: IpProtocol,
    from: (Owner, IpAddr),
    to: SocketAddr,
    /// Where the rules lead it.
    port: u16,
    id: u16,
}

/// What became of it.
enum Answer {
    /// It came back from whom was asked.
    Back,
    /// It came from somebody else.
    From(SocketAddr),
    /// None came.
    Silence,
    /// There was nobody to ask.
    Failed(io::Error),
}

/// One by each protocol and family of which a first packet has shown that it is led to the DNS proxy.
pub(super) fn all(
    proxies: &Proxies,
    shown: &[(&Probe, &Finding)],
    patience: Duration,
    random: &mut Random,
) -> Vec<Finding> {
    let mut all: Vec<LookUp<'_>> = vec![];
    for (probe, finding) in shown {
        if let Some(look_up) = look_up(probe, finding, proxies, random)
            && !all
                .iter()
                .any(|known| (known.protocol, known.to.is_ipv4()) == (look_up.protocol, look_up.to.is_ipv4()))
        {
            all.push(look_up);
        }
    }
    thread::scope(|scope| {
        let start = |look_up| {
            scope.spawn(move || {
                let answer = LookUp::ask(&look_up, patience);
                finding(&look_up, &answer, proxies, patience)
            })
        };
        let under_way: Vec<_> = all.into_iter().map(start).collect();
        under_way.into_iter().map(joined).collect()
    })
}

/// Whether a look-up of that family was answered.
pub(super) fn is_answered(findings: &[Finding], family: Family) -> bool {
    findings.iter().any(|finding| {
        finding.probe == BY_UDP && finding.verdict == Outcome::Proven && finding.family == family.to_string()
    })
}

/// Whether a look-up that is answered shows that the rule is there: without one that gives queries and answers their
/// zone no answer would come back, and without the sign of life no query would get to the DNS proxy.
pub(super) fn decides_about_answers(rule: &str) -> bool {
    let is_about_dns = rule.contains("weir: DNS\"") || rule.contains("weir: answer of the DNS proxy");
    (is_about_dns && rule.contains("-j CT --zone"))
        || rule.contains("weir: the DNS proxy lives")
        || rule.contains("weir: tracking of what is sent")
}

fn look_up<'a>(
    probe: &Probe,
    first: &'a Finding,
    proxies: &Proxies,
    random: &mut Random,
) -> Option<LookUp<'a>> {
    let packet = &probe.packet;
    match (packet.origin, probe.expected.fate) {
        (Origin::Socket { uid, gid, mark }, Fate::Redirect { port })
            if proxies.is_dns(port) && probe.seat.is_none() && first.verdict == Outcome::Proven =>
        {
            Some(LookUp {
                first,
                protocol: packet.protocol,
                from: (Owner { uid, gid, mark }, packet.source),
                to: SocketAddr::new(packet.destination, packet.destination_port),
                port,
                id: random.bits() as u16,
            })
        }
        _ => None,
    }
}

impl LookUp<'_> {
    fn ask(&self, patience: Duration) -> Answer {
        let asked = match self.protocol {
            IpProtocol::Udp => self.ask_by_udp(patience),
            _ => self.ask_by_tcp(patience),
        };
        asked.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Answer::Silence,
            _ => Answer::Failed(error),
        })
    }

    fn socket(&self, kind: Type) -> io::Result<Socket> {
        let (owner, source) = self.from;
        let socket = socket_of(owner, Domain::for_address(self.to), kind, None)?;
        // What is from there stays in the namespace, wherever it goes.
        socket.bind(&SocketAddr::new(source, 0).into())?;
        Ok(socket)
    }

    fn ask_by_udp(&self, patience: Duration) -> io::Result<Answer> {
        let socket = UdpSocket::from(self.socket(Type::DGRAM)?);
        let end = Instant::now() + patience;
        let mut elsewhere = None;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            socket.send_to(&self.query(), self.to)?;
            socket.set_read_timeout(Some(left.min(AGAIN)))?;
            let mut answer = [0; 512];
            match socket.recv_from(&mut answer) {
                Ok((length, from)) if self.is_answer(&answer[..length]) && from == self.to => {
                    return Ok(Answer::Back);
                }
                Ok((length, from)) if self.is_answer(&answer[..length]) => elsewhere = Some(from),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(elsewhere.map_or(Answer::Silence, Answer::From))
    }

    fn ask_by_tcp(&self, patience: Duration) -> io::Result<Answer> {
        let socket = self.socket(Type::STREAM)?;
        socket.connect_timeout(&self.to.into(), patience)?;
        let mut stream = TcpStream::from(socket);
        // A reset leaves nothing waiting in the kernel.
        let _ = sock::reset_on_close(&stream);
        stream.set_read_timeout(Some(patience))?;
        let query = self.query();
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), query.as_slice()].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        match self.is_answer(&answer) {
            true => Ok(Answer::Back),
            false => Err(io::Error::other("what came back is no answer to what was asked")),
        }
    }

    /// One question for an address, twice.
    fn query(&self) -> Vec<u8> {
        const RECURSION_DESIRED: u16 = 0x0100;
        const QUESTIONS: u16 = 2;
        const KIND_A: u16 = 1;
        const CLASS_IN: u16 = 1;
        let mut query: Vec<u8> = [self.id, RECURSION_DESIRED, QUESTIONS, 0, 0, 0]
            .map(u16::to_be_bytes)
            .concat();
        for _ in 0..QUESTIONS {
            for label in [format!("{:04x}", self.id).as_str(), "weir-verify", "invalid", ""] {
                query.push(label.len() as u8);
                query.extend(label.bytes());
            }
            query.extend([KIND_A, CLASS_IN].map(u16::to_be_bytes).concat());
        }
        query
    }

    fn is_answer(&self, bytes: &[u8]) -> bool {
        const RESPONSE: u8 = 0x80;
        bytes.starts_with(&self.id.to_be_bytes()) && bytes.get(2).is_some_and(|flags| flags & RESPONSE != 0)
    }
}

fn finding(look_up: &LookUp<'_>, answer: &Answer, proxies: &Proxies, patience: Duration) -> Finding {
    let (first, to) = (look_up.first, look_up.to);
    let listener = proxies.dns_name(look_up.port);
    let (arrived, why) = match answer {
        Answer::Back => (format!("{listener}, and back"), None),
        Answer::From(other) => (
            format!("{listener}, and back from {other}"),
            Some(format!(
                "{to} was asked, and the answer comes from {other}: who asks takes it for a forgery. The way back is broken"
            )),
        ),
        Answer::Silence => (
            listener,
            Some(format!(
                "it was asked and said nothing for {} s: the DNS proxy hangs, or its answer is dropped",
                patience.as_secs_f32()
            )),
        ),
        Answer::Failed(error) => (
            listener,
            Some(format!("it was asked, and no answer came: {error}")),
        ),
    };
    Finding {
        probe: match look_up.protocol {
            IpProtocol::Udp => BY_UDP,
            _ => "look-up by TCP",
        }
        .to_owned(),
        family: first.family.clone(),
        sent: format!("uid {} to {to}", look_up.from.0.uid),
        arrived,
        rule: first.rule.clone(),
        counted: first.counted,
        verdict: match why {
            None => Outcome::Proven,
            Some(_) => Outcome::Broken,
        },
        why,
    }
}
