//! Opaque TCP by real databases: the client speaks first (Redis, PostgreSQL) and the server does (MariaDB),
//! each on a port declared `tcp-` and on one that declares nothing.

use anyhow::Result;
use e2e::manifests::Port;
use e2e::{Mesh, Pod, RunAs, servers};

/// A service with the database behind a declared port and an undeclared one; asks by both, on both families.
fn ask_by_every_way(
    mesh: &Mesh,
    server: &Pod,
    target: u16,
    ask: impl Fn(&Pod, &str, &str) -> Result<String>,
    expected: &str,
) -> Result<()> {
    let ports = [Port::new("tcp-db", 1000, target), Port::new("main", 1001, target)];
    let vips = mesh.service("db", 10, &ports, &[server])?;
    let (client, _sidecar) = mesh.client()?;
    for vip in vips {
        for port in ["1000", "1001"] {
            let answer = ask(&client, &vip.to_string(), port)?;
            assert_eq!(answer.trim(), expected, "by {vip} port {port}");
        }
    }
    Ok(())
}

#[test]
fn redis_answers_by_declared_and_undeclared_ports() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "db")?;
    let _redis = servers::redis(&server, mesh.dir(), 6379)?;
    let script = "redis-cli -h $0 -p $1 set weir 42 >/dev/null && redis-cli -h $0 -p $1 get weir";
    let ask = |client: &Pod, host: &str, port: &str| {
        let asked = client.run_as(RunAs::Application, "sh", ["-c", script, host, port])?;
        Ok(asked.text())
    };
    ask_by_every_way(&mesh, &server, 6379, ask, "42")
}

#[test]
fn a_thousand_pipelined_redis_commands_are_all_answered() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "db")?;
    let _redis = servers::redis(&server, mesh.dir(), 6379)?;
    let script = "seq 1000 | sed 's/.*/RPUSH list &/' | redis-cli -h $0 -p $1 --pipe | grep replies; \
                  redis-cli -h $0 -p $1 del list >/dev/null";
    let ask = |client: &Pod, host: &str, port: &str| {
        let asked = client.run_as(RunAs::Application, "sh", ["-c", script, host, port])?;
        Ok(asked.text())
    };
    ask_by_every_way(&mesh, &server, 6379, ask, "errors: 0, replies: 1000")
}

#[test]
fn mariadb_greets_first_by_declared_and_undeclared_ports() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "db")?;
    let _mariadb = servers::mariadb(&server, mesh.dir(), 3306)?;
    let ask = |client: &Pod, host: &str, port: &str| {
        let (host, port) = (format!("--host={host}"), format!("--port={port}"));
        let arguments = ["--no-defaults", &host, &port, "-Ne", "select 6 * 7"];
        Ok(client.run_as(RunAs::Application, "mariadb", arguments)?.text())
    };
    ask_by_every_way(&mesh, &server, 3306, ask, "42")
}

#[test]
fn postgresql_answers_by_declared_and_undeclared_ports() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "db")?;
    let _postgres = servers::postgres(&server, mesh.dir(), 5432)?;
    let ask = |client: &Pod, host: &str, port: &str| {
        let where_to = format!("postgresql://weir@{}:{port}/postgres", bracketed(host));
        let arguments = [
            &where_to,
            "-Atc",
            "select sum(n) from generate_series(1, 100000) n",
        ];
        Ok(client.run_as(RunAs::Application, "psql", arguments)?.text())
    };
    ask_by_every_way(&mesh, &server, 5432, ask, "5000050000")
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
