//! An endpoint dies while requests run, all settings at their defaults: no idempotent request fails.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use e2e::http::{Client, Failure};
use e2e::manifests::Port;
use e2e::{Account, Mesh, Pod, Program, RunAs, eventually, steady_over};

const REQUESTS_A_SECOND: u32 = 200;
/// So few that all may wait for the dead endpoint, and so many that requests go on coming while others wait.
const CONNECTIONS: [u32; 2] = [8, 400];
/// How long the load runs before the death.
const BEFORE: Duration = Duration::from_secs(3);

/// A server that takes 20 ms for each answer, its own name: some requests are always under way.
const SLOW_SERVER: &str = "require('http').createServer((request, response) => \
    setTimeout(() => response.end(process.argv[1]), 20)).listen(8080, '::')";

/// A server that tells of each request and cuts its answer after the first half.
const CUTTING_SERVER: &str = "require('http').createServer((request, response) => { \
    console.log('asked'); response.writeHead(200, {'content-length': 10}); \
    response.write('half.', () => response.destroy()); }).listen(8080, '::')";

fn slow_server(pod: &Pod) -> Result<Program> {
    let program = pod.start(RunAs::Application, "node", ["-e", SLOW_SERVER, &pod.name])?;
    pod.wait_listening(8080)?;
    Ok(program)
}

/// Runs the load on three endpoints; `die` is what happens in the middle to the third, or to the last two, and
/// the load runs for `after` from then on.
fn run(
    connections: u32,
    after: Duration,
    die: impl FnOnce(&Mesh, &[Pod; 3], &mut [Program]) -> Result<()>,
) -> Result<()> {
    let mesh = Mesh::create()?;
    let pods = [
        mesh.pod("a", "web")?,
        mesh.pod("b", "web")?,
        mesh.pod("c", "web")?,
    ];
    let mut programs: Vec<Program> = pods.iter().map(slow_server).collect::<Result<_>>()?;
    let ports = [Port::new("http", 80, 8080)];
    let addresses = mesh.service("web", 10, &ports, &pods.each_ref())?;
    let (client, sidecar) = mesh.client()?;
    let vip = SocketAddr::new(addresses[0], 80);
    let rate = REQUESTS_A_SECOND;
    let (account, died) = steady_over(connections, &client, vip, "/", rate, || -> Result<()> {
        thread::sleep(BEFORE);
        die(&mesh, &pods, &mut programs)?;
        thread::sleep(after);
        Ok(())
    });
    died?;
    nothing_failed(&account, &sidecar.proxy.said());
    // All three had their part before; the survivors had most of the third's afterwards.
    assert!(account.answered.len() == 3, "{account:?}");
    assert!(account.answered["c"] < account.answered["a"], "{account:?}");
    Ok(())
}

fn nothing_failed(account: &Account, log: &str) {
    let failures: Vec<&str> = log.lines().filter(|line| !line.contains(" 200 ")).collect();
    assert!(
        account.failed.is_empty() && account.cut == 0,
        "{account:?}\nthe proxy said, but for successes:\n{}",
        failures.join("\n")
    );
    assert!(account.total() > 100, "hardly a load: {account:?}");
}

#[test]
fn a_killed_endpoint_costs_no_request() -> Result<()> {
    CONNECTIONS.into_iter().try_for_each(|connections| {
        run(connections, Duration::from_secs(3), |_, _, programs| {
            programs[2].kill();
            Ok(())
        })
    })
}

/// Nobody tells the proxy of a cut link. What was sent and is not acknowledged tells, and of requests that
/// the endpoint had already, a probe that is not answered.
#[test]
fn an_endpoint_whose_link_is_cut_costs_no_request() -> Result<()> {
    CONNECTIONS.into_iter().try_for_each(|connections| {
        run(connections, Duration::from_secs(9), |mesh, pods, _| {
            mesh.net.cut(&pods[2])
        })
    })
}

/// As a node does that dies with two of the three: a request may meet one after the other.
#[test]
fn two_endpoints_cut_off_at_once_cost_no_request() -> Result<()> {
    run(CONNECTIONS[0], Duration::from_secs(15), |mesh, pods, _| {
        mesh.net.cut(&pods[1])?;
        mesh.net.cut(&pods[2])
    })
}

#[test]
fn an_answer_cut_after_its_first_byte_is_cut_for_the_client_too_and_never_retried() -> Result<()> {
    let mesh = Mesh::create()?;
    let pods = [mesh.pod("a", "web")?, mesh.pod("b", "web")?];
    let mut programs = Vec::new();
    for pod in &pods {
        programs.push(pod.start(RunAs::Application, "node", ["-e", CUTTING_SERVER])?);
        pod.wait_listening(8080)?;
    }
    let vips = mesh.service("web", 10, &[Port::new("http", 80, 8080)], &pods.each_ref())?;
    let (client, sidecar) = mesh.client()?;
    for number in 1..=4 {
        let mut connection = Client::connect(&client, SocketAddr::new(vips[0], 80))?;
        let answer = connection.get("web", "/");
        assert!(
            matches!(answer, Err(Failure::Cut(_))),
            "{answer:?}\n{}",
            sidecar.proxy.said()
        );
        let asked = || -> usize {
            let count = |program: &Program| program.said().lines().filter(|&line| line == "asked").count();
            programs.iter().map(count).sum()
        };
        eventually("the request to be told of", || (asked() >= number).then_some(()))?;
        assert_eq!(asked(), number, "a request was retried");
    }
    Ok(())
}
