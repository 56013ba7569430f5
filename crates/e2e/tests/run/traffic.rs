//! What is carried, what passes through, and what fails at once.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::{RunAs, servers};

use crate::{BOTH, Laptop};

#[test]
fn a_service_is_balanced_over_its_endpoints() -> Result<()> {
    let laptop = Laptop::create()?;
    for who in BOTH {
        let script = "for i in 1 2 3 4 5 6; do curl -sf http://web.mesh/; echo; curl -gsf http://[fd00:96::1]/; echo; done";
        let said = laptop.sh(who, script)?;
        let answered: BTreeSet<&str> = said.lines().collect();
        assert_eq!(answered, BTreeSet::from(["web-1", "web-2"]), "{who:?}");
    }
    Ok(())
}

#[test]
fn unknown_destinations_pass_through() -> Result<()> {
    let laptop = Laptop::create()?;
    let other = laptop.mesh.net.pod("other")?;
    let _server = servers::nginx(
        &other,
        laptop.mesh.dir(),
        8081,
        "location / { return 200 $remote_addr; }",
    )?;
    for (to, from) in other.at(8081).into_iter().zip(laptop.pod.addresses()) {
        let said = laptop.sh(RunAs::Application, &format!("curl -gsf http://{to}/"))?;
        assert_eq!(
            said,
            from.to_string(),
            "the proxy calls from the laptop's own network"
        );
    }
    // Nobody there: refused, as it would be without weir.
    let refused = laptop.run(
        RunAs::Application,
        &["curl", "-gs", &format!("http://{}/", other.at(9)[0])],
    )?;
    assert!(matches!(refused.status.code(), Some(7 | 52 | 56)), "{refused:?}");
    Ok(())
}

#[test]
fn what_the_command_sent_last_arrives() -> Result<()> {
    const BYTES: u64 = 20_000_000;
    let laptop = Laptop::create()?;
    let sink = laptop.mesh.net.pod("sink")?;
    let file = laptop.mesh.dir().join("sunk");
    let open = format!("OPEN:{},creat", file.display());
    let mut socat = sink.start(RunAs::Root, "socat", ["-u", "TCP-LISTEN:9000", &open])?;
    sink.wait_listening(9000)?;
    // The command ends as soon as the kernel has taken its last byte.
    let script = format!("head -c {BYTES} /dev/zero > /dev/tcp/{}/9000", sink.v4);
    let sent = laptop.run(RunAs::Application, &["bash", "-c", &script])?;
    assert!(sent.status.success(), "{sent:?}");
    socat.wait()?;
    assert_eq!(std::fs::metadata(&file)?.len(), BYTES);
    Ok(())
}

#[test]
fn what_cannot_be_carried_fails_at_once() -> Result<()> {
    let laptop = Laptop::create()?;
    let udp = "import socket\n\
               for family, host in (socket.AF_INET, '10.77.0.2'), (socket.AF_INET6, 'fd00:77::2'):\n\
               \x20   s = socket.socket(family, socket.SOCK_DGRAM)\n\
               \x20   s.connect((host, 9))\n\
               \x20   print(s.getsockname()[0])\n\
               \x20   try:\n\
               \x20       s.send(b'x'); print('sent')\n\
               \x20   except PermissionError:\n\
               \x20       print('refused')\n";
    for who in BOTH {
        let finished = laptop.run(who, &["python3", "-c", udp])?;
        assert_eq!(
            finished.text(),
            "192.0.0.2\nrefused\nfd57:6569:7200::2\nrefused\n",
            "{finished:?}"
        );
        // It would wait an hour for an answer.
        for host in ["10.77.0.2", "fd00:77::2"] {
            let ping = laptop.run(who, &["ping", "-c", "1", "-W", "3600", host])?;
            let said = ping.text() + &ping.errors();
            assert!(!ping.status.success(), "{said}");
            assert!(
                said.contains("not permitted") || said.contains("unreachable"),
                "{said}"
            );
        }
    }
    Ok(())
}

#[test]
fn only_families_that_the_caller_has_are_offered() -> Result<()> {
    let laptop = Laptop::create()?;
    laptop.pod.ip("-6 route del default")?;
    let connect = |to: &str| {
        let script = format!("import socket; socket.create_connection({to})");
        anyhow::Ok(laptop.run(RunAs::Application, &["python3", "-c", &script])?)
    };
    let outside = connect("('2001:db8::1', 80)")?;
    assert!(
        outside.errors().contains("Network is unreachable"),
        "{}",
        outside.errors()
    );
    // What the manifests name and what is near can be had.
    for near in ["('fd00:96::1', 80)", "('fd00:77::2', 8080)", "('10.96.0.1', 80)"] {
        let near = connect(near)?;
        assert!(near.status.success(), "{near:?}");
    }
    Ok(())
}
