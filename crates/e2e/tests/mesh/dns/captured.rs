//! Captured look-ups while the DNS proxy is killed, hangs, ends and comes back: they go direct within the life of a
//! sign, and none is answered wrongly. Clients have a fresh socket for each look-up, or keep one for all.

mod once;
mod replaced;
mod signs;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::weir::{self, Sidecar};
use e2e::{Finished, Mesh, Pod, Program, eventually, until};
use model::liveness::HELD_FOR;
use rustix::process::Signal;

use super::{ZONE, services};

/// What each client waits between two look-ups; all of them together make 200 a second.
const PAUSE: Duration = Duration::from_millis(200);
/// What a client waits for an answer before it counts the look-up as lost.
const PATIENCE: Duration = Duration::from_millis(300);
/// Ends a test that has failed already.
const LONG: Duration = Duration::from_secs(30);
/// Of each kind and family.
const CLIENTS: usize = 7;
/// Look-ups that a client makes at most while the sign of a dead proxy holds, and one that was under way.
const LOST_MAX: usize = (HELD_FOR.as_millis() / PAUSE.as_millis()) as usize + 2;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const MESH: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fresh,
    Kept,
    ByStream,
}

/// A client whose look-ups are to be captured, and a resolver elsewhere.
struct Town {
    mesh: Mesh,
    client: Pod,
    resolver: Pod,
    resolv_conf: PathBuf,
    _unbound: Program,
}

impl Town {
    /// Rules that capture look-ups of its resolver.
    fn install(&self, backend: &str, more: &[&str]) -> Result<Finished> {
        let file = self.resolv_conf.to_string_lossy();
        let rules = [
            "init",
            "--sidecar",
            "--redirect-dns",
            "--resolv-conf",
            &file,
            "--backend",
            backend,
        ];
        weir::run(&self.client, &[&rules[..], more].concat())
    }

    fn create() -> Result<Self> {
        let mesh = Mesh::create()?;
        let resolver = mesh.net.pod("resolver")?;
        let unbound = e2e::servers::unbound(&resolver, mesh.dir(), ZONE)?;
        services(&mesh)?;
        let resolv_conf = mesh.dir().join("resolv.conf");
        let text = format!("nameserver {}\nnameserver {}\n", resolver.v4, resolver.v6);
        fs::write(&resolv_conf, text)?;
        e2e::servers::open_to_all(mesh.dir())?;
        let client = mesh.pod("client", "client")?;
        Ok(Self {
            mesh,
            client,
            resolver,
            resolv_conf,
            _unbound: unbound,
        })
    }
}

/// What clients have seen since it was last asked.
#[derive(Default)]
struct Seen {
    end: AtomicBool,
    answered: AtomicUsize,
    lost: AtomicUsize,
    /// The longest run of lost ones of any client.
    in_a_row: AtomicUsize,
    wrong: AtomicUsize,
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The address of an answer with one record; nothing where it has none.
fn address(answer: &[u8]) -> Option<Ipv4Addr> {
    let last = answer.get(answer.len().checked_sub(4)?..)?;
    let octets: [u8; 4] = last.try_into().ok()?;
    (answer.get(7) == Some(&1)).then(|| octets.into())
}

/// The answer with that id; late ones to earlier queries are passed over.
fn ask(socket: &UdpSocket, id: u16, name: &str) -> std::io::Result<Vec<u8>> {
    socket.send(&query(id, name))?;
    let mut answer = vec![0; 1500];
    loop {
        let length = socket.recv(&mut answer)?;
        if answer[..2] == id.to_be_bytes() {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

fn ask_by_stream(to: SocketAddr, id: u16, name: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let query = query(id, name);
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn socket(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Looks one name of the upstream's up again and again.
fn client(kind: Kind, to: SocketAddr, seen: &Seen) -> std::io::Result<()> {
    let kept = socket(to)?;
    let mut in_a_row = 0;
    let mut id = 0_u16;
    while !seen.end.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let answer = match kind {
            Kind::Fresh => socket(to).and_then(|socket| ask(&socket, id, "db.example.com")),
            Kind::Kept => ask(&kept, id, "db.example.com"),
            Kind::ByStream => ask_by_stream(to, id, "db.example.com"),
        };
        match answer {
            Ok(answer) => {
                in_a_row = 0;
                if address(&answer) != Some(ADDRESS) {
                    seen.wrong.fetch_add(1, Ordering::Relaxed);
                }
                seen.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                in_a_row += 1;
                seen.lost.fetch_add(1, Ordering::Relaxed);
                seen.in_a_row.fetch_max(in_a_row, Ordering::Relaxed);
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

impl Seen {
    /// What was lost, and the longest run, since the last time; `what` has just happened, and its effect is over.
    fn check(&self, what: &str, lost_max: usize) -> Result<String> {
        let [answered, lost, in_a_row] =
            [&self.answered, &self.lost, &self.in_a_row].map(|count| count.swap(0, Ordering::Relaxed));
        ensure!(
            in_a_row <= lost_max,
            "{what}: {in_a_row} look-ups of one client lost in a row"
        );
        ensure!(answered > 0, "{what}: none was answered");
        Ok(format!(
            "{what}: {answered} answered, {lost} lost, at most {in_a_row} in a row"
        ))
    }

    /// Waits until a second's look-ups were answered, and none was lost meanwhile.
    fn settle(&self) -> Result<()> {
        until(Duration::from_secs(60), "look-ups that are all answered", || {
            let lost = self.lost.load(Ordering::Relaxed);
            let answered = self.answered.load(Ordering::Relaxed);
            eventually("look-ups", || {
                (self.answered.load(Ordering::Relaxed) >= answered + 200).then_some(())
            })
            .ok()?;
            (self.lost.load(Ordering::Relaxed) == lost).then_some(())
        })
    }
}

/// What a name of the mesh is by both families' servers: known while look-ups are captured, and not else.
fn mesh_name(town: &Town, is_captured: bool) -> Result<()> {
    let what = if is_captured {
        "look-ups that are captured"
    } else {
        "look-ups that go direct"
    };
    for to in town.resolver.at(53) {
        eventually(what, || {
            let asked = town
                .client
                .within(|| socket(to).and_then(|socket| ask(&socket, 1, "web.mesh")));
            let answer = asked.ok()?.ok()?;
            ((address(&answer) == Some(MESH)) == is_captured).then_some(())
        })?;
    }
    Ok(())
}

fn proxy(town: &Town) -> Result<Sidecar> {
    let file = town.resolv_conf.to_string_lossy();
    Sidecar::proxy_alone(
        &town.client,
        &town.mesh.manifests,
        &["--dns", "--resolv-conf", &file],
    )
}

fn events(town: &Town, seen: &Seen, mut sidecar: Sidecar) -> Result<Vec<String>> {
    seen.settle()?;
    let mut seen_so_far = vec![seen.check("all is well", 0)?];

    sidecar.proxy.kill();
    mesh_name(town, false)?;
    seen.settle()?;
    seen_so_far.push(seen.check("killed", LOST_MAX)?);

    let mut sidecar = proxy(town)?;
    mesh_name(town, true)?;
    seen.settle()?;
    seen_so_far.push(seen.check("started again", 0)?);

    sidecar.proxy.signal(Signal::STOP)?;
    mesh_name(town, false)?;
    seen.settle()?;
    seen_so_far.push(seen.check("hung", LOST_MAX)?);
    sidecar.proxy.signal(Signal::CONT)?;
    mesh_name(town, true)?;
    seen.settle()?;
    seen_so_far.push(seen.check("goes on", 0)?);

    sidecar.proxy.signal(Signal::TERM)?;
    let status = sidecar.proxy.wait()?;
    ensure!(status.success(), "{status}");
    mesh_name(town, false)?;
    seen.settle()?;
    seen_so_far.push(seen.check("drained", 0)?);
    Ok(seen_so_far)
}

/// How often two look-ups leave one socket at the same time.
const PAIRS: usize = 300;

/// What resolvers do with A and AAAA: two first packets of one flow meet in conntrack.
fn two_at_once_are_both_answered(town: &Town) -> Result<()> {
    for to in town.resolver.at(53) {
        for _ in 0..PAIRS {
            let socket = town.client.within(|| socket(to))??;
            socket.set_read_timeout(Some(LONG))?;
            let start = Barrier::new(2);
            let send = |id| {
                start.wait();
                socket.send(&query(id, "web.mesh"))
            };
            thread::scope(|scope| {
                scope.spawn(|| send(1));
                scope.spawn(|| send(2));
            });
            let mut ids = [0, 0];
            for id in &mut ids {
                let mut answer = [0; 512];
                socket
                    .recv(&mut answer)
                    .context("two look-ups at once, and one is lost")?;
                *id = answer[1];
            }
            ids.sort_unstable();
            ensure!(ids == [1, 2], "{ids:?}");
        }
    }
    Ok(())
}

fn by(backend: &str) -> Result<Vec<String>> {
    let town = Town::create()?;
    let said = town.install(backend, &[])?;
    ensure!(
        said.text()
            .contains("while a DNS proxy answers there, else direct"),
        "{}",
        said.text()
    );
    // Before it is first up.
    mesh_name(&town, false)?;
    let sidecar = proxy(&town)?;
    mesh_name(&town, true)?;
    two_at_once_are_both_answered(&town).with_context(|| backend.to_owned())?;
    let seen = Seen::default();
    let told = thread::scope(|scope| {
        for kind in [Kind::Fresh, Kind::Kept, Kind::ByStream] {
            for to in town.resolver.at(53) {
                for _ in 0..CLIENTS {
                    let (seen, pod) = (&seen, &town.client);
                    scope.spawn(move || pod.within(|| client(kind, to, seen)));
                }
            }
        }
        let result = events(&town, &seen, sidecar);
        seen.end.store(true, Ordering::Relaxed);
        result
    })
    .with_context(|| backend.to_owned())?;
    ensure!(seen.wrong.load(Ordering::Relaxed) == 0, "an answer was wrong");
    Ok(told)
}

#[test]
fn look_ups_go_direct_while_their_proxy_is_gone_by_nftables() -> Result<()> {
    println!("{:#?}", by("nft")?);
    Ok(())
}

#[test]
fn look_ups_go_direct_while_their_proxy_is_gone_by_iptables() -> Result<()> {
    println!("{:#?}", by("iptables-legacy")?);
    Ok(())
}
