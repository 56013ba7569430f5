//! What is wrong where rules do as they should: manifests, endpoints, families, names, routes, the proxy itself.

use e2e::{RunAs, servers};

use super::{NOTHING, SIDECAR, SetUp, TO_WEB, WEB, set_up, shown};

pub(super) const ALL: &[SetUp] = &[
    shown(
        "A mistyped port name",
        set_up(
            "a mistyped port name",
            SIDECAR,
            NOTHING,
            Some(("http://10.96.0.5/", "200")),
            "--to odd.mesh:80 --family 4",
            (
                0,
                "",
                &[
                    "the port name `htpp` declares no protocol",
                    "whichever side speaks first",
                ],
            ),
        ),
    ),
    set_up(
        "the port has another name in the EndpointSlice",
        SIDECAR,
        NOTHING,
        Some(("http://10.96.0.6/", "503")),
        "--to misnamed.mesh:80 --family 4",
        (
            1,
            "registry",
            &[
                "the port 80 (http) of misnamed.mesh",
                "while port 9090 (metrics) has",
            ],
        ),
    ),
    shown(
        "No endpoints",
        set_up(
            "no endpoints",
            SIDECAR,
            NOTHING,
            Some(("http://10.96.0.3/", "503")),
            "--to empty.mesh:80 --family 4",
            (1, "registry", &["has no endpoint for port 80", "selector"]),
        ),
    ),
    shown(
        "Endpoints that are not ready",
        set_up(
            "endpoints that are not ready",
            SIDECAR,
            NOTHING,
            Some(("http://10.96.0.2/", "503")),
            "--to unready.mesh:80 --family 4",
            (
                1,
                "endpoint",
                &["none of the 2 endpoints", "not ready", "readiness probes"],
            ),
        ),
    ),
    set_up(
        "every endpoint is ejected",
        SIDECAR,
        |world| {
            for _ in 0..3 {
                world.curl("http://10.96.0.4/")?;
            }
            Ok(())
        },
        Some(("http://10.96.0.4/", "503")),
        "--to dead.mesh:80 --family 4",
        (1, "endpoint", &["ejected for", "failed 3 times in a row"]),
    ),
    shown(
        "An endpoint that refuses",
        set_up(
            "an endpoint that refuses, called",
            SIDECAR,
            NOTHING,
            Some(("http://10.96.0.4/", "503")),
            "--to dead.mesh:80 --family 4 --probe",
            (
                1,
                "endpoint",
                &["10.77.0.1:9 refuses the connection", "nobody listens there"],
            ),
        ),
    ),
    set_up(
        "a service without an address",
        SIDECAR,
        NOTHING,
        None,
        "--to nowhere.mesh:80",
        (1, "rules", &["has no ClusterIP", "which its own DNS tells"]),
    ),
    set_up(
        "a mistyped host",
        SIDECAR,
        NOTHING,
        None,
        "--to wbe.mesh:80",
        (
            1,
            "registry",
            &["no service of the registry has the name wbe.mesh", "web.mesh"],
        ),
    ),
    set_up(
        "a port that the service does not have",
        SIDECAR,
        NOTHING,
        Some(("http://10.96.0.1:81/", "curl 7|curl 52|curl 56")),
        "--to web.mesh:81 --family 4",
        (
            1,
            "client",
            &["web.mesh.svc.cluster.local has no port 81: it has 80"],
        ),
    ),
    set_up(
        "the proxy's own port",
        SIDECAR,
        NOTHING,
        Some(("http://10.77.0.3:15001/", "curl 7|curl 52|curl 56")),
        "--to 10.77.0.3:15001",
        (1, "client", &["10.77.0.3:15001 is the proxy's own port"]),
    ),
    shown(
        "IPv6 is not captured",
        set_up(
            "IPv6 is not captured",
            "--sidecar --families ipv4",
            NOTHING,
            Some(("http://[fd00:96::1]/", "curl 7|curl 28")),
            "--to web.mesh:80 --family 6",
            (
                1,
                "rules",
                &["no rule captures IPv6 here, while IPv4 is captured"],
            ),
        ),
    ),
    set_up(
        "no rule at all",
        "",
        NOTHING,
        Some((WEB, "curl 7|curl 28")),
        TO_WEB,
        (1, "rules", &["no rule of this namespace captures anything"]),
    ),
    set_up(
        "no rule at all, and nothing of the mesh",
        "",
        NOTHING,
        None,
        "--to 192.0.2.9:80",
        (
            0,
            "",
            &[
                "\"outcome\": \"passes\"",
                "whether 192.0.2.9:80 answers was not tried",
            ],
        ),
    ),
    shown(
        "DNS goes past the proxy",
        set_up(
            "DNS goes past the proxy",
            SIDECAR,
            NOTHING,
            None,
            "--to 10.96.0.53:53 --proto udp",
            (
                1,
                "rules",
                &["the proxy serves DNS at 127.0.0.1:15053, and no rule leads queries there"],
            ),
        ),
    ),
    set_up(
        "DNS goes to the proxy",
        "--sidecar --redirect-dns --capture-all-dns",
        NOTHING,
        None,
        "--to 10.96.0.53:53 --proto udp",
        (0, "", &["the proxy's DNS on port 15053 answers"]),
    ),
    set_up(
        "an excluded port, inbound, where nobody listens",
        "--sidecar -d 9091",
        NOTHING,
        None,
        "--in --to 10.77.0.3:9091",
        (
            1,
            "endpoint",
            &["no process of this namespace listens at 10.77.0.3:9091"],
        ),
    ),
    set_up(
        "a foreign DROP of what comes in",
        SIDECAR,
        |world| world.run("iptables-nft -A INPUT -p tcp --dport 15006 -j DROP"),
        None,
        "--in --to 10.77.0.3:8080",
        (1, "rules", &["INPUT 1", "--dport 15006 -j DROP"]),
    ),
    set_up(
        "the policy route of TPROXY is lost",
        "--sidecar -m TPROXY",
        |world| {
            world.run("ip rule del fwmark 1337")?;
            world.run("ip -6 rule del fwmark 1337")
        },
        None,
        "--in --to 10.77.0.3:8080",
        (1, "rules", &["the policy route of TPROXY is gone"]),
    ),
    set_up(
        "the application does not listen, and calls itself by its own address",
        SIDECAR,
        NOTHING,
        None,
        "--to 10.77.0.3:8080 --uid 1337",
        (
            1,
            "endpoint",
            &["no process of this namespace listens at 10.77.0.3:8080"],
        ),
    ),
    set_up(
        "the proxy calls its own workload",
        SIDECAR,
        |world| {
            let inside = "location / { return 200 self; }";
            let nginx = servers::nginx(&world.client, world.mesh.dir(), 8080, inside)?;
            world.helpers.push(nginx);
            Ok(())
        },
        Some(("proxy http://10.77.0.3:8080/", "200")),
        "--to 10.77.0.3:8080 --uid 1337",
        (
            0,
            "",
            &[
                "proxy calls its own workload: inbound",
                "the application at 10.77.0.3:8080",
            ],
        ),
    ),
    set_up(
        "no route",
        SIDECAR,
        |world| {
            world.helpers.clear();
            world.run("ip -6 route del default")
        },
        Some(("http://[fd00:96::1]/", "curl 7|curl 28")),
        "--to web.mesh:80 --family 6",
        (1, "client", &["there is no route to fd00:96::1"]),
    ),
    set_up(
        "a destination that no service owns, and registry-only",
        SIDECAR,
        |world| {
            let text = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata:\n  name: mesh\nspec:\n  outboundPolicy: registry-only\n";
            world.mesh.manifests.write("config.yaml", text)
        },
        None,
        "--to 192.0.2.7:80",
        (
            1,
            "registry",
            &["no service owns 192.0.2.7:80, and outboundPolicy is registry-only"],
        ),
    ),
    shown(
        "The proxy is dead",
        set_up(
            "the proxy is dead",
            SIDECAR,
            |world| {
                world.kill_proxy();
                Ok(())
            },
            Some((WEB, "curl 7|curl 28")),
            "--to web.mesh:80",
            (1, "proxy", &["the proxy does not listen at 127.0.0.1:15001"]),
        ),
    ),
    set_up(
        "somebody else on the proxy's port tells nothing",
        SIDECAR,
        |world| {
            let listen = "TCP-LISTEN:15001,reuseaddr,fork";
            let socat = world
                .client
                .start(RunAs::Application, "socat", [listen, "PIPE"])?;
            world.helpers.push(socat);
            world.client.wait_listening(15001)
        },
        None,
        "--to 10.96.0.1:80",
        (3, "registry", &["what the proxy then does is not known"]),
    ),
];
