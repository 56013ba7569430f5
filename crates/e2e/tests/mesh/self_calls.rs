//! The table of loops and self-calls: what an application or the proxy meets when it asks for itself, for
//! its service, for the proxy's own ports or for those of another pod.

use anyhow::{Context, Result};
use e2e::manifests::Port;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, RunAs, eventually, servers};

/// What a call comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome<'a> {
    /// The application answers, having seen the call come from this address.
    From(&'a str),
    /// Some server answers with success.
    Answered,
    /// A connection is reset at once; it may be seen before curl is done with connecting, or after.
    Closed,
    /// No connection: refused, or no way there.
    NoConnection,
}

/// A family's own spelling of everything that the table names.
struct Family<'a> {
    localhost: &'a str,
    /// The source address of the proxy's calls to its own application.
    passthrough: &'a str,
    own: String,
    service: String,
    other: String,
}

fn call(pod: &Pod, who: RunAs, host: &str, port: u16, path: &str, expected: Outcome<'_>) -> Result<()> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let url = format!("http://{host}:{port}{path}");
    // -g: brackets are part of the address. The time limit would be exit status 28.
    let said = pod.try_run(who, "curl", ["-gsSf", "--max-time", "15", &url])?;
    let status = said.status.code().context("curl was killed")?;
    let met = match (status, expected) {
        (0, Outcome::From(address)) => said.text().trim() == address,
        (0, Outcome::Answered) | (7 | 52 | 56, Outcome::Closed) | (7, Outcome::NoConnection) => true,
        _ => false,
    };
    assert!(
        met,
        "{who:?} -> {url}: expected {expected:?}, curl exited with {status}: {}{}",
        said.text(),
        said.errors()
    );
    Ok(())
}

/// Pods `me` and `other`, each with an application and a sidecar, and what the calls of both families come to.
#[test]
fn every_call_to_oneself_or_to_a_proxy_ends_as_the_table_says() -> Result<()> {
    let mesh = Mesh::create()?;
    let (me, other) = (mesh.pod("me", "mine")?, mesh.pod("other", "others")?);
    let mut running = Vec::new();
    for pod in [&me, &other] {
        let inside = "location / { return 200 $remote_addr; }";
        running.push(servers::nginx(pod, mesh.dir(), 8080, inside)?);
    }
    let ports = [Port::new("http", 80, 8080)];
    let mine = mesh.service("mine", 10, &ports, &[&me])?;
    mesh.service("others", 11, &ports, &[&other])?;
    let mut mine_sidecar = Sidecar::start(&me, &mesh.manifests)?;
    let mut other_sidecar = Sidecar::start(&other, &mesh.manifests)?;
    let families = [
        Family {
            localhost: "127.0.0.1",
            passthrough: "127.0.0.6",
            own: me.v4.to_string(),
            service: mine[0].to_string(),
            other: other.v4.to_string(),
        },
        Family {
            localhost: "::1",
            passthrough: "::6",
            own: me.v6.to_string(),
            service: mine[1].to_string(),
            other: other.v6.to_string(),
        },
    ];
    for family in &families {
        the_application_calls(&me, family)?;
        the_proxy_calls(&me, family)?;
    }
    for sidecar in [&mut mine_sidecar, &mut other_sidecar] {
        assert!(sidecar.proxy.ended().is_none(), "{}", sidecar.proxy.said());
        eventually("the log to name the loops", || {
            sidecar.proxy.said().contains(" LOOP ").then_some(())
        })?;
    }
    Ok(())
}

fn the_application_calls(me: &Pod, family: &Family<'_>) -> Result<()> {
    let call = |host: &str, port, path, expected| call(me, RunAs::Application, host, port, path, expected);
    // Itself: never through the proxy, but by its service's address.
    call(&family.own, 8080, "/", Outcome::From(&family.own))?;
    call(family.localhost, 8080, "/", Outcome::From(family.localhost))?;
    call(&family.service, 80, "/", Outcome::From(family.passthrough))?;
    // The proxy's own capture ports are no destination.
    for port in [15001, 15006] {
        call(&family.own, port, "/", Outcome::Closed)?;
        call(&family.other, port, "/", Outcome::Closed)?;
    }
    for port in [15001, 15006] {
        call(family.localhost, port, "/", Outcome::Closed)?;
    }
    // Another pod's operators' ports: what is for others answers, administration does not.
    call(&family.other, 15021, "/healthz/ready", Outcome::Answered)?;
    call(&family.other, 15020, "/metrics", Outcome::Answered)?;
    call(&family.other, 15000, "/", Outcome::Closed)?;
    // An ordinary call, by the other's sidecar.
    call(&family.other, 8080, "/", Outcome::From(family.passthrough))
}

fn the_proxy_calls(me: &Pod, family: &Family<'_>) -> Result<()> {
    let call = |host: &str, port, expected| call(me, RunAs::Proxy, host, port, "/", expected);
    // Outwards it is never captured: a service's address leads nowhere without capture.
    call(&family.service, 80, Outcome::NoConnection)?;
    call(&family.other, 8080, Outcome::From(family.passthrough))?;
    // To its own pod it is, as a call that came in: the hairpin of a service's endpoint.
    call(&family.own, 8080, Outcome::From(family.passthrough))?;
    call(family.localhost, 8080, Outcome::From(family.localhost))?;
    // Even asked for by itself, its capture ports lead nowhere.
    call(&family.own, 15001, Outcome::Closed)?;
    call(family.localhost, 15001, Outcome::Closed)
}
