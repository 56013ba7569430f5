//! The table: how it is broken, what a client feels, what `weir explain` must say.

mod mesh;

use anyhow::Result;

use super::world::World;

#[derive(Clone, Copy)]
pub(crate) struct SetUp {
    pub(crate) name: &'static str,
    /// The words of `weir init`, first of all.
    pub(crate) init: &'static str,
    /// What is broken then.
    pub(crate) make: fn(&mut World) -> Result<()>,
    /// The words of curl, and how it ends.
    pub(crate) felt: Option<(&'static str, &'static str)>,
    /// The words of `weir explain`.
    pub(crate) explain: &'static str,
    /// Its exit status, the side that it blames, and what must be named.
    pub(crate) explained: (i32, &'static str, &'static [&'static str]),
    /// The heading of its transcript in the documentation, where it has one.
    pub(crate) transcript: Option<&'static str>,
}

const NOTHING: fn(&mut World) -> Result<()> = |_| Ok(());
const SIDECAR: &str = "--sidecar";
const BY_IPTABLES: &str = "--sidecar --backend iptables-nft";
/// Of the service `web`: curl goes to its address as if DNS had said it.
const WEB: &str = "http://10.96.0.1/";
const TO_WEB: &str = "--to web.mesh:80 --family 4";

const fn set_up(
    name: &'static str,
    init: &'static str,
    make: fn(&mut World) -> Result<()>,
    felt: Option<(&'static str, &'static str)>,
    explain: &'static str,
    explained: (i32, &'static str, &'static [&'static str]),
) -> SetUp {
    SetUp {
        name,
        init,
        make,
        felt,
        explain,
        explained,
        transcript: None,
    }
}

const fn shown(title: &'static str, set_up: SetUp) -> SetUp {
    SetUp {
        transcript: Some(title),
        ..set_up
    }
}

/// Two-way UDP flows between addresses of loopback, until there is room for no more: the kernel gives up those that
/// were not answered twice.
const FILL: &str = r"
import socket, struct, time
proc = '/proc/sys/net/netfilter/nf_conntrack_'
for name in ('udp_timeout', 'udp_timeout_stream'):
    open(proc + name, 'w').write('600')
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 7))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(('0.0.0.0', 40000))
for one in (server, client):
    one.settimeout(0.2)
limit = int(open(proc + 'max').read())
for turn in range(2):
    for start in range(0, limit, 64):
        for number in range(start, min(start + 64, limit)):
            source = struct.pack('=i4s4s', 0, struct.pack('>I', 0x7f010000 + number), bytes(4))
            try:
                client.sendmsg([b'x'], [(socket.IPPROTO_IP, 8, source)], 0, ('127.0.0.1', 7))
                data, peer = server.recvfrom(1)
                server.sendto(data, peer)
                client.recv(1)
            except OSError:
                # There is room for no more.
                pass
    time.sleep(2)
";

/// Not among [`ALL`]: it takes long, and needs a kernel whose table is not too large.
pub(crate) const CONNTRACK_FULL: SetUp = shown(
    "The table of connections is full",
    set_up(
        "the table of connections is full",
        SIDECAR,
        |world| {
            world.helpers.clear();
            world.start_proxy()?;
            world.client.run("python3", ["-c", FILL]).map(drop)
        },
        Some((WEB, "curl 28")),
        "--to web.mesh:80 --family 4",
        (1, "rules", &["conntrack has"]),
    ),
);

/// Every one, in the order in which they are tried.
pub(crate) fn all() -> impl Iterator<Item = &'static SetUp> {
    RULES.iter().chain(mesh::ALL)
}

/// Rules of others, and whom and what the rules leave alone.
const RULES: &[SetUp] = &[
    set_up(
        "nothing is broken",
        SIDECAR,
        NOTHING,
        Some((WEB, "200")),
        TO_WEB,
        (
            0,
            "",
            &[
                "everything else",
                "each in turn",
                "outbound|80||web.mesh",
                "port name `http`",
            ],
        ),
    ),
    set_up(
        "rules in legacy iptables alone, where nft shows none",
        "--sidecar --backend iptables-legacy",
        NOTHING,
        Some((WEB, "200")),
        TO_WEB,
        (0, "", &["iptables-legacy"]),
    ),
    shown(
        "A foreign DROP",
        set_up(
            "a foreign DROP",
            SIDECAR,
            |world| world.run("iptables-nft -A OUTPUT -m owner --uid-owner 1000 -j DROP"),
            Some((WEB, "curl 28")),
            TO_WEB,
            (
                1,
                "rules",
                &[
                    "-m owner --uid-owner 1000 -j DROP",
                    "`nsenter --net=/",
                    " iptables-nft -t filter -D OUTPUT 1`",
                ],
            ),
        ),
    ),
    set_up(
        "a foreign REJECT on the proxy's way to the endpoints",
        SIDECAR,
        |world| world.run("iptables-nft -A OUTPUT -d 10.77.0.0/16 -p tcp --dport 8080 -j REJECT"),
        Some((WEB, "503")),
        TO_WEB,
        (1, "rules", &["what the proxy sends to 10.77.0.", "-j REJECT"]),
    ),
    set_up(
        "a foreign DROP of what the endpoints answer",
        SIDECAR,
        |world| world.run("iptables-nft -A INPUT -p tcp --sport 8080 -j DROP"),
        Some((WEB, "503|curl 28")),
        TO_WEB,
        (
            1,
            "rules",
            &[
                "a rule drops what 10.77.0.",
                ":8080 answers",
                "--sport 8080 -j DROP",
            ],
        ),
    ),
    set_up(
        "a foreign ACCEPT in front",
        BY_IPTABLES,
        |world| world.run("iptables-nft -t nat -I OUTPUT -p tcp --dport 80 -j ACCEPT"),
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (
            1,
            "rules",
            &["in front of those that capture", "nat OUTPUT 1", "-D OUTPUT 1"],
        ),
    ),
    set_up(
        "a foreign RETURN in front, in legacy iptables",
        "--sidecar --backend iptables-legacy",
        |world| world.run("iptables-legacy -t nat -I OUTPUT -d 10.96.0.0/16 -j RETURN"),
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (
            1,
            "rules",
            &["in front of those that capture", "iptables-legacy nat OUTPUT 1"],
        ),
    ),
    set_up(
        "a foreign ACCEPT in front in another back-end, which changes nothing",
        SIDECAR,
        |world| world.run("iptables-legacy -t nat -I OUTPUT -p tcp --dport 80 -j ACCEPT"),
        Some((WEB, "200")),
        TO_WEB,
        (0, "", &["inet weir nat-output"]),
    ),
    set_up(
        "a foreign table that drops what it does not know",
        SIDECAR,
        |world| {
            world.nft(
                "table inet firewall { chain out { type filter hook output priority 10; policy drop; \
                 udp dport 53 accept; }; }",
            )
        },
        Some((WEB, "curl 28")),
        TO_WEB,
        (1, "rules", &["nft inet firewall out drops"]),
    ),
    set_up(
        "a foreign REDIRECT to nobody",
        BY_IPTABLES,
        |world| world.run("iptables-nft -t nat -I OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 9999"),
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (1, "rules", &["port 9999, where nobody listens", "not Weir's"]),
    ),
    set_up(
        "a match that nobody can know beforehand",
        BY_IPTABLES,
        |world| world.run("iptables-nft -t nat -I OUTPUT -p tcp -m recent --name seen --rcheck -j ACCEPT"),
        None,
        TO_WEB,
        (3, "rules", &["recent", "is not known here", "--trace"]),
    ),
    set_up(
        "a rule that lets some pass by chance",
        BY_IPTABLES,
        |world| {
            world.run(
                "iptables-nft -t nat -I OUTPUT -p tcp -m statistic --mode random --probability 0.25 -j ACCEPT",
            )
        },
        None,
        TO_WEB,
        (
            1,
            "rules",
            &[
                "25 % of connections: it goes past the proxy",
                "75 %: by the proxy to",
                "-D OUTPUT 1",
            ],
        ),
    ),
    set_up(
        "a foreign DNAT in front",
        BY_IPTABLES,
        |world| {
            world.run(
                "iptables-nft -t nat -I OUTPUT -d 10.96.0.1 -p tcp -j DNAT --to-destination 10.77.0.1:8080",
            )
        },
        Some((WEB, "200")),
        TO_WEB,
        (
            1,
            "rules",
            &[
                "it is sent to 10.77.0.1:8080 instead, past the proxy",
                "-D OUTPUT 1",
            ],
        ),
    ),
    set_up(
        "a map of verdicts that drops",
        SIDECAR,
        |world| {
            world.nft(
                "table inet firewall { map fates { type inet_service : verdict; elements = { 15001 : drop }; }; \
                 chain out { type filter hook output priority 10; tcp dport vmap @fates; }; }",
            )
        },
        Some((WEB, "curl 28")),
        TO_WEB,
        (
            1,
            "rules",
            &[
                "nft inet firewall out 1: tcp dport vmap @fates",
                "waits until it times out",
            ],
        ),
    ),
    set_up(
        "a set of addresses that are dropped",
        SIDECAR,
        |world| {
            world.run("ipset create forbidden hash:net")?;
            world.run("ipset add forbidden 10.77.0.0/24")?;
            world.run("iptables-nft -A OUTPUT -m set --match-set forbidden dst -j DROP")
        },
        None,
        TO_WEB,
        (
            1,
            "rules",
            &[
                "what the proxy sends to 10.77.0.",
                "--match-set forbidden dst -j DROP",
            ],
        ),
    ),
    set_up(
        "two tables at one priority that decide differently",
        SIDECAR,
        |world| {
            world.nft(
                "table ip other { chain out { type nat hook output priority -100; \
                 meta skuid 1000 tcp dport 80 redirect to :9999; }; }",
            )
        },
        None,
        TO_WEB,
        (3, "rules", &["asked at the same priority"]),
    ),
    shown(
        "An excluded network",
        set_up(
            "an excluded network",
            "--sidecar -x 10.96.0.0/16",
            NOTHING,
            Some((WEB, "curl 7|curl 28")),
            TO_WEB,
            (1, "rules", &["in an excluded network", "-x"]),
        ),
    ),
    set_up(
        "an excluded port",
        "--sidecar -o 80",
        NOTHING,
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (1, "rules", &["port 80 is excluded", "-o"]),
    ),
    set_up(
        "a network that is not among the included ones",
        "-i 10.77.0.0/16 -b *",
        NOTHING,
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (
            1,
            "rules",
            &["is not among what the rules capture", "but it goes to 10.96.0.1"],
        ),
    ),
    shown(
        "The application runs as the proxy's user",
        set_up(
            "the application runs as the proxy's user",
            SIDECAR,
            NOTHING,
            Some(("proxy http://10.96.0.1/", "curl 7|curl 28")),
            "--to web.mesh:80 --family 4 --uid 1337",
            (
                1,
                "client",
                &["uid 1337, by which the rules recognise the proxy", "another uid"],
            ),
        ),
    ),
    set_up(
        "the application has the proxy's group",
        SIDECAR,
        NOTHING,
        None,
        "--to web.mesh:80 --family 4 --uid 1000 --gid 1337",
        (1, "client", &["gid 1337, by which the rules recognise the proxy"]),
    ),
    set_up(
        "the application's sockets have the proxy's mark",
        "--sidecar --proxy-mark 7",
        NOTHING,
        None,
        "--to web.mesh:80 --family 4 --mark 0x7",
        (1, "client", &["mark 0x7, by which the rules recognise the proxy"]),
    ),
    set_up(
        "the proxy runs as another user than the rules know",
        "--sidecar -u 1400 -g 1400",
        NOTHING,
        None,
        TO_WEB,
        (1, "proxy", &["the proxy runs as uid 1337", "captured again"]),
    ),
];
