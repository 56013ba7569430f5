//! The journey as a person sees it, on standard error.

use anyhow::Result;
use e2e::RunAs;

use crate::Laptop;

#[test]
fn it_tells_every_hop() -> Result<()> {
    let laptop = Laptop::create()?;
    let finished = laptop.run_with(
        RunAs::Application,
        &["--journey"],
        &["curl", "-4s", "http://web.mesh/"],
    )?;
    let told = finished.errors();
    for hop in [
        "→ 10.96.0.1:80  from 192.0.0.2:",
        "rule      nat WEIR_OUTPUT",
        "to port 15001",
        "listener  outbound, port 15001",
        "service   web.mesh.svc.cluster.local",
        "protocol  http, by port name",
        "cluster   outbound|80||web.mesh.svc.cluster.local",
        "request   1: GET web.mesh/",
        "route     ",
        "endpoint  10.77.0.",
        ":8080, one of 2",
        "connected in ",
        "answer    200 after ",
        "done      200, 0 B up, 5 B down in ",
    ] {
        assert!(told.contains(hop), "{hop} is not in\n{told}");
    }
    assert!(!told.contains('\x1b'), "no colour where there is no terminal");
    Ok(())
}
