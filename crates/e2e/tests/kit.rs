//! The kit itself: pods reach each other on both families, programs die with their handle, links can be cut.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use e2e::{Net, RunAs, eventually, servers};

#[test]
fn pods_reach_each_other_on_both_families() -> Result<()> {
    let net = Net::create()?;
    let (client, server) = (net.pod("client")?, net.pod("server")?);
    let dir = tempfile::tempdir()?;
    let _nginx = servers::nginx(&server, dir.path(), 8080, "location / { return 200 hello; }")?;
    for address in server.at(8080) {
        let url = format!("http://{address}/");
        let said = client.run_as(RunAs::Application, "curl", ["-s", &url])?;
        assert_eq!(said.text(), "hello", "{url}");
        let mut stream = client.dial(address)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.ends_with("hello"), "{answer}");
    }
    Ok(())
}

#[test]
fn an_address_of_nobody_is_unreachable_at_once() -> Result<()> {
    let net = Net::create()?;
    let client = net.pod("client")?;
    for vip in ["10.96.0.10:80", "[fd00:96::10]:80"] {
        let error = client
            .dial(vip.parse::<SocketAddr>()?)
            .expect_err("nobody is there");
        let told = [
            std::io::ErrorKind::NetworkUnreachable,
            std::io::ErrorKind::HostUnreachable,
        ];
        assert!(told.contains(&error.kind()), "{vip}: {error}");
    }
    Ok(())
}

#[test]
fn a_program_and_its_children_go_with_its_handle() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("pod")?;
    let program = pod.start(
        RunAs::Application,
        "sh",
        ["-c", "id -u; sleep 1000 & echo $!; wait"],
    )?;
    let child = eventually("the child's id", || {
        let said = program.said();
        let mut lines = said.lines();
        assert_eq!(lines.next().unwrap_or("1000"), "1000");
        lines.next().map(|id| PathBuf::from(format!("/proc/{id}")))
    })?;
    assert!(child.exists());
    drop(program);
    eventually("the child to go", || (!child.exists()).then_some(()))
}

#[test]
fn a_cut_link_carries_nothing_and_a_mended_one_does() -> Result<()> {
    let net = Net::create()?;
    let (client, server) = (net.pod("client")?, net.pod("server")?);
    let target = server.v4.to_string();
    let ping = ["-c1", "-W1", target.as_str()];
    client.run("ping", ping)?;
    net.cut(&server)?;
    assert!(!client.try_run(RunAs::Root, "ping", ping)?.status.success());
    net.mend(&server)?;
    eventually("the mended link", || client.run("ping", ping).ok().map(drop))
}
