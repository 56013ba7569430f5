//! Each rule about DNS, taken out of the kernel, changes what becomes of a look-up: where it goes, whether it is
//! answered, whether a sign of life counts, or whether the proxy's own look-up is taken for an application's.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::eventually;
use rules::ruleset::{IpProtocol, Ruleset};
use rules::{Family, Origin, Packet, State, Verdict, evaluate};
use socket2::Socket;

use super::super::settings::Setting;
use super::super::world::{Group, World, connect};
use super::super::{BACKENDS, Case, install, of_family, packet, put, source, without_each};
use super::{PROXIES, SENDERS, alive, cases, forget, proxy_by, send, sign, with_dns, world};
use model::ports;
use netsys::rules::Backend;

/// How a rule shows.
enum Shown<'a> {
    /// Somebody's signs of life count with it only.
    Sign((u32, u32, u32), Family),
    /// This goes elsewhere, while the proxy answers or while it does not.
    Fate(&'a Case, bool),
    /// This is not of the zone of what is captured.
    Zone(&'a Case),
    /// What is captured, and the answers to it, are of one zone.
    Answer(Family),
}

struct Kernel<'a> {
    world: &'a World,
    backend: Backend,
    cases: &'a [Case],
}

impl Kernel<'_> {
    fn verdict(&self, held: &[Ruleset], case: &Case, answers: bool) -> Result<Verdict> {
        let packet = Packet {
            dns_answers: answers,
            ..packet(case, source(case, self.world)?, State::New)
        };
        Ok(evaluate(of_family(held, case.to)?, &packet))
    }

    /// What tells the rules apart; nothing where neither is about DNS.
    fn shown(&self, held: &[Ruleset], without: &[Ruleset]) -> Result<Option<Shown<'_>>> {
        for proxy in PROXIES {
            let proxy: SocketAddr = SocketAddr::new(proxy.parse()?, ports::DNS);
            let family = Family::of(proxy.ip());
            let of =
                |held, packet: &Packet| Ok::<_, anyhow::Error>(evaluate(of_family(held, proxy)?, packet));
            for sender in SENDERS {
                let sign = sign(sender, proxy.ip());
                if of(held, &sign)?.is_remembered != of(without, &sign)?.is_remembered {
                    return Ok(Some(Shown::Sign(sender, family)));
                }
            }
            let answer = Packet {
                source_port: ports::DNS,
                destination_port: 40_000,
                state: State::Established,
                ..sign(SENDERS[0], proxy.ip())
            };
            if of(held, &answer)?.zone != of(without, &answer)?.zone {
                return Ok(Some(Shown::Answer(family)));
            }
        }
        for case in self.cases {
            for answers in [true, false] {
                let [with, without] = [held, without].map(|held| self.verdict(held, case, answers));
                let (with, without) = (with?, without?);
                if with.fate != without.fate {
                    return Ok(Some(Shown::Fate(case, answers)));
                }
                if with.zone != without.zone {
                    return Ok(Some(match with.zone {
                        0 => Shown::Zone(case),
                        _ => Shown::Answer(Family::of(case.to.ip())),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Shows it with these rules in the kernel; the answer is another one with other rules.
    fn show(&self, shown: &Shown<'_>, held: &[Ruleset]) -> Result<String> {
        put(&self.world.pod, self.backend, held)?;
        forget(self.world, self.backend)?;
        let proxy = proxy_by(held).context("nobody's signs count")?;
        match *shown {
            Shown::Sign(sender, family) => {
                let of_family = |case: &&Case| is_look_up(case) && Family::of(case.to.ip()) == family;
                let case = self.cases.iter().find(of_family).context("a look-up")?;
                alive(self.world, sender, || self.arrival(case, None))
            }
            Shown::Fate(case, true) => alive(self.world, proxy, || {
                send(&[case], held, self.world, true)?;
                self.arrival(case, None)
            }),
            Shown::Fate(case, false) => {
                send(&[case], held, self.world, false)?;
                self.arrival(case, None)
            }
            Shown::Answer(family) => alive(self.world, proxy, || self.answered(family)),
            Shown::Zone(case) => alive(self.world, proxy, || {
                // Somebody whose look-ups are captured has asked the same server by the same port just now.
                let application = self.application(case.to)?;
                let mut port = None;
                for _ in 0..TRIES {
                    let socket = self.socket(&application)?;
                    let arrived = connect(&socket, IpProtocol::Udp, None, case.to)?;
                    if arrived.listener == ports::DNS {
                        port = socket.local_addr()?.as_socket();
                        break;
                    }
                }
                let port = port.context("an application's look-up is not captured")?.port();
                self.arrival(case, Some(port))
            }),
        }
    }

    fn application(&self, to: SocketAddr) -> Result<Case> {
        let (uid, gid, mark) = SENDERS[0];
        Ok(Case {
            origin: Origin::Socket { uid, gid, mark },
            protocol: IpProtocol::Udp,
            source: None,
            group: Group::None,
            to,
            device: "eth0",
        })
    }

    fn socket(&self, case: &Case) -> Result<Socket> {
        let Origin::Socket { uid, gid, mark } = case.origin else {
            bail!("made elsewhere")
        };
        let mut made = self
            .world
            .sockets((uid, gid, mark), Group::None, &[(case.protocol, case.to)])?;
        made.pop().context("a socket")
    }

    /// The listener that it comes to.
    fn arrival(&self, case: &Case, from_port: Option<u16>) -> Result<String> {
        let socket = self.socket(case)?;
        if let Some(port) = from_port {
            let any = if case.to.is_ipv4() { "0.0.0.0" } else { "::" };
            let from = SocketAddr::new(any.parse()?, port).into();
            // Who made the application's socket may still have it.
            eventually("the application's port to be free", || socket.bind(&from).ok())?;
        }
        let arrived = connect(&socket, case.protocol, None, case.to)?;
        Ok(format!("{}", arrived.listener))
    }

    /// Whether a captured look-up is answered by whom it was asked.
    fn answered(&self, family: Family) -> Result<String> {
        const TRY: Duration = Duration::from_millis(200);
        let of_family = |case: &&Case| is_look_up(case) && Family::of(case.to.ip()) == family;
        let case = self.cases.iter().find(of_family).context("a look-up")?;
        let mut socket = self.socket(case)?;
        socket.connect(&case.to.into())?;
        socket.set_read_timeout(Some(TRY))?;
        let answered = (0..TRIES).any(|_| {
            let asked = socket.write_all(b"?");
            asked.and_then(|()| socket.read(&mut [0; 64])).is_ok()
        });
        Ok(format!("answered: {answered}"))
    }
}

/// As often a datagram is sent where one may be lost on a machine that is busy.
const TRIES: usize = 10;

/// By the first sender, to a server that is meant, by UDP.
fn is_look_up(case: &Case) -> bool {
    let (uid, gid, mark) = SENDERS[0];
    case.origin == Origin::Socket { uid, gid, mark }
        && case.protocol == IpProtocol::Udp
        && ["10.96.0.10:53", "[fd00:96::10]:53"].contains(&case.to.to_string().as_str())
}

#[test]
fn each_rule_about_dns_taken_out_of_the_kernel_changes_what_a_look_up_meets() -> Result<()> {
    let world = world()?;
    for timeout in ["udp_timeout", "udp_timeout_stream"] {
        world
            .pod
            .sysctl(&format!("net/netfilter/nf_conntrack_{timeout}"), "30")?;
    }
    let all = cases(&world)?;
    // TCP first: what is redirected without being of the zone has its answers lost, and shows nothing else.
    let (tcp, udp): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|case| case.to.port() == 53)
        .partition(|case| case.protocol == IpProtocol::Tcp);
    let to_53: Vec<_> = tcp.into_iter().chain(udp).collect();
    let name = "--sidecar -u 1337,1338 -g 1337 --exclude-groups 77";
    let setting: Setting = with_dns(&world, (name, "10.96.0.10,fd00:96::10", false));
    let mut rules = 0;
    for backend in BACKENDS {
        let kernel = Kernel {
            world: &world,
            backend,
            cases: &to_53,
        };
        let held = install(&world.pod, &setting, backend)?;
        for (rule, without) in without_each(&held) {
            let what = || format!("{backend}: {rule}");
            let Some(shown) = kernel.shown(&held, &without)? else {
                // About other connections, as the other suite shows.
                ensure!(
                    !rule.contains("DNS") && !rule.contains("udp"),
                    "no packet needs it: {}",
                    what()
                );
                continue;
            };
            let with = kernel.show(&shown, &held).with_context(what)?;
            let without = kernel.show(&shown, &without).with_context(what)?;
            ensure!(with != without, "{}: {with} with it and without", what());
            rules += 1;
        }
        put(&world.pod, backend, &held)?;
    }
    println!("{rules} rules about DNS, each of which changes what a look-up meets in the kernel");
    Ok(())
}
