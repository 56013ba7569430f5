//! Where each packet goes: `rules::evaluate` says it, a real socket in a real namespace shows it, on every
//! back-end; and each rule, taken out of the kernel, changes what some packet meets. The numbers are printed.

mod dns;
mod settings;
mod tproxy;
mod world;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::Pod;
use netsys::rules::{Backend, Programs, Session};
use rules::ruleset::{Chain, IpProtocol, Ruleset};
use rules::{Facts, Family, Fate, Origin, Packet, State, Verdict, asked, evaluate_from, nft, plan};
use socket2::Socket;

use self::settings::{Setting, setting};
use self::world::{ELSEWHERE, FAR, Group, NEAR, PORTS, UDP_PORTS, World, connect, tracked};

const BACKENDS: [Backend; 3] = [Backend::IptablesNft, Backend::IptablesLegacy, Backend::Nft];
const MARK: u32 = 0x539;

/// A sender: uid, gid and mark of its socket, and the cgroups that it is in.
const SENDERS: [(u32, u32, u32, Group); 11] = [
    (0, 0, 0, Group::None),
    (1000, 1000, 0, Group::None),
    (1337, 1337, 0, Group::None),
    (1337, 1000, 0, Group::None),
    (1000, 1337, 0, Group::None),
    (1338, 1000, 0, Group::None),
    (1000, 77, 0, Group::None),
    (1000, 1000, MARK, Group::None),
    (1000, 1000, 0, Group::Class),
    (1000, 1000, 0, Group::Path),
    (1000, 1000, 0, Group::Other),
];

struct Case {
    origin: Origin,
    group: Group,
    protocol: IpProtocol,
    source: Option<IpAddr>,
    to: SocketAddr,
    device: &'static str,
}

/// Everything that the first pod sends, and what comes to it.
fn cases(world: &World) -> Result<Vec<Case>> {
    let parse = |list: &[&'static str]| -> Result<Vec<IpAddr>> {
        Ok(list.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
    };
    let [v4, v6] = world.pod.addresses();
    let near = parse(&NEAR)?;
    let loopback = parse(&["127.0.0.1", "127.0.0.5", "::1"])?;
    let inside = [v4, v6].into_iter().chain(near.iter().copied()).chain(loopback);
    let destinations = inside
        .map(|ip| (ip, "lo"))
        .chain(parse(&ELSEWHERE)?.into_iter().map(|ip| (ip, "eth0")))
        .chain(parse(&FAR)?.into_iter().map(|ip| (ip, "eth1")));
    let mut cases = vec![];
    for (ip, device) in destinations {
        for port in PORTS {
            let to = SocketAddr::new(ip, port);
            let case = |origin, group, protocol, source, device| Case {
                origin,
                group,
                protocol,
                source,
                to,
                device,
            };
            for (uid, gid, mark, group) in SENDERS {
                let origin = Origin::Socket { uid, gid, mark };
                cases.push(case(origin, group, IpProtocol::Tcp, None, device));
                if UDP_PORTS.contains(&port) && !(device == "lo" && ip.to_string() == "127.0.0.5") {
                    cases.push(case(origin, group, IpProtocol::Udp, None, device));
                }
                if device == "lo" && port == 8080 {
                    let passthrough: IpAddr = match ip {
                        IpAddr::V4(_) => model::ports::PASSTHROUGH_V4.into(),
                        IpAddr::V6(_) => model::ports::PASSTHROUGH_V6.into(),
                    };
                    cases.push(case(origin, group, IpProtocol::Tcp, Some(passthrough), device));
                }
            }
            let remote = |device| case(Origin::Remote, Group::None, IpProtocol::Tcp, None, device);
            if ip == v4 || ip == v6 {
                cases.push(remote("eth0"));
            } else if near.contains(&ip) {
                cases.push(remote("eth1"));
            }
        }
    }
    Ok(cases)
}

/// The source that the kernel takes where the sender does not say.
fn source(case: &Case, world: &World) -> Result<IpAddr> {
    let v4 = case.to.is_ipv4();
    let of = |pod: &Pod| if v4 { pod.v4.into() } else { pod.v6.into() };
    let on_second = |[a, b]: [&str; 2]| if v4 { a.parse() } else { b.parse() };
    Ok(match (case.source, case.origin, case.device) {
        (Some(source), ..) => source,
        (None, Origin::Remote, "eth1") => on_second(FAR)?,
        (None, Origin::Remote, _) => of(&world.other),
        (None, _, "lo") => case.to.ip(),
        (None, _, "eth1") => on_second(NEAR)?,
        (None, ..) => of(&world.pod),
    })
}

fn packet(case: &Case, source: IpAddr, state: State) -> Packet {
    Packet {
        origin: case.origin,
        protocol: case.protocol,
        source,
        source_port: 40_000,
        destination: case.to.ip(),
        destination_port: case.to.port(),
        device: case.device.to_owned(),
        state,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

/// What is said of it.
fn said(ruleset: &Ruleset, case: &Case, source: IpAddr, state: State, world: &World) -> Verdict {
    evaluate_from(
        ruleset,
        &packet(case, source, state),
        &world.membership(case.group),
    )
}

/// Puts the setting in and gives back what the kernel then holds, a rule set a family.
fn install(pod: &Pod, setting: &Setting, backend: Backend) -> Result<Vec<Ruleset>> {
    pod.within(|| {
        let mut intent = setting
            .flags
            .intent()
            .map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        intent.outbound.services.clone_from(&setting.services);
        let session = Session::open(Some(backend))?;
        let facts = Facts {
            cgroups: netsys::cgroups::facts(&intent),
            ..session.facts(&intent)?
        };
        let plan = plan(&intent, &facts).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        session.install(&plan)?;
        drop(session);
        let mut dumps: Vec<_> = Session::open(Some(backend))?
            .own()
            .rules
            .into_iter()
            .map(|(_, own)| own)
            .collect();
        for dump in &mut dumps {
            for table in &mut dump.tables {
                table.chains.retain(|chain| chain.name != "WEIR_MADE_THIS_TABLE");
            }
            dump.tables.retain(|table| !table.chains.is_empty());
        }
        let mut wanted = match backend {
            Backend::Nft => nft::render(&plan),
            _ => rules::render(&plan),
        };
        wanted.retain(|ruleset| !ruleset.tables.is_empty());
        ensure!(dumps == wanted, "the kernel holds something else");
        for family in Family::ALL {
            if !dumps.iter().any(|dump| dump.family == family) {
                dumps.push(Ruleset::empty(family));
            }
        }
        Ok(dumps)
    })?
}

fn of_family(rulesets: &[Ruleset], to: SocketAddr) -> Result<&Ruleset> {
    let family = Family::of(to.ip());
    rulesets
        .iter()
        .find(|held| held.family == family)
        .context("both families")
}

/// What `weir explain` sees there, and that it says the same of every packet.
fn explained(pod: &Pod, cases: &[&Case], held: &[Ruleset], world: &World, what: &str) -> Result<()> {
    let installed = pod.within(netsys::rules::look)??.installed;
    for case in cases {
        let source = source(case, world)?;
        let packet = packet(case, source, State::New);
        let said = said(of_family(held, case.to)?, case, source, State::New, world).fate;
        let seen = installed.evaluate_from(&packet, &world.membership(case.group));
        ensure!(
            seen.fate == said,
            "{what}: {packet:?}: explained as {:?} by {:?}, but it is {said:?}",
            seen.fate,
            seen.decided_by().map(ToString::to_string)
        );
    }
    Ok(())
}

/// Sends it and holds what happens against what is said.
fn check(case: &Case, socket: &Socket, ruleset: &Ruleset, world: &World, what: &str) -> Result<Fate> {
    let source = source(case, world)?;
    let verdict = said(ruleset, case, source, State::New, world);
    let what = format!(
        "{what}: {:?} {:?} {:?} {source} -> {}",
        case.origin, case.group, case.protocol, case.to
    );
    let arrived = connect(socket, case.protocol, case.source, case.to).with_context(|| what.clone())?;
    let as_said = match verdict.fate {
        Fate::Direct => {
            (arrived.listener, arrived.local, arrived.original) == (case.to.port(), case.to, case.to)
        }
        Fate::Redirect { port } => {
            (arrived.listener, arrived.local.port(), arrived.original) == (port, port, case.to)
        }
        Fate::Tproxy { port } => {
            (arrived.listener, arrived.local, arrived.original) == (port, case.to, case.to)
        }
        _ => false,
    };
    ensure!(
        as_said,
        "{what}: evaluate says {:?} by {:?}, but it arrived at {arrived:?}",
        verdict.fate,
        verdict.decided_by().map(ToString::to_string),
    );
    if !verdict.is_tracked {
        check_tracking(socket, case, world, &what)?;
    }
    Ok(verdict.fate)
}

/// What the rules keep from conntrack, it knows nothing of.
fn check_tracking(socket: &Socket, case: &Case, world: &World, what: &str) -> Result<()> {
    let from = socket.local_addr()?.as_socket().context("an address")?;
    ensure!(
        !tracked(&world.pod)?.contains(&[from, case.to]),
        "{what}: evaluate says that {from} -> {} is not tracked, but it is",
        case.to
    );
    Ok(())
}

/// How often a packet that fares otherwise than is said is sent again, from another port.
const MORE_TRIES: usize = 3;

/// All of these, by sender; answers how many were redirected.
fn send(cases: &[&Case], held: &[Ruleset], world: &World, what: &str) -> Result<usize> {
    let senders = SENDERS.map(|(uid, gid, mark, group)| (Origin::Socket { uid, gid, mark }, group));
    let mut redirected = 0;
    for (origin, group) in senders.into_iter().chain([(Origin::Remote, Group::None)]) {
        let is_its = |case: &&&Case| (case.origin, case.group) == (origin, group);
        let its: Vec<_> = cases.iter().filter(is_its).collect();
        let to: Vec<_> = its.iter().map(|case| (case.protocol, case.to)).collect();
        let make = |to: &[(IpProtocol, SocketAddr)]| match origin {
            Origin::Remote => world.remote_sockets(to),
            Origin::Socket { uid, gid, mark } => world.sockets((uid, gid, mark), group, to),
        };
        let sockets = make(&to)?;
        for (case, socket) in its.into_iter().zip(&sockets) {
            let ruleset = of_family(held, case.to)?;
            let mut fate = check(case, socket, ruleset, world, what);
            // By chance it has the source port of an earlier connection that was redirected to where this one goes,
            // and that conntrack still knows: then the two are taken for one. With another port they are not.
            for _ in 0..MORE_TRIES {
                if fate.is_err() {
                    let again = make(&[(case.protocol, case.to)])?;
                    fate = check(case, &again[0], ruleset, world, what);
                }
            }
            let fate = fate?;
            redirected += usize::from(matches!(fate, Fate::Redirect { .. } | Fate::Tproxy { .. }));
        }
    }
    Ok(redirected)
}

/// Connections that are open go on, whatever the rules are now.
fn open_ones_go_on(cases: &[Case], held: &[Ruleset], world: &World, what: &str) -> Result<()> {
    for case in cases.iter().filter(|case| case.protocol == IpProtocol::Tcp) {
        let ruleset = of_family(held, case.to)?;
        for state in [State::Established, State::PickedUp] {
            let fate = said(ruleset, case, source(case, world)?, state, world).fate;
            let to = case.to;
            ensure!(
                fate == Fate::Direct,
                "{what}: an open connection to {to}, {state:?}, meets {fate:?}"
            );
        }
    }
    ensure!(
        world.open.iter().all(World::is_alive),
        "{what}: an open connection ended"
    );
    Ok(())
}

#[test]
fn the_kernel_does_with_every_packet_what_evaluate_says() -> Result<()> {
    let mut world = World::create()?;
    // Before conntrack looks, which it does only once there is a rule that asks it.
    world.open_some()?;
    let (settings, cases) = (settings::all(&world)?, cases(&world)?);
    let (mut asked, mut redirected) = (0, 0);
    for backend in BACKENDS {
        for (number, setting) in settings.iter().enumerate() {
            let held = install(&world.pod, setting, backend)?;
            let what = format!("{backend} {}", setting.name);
            let mine: Vec<_> = cases
                .iter()
                // With TPROXY `::6` is not put on lo, and nobody can call from it.
                .filter(|case| setting.flags.mode.is_none() || !case.source.is_some_and(|ip| ip.is_ipv6()))
                .skip(number % setting.every)
                .step_by(setting.every)
                .collect();
            explained(&world.pod, &mine, &held, &world, &what)?;
            redirected += send(&mine, &held, &world, &what)?;
            asked += mine.len();
            open_ones_go_on(&cases, &held, &world, &what)?;
        }
    }
    let by_tproxy = settings.iter().filter(|setting| setting.flags.mode.is_some());
    assert!(by_tproxy.count() >= 6);
    println!(
        "{} configurations on {} back-ends, {asked} packets, {redirected} of them redirected: no disagreement \
         between evaluate and the kernel",
        settings.len(),
        BACKENDS.len()
    );
    assert!(settings.len() >= 60);
    assert!(redirected * 10 > asked, "the table hardly asks for a redirect");
    Ok(())
}

/// Puts those rules into the kernel as they are.
fn put(pod: &Pod, backend: Backend, rulesets: &[Ruleset]) -> Result<()> {
    if backend == Backend::Nft {
        let text = nft::transaction(&[nft::TableFamily::Inet], rulesets, true);
        // It looks for cgroups in one place only.
        let root = netsys::cgroups::v2_root()?.context("cgroup v2 is not mounted")?;
        let script = "mount --bind \"$0\" /sys/fs/cgroup && exec nft \"$1\"";
        let arguments = ["-m", "sh", "-c", script, &root.to_string_lossy(), &text];
        return pod.run("unshare", arguments).map(drop);
    }
    for ruleset in rulesets {
        let programs = Programs::find(ruleset.family, backend).context("its programs")?;
        pod.within(|| -> Result<()> {
            let current = netsys::rules::dump(&programs)?;
            let mut wanted = ruleset.clone();
            // The mark of who made the table stays.
            for table in &mut wanted.tables {
                let there = current
                    .table(table.name)
                    .into_iter()
                    .flat_map(|table| &table.chains);
                let mark = there.filter(|chain| chain.name == "WEIR_MADE_THIS_TABLE");
                table.chains.extend(mark.cloned());
            }
            netsys::rules::apply(&programs, &current, &wanted)?;
            Ok(())
        })??;
    }
    Ok(())
}

/// The rule sets without one rule each, and which it is.
fn without_each(held: &[Ruleset]) -> Vec<(String, Vec<Ruleset>)> {
    let mut all = vec![];
    for (f, ruleset) in held.iter().enumerate() {
        for (t, table) in ruleset.tables.iter().enumerate() {
            let decide = |(_, chain): &(usize, &Chain)| chain.name != asked::CHAIN;
            for (c, chain) in table.chains.iter().enumerate().filter(decide) {
                for (r, rule) in chain.rules.iter().enumerate() {
                    let mut without = held.to_vec();
                    without[f].tables[t].chains[c].rules.remove(r);
                    all.push((format!("{} {}{rule}", ruleset.family, chain.name), without));
                }
            }
        }
    }
    all
}

/// Whether connections from before the first rule go on when these are put in.
fn open_ones_survive(backend: Backend, held: &[Ruleset]) -> Result<bool> {
    let mut world = World::create()?;
    world.open_some()?;
    put(&world.pod, backend, held)?;
    Ok(world.open.iter().all(World::is_alive))
}

#[test]
fn each_rule_taken_out_of_the_kernel_changes_what_a_packet_meets() -> Result<()> {
    let world = World::create()?;
    let cases = cases(&world)?;
    let name = "--sidecar -d 15020 -u 1337,1338 -g 1337 -o 22 -x 192.0.2.0/24,2001:db8::/32 --sources 10.77.0.2,fd00:77::2 \
                --exclude-groups 77 --proxy-class-id CLASS --proxy-cgroup CGROUP";
    let setting = setting(world.named(name), 1);
    let mut rules = 0;
    for backend in BACKENDS {
        let held = install(&world.pod, &setting, backend)?;
        for (rule, without) in without_each(&held) {
            rules += 1;
            if rule.contains("opens no connection") {
                ensure!(open_ones_survive(backend, &held)?, "{backend} with {rule}");
                ensure!(!open_ones_survive(backend, &without)?, "{backend} without {rule}");
                continue;
            }
            let mut changed = None;
            for case in &cases {
                let source = source(case, &world)?;
                let fate = |rulesets| {
                    let ruleset = of_family(rulesets, case.to)?;
                    Ok::<_, anyhow::Error>(said(ruleset, case, source, State::New, &world).fate)
                };
                if fate(&held)? != fate(&without)? {
                    changed = Some(case);
                    break;
                }
            }
            let case = changed.with_context(|| format!("{backend}: no packet needs {rule}"))?;
            send(&[case], &held, &world, &format!("{backend} with {rule}"))?;
            put(&world.pod, backend, &without)?;
            send(&[case], &without, &world, &format!("{backend} without {rule}"))?;
            put(&world.pod, backend, &held)?;
        }
    }
    println!("{rules} rules, each of which changes what a packet meets in the kernel");
    Ok(())
}
