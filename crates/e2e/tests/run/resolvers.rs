//! The resolvers of real languages and C libraries, behind a search list as Kubernetes has it: by UDP and TCP,
//! asking an IPv4 and an IPv6 server, for names of every kind.

use std::fs;

use anyhow::{Result, ensure};
use e2e::{Pod, RunAs, servers};

use crate::Laptop;

/// What the resolver knows that stands behind Weir; all else it denies.
const ZONE: &str = r#"
local-zone: "." static
local-data: "db.example.com. 300 IN A 192.0.2.7"
local-data: "db.example.com. 300 IN AAAA 2001:db8::7"
local-data: "7.2.0.192.in-addr.arpa. 300 IN PTR db.example.com."
"#;

/// Names as an application writes them, and the addresses behind each.
const ADDRESSES: [&str; 8] = [
    "web 10.96.0.1 fd00:96::1",
    "web.mesh 10.96.0.1 fd00:96::1",
    "web.mesh.svc.cluster.local 10.96.0.1 fd00:96::1",
    "pods.mesh.svc 10.77.0.2 10.77.0.3",
    "pods-1.pods.mesh 10.77.0.3",
    "db 192.0.2.7 2001:db8::7",
    "alias.mesh 10.96.0.1 fd00:96::1",
    "db.example.com 192.0.2.7 2001:db8::7",
];
/// Addresses, and the name of each.
const NAMES: [&str; 4] = [
    "10.96.0.1 web.mesh.svc.cluster.local",
    "fd00:96::1 web.mesh.svc.cluster.local",
    "10.77.0.3 pods-1.pods.mesh.svc.cluster.local",
    "192.0.2.7 db.example.com",
];
/// Endpoints of a service whose answer no datagram of 512 bytes holds.
const CROWD: usize = 60;

/// Of a program that is built with musl, and is static: the addresses of a name, or the name of an address.
const LOOK_UP: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *one;
    int flags = strcmp(argv[1], "name") ? NI_NUMERICHOST : NI_NAMEREQD;
    if (getaddrinfo(argv[2], 0, &hints, &all)) return 1;
    for (one = all; one; one = one->ai_next) {
        char text[300];
        if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, flags)) return 1;
        puts(text);
    }
    return 0;
}
"#;

/// Answers a line for each name of the arguments: the name, and sorted what it has.
const PYTHON: &str = "import socket, sys\n\
    for name in sys.argv[2:]:\n\
    \x20   if sys.argv[1] == 'name': found = {socket.gethostbyaddr(name)[0]}\n\
    \x20   else: found = {a[4][0] for a in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)}\n\
    \x20   print(name, *sorted(found))\n";
const NODE: &str = "const dns = require('dns').promises; const [how, ...names] = process.argv.slice(1);\
    (async () => { for (const name of names) { const found = how === 'name' ? await dns.reverse(name)\
    : (await dns.lookup(name, {all: true})).map(a => a.address);\
    console.log(name, ...[...new Set(found)].sort()); } })()";

/// How the clients' `resolv.conf` says that the server is to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    V4,
    V6,
    Stream,
    /// An address of one link alone, which the command has not.
    Link,
}

struct Clients {
    laptop: Laptop,
    resolver: Pod,
    _unbound: e2e::Program,
}

impl Clients {
    fn create() -> Result<Self> {
        let laptop = Laptop::create()?;
        let resolver = laptop.mesh.net.pod("resolver")?;
        let unbound = servers::unbound(&resolver, laptop.mesh.dir(), ZONE)?;
        let slice = |name: &str, endpoints: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\n\
                 spec: {{clusterIP: None, ports: [{{name: http, port: 8080}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {{name: {name}-1, namespace: mesh, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 ports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n{endpoints}---\n"
            )
        };
        let alias = |name: &str, to: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\n\
                 spec: {{type: ExternalName, externalName: {to}}}\n---\n"
            )
        };
        let crowd: String = (1..=CROWD)
            .map(|n| format!("- {{addresses: [10.88.0.{n}]}}\n"))
            .collect();
        let pods =
            "- {addresses: [10.77.0.2], hostname: pods-0}\n- {addresses: [10.77.0.3], hostname: pods-1}\n";
        let text = slice("pods", pods)
            + &slice("crowd", &crowd)
            + &alias("db", "db.example.com")
            + &alias("alias", "web.mesh.svc.cluster.local");
        laptop.mesh.manifests.write("names.yaml", &text)?;
        let source = laptop.shared.path().join("look-up.c");
        fs::write(&source, LOOK_UP)?;
        let built = std::process::Command::new("musl-gcc")
            .args(["-static", "-O1", "-o"])
            .args([&laptop.shared.path().join("look-up"), &source])
            .status()?;
        ensure!(built.success(), "musl-gcc: {built}");
        Ok(Self {
            laptop,
            resolver,
            _unbound: unbound,
        })
    }

    /// The resolver's address in `fe80::/10`, as the laptop's link knows it.
    fn of_link(&self) -> Result<String> {
        let addresses = "-6 -o addr show dev eth0 scope link";
        e2e::eventually("an address of the link", || {
            let text = self.resolver.run("ip", addresses.split(' ')).ok()?.text();
            let mut words = text.split_whitespace();
            let address = words.find(|word| word.starts_with("fe80"))?;
            let is_settled = !text.contains("tentative");
            is_settled.then(|| format!("{}%eth0", address.split('/').next().unwrap_or_default()))
        })
    }

    /// What a script says within `weir run`, where `resolv.conf` is as in a pod.
    fn sh(&self, way: Way, script: &str, arguments: &[&str]) -> Result<String> {
        let server = match way {
            Way::Link => self.of_link()?,
            Way::V6 => self.resolver.v6.to_string(),
            Way::V4 | Way::Stream => self.resolver.v4.to_string(),
        };
        let option = if way == Way::Stream { " use-vc" } else { "" };
        let conf = self.laptop.shared.path().join("resolv.conf");
        // A slow machine must not look like a server that does not answer.
        let text = format!(
            "nameserver {server}\nsearch mesh.svc.cluster.local svc.cluster.local cluster.local\n\
             options ndots:5 timeout:30{option}\n"
        );
        fs::write(&conf, text)?;
        let outer = format!(
            "mount --bind {} /etc/resolv.conf && exec {} run --manifests {} -- sh -c \"$0\" sh \"$@\"",
            conf.display(),
            self.laptop.weir.display(),
            self.laptop.mesh.manifests.path().display()
        );
        let all = [&["-m", "sh", "-c", &outer, script], arguments].concat();
        let finished = self.laptop.pod.run_as(RunAs::Root, "unshare", all)?;
        Ok(finished.text())
    }
}

/// The first words of lines: what is asked.
fn asked<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn addresses_and_names_of_every_kind_by_every_resolver() -> Result<()> {
    let clients = Clients::create()?;
    let look_up = clients.laptop.shared.path().join("look-up");
    let each = |command: &str| format!("for name; do echo $name $({command} | LC_ALL=C sort -u); done");
    let musl = |how: &str| each(&format!("{} {how} $name", look_up.display()));
    let getent = |how: &str| match how {
        "name" => each("getent hosts $name | sed 's/.* //'"),
        _ => each("getent ahosts $name | sed -n 's/ *STREAM.*//p'"),
    };
    let python = |how: &str| format!("exec python3 -c \"{PYTHON}\" {how} \"$@\"");
    let node = |how: &str| format!("exec node -e \"{NODE}\" {how} \"$@\"");
    for way in [Way::V4, Way::V6, Way::Stream, Way::Link] {
        for (how, expected) in [("address", &ADDRESSES[..]), ("name", &NAMES[..])] {
            for (client, script) in [
                ("getent", getent(how)),
                ("musl", musl(how)),
                ("python", python(how)),
                ("node", node(how)),
            ] {
                let said = clients.sh(way, &script, &asked(expected))?;
                let lines: Vec<&str> = said.lines().collect();
                assert_eq!(lines, expected, "{client}, {way:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_a_datagram_does_not_hold_is_asked_again_by_tcp() -> Result<()> {
    let clients = Clients::create()?;
    // musl of this age takes what the datagram held.
    for (client, script) in [
        ("getent", "getent ahostsv4 crowd | grep -c STREAM".to_owned()),
        (
            "python",
            format!("python3 -c \"{PYTHON}\" address crowd | tr ' ' '\\n' | grep -c 10.88"),
        ),
        ("dig", "dig +noedns +search +short crowd | wc -l".to_owned()),
        (
            "node",
            "node -e \"require('dns').resolve4('crowd.mesh', (e, a) => console.log(a.length))\"".to_owned(),
        ),
    ] {
        let said = clients.sh(Way::V4, &script, &[])?;
        assert_eq!(said.trim(), CROWD.to_string(), "{client}");
    }
    Ok(())
}

#[test]
fn ports_are_found_by_those_who_ask_for_them() -> Result<()> {
    let clients = Clients::create()?;
    for way in [Way::V4, Way::V6] {
        let said = clients.sh(way, "dig +search +short _http._tcp.web SRV", &[])?;
        assert_eq!(said, "0 100 80 web.mesh.svc.cluster.local.\n", "{way:?}");
    }
    let node = "node -e \"require('dns').resolveSrv('_http._tcp.pods.mesh', (e, a) => \
                console.log(a.map(one => one.name + ':' + one.port).sort().join(' ')))\"";
    assert_eq!(
        clients.sh(Way::V4, node, &[])?,
        "pods-0.pods.mesh.svc.cluster.local:8080 pods-1.pods.mesh.svc.cluster.local:8080\n"
    );
    Ok(())
}

/// `hey` is a load generator in Go: its own resolver is told to be used, not the C library's.
#[test]
fn the_resolver_of_go() -> Result<()> {
    let clients = Clients::create()?;
    for way in [Way::V4, Way::V6, Way::Stream] {
        for url in [
            "http://web/",
            "http://web.mesh/",
            "http://alias.mesh/",
            "http://pods:8080/",
            "http://pods-1.pods.mesh.svc.cluster.local:8080/",
        ] {
            let script = "GODEBUG=netdns=go+1 hey -n 2 -c 1 $1 2>&1";
            let said = clients.sh(way, script, &[url])?;
            assert!(said.contains("[200]\t2 responses"), "{way:?}, {url}: {said}");
            // Which of the two resolvers; releases word it differently.
            let told = said.lines().find(|line| line.starts_with("go package net: "));
            assert!(told.is_some_and(|line| line.contains("Go's")), "{said}");
        }
    }
    Ok(())
}
