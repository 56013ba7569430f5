//! Localhost: the command's own first, then the caller's.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use e2e::{RunAs, eventually};

use crate::{BOTH, Laptop};

/// A server on the laptop's own loopback that says who it is, unasked, to so many clients.
fn say(laptop: &Laptop, at: &str, what: &'static str, clients: usize) -> Result<JoinHandle<()>> {
    let listener = laptop.pod.within(|| TcpListener::bind(at))??;
    Ok(std::thread::spawn(move || {
        for _ in 0..clients {
            use std::io::Write;
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(what.as_bytes()).unwrap();
        }
    }))
}

/// Prints what a server at each address says, or that there is none.
const ASK: &str = "
import socket, sys
for at in sys.argv[1:]:
    host, port = at.rsplit(' ', 1)
    try:
        with socket.create_connection((host, int(port)), timeout=30) as s:
            print(s.makefile().read() or 'nothing')
    except ConnectionRefusedError:
        print('refused')
";

impl Laptop {
    fn ask(&self, who: RunAs, options: &[&str], at: &[&str]) -> Result<(Vec<String>, String)> {
        let command = [&["python3", "-c", ASK], at].concat();
        let finished = self.run_with(who, options, &command)?;
        let told = finished.errors();
        assert!(finished.status.success(), "{finished:?}");
        Ok((finished.text().lines().map(str::to_owned).collect(), told))
    }
}

#[test]
fn what_listens_on_the_callers_answers_where_nothing_does_inside() -> Result<()> {
    let laptop = Laptop::create()?;
    let servers = [
        say(&laptop, "127.0.0.1:7000", "four", 3 * BOTH.len())?,
        say(&laptop, "[::1]:7001", "six", BOTH.len())?,
        say(&laptop, "0.0.0.0:7002", "any", BOTH.len())?,
        say(&laptop, "127.0.0.9:7003", "nine", BOTH.len())?,
    ];
    let asked = [
        ("127.0.0.1 7000", "four"),
        // ::1 comes first, and is refused as it would be without weir.
        ("localhost 7000", "four"),
        ("::1 7000", "refused"),
        ("::1 7001", "six"),
        ("127.0.0.1 7001", "refused"),
        ("127.4.5.6 7002", "any"),
        ("127.0.0.9 7003", "nine"),
        ("127.0.0.1 7003", "refused"),
        ("127.0.0.1 7004", "refused"),
    ];
    let at = asked.map(|(at, _)| at);
    let expected = asked.map(|(_, said)| said);
    for who in BOTH {
        let (said, told) = laptop.ask(who, &["--journey"], &at)?;
        assert_eq!(said, expected, "{who:?}");
        for hop in [
            "(loopback, which the caller has too): to port 15001",
            "service   none (loopback is no service's)",
            "endpoint  127.0.0.1:7000, inside",
            "failed    127.0.0.1:7000: Connection refused",
            "endpoint  127.0.0.1:7000, the caller's own",
        ] {
            assert!(told.contains(hop), "{hop} is not in\n{told}");
        }
        let (said, _) = laptop.ask(who, &["--loopback", "none"], &at)?;
        assert!(said.iter().all(|said| said == "refused"), "{said:?}");
        let (said, _) = laptop.ask(
            who,
            &["--loopback", "7000,7009"],
            &["127.0.0.1 7000", "127.0.0.1 7002"],
        )?;
        assert_eq!(said, ["four", "refused"]);
    }
    for server in servers {
        server.join().unwrap();
    }
    Ok(())
}

#[test]
fn what_listens_inside_comes_first() -> Result<()> {
    let laptop = Laptop::create()?;
    let _outside = laptop
        .pod
        .within(|| ["127.0.0.1:7000", "[::1]:7000"].map(|at| TcpListener::bind(at).unwrap()))?;
    let script = "
import socket, threading
for family, host in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'):
    server = socket.create_server((host, 7000), family=family)
    client = socket.create_connection((host, 7000))
    inner, peer = server.accept()
    inner.sendall(b'inside'); inner.close()
    print(client.makefile().read(), peer[0])
";
    for who in BOTH {
        let finished = laptop.run_with(who, &["--journey"], &["python3", "-c", script])?;
        assert_eq!(finished.text(), "inside 127.0.0.1\ninside ::1\n", "{finished:?}");
        assert!(
            finished.errors().contains("endpoint  127.0.0.1:7000, inside"),
            "{finished:?}"
        );
        assert!(!finished.errors().contains("the caller's own"), "{finished:?}");
    }
    Ok(())
}

#[test]
fn a_listed_port_may_begin_to_listen_later() -> Result<()> {
    let laptop = Laptop::create()?;
    let at: SocketAddr = "127.0.0.1:7000".parse()?;
    let wait = format!(
        "echo ready; until python3 -c \"$0\" '{} {}' | tee /dev/stderr | grep late; do sleep 0.05; done",
        at.ip(),
        at.port()
    );
    let mut program = laptop.start_with(
        RunAs::Application,
        &["--loopback", "7000"],
        &[
            "sh",
            "-c",
            &wait,
            &ASK.replace("except ConnectionRefusedError", "except OSError"),
        ],
    )?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    let server = say(&laptop, "127.0.0.1:7000", "late", 1)?;
    assert_eq!(program.wait()?.code(), Some(0), "{}", program.said());
    server.join().ok().context("the server")?;
    Ok(())
}
