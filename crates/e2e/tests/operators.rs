//! What operators rely on: health tells the truth, metrics are there, admin changes nothing for a web page
//! or a stray request, and SIGTERM drains.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, RunAs, eventually, mesh, servers, steady_over};
use model::ports::{ADMIN, HEALTH, METRICS};
use rustix::process::Signal;

/// Asks with curl, as root inside; gives the status and the body.
fn ask(pod: &Pod, arguments: &[&str]) -> Result<(u16, String)> {
    let mut all = vec!["-s", "-w", "\n%{http_code}"];
    all.extend(arguments);
    let said = pod.run("curl", all)?.text();
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

#[test]
fn admin_changes_nothing_for_a_page_or_a_stray_request() -> Result<()> {
    let mesh = Mesh::create()?;
    let (client, mut sidecar) = mesh.client()?;
    let drain = format!("http://127.0.0.1:{ADMIN}/drain");
    let refused: [(&[&str], u16); 5] = [
        (&[&drain], 405),
        (&["-X", "POST", "-H", "Host: example.com", &drain], 403),
        (
            &["-X", "POST", "-H", "Origin: http://127.0.0.1:15000", &drain],
            403,
        ),
        (&["-X", "PUT", &drain], 405),
        (&["-H", "Host: rebound.example", &drain], 403),
    ];
    for (arguments, wanted) in refused {
        let (status, body) = ask(&client, arguments)?;
        assert_eq!(status, wanted, "{arguments:?}: {body}");
    }
    let elsewhere = format!("http://{}:{ADMIN}/", client.v4);
    assert!(
        ask(&client, &[&elsewhere]).is_err(),
        "admin listens beyond loopback"
    );

    let logging = format!("http://localhost:{ADMIN}/logging");
    assert_eq!(ask(&client, &[&logging])?, (200, "info\n".to_owned()));
    assert_eq!(
        ask(&client, &["-X", "POST", &format!("{logging}?level=proxy=debug")])?.0,
        200
    );
    assert_eq!(ask(&client, &[&logging])?, (200, "proxy=debug\n".to_owned()));
    for (filter, told) in [
        ("proxy=loud", "write a level"),
        ("inof", "`inof` is no level, did you mean `info`?"),
        (
            "loud=info",
            "nothing logs as `loud`; the targets are weir, proxy, ",
        ),
    ] {
        let (status, body) = ask(&client, &["-X", "POST", &format!("{logging}?level={filter}")])?;
        assert!(status == 400 && body.contains(told), "{status} {body}");
    }
    assert_eq!(ask(&client, &[&logging])?, (200, "proxy=debug\n".to_owned()));

    let (status, body) = ask(&client, &[&format!("http://localhost:{ADMIN}/config_dump")])?;
    assert_eq!(status, 200);
    assert!(body.starts_with('{'), "{body}");
    let (_, listeners) = ask(&client, &[&format!("http://localhost:{ADMIN}/listeners")])?;
    assert!(
        listeners.contains("0.0.0.0:15001") && listeners.contains("[::]:15006"),
        "{listeners}"
    );
    assert!(sidecar.proxy.ended().is_none());
    Ok(())
}

#[test]
fn a_drain_by_admin_ends_the_proxy() -> Result<()> {
    let mesh = Mesh::create()?;
    let (client, mut sidecar) = mesh.client()?;
    let (status, body) = ask(
        &client,
        &["-X", "POST", &format!("http://127.0.0.1:{ADMIN}/drain")],
    )?;
    assert!(status == 200 && body.starts_with("draining"), "{status} {body}");
    assert!(sidecar.proxy.wait()?.success(), "{}", sidecar.proxy.said());
    Ok(())
}

fn gauge(text: &str, name: &str) -> Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name}"))?.parse()?)
}

#[test]
fn metrics_and_health_answer_on_every_address() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    let vips = mesh.service(
        "web",
        1,
        &[e2e::manifests::Port::new("http", 80, 8080)],
        &[&server],
    )?;
    let (client, _sidecar) = mesh.client()?;
    for address in mesh::at(vips, 80) {
        let got = client.run_as(RunAs::Application, "curl", ["-sf", &format!("http://{address}/")])?;
        assert_eq!(got.text(), "hello");
    }
    for address in client.at(HEALTH) {
        assert_eq!(
            ask(&server, &[&format!("http://{address}/healthz/ready")])?,
            (200, "ready\n".to_owned())
        );
        assert_eq!(ask(&server, &[&format!("http://{address}/healthz/live")])?.0, 200);
    }
    for address in client.at(METRICS) {
        let text = ask(&server, &[&format!("http://{address}/metrics")])?.1;
        assert!(text.ends_with("# EOF\n"), "{text}");
        let opened = text.lines().find(|line| {
            line.starts_with(
                "weir_connections_opened_total{direction=\"outbound\",cluster=\"outbound|80||web.",
            )
        });
        ensure!(opened.is_some_and(|line| line.ends_with(" 2")), "{text}");
        ensure!(text.contains("weir_build_info{version=\""), "{text}");
        // The redirected connection that was just made is one of them.
        ensure!(
            gauge(&text, "weir_conntrack_entries")? > 0 && gauge(&text, "weir_conntrack_limit")? > 0,
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn sigterm_lets_what_is_under_way_finish_and_still_accepts() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let vips = mesh.service(
        "web",
        1,
        &[e2e::manifests::Port::new("tcp-echo", 80, 8080)],
        &[&server],
    )?;
    let _echo = server.start(
        RunAs::Root,
        "socat",
        ["TCP4-LISTEN:8080,fork,reuseaddr", "EXEC:cat"],
    )?;
    server.wait_listening(8080)?;
    let (client, mut sidecar) = mesh.client()?;
    let [vip, _] = mesh::at(vips, 80);

    let echo = |stream: &mut TcpStream, text: &str| -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(text.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&mut *stream).read_line(&mut line)?;
        ensure!(line == text, "{line:?}");
        Ok(())
    };
    let mut early = client.dial(vip)?;
    echo(&mut early, "before\n")?;
    sidecar.proxy.signal(Signal::TERM)?;
    eventually("health to say that it drains", || {
        let answer = ask(&client, &[&format!("http://127.0.0.1:{HEALTH}/healthz/ready")]).ok()?;
        (answer == (503, "draining\n".to_owned())).then_some(())
    })?;
    echo(&mut early, "during\n")?;
    let mut late = client.dial(vip)?;
    echo(&mut late, "late\n")?;
    assert!(sidecar.proxy.ended().is_none(), "{}", sidecar.proxy.said());

    drop(late);
    early.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    early.read_to_end(&mut rest)?;
    drop(early);
    assert!(sidecar.proxy.wait()?.success(), "{}", sidecar.proxy.said());
    Ok(())
}

#[test]
fn what_keeps_a_proxy_from_starting_is_said() -> Result<()> {
    let mesh = Mesh::create()?;
    let (client, _sidecar) = mesh.client()?;
    let alone = mesh.pod("alone", "alone")?;
    let binary = e2e::weir::binary()?;
    let folder = mesh.manifests.path().to_string_lossy().into_owned();
    let table: [(&Pod, &[&str], [&str; 2]); 3] = [
        (
            &client,
            &["--manifests", &folder],
            ["is another proxy running", "[WEIR-PORT-IN-USE]"],
        ),
        (
            &alone,
            &["--manifests", "/nonexistent/mesh"],
            ["/nonexistent/mesh", "[WEIR-MANIFEST-FOLDER]"],
        ),
        (
            &alone,
            &["--manifests", &folder, "--mark", "7"],
            ["--mark needs CAP_NET_ADMIN", "[WEIR-PRIVILEGE]"],
        ),
    ];
    for (pod, arguments, said) in table {
        let arguments = [&["proxy"], arguments].concat();
        let failed = pod.try_run(RunAs::Proxy, &binary.to_string_lossy(), arguments)?;
        assert!(!failed.status.success());
        let errors = failed.errors();
        assert!(
            said.iter().all(|part| errors.contains(part)),
            "{said:?}: {errors}"
        );
    }
    Ok(())
}

#[test]
fn a_drain_tells_keep_alive_clients_to_close() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    let vips = mesh.service(
        "web",
        1,
        &[e2e::manifests::Port::new("http", 80, 8080)],
        &[&server],
    )?;
    let (client, mut sidecar) = mesh.client()?;
    let [vip, _] = mesh::at(vips, 80);
    let mut kept = e2e::http::Client::connect(&client, vip)?;
    let answer = kept
        .get("web", "/")
        .map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    // Within a request: the drain waits for it, however slow this test is.
    let mut busy = client.dial(vip)?;
    busy.write_all(b"GET / HTTP/1.1\r\n")?;

    sidecar.proxy.signal(Signal::TERM)?;
    eventually("health to say that it drains", || {
        let answer = ask(&client, &[&format!("http://127.0.0.1:{HEALTH}/healthz/ready")]).ok()?;
        (answer.0 == 503).then_some(())
    })?;
    // It had no request under way when the drain began, and may have the next one: then it is told to close.
    let answer = kept
        .get("web", "/")
        .map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(busy);
    assert!(sidecar.proxy.wait()?.success(), "{}", sidecar.proxy.said());
    Ok(())
}

/// A pod is taken down while its application is busy: Kubernetes tells the application and the sidecar at
/// the same time.
#[test]
fn a_drain_under_load_costs_no_request() -> Result<()> {
    /// Eight busy connections, or four hundred that are idle most of the time.
    const CONNECTIONS: [u32; 2] = [8, 400];
    const RATE: u32 = 250;
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    let ports = [e2e::manifests::Port::new("http", 80, 8080)];
    let vips = mesh.service("web", 1, &ports, &[&server])?;
    let [vip, _] = mesh::at(vips, 80);
    for (number, connections) in CONNECTIONS.into_iter().enumerate() {
        let pod = mesh.pod(&format!("client-{number}"), "client")?;
        let mut sidecar = Sidecar::start(&pod, &mesh.manifests)?;
        let (account, during) = steady_over(connections, &pod, vip, "/", RATE, || -> Result<()> {
            thread::sleep(Duration::from_secs(3));
            sidecar.proxy.signal(Signal::TERM)?;
            thread::sleep(Duration::from_secs(4));
            ensure!(sidecar.proxy.ended().is_none(), "it ended under load");
            Ok(())
        });
        during?;
        let log = sidecar.proxy.said();
        let odd: Vec<&str> = log.lines().filter(|line| !line.contains(" 200 ")).collect();
        assert!(
            account.failed.is_empty() && account.cut == 0,
            "{account:?}\n{}",
            odd.join("\n")
        );
        assert!(account.total() > 100, "hardly a load: {account:?}");
        assert!(sidecar.proxy.wait()?.success(), "{}", sidecar.proxy.said());
    }
    Ok(())
}

#[test]
fn the_log_tells_of_the_start_and_of_the_end() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    let (client, mut sidecar) = mesh.client()?;
    let said = sidecar.proxy.said();
    for told in [
        "the proxy is up",
        "version=\"",
        "pod=mesh/client",
        "outbound=15001",
        "inbound=15006",
        "admin=15000",
        "dns=off",
    ] {
        assert!(said.contains(told), "{told} is not in\n{said}");
    }
    let url = format!("http://{}:8080/", server.v4);
    client.run_as(RunAs::Application, "curl", ["-sf", &url])?;
    sidecar.proxy.signal(Signal::INT)?;
    assert!(sidecar.proxy.wait()?.success());
    let said = sidecar.proxy.said();
    assert!(
        said.contains("draining: ends when nothing is under way, after "),
        "{said}"
    );
    assert!(
        said.contains("the proxy has ended: drained connections=1 cut_off=0"),
        "{said}"
    );
    Ok(())
}

#[test]
fn what_was_mistyped_is_told_at_the_start() -> Result<()> {
    let mesh = Mesh::create()?;
    let pod = mesh.net.pod("typos")?;
    let weir = e2e::weir::binary()?.to_string_lossy().into_owned();
    let folder = mesh.manifests.path().to_string_lossy().into_owned();
    let proxy = ["proxy", "--manifests", &folder];
    for (arguments, told) in [
        (
            &["--dns", "--resolv-conf", "/nope"][..],
            "--resolv-conf /nope: cannot read it: No such file or directory (os error 2) [WEIR-RESOLVERS]",
        ),
        (&["--log", "warnn"], "`warnn` is no level, did you mean `warn`?"),
    ] {
        let finished = pod.try_run(RunAs::Root, &weir, [&proxy, arguments].concat())?;
        assert_eq!(finished.status.code(), Some(2));
        assert!(finished.errors().contains(told), "{}", finished.errors());
    }
    let runtime = tempfile::tempdir()?;
    let variables = [("XDG_RUNTIME_DIR", &*runtime.path().to_string_lossy())];
    let all = [&proxy[..], &["--as", "mesh/nope"]].concat();
    let program = pod.start_file(RunAs::Root, weir.as_ref(), &variables, all)?;
    eventually("the warning", || {
        program.said().contains("the proxy is up").then_some(())
    })?;
    let said = program.said();
    assert!(
        said.contains("no manifest describes the pod of this proxy") && said.contains("pod=mesh/nope"),
        "{said}"
    );
    let problems = e2e::weir::run(&pod, &["pc", "--proxy", "127.0.0.1:15000", "problems"])?;
    assert!(
        problems
            .errors()
            .contains("weir: no manifest describes mesh/nope"),
        "{}",
        problems.errors()
    );
    Ok(())
}
