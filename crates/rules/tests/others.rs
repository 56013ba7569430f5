//! Rule sets as kube-proxy, Docker and other meshes write them: followed to the end wherever what decides is known,
//! and stopped at the rule that does where it is not.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use std::net::{IpAddr, SocketAddr};

use rules::cgroup::Membership;
use rules::dumps::{addresses, read};
use rules::evaluate::{AddressKind, Ground};
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Installed, Origin, Packet, State, Verdict};

fn packet(to: &str) -> Packet {
    let to: SocketAddr = to.parse().unwrap();
    Packet {
        origin: Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark: 0,
        },
        protocol: IpProtocol::Tcp,
        source: match to.is_ipv4() {
            true => "10.1.0.9".parse().unwrap(),
            false => "fd00::9".parse().unwrap(),
        },
        source_port: 40_000,
        destination: to.ip(),
        destination_port: to.port(),
        device: "eth0".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

fn inward(to: &str) -> Packet {
    Packet {
        origin: Origin::Remote,
        source: "192.0.2.77".parse().unwrap(),
        ..packet(to)
    }
}

/// A node: its own address, and pods behind a device of theirs.
struct Node;

impl Ground for Node {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        let own = address.to_string() == "10.1.0.9";
        let kind = if own {
            AddressKind::Local
        } else {
            AddressKind::Unicast
        };
        AddressKind::everywhere(address).or(Some(kind))
    }

    fn device(&self, to: IpAddr) -> Option<String> {
        Some(match self.kind(to)? {
            AddressKind::Local => "lo".to_owned(),
            _ if to.to_string().starts_with("10.244.") => "cni0".to_owned(),
            _ if to.to_string().starts_with("172.17.") => "docker0".to_owned(),
            _ => "eth0".to_owned(),
        })
    }
}

fn on_node(installed: &Installed, packet: &Packet) -> Verdict {
    installed.evaluate_in(packet, &Membership::none(), &Node)
}

fn to(text: &str) -> Fate {
    let to: SocketAddr = text.parse().unwrap();
    Fate::Dnat {
        to: to.ip(),
        port: to.port(),
    }
}

/// Each end with its share in percent.
fn ways(verdict: &Verdict) -> Vec<(u32, Fate)> {
    let ways = verdict.ways.iter();
    ways.map(|way| ((way.millionths + 5_000) / 10_000, way.verdict.fate))
        .collect()
}

/// kube-proxy in iptables mode: a service of three endpoints, one of one, one of none, a node port.
const KUBE: &str = include_str!("rulesets/kube-proxy.iptables");

#[test]
fn kube_proxy_by_iptables() {
    // Newer ones count what they drop there.
    let accept = "-A KUBE-FORWARD -m conntrack --ctstate RELATED";
    let counted = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP";
    let text = KUBE.replace(accept, &format!("{counted}\n{accept}"));
    let installed = read(&text, Family::V4).unwrap();
    let web = [
        (33, to("10.244.0.1:8080")),
        (33, to("10.244.0.2:8080")),
        (33, to("10.244.1.3:8080")),
    ];
    for ground in ["by the packet alone", "by the node"] {
        let ask = |to: &str| match ground {
            "by the node" => on_node(&installed, &packet(to)),
            _ => installed.evaluate(&packet(to)),
        };
        let split = ask("10.96.0.1:80");
        assert_eq!(
            (split.fate, ways(&split)),
            (Fate::Split, web.to_vec()),
            "{ground}"
        );
        let last = &split.ways[2].verdict;
        let by = last.decided_by().unwrap();
        assert_eq!((by.chain.as_str(), by.number), ("KUBE-SEP-C", 2));
        assert_eq!(ask("10.96.0.2:81").fate, to("10.244.1.4:81"), "{ground}");
        assert_eq!(ask("10.96.0.2:80").fate, Fate::Direct, "{ground}");
        assert_eq!(ask("10.96.0.3:80").fate, Fate::Reject, "{ground}");
        assert_eq!(ask("192.0.2.1:443").fate, Fate::Direct, "{ground}");
    }
    let node_port = on_node(&installed, &inward("10.1.0.9:30080"));
    assert_eq!(ways(&node_port), web);
    // It is masqueraded by its mark, which is then gone.
    assert!(node_port.ways.iter().all(|way| way.verdict.mark == 0));
    let masquerades = |verdict: &Verdict| {
        let mut asked = verdict.asked.iter().filter(|asked| asked.failed.is_empty());
        asked.any(|asked| installed.note(asked.at).unwrap().text.contains("MASQUERADE"))
    };
    assert!(masquerades(&node_port));
    let mut from_pod = packet("10.96.0.2:81");
    from_pod.source = "10.244.0.7".parse().unwrap();
    assert!(!masquerades(&on_node(&installed, &from_pod)));
    assert_eq!(on_node(&installed, &inward("10.1.0.9:22")).fate, Fate::Direct);
}

/// kube-proxy in nftables mode.
const KUBE_NFT: &str = include_str!("rulesets/kube-proxy.nft");

#[test]
fn kube_proxy_by_nftables() {
    let installed = read(&KUBE_NFT.replace("NODE", "10.1.0.9"), Family::V4).unwrap();
    let web = [
        (33, to("10.244.0.1:8080")),
        (33, to("10.244.0.2:8080")),
        (33, to("10.244.1.3:8080")),
    ];
    let split = installed.evaluate(&packet("10.96.0.1:80"));
    assert_eq!(ways(&split), web);
    assert_eq!(
        installed.evaluate(&packet("10.96.0.2:81")).fate,
        to("10.244.1.4:81")
    );
    assert_eq!(installed.evaluate(&packet("10.96.0.2:80")).fate, Fate::Reject);
    assert_eq!(installed.evaluate(&packet("10.96.0.3:80")).fate, Fate::Reject);
    assert_eq!(installed.evaluate(&packet("192.0.2.1:443")).fate, Fate::Direct);
    let node_port = on_node(&installed, &inward("10.1.0.9:30080"));
    assert_eq!(ways(&node_port), web);
    assert!(node_port.ways.iter().all(|way| way.verdict.mark == 0));
}

/// Docker on a machine: a published port, isolation between its networks, and the chain that is the owner's.
const DOCKER: &str = include_str!("rulesets/docker.iptables");

#[test]
fn docker() {
    let installed = read(DOCKER, Family::V4).unwrap();
    let published = on_node(&installed, &inward("10.1.0.9:8080"));
    assert_eq!(published.fate, to("172.17.0.2:80"));
    assert_eq!(on_node(&installed, &inward("10.1.0.9:22")).fate, Fate::Direct);
    assert_eq!(on_node(&installed, &packet("192.0.2.1:8080")).fate, Fate::Direct);
    let mut own = packet("10.1.0.9:8080");
    own.device = "lo".to_owned();
    assert_eq!(on_node(&installed, &own).fate, to("172.17.0.2:80"));
    // By the packet alone the container is nobody, and whether it is here decides: the policy of FORWARD drops.
    assert_eq!(installed.evaluate(&inward("10.1.0.9:8080")).fate, Fate::Unknown);
    // Without the rule that accepts it, what goes through is dropped.
    let without = DOCKER.replace(
        "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT\n",
        "",
    );
    let verdict = on_node(&read(&without, Family::V4).unwrap(), &inward("10.1.0.9:8080"));
    assert_eq!(verdict.fate, Fate::Drop);
}

/// The resolver that Docker puts into a container.
#[test]
fn docker_in_a_container() {
    let text = "\
*nat
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:41953
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:60120
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 41953 -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 60120 -j SNAT --to-source :53
COMMIT
";
    let installed = read(text, Family::V4).unwrap();
    let mut query = packet("127.0.0.11:53");
    query.device = "lo".to_owned();
    assert_eq!(installed.evaluate(&query).fate, to("127.0.0.11:41953"));
    query.protocol = IpProtocol::Udp;
    assert_eq!(installed.evaluate(&query).fate, to("127.0.0.11:60120"));
}

/// A pod of Linkerd's.
#[test]
fn linkerd() {
    let text = "\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:PROXY_INIT_OUTPUT - [0:0]
:PROXY_INIT_REDIRECT - [0:0]
-A PREROUTING -m comment --comment \"proxy-init/install-proxy-init-prerouting\" -j PROXY_INIT_REDIRECT
-A OUTPUT -m comment --comment \"proxy-init/install-proxy-init-output\" -j PROXY_INIT_OUTPUT
-A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -m comment --comment \"proxy-init/ignore-proxy-user-id\" -j RETURN
-A PROXY_INIT_OUTPUT -o lo -m comment --comment \"proxy-init/ignore-loopback\" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m multiport --dports 4567,4568 -m comment --comment \"proxy-init/ignore-port-4567,4568\" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m comment --comment \"proxy-init/redirect-all-outgoing-to-proxy-port\" -j REDIRECT --to-ports 4140
-A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191,4567,4568 -m comment --comment \"proxy-init/ignore-port-4190,4191,4567,4568\" -j RETURN
-A PROXY_INIT_REDIRECT -p tcp -m comment --comment \"proxy-init/redirect-all-incoming-to-proxy-port\" -j REDIRECT --to-ports 4143
COMMIT
";
    let installed = read(text, Family::V4).unwrap();
    let as_proxy = Packet {
        origin: Origin::Socket {
            uid: 2102,
            gid: 2102,
            mark: 0,
        },
        ..packet("10.96.0.1:80")
    };
    for (packet, expected) in [
        (packet("10.96.0.1:80"), Fate::Redirect { port: 4140 }),
        (packet("10.96.0.1:4567"), Fate::Direct),
        (as_proxy, Fate::Direct),
        (inward("10.1.0.9:80"), Fate::Redirect { port: 4143 }),
        (inward("10.1.0.9:4191"), Fate::Direct),
    ] {
        assert_eq!(installed.evaluate(&packet).fate, expected, "{packet:?}");
    }
}

/// The fate of an application's connection to 10.9.0.1:80 by a table of nftables.
fn by_nft(body: &str) -> Fate {
    let text = format!(
        "table ip t {{\n{body}\n\tchain out {{\n\t\ttype nat hook output priority -100; policy accept;\n\t\tjump c\n\t\t\
         meta l4proto tcp redirect to :1\n\t}}\n}}\n"
    );
    read(&text, Family::V4)
        .unwrap()
        .evaluate(&packet("10.9.0.1:80"))
        .fate
}

#[test]
fn statements_of_nftables() {
    let chain = |rule: &str| format!("\tchain c {{\n\t\t{rule}\n\t}}");
    let (first, other) = (Fate::Direct, Fate::Redirect { port: 1 });
    let accepted = |what: &str| by_nft(&chain(&format!("{what} tcp dport 80 dnat to 10.9.0.9:81")));
    let led = to("10.9.0.9:81");
    for (what, expected) in [
        ("", led),
        ("ip daddr { 10.9.0.0/24, 10.8.0.1 }", led),
        ("ip daddr != { 10.9.0.0/24, 10.8.0.1 }", other),
        ("meta l4proto { tcp, udp }", led),
        ("meta l4proto != { tcp, udp }", other),
        ("oifname { \"eth0\", \"eth1\" }", led),
        ("oifname \"eth*\"", led),
        ("oifname != { \"eth*\" }", other),
        ("ip saddr . ip daddr { 10.1.0.9 . 10.9.0.1 }", led),
        ("ip saddr . ip daddr { 10.1.0.9 . 10.9.0.2 }", other),
        ("ip saddr . tcp dport != { 10.1.0.9 . 80-90 }", other),
        ("th dport 80", led),
        ("meta mark & 0x0000000f == 0x00000000", led),
        ("mark and 0xf != 0x0", other),
        ("ct state { new, established }", led),
        ("ct state established,related", other),
        ("ct status dnat", other),
        ("fib daddr type local", other),
        ("fib daddr type != local", led),
        ("tcp flags syn / syn,rst", led),
        ("tcp flags & (fin | syn) == fin | syn", other),
        ("tcp flags syn,ack / syn,ack", other),
        ("log prefix \"a b\" level info", led),
        ("meta nftrace set 1", led),
        ("update @seen { ip saddr timeout 3h }", led),
        ("limit rate 5/second burst 5 packets", Fate::Unknown),
        ("ip daddr 10.9.0.2 limit rate over 1 mbytes/second", other),
        ("icmp type echo-request", other),
        ("ip daddr @nobody", Fate::Unknown),
        ("ct count over 3", Fate::Unknown),
    ] {
        assert_eq!(accepted(what), expected, "{what}");
    }
    for (rule, expected) in [
        ("tcp dport vmap { 80 : accept, 443 : drop }", first),
        ("tcp dport vmap { 80 : drop, 443 : accept }", Fate::Drop),
        ("tcp dport vmap { 81-90 : drop }", other),
        ("tcp dport vmap { 1-79 : accept, * : drop }", Fate::Drop),
        ("udp dport vmap { 80 : drop }", other),
        (
            "oifname . ip daddr vmap { \"eth*\" . 10.9.0.0/16 : drop }",
            Fate::Drop,
        ),
        ("ct state vmap { established : drop, new : jump d }", Fate::Drop),
        ("ip saddr vmap @missing", Fate::Unknown),
        (
            "dnat to tcp dport map { 80 : 10.9.0.9, 443 : 10.9.0.8 }",
            to("10.9.0.9:80"),
        ),
        (
            "dnat ip to ip daddr . tcp dport map { 10.9.0.1 . 80 : 10.9.0.9 . 81 }",
            led,
        ),
        ("dnat to ip daddr map { 10.9.0.2 : 10.9.0.9 }", other),
        (
            "dnat to numgen random mod 1 map { 0 : 10.9.0.9 }",
            to("10.9.0.9:80"),
        ),
        ("dnat to 10.9.0.9:81 fully-random", led),
        ("numgen inc mod 2 == 1 drop", Fate::Split),
        ("meta mark set 0x1 counter packets 0 bytes 0 jump m", Fate::Drop),
        ("meta mark set meta mark & 0xff | 0x00000001 goto m", Fate::Drop),
        ("ct mark set 0x00000001", other),
        ("queue to 1", Fate::Unknown),
    ] {
        let body = format!(
            "{}\n\tchain d {{\n\t\tdrop\n\t}}\n\tchain m {{\n\t\tmeta mark 0x00000001 drop\n\t}}",
            chain(rule)
        );
        assert_eq!(by_nft(&body), expected, "{rule}");
    }
}

/// By chance in each language, and what is left over.
#[test]
fn chance_splits_what_ends_differently() {
    let half = |text: &str| {
        let verdict = read(text, Family::V4).unwrap().evaluate(&packet("10.9.0.1:80"));
        (verdict.fate, ways(&verdict))
    };
    let nat = |rule: &str| {
        format!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rule}\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n"
        )
    };
    let (passed, led) = (Fate::Direct, Fate::Redirect { port: 1 });
    for (rule, expected) in [
        (
            "-m statistic --mode random --probability 0.25000000000 -j RETURN",
            vec![(25, passed), (75, led)],
        ),
        (
            "-m statistic --mode nth --every 4 --packet 0 -j RETURN",
            vec![(25, passed), (75, led)],
        ),
        (
            "-m statistic --mode random ! --probability 0.25000000000 -j RETURN",
            vec![(75, passed), (25, led)],
        ),
        (
            "-p tcp -j DNAT --to-destination 10.9.0.8-10.9.0.9",
            vec![(50, to("10.9.0.8:80")), (50, to("10.9.0.9:80"))],
        ),
    ] {
        assert_eq!(half(&nat(rule)), (Fate::Split, expected), "{rule}");
    }
    // What comes to the same is the same, and what never happens does not.
    for rule in [
        "-m statistic --mode random --probability 0.25000000000 -j LOG",
        "-m statistic --mode random --probability 0.00000000000 -j DROP",
        "-p udp -m statistic --mode random --probability 0.25000000000 -j DROP",
    ] {
        assert_eq!(half(&nat(rule)), (led, vec![]), "{rule}");
    }
    let text = "table ip t {\n\tchain out {\n\t\ttype nat hook output priority -100; policy accept;\n\t\t\
                numgen random mod 10 vmap { 0-6 : drop, 7 : accept }\n\t\tmeta l4proto tcp redirect to :1\n\t}\n}\n";
    assert_eq!(
        half(text),
        (Fate::Split, vec![(70, Fate::Drop), (10, passed), (20, led)])
    );
}

#[test]
fn sets_are_known_where_their_members_are() {
    let nat = |rule: &str, sets: &str| {
        let text = format!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rule} -j RETURN\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n{sets}"
        );
        read(&text, Family::V4)
            .unwrap()
            .evaluate(&packet("10.9.0.1:80"))
            .fate
    };
    let sets = "\
create nets hash:net family inet hashsize 1024 maxelem 65536
add nets 10.9.0.0/24
add nets 10.8.0.1
create ports hash:ip,port family inet
add ports 10.9.0.1,tcp:80
add ports 10.9.0.1,udp:81
create empty hash:ip family inet
create while hash:ip family inet timeout 60
add while 10.9.0.1 timeout 59
create all list:set size 8
add all empty
add all nets
create wires hash:net,iface family inet
add wires 10.0.0.0/8,eth0
";
    let (passed, led) = (Fate::Direct, Fate::Redirect { port: 1 });
    for (rule, expected) in [
        ("-m set --match-set nets dst", passed),
        ("-m set ! --match-set nets dst", led),
        ("-m set --match-set nets src", led),
        ("-p tcp -m set --match-set ports dst,dst", passed),
        ("-p tcp -m set --match-set ports dst,src", led),
        ("-m set --match-set empty dst", led),
        ("-m set --match-set all dst", passed),
        ("-m set --match-set wires dst,dst", passed),
        ("-m set --match-set wires dst,src", led),
        ("-m set --match-set while dst", Fate::Unknown),
        ("-m set --match-set missing dst", Fate::Unknown),
        ("-m set --match-set nets dst --return-nomatch", Fate::Unknown),
    ] {
        assert_eq!(nat(rule, sets), expected, "{rule}");
    }
    assert_eq!(nat("-m set --match-set nets dst", ""), Fate::Unknown);
}

#[test]
fn a_dump_tells_addresses_where_they_are_in_it() {
    let text = format!(
        "{DOCKER}1: lo: <LOOPBACK,UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
2: eth0@if7: <BROADCAST,UP> mtu 1500 qdisc noqueue state UP group default
    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff link-netnsid 0
    inet 10.1.0.9/16 brd 10.1.255.255 scope global eth0
    inet6 fd00::9/64 scope global
3: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0\\       valid_lft forever
"
    );
    assert!(read(&text, Family::V4).is_ok());
    let told: Vec<_> = addresses(&text)
        .into_iter()
        .map(|(device, net)| format!("{device} {net}"))
        .collect();
    assert_eq!(
        told,
        [
            "lo 127.0.0.1/8",
            "eth0 10.1.0.9/16",
            "eth0 fd00::9/64",
            "docker0 172.17.0.1/16"
        ]
    );
    assert!(addresses(DOCKER).is_empty());
}
