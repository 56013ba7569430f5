//! The journey as a person sees it, on standard error.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use e2e::manifests::Port;
use e2e::{Pod, RunAs, servers};

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
        "look-ups ",
        "A         web.mesh: 10.96.0.1 (service mesh/web)",
        "→ 10.96.0.1:80  from 192.0.0.2:",
        "name      web.mesh, looked up ",
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

/// A service `other` (10.96.0.2) on a new pod, to port 8443 by all three ways of telling its protocol.
fn other(laptop: &Laptop) -> Result<Pod> {
    let pod = laptop.mesh.pod("other-1", "other")?;
    let ports = [
        Port::new("https", 443, 8443),
        Port::new("tcp-raw", 444, 8443),
        Port::new("undeclared", 445, 8443),
    ];
    laptop.mesh.service("other", 2, &ports, &[&pod])?;
    Ok(pod)
}

#[test]
fn of_tls_it_tells_the_server_name() -> Result<()> {
    let laptop = Laptop::create()?;
    let pod = other(&laptop)?;
    let dir = laptop.mesh.dir().display();
    let subject =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=other.mesh";
    let files = format!("-keyout {dir}/key.pem -out {dir}/cert.pem");
    pod.run("openssl", subject.split(' ').chain(files.split(' ')))?;
    let server = format!(
        "server {{ listen 8443 ssl; listen [::]:8443 ssl; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; \
         location / {{ return 200 $ssl_server_name; }} }}"
    );
    let _server = servers::nginx_with(&pod, laptop.mesh.dir(), "", &server)?;
    pod.wait_listening(8443)?;
    let asked = |port: u16| {
        let url = format!("https://other.mesh:{port}/");
        laptop.run_with(RunAs::Application, &["--journey"], &["curl", "-4sk", &url])
    };
    let closed = "closed    server name other.mesh, ";
    for (port, told_of) in [
        (443, &["protocol  https, by port name", closed][..]),
        (444, &["protocol  tcp, by port name"]),
        (
            445,
            &[
                "protocol  not declared: the first bytes will tell",
                "protocol  tls, by the client's first bytes",
                closed,
            ],
        ),
    ] {
        let finished = asked(port)?;
        assert_eq!(finished.text(), "other.mesh", "{finished:?}");
        let told = finished.errors();
        for hop in told_of {
            assert!(told.contains(hop), "{hop} is not in\n{told}");
        }
        assert!(!told.contains("request   "), "nothing inside TLS is read\n{told}");
    }
    Ok(())
}

#[test]
fn it_tells_that_the_server_spoke_first() -> Result<()> {
    let laptop = Laptop::create()?;
    let pod = other(&laptop)?;
    let listener = pod.within(|| TcpListener::bind("0.0.0.0:8443"))??;
    let server = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        for _ in 0..2 {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"220 other.mesh\r\n").unwrap();
            let mut line = String::new();
            BufReader::new(&client).read_line(&mut line).unwrap();
            client.write_all(b"221 bye\r\n").unwrap();
        }
    });
    let script = "import socket, sys\n\
                  with socket.create_connection(('10.96.0.2', int(sys.argv[1])), timeout=30) as s:\n\
                  \x20   lines = s.makefile('rw', newline='')\n\
                  \x20   print(lines.readline().strip())\n\
                  \x20   lines.write('QUIT\\r\\n'); lines.flush()\n\
                  \x20   print(lines.readline().strip())\n";
    for (port, told_of) in [
        ("445", "protocol  tcp, the server spoke first"),
        ("444", "protocol  tcp, by port name"),
    ] {
        let finished = laptop.run_with(
            RunAs::Application,
            &["--journey"],
            &["python3", "-c", script, port],
        )?;
        assert_eq!(finished.text(), "220 other.mesh\n221 bye\n", "{finished:?}");
        let told = finished.errors();
        for hop in [told_of, "endpoint  10.77.0.", "closed    6 B up, 25 B down in "] {
            assert!(told.contains(hop), "{hop} is not in\n{told}");
        }
    }
    server.join().ok().context("the server")?;
    Ok(())
}

/// What a terminal of so many columns is sent, with the variables set.
fn on_a_terminal(laptop: &Laptop, columns: usize, variables: &str) -> Result<String> {
    let path = format!("http://web.mesh/{}", "a-long-path/".repeat(8));
    let script = laptop.shared.path().join(format!("terminal-{columns}"));
    let text = format!(
        "#!/bin/sh\nstty cols {columns} rows 24\nexec env {variables} {} run --manifests {} --journey -- curl -4so /dev/null {path}\n",
        laptop.weir.display(),
        laptop.mesh.manifests.path().display(),
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let command = format!("sh {}", script.display());
    let finished = laptop
        .pod
        .try_run(RunAs::Application, "script", ["-qec", &command, "/dev/null"])?;
    assert!(finished.status.success(), "{finished:?}");
    Ok(finished.text().replace('\r', ""))
}

/// Without what colours it.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain
}

#[test]
fn it_fits_the_terminal_and_is_coloured_there_unless_told_not_to() -> Result<()> {
    let laptop = Laptop::create()?;
    for columns in [40, 57, 80, 300] {
        let told = on_a_terminal(&laptop, columns, "TERM=xterm")?;
        assert!(told.contains('\x1b'), "{told}");
        let plain = plain(&told);
        let longest = plain.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(
            longest <= columns.min(120),
            "{longest} columns on a terminal of {columns}\n{plain}"
        );
        // Nothing is left out for want of room.
        let words: String = plain.split_whitespace().collect();
        for hop in [
            "nat",
            "toport15001",
            "outbound|80||web.mesh.svc.cluster.local",
            &"a-long-path/".repeat(8),
            "answer200after",
        ] {
            assert!(words.contains(hop), "{hop} is not in\n{plain}");
        }
    }
    let told = on_a_terminal(&laptop, 80, "NO_COLOR=1")?;
    assert!(!told.contains('\x1b'), "{told}");
    Ok(())
}

#[test]
fn a_try_that_failed_is_told_before_the_next_one() -> Result<()> {
    let laptop = Laptop::create()?;
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: half, namespace: mesh}}\n\
         spec: {{clusterIP: 10.96.0.3, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: half-1, namespace: mesh, labels: {{kubernetes.io/service-name: half}}}}\n\
         ports: [{{name: http, port: 8080, protocol: TCP}}]\n\
         endpoints: [{{addresses: [10.77.0.2]}}, {{addresses: [{}]}}]\n",
        laptop.pod.v4
    );
    laptop.mesh.manifests.write("half.yaml", &text)?;
    let script = "curl -sf http://half.mesh/ && curl -sf http://half.mesh/";
    let finished = laptop.run_with(RunAs::Application, &["--journey"], &["sh", "-c", script])?;
    assert_eq!(finished.text(), "web-1web-1", "{finished:?}");
    let told = finished.errors();
    let failed = told.find("failed ").context("a failed try")?;
    let next = told.find(", try 2").context("a second try")?;
    let done = told.find("200 at try 2").context("its success")?;
    assert!(failed < next && next < done, "{told}");
    Ok(())
}

#[test]
fn that_nothing_was_captured_is_told_too() -> Result<()> {
    let laptop = Laptop::create()?;
    let finished = laptop.run_with(RunAs::Application, &["--journey"], &["true"])?;
    assert!(
        finished.errors().starts_with("No connection came to the proxy"),
        "{finished:?}"
    );
    Ok(())
}
