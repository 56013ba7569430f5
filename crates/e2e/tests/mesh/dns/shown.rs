//! `weir pc dns` says what a client is answered, also from a saved dump.

use std::fs;

use anyhow::Result;
use e2e::weir;

use super::Town;

#[test]
fn what_is_shown_is_what_is_answered() -> Result<()> {
    let town = Town::create()?;
    let whole = fs::read_to_string(&town.resolv_conf)? + "search mesh.svc.cluster.local\noptions ndots:5\n";
    fs::write(&town.resolv_conf, whole)?;
    let pc = |arguments: &[&str]| -> Result<String> {
        let all = [&["pc", "--proxy", "127.0.0.1:15000"], arguments].concat();
        Ok(weir::run(&town.client, &all)?.text())
    };
    let saved = town.mesh.dir().join("dump.json");
    fs::write(&saved, pc(&["dump"])?)?;
    let from_file = |arguments: &[&str]| -> Result<String> {
        let file = saved.to_string_lossy();
        let all = [&["pc", "--file", &file], arguments].concat();
        Ok(weir::run(&town.client, &all)?.text())
    };
    let resolver = town.resolver.v4;
    for (arguments, expected) in [
        (
            &["web", "--type", "A"][..],
            vec!["web.mesh.svc.cluster.local. A answered 10.96.0.1 service mesh/web".to_owned()],
        ),
        (
            &["pods-0.pods.mesh", "--type", "a"],
            vec![
                format!("pods-0.pods.mesh.mesh.svc.cluster.local. A forwarded - resolver {resolver}"),
                "pods-0.pods.mesh. A answered 10.77.9.2 service mesh/pods".to_owned(),
            ],
        ),
        (
            &["10.96.0.1"],
            vec![
                "1.0.96.10.in-addr.arpa. PTR answered web.mesh.svc.cluster.local service mesh/web".to_owned(),
            ],
        ),
        (
            &["db", "--type", "A"],
            vec![format!(
                "db.mesh.svc.cluster.local. A answered alias of db.example.com service mesh/db, then resolver {resolver}"
            )],
        ),
    ] {
        let table = pc(&[&["dns"], arguments].concat())?;
        let lines = table.lines().skip(1);
        let lines: Vec<String> = lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines, expected, "{arguments:?}");
        assert_eq!(
            from_file(&[&["dns"], arguments].concat())?,
            table,
            "{arguments:?}"
        );
    }
    let all = pc(&["dns", "-o", "json"])?;
    assert_eq!(from_file(&["dns", "-o", "json"])?, all);
    for part in [
        r#""name": "_http._tcp.web.mesh.svc.cluster.local.""#,
        r#""port 80 of web.mesh.svc.cluster.local""#,
        r#""fd00:96::1""#,
        r#""ttl": 5"#,
    ] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    Ok(())
}
