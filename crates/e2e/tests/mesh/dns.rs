//! `weir proxy --dns` before a real resolver (unbound): names of the mesh by real clients, all others exactly as
//! the resolver itself answers them.

mod captured;
mod descriptors;
mod forwarding;
mod mark;
mod one_link;
mod queries;
mod recaptured;
mod shown;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, Program, RunAs};

/// What unbound knows. It knows of nothing else, so that nothing is asked of the world.
const ZONE: &str = r#"
local-zone: "." static
local-data: "db.example.com. 300 IN A 192.0.2.7"
local-data: "db.example.com. 300 IN AAAA 2001:db8::7"
local-data: 'db.example.com. 300 IN TXT "a text"'
local-data: "example.com. 300 IN MX 10 mail.example.com."
local-data: "mail.example.com. 300 IN A 192.0.2.8"
local-data: "_sip._udp.example.com. 300 IN SRV 1 2 5060 mail.example.com."
local-data: "www.example.com. 300 IN HTTPS 1 . alpn=h2"
local-data: "7.2.0.192.in-addr.arpa. 300 IN PTR db.example.com."
local-data: "odd.example.com. 300 IN TYPE65280 \# 4 01020304"
"#;

/// A mesh with a client whose proxy serves DNS, and a resolver behind it.
struct Town {
    mesh: Mesh,
    client: Pod,
    resolver: Pod,
    resolv_conf: PathBuf,
    _unbound: Program,
    sidecar: Sidecar,
}

/// How the proxy of a town is started.
struct TownWith<'a> {
    who: RunAs,
    arguments: &'a [&'a str],
}

impl Town {
    fn create() -> Result<Self> {
        Self::create_with(&TownWith {
            who: RunAs::Proxy,
            arguments: &[],
        })
    }

    fn create_with(with: &TownWith<'_>) -> Result<Self> {
        let mesh = Mesh::create()?;
        let resolver = mesh.net.pod("resolver")?;
        let long: String = (0..30)
            .map(|n| format!("local-data: 'long.example.com. 300 IN TXT \"text {n:060}\"'\n"))
            .collect();
        let unbound = e2e::servers::unbound(&resolver, mesh.dir(), &(ZONE.to_owned() + &long))?;
        services(&mesh)?;
        let resolv_conf = mesh.dir().join("resolv.conf");
        // A slow machine must not look like a resolver that does not answer.
        fs::write(
            &resolv_conf,
            format!("options timeout:30\nnameserver {}\n", resolver.v4),
        )?;
        e2e::servers::open_to_all(mesh.dir())?;
        let client = mesh.pod("client", "client")?;
        let file = resolv_conf.to_string_lossy();
        let arguments = [&["--dns", "--resolv-conf", &file], with.arguments].concat();
        let sidecar = Sidecar::proxy_as(with.who, &client, &mesh.manifests, &arguments)?;
        Ok(Self {
            mesh,
            client,
            resolver,
            resolv_conf,
            _unbound: unbound,
            sidecar,
        })
    }

    /// What dig says in short, asking the proxy; its lines sorted.
    fn dig(&self, arguments: &[&str]) -> Result<String> {
        let server = ["@127.0.0.1", "-p", "15053", "+short"];
        let finished = self
            .client
            .run_as(RunAs::Application, "dig", server.iter().chain(arguments))?;
        // Of several records each comes first in turn.
        let mut lines: Vec<_> = finished.text().lines().map(|line| format!("{line}\n")).collect();
        lines.sort_unstable();
        Ok(lines.concat())
    }
}

fn services(mesh: &Mesh) -> Result<()> {
    mesh.manifests.write(
        "dns.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: mesh}\n\
         spec: {clusterIPs: [10.96.0.1, 'fd00:96::1'], ipFamilies: [IPv4, IPv6], ports: [{name: http, port: 80}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: mesh}\n\
         spec: {type: ExternalName, externalName: db.example.com}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: pods, namespace: mesh}\n\
         spec: {clusterIP: None, ports: [{name: http, port: 8080}]}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: pods-1, namespace: mesh, labels: {kubernetes.io/service-name: pods}}\n\
         ports: [{name: http, port: 8080, protocol: TCP}]\n\
         endpoints:\n- {addresses: [10.77.9.2], hostname: pods-0, conditions: {ready: true}}\n\
         - {addresses: [10.77.9.3], conditions: {ready: true}}\n",
    )
}

#[test]
fn names_of_every_kind_by_dig() -> Result<()> {
    let town = Town::create()?;
    let table: &[(&[&str], &str)] = &[
        (&["wEb.Mesh"], "10.96.0.1\n"),
        (&["web", "AAAA"], "fd00:96::1\n"),
        (&["web.mesh.svc.cluster.local", "MX"], ""),
        (&["db.mesh", "CNAME"], "db.example.com.\n"),
        (&["db.mesh"], "192.0.2.7\ndb.example.com.\n"),
        (&["db.mesh", "AAAA"], "2001:db8::7\ndb.example.com.\n"),
        (&["db.mesh", "TXT"], "\"a text\"\ndb.example.com.\n"),
        (&["pods.mesh"], "10.77.9.2\n10.77.9.3\n"),
        (&["pods-0.pods.mesh"], "10.77.9.2\n"),
        (&["10-77-9-3.pods.mesh"], "10.77.9.3\n"),
        (&["-x", "10.96.0.1"], "web.mesh.svc.cluster.local.\n"),
        (&["-x", "fd00:96::1"], "web.mesh.svc.cluster.local.\n"),
        (&["-x", "10.77.9.2"], "pods-0.pods.mesh.svc.cluster.local.\n"),
        (&["-x", "192.0.2.7"], "db.example.com.\n"),
        (
            &["_http._tcp.web.mesh", "SRV"],
            "0 100 80 web.mesh.svc.cluster.local.\n",
        ),
        (&["example.com", "MX"], "10 mail.example.com.\n"),
    ];
    for (arguments, expected) in table {
        for transport in ["+notcp", "+tcp"] {
            let said = town.dig(&[&[transport], *arguments].concat())?;
            assert_eq!(&said, expected, "{transport} {arguments:?}");
        }
    }
    let whole = [
        "@::1",
        "-p",
        "15053",
        "web.mesh",
        "+noall",
        "+comments",
        "+answer",
    ];
    let six = town.client.run_as(RunAs::Application, "dig", whole)?.text();
    assert!(six.contains("NOERROR") && six.contains("10.96.0.1"), "{six}");
    for (name, status) in [
        ("none.pods.mesh.svc.cluster.local", "NXDOMAIN"),
        ("web.mesh", "NOERROR"),
    ] {
        let asked = ["@127.0.0.1", "-p", "15053", name, "MX"];
        let said = town.client.run_as(RunAs::Application, "dig", asked)?.text();
        assert!(said.contains(&format!("status: {status}")), "{said}");
    }
    Ok(())
}

#[test]
fn names_by_nodes_own_resolver() -> Result<()> {
    let town = Town::create()?;
    let script = "const {Resolver} = require('dns').promises; const r = new Resolver(); r.setServers(['127.0.0.1:15053']);\
        (async () => { for (const [how, name] of [['resolve4', 'web.mesh'], ['resolve6', 'web.mesh'], ['resolve4', 'db.mesh'],\
        ['resolveCname', 'db.mesh'], ['resolveSrv', '_http._tcp.web.mesh'], ['reverse', '10.96.0.1'], ['resolve4', 'pods-0.pods.mesh'],\
        ['resolveTxt', 'db.example.com']]) console.log(JSON.stringify(await r[how](name)));\
        await r.resolveMx('web.mesh').catch(e => console.log(e.code));\
        await r.resolve4('x.web.mesh.svc.cluster.local').catch(e => console.log(e.code)); })()";
    let said = town
        .client
        .run_as(RunAs::Application, "node", ["-e", script])?
        .text();
    let expected = [
        r#"["10.96.0.1"]"#,
        r#"["fd00:96::1"]"#,
        r#"["192.0.2.7"]"#,
        r#"["db.example.com"]"#,
        r#"[{"name":"web.mesh.svc.cluster.local","port":80,"priority":0,"weight":100}]"#,
        r#"["web.mesh.svc.cluster.local"]"#,
        r#"["10.77.9.2"]"#,
        r#"[["a text"]]"#,
        "ENODATA",
        "ENOTFOUND",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    Ok(())
}
