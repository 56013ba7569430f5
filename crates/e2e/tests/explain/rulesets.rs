//! Rule sets like those of others, and rules with one match or statement each, for the kernel.

/// As kube-proxy writes them: a service of three endpoints, one of one, one of none, a node port.
pub(crate) const KUBE: &str = include_str!("../../../rules/tests/rulesets/kube-proxy.iptables");

/// The same in nftables.
pub(crate) const KUBE_NFT: &str = include_str!("../../../rules/tests/rulesets/kube-proxy.nft");

/// A machine with Docker, and a published port.
pub(crate) const DOCKER: &str = include_str!("../../../rules/tests/rulesets/docker.iptables");

/// A pod of Linkerd's.
pub(crate) const LINKERD: &str = include_str!("../../../rules/tests/rulesets/linkerd.iptables");

/// For `ipset restore`.
pub(crate) const SETS: &str = "\
create nets hash:net family inet
add nets 10.96.0.0/24
add nets 172.17.0.1
create services hash:ip,port family inet
add services 10.96.0.1,tcp:80
add services 192.0.2.7,udp:81
create lists list:set
add lists nets
";

/// Each in OUTPUT of nat, in front of a REDIRECT to port 4140; the chain ELSE sends TCP to 10.244.0.1:81.
pub(crate) const IPTABLES: &[&str] = &[
    "-p tcp -j DNAT --to-destination 10.244.0.1:81",
    "-p tcp -j DNAT --to-destination 10.244.0.1",
    "-d 10.96.0.1/32 -p tcp -j DNAT --to-destination 10.244.0.1-10.244.0.2",
    "-p tcp -m addrtype --dst-type LOCAL -j ELSE",
    "-p tcp -m addrtype ! --dst-type LOCAL -j ELSE",
    "-p tcp -m addrtype --src-type LOCAL --dst-type UNICAST -j ELSE",
    "-m iprange --dst-range 10.96.0.0-10.96.0.9 -j ELSE",
    "-m iprange ! --src-range 172.17.0.0-172.17.0.9 -j ELSE",
    "-p tcp -m multiport --dports 80,100:200 -j ELSE",
    "-p tcp -m multiport --ports 81 -j ELSE",
    "-p tcp -m multiport ! --sports 1:1000 -j ELSE",
    "-m owner --uid-owner 2102 -j ELSE",
    "-m owner --socket-exists -j ELSE",
    "-m set --match-set nets dst -j ELSE",
    "-m set ! --match-set nets dst -j ELSE",
    "-p tcp -m set --match-set services dst,dst -j ELSE",
    "-m set --match-set lists dst -j ELSE",
    "-m conntrack --ctstate NEW -j ELSE",
    "-m conntrack ! --ctstate NEW,RELATED -j ELSE",
    "-m conntrack --ctstate DNAT -j ELSE",
    "-m conntrack --ctorigdst 10.96.0.0/16 --ctorigdstport 80 -j ELSE",
    "-m state --state NEW -j ELSE",
    "-p tcp -m tcp --tcp-flags SYN,ACK SYN -j ELSE",
    "-p tcp -m tcp --tcp-flags ALL NONE -j ELSE",
    "-p tcp -m tcp ! --tcp-flags SYN,RST,ACK SYN -j ELSE",
    "-m recent --name seen --set -j ELSE",
    "-d 10.96.0.1/32 -m statistic --mode nth --every 3 --packet 0 -j ELSE",
    "-d 10.96.0.1/32 -m statistic --mode random --probability 0.5 -j RETURN",
    "-d 10.96.0.1/32 -j ACCEPT",
    "-d 192.0.2.7/32 -j RETURN",
];

/// Each in a chain of NAT that sees what is sent, in front of a redirect to port 4140; the chain `else` sends TCP to
/// 10.244.0.1:81, `some` is a set, `ways` and `none` are maps of verdicts.
pub(crate) const ALONE: &[&str] = &[
    "meta l4proto tcp dnat to 10.244.0.1:81",
    "meta l4proto tcp dnat to 10.244.0.1",
    "ip daddr 10.96.0.1 dnat to 10.244.0.1-10.244.0.2",
    "tcp dport 80 dnat ip to ip daddr map { 10.96.0.1 : 10.244.0.1, 172.17.0.1 : 10.244.0.2 }",
    "dnat ip to ip daddr . tcp dport map { 10.96.0.1 . 80 : 10.244.0.1 . 81 }",
    "ip daddr 10.96.0.1 meta l4proto tcp dnat to numgen random mod 3 map { 0 : 10.244.0.1, 1 : 10.244.0.2, 2 : 10.244.1.3 }",
    "ip daddr 10.96.0.1 numgen inc mod 2 vmap { 0 : jump else }",
    "ip daddr 10.96.0.1 numgen random mod 2 == 0 accept",
    "fib daddr type local jump else",
    "fib daddr type != local jump else",
    "ip daddr @some jump else",
    "ip daddr != @some jump else",
    "ip daddr vmap @ways",
    "ip daddr vmap @none",
    "ip daddr . tcp dport vmap { 10.96.0.1 . 80 : jump else, 192.0.2.7 . 1-100 : accept }",
    "ip daddr . meta l4proto . th dport vmap { 10.96.0.1 . tcp . 80 : jump else, 192.0.2.7 . udp . 81 : accept }",
    "tcp dport vmap { 80 : accept, 1-79 : jump else, 81 : jump else }",
    "oifname vmap { \"lo\" : accept, \"eth*\" : jump else }",
    "oifname { \"lo\", \"eth1\" } accept",
    "oif \"lo\" jump else",
    "meta skuid vmap { 2102 : accept, 0-99 : jump else }",
    "meta skuid { 1000, 1001 } jump else",
    "meta l4proto { tcp, udp } jump else",
    "meta l4proto != { tcp, udp } jump else",
    "tcp sport != { 1-1000 } jump else",
    "ip saddr . ip daddr { 172.17.0.1 . 172.17.0.1 } accept",
    "ct state vmap { new : jump else, invalid : drop }",
    "ct state { new, established } accept",
    "ct status dnat accept",
    "ct original ip daddr 10.96.0.1 jump else",
    "tcp flags & (syn | ack) == syn jump else",
    "tcp flags ! syn jump else",
    "tcp flags syn / syn,rst jump else",
    "meta mark set 0x5 meta mark vmap { 0x5 : jump else }",
    "meta mark set meta mark | 0x4000; meta mark & 0x4000 == 0x4000 jump else",
    "meta mark set 0xff; meta mark set meta mark & 0xf0 | 0x1; meta mark 0xf1 jump else",
    "meta mark set 0xff; meta mark set meta mark ^ 0xf; meta mark != 0xf0 accept",
    "ct mark set 0x7; meta mark set ct mark; meta mark 0x7 accept",
    "ct mark set 0x70; meta mark set ct mark & 0x30; meta mark 0x30 accept",
    "log prefix \"a b: \" level debug jump else",
    "ip daddr 10.96.0.1 continue",
    "icmp type echo-request drop",
    "udp dport 80 drop",
];
