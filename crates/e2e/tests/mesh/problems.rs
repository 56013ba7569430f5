//! What is wrong with the manifests is told where people look: in `weir pc`, in the configuration dump, in
//! the metrics; and no longer once it is mended.

use anyhow::Result;
use e2e::manifests::{Port, Service};
use e2e::mesh::addresses;
use e2e::{Mesh, Pod, RunAs, eventually, weir};
use model::ports::METRICS;
use serde_json::Value;

/// `weir pc`, asking the pod's own proxy: what it says on standard output and on standard error. Its status says
/// whether an error is among the problems.
fn pc(pod: &Pod, arguments: &[&str]) -> Result<(String, String)> {
    let proxy = ["pc", "--proxy", "127.0.0.1:15000"];
    let weir = weir::binary()?;
    let said = pod.try_run(RunAs::Root, &weir.to_string_lossy(), [&proxy, arguments].concat())?;
    let (text, told) = (said.text(), said.errors());
    let is_bad = arguments[0] == "problems"
        && text
            .lines()
            .any(|line| line.starts_with("error ") || line.contains("\"error\""));
    assert_eq!(said.status.code(), Some(i32::from(is_bad)), "{text}{told}");
    Ok((text, told))
}

fn metric(pod: &Pod, severity: &str, kind: &str) -> Result<Option<String>> {
    let text = pod
        .run("curl", ["-sf", &format!("http://127.0.0.1:{METRICS}/metrics")])?
        .text();
    let start = format!("weir_manifest_problems{{severity=\"{severity}\",kind=\"{kind}\"}} ");
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix(&start).map(str::to_owned)))
}

#[test]
fn a_problem_is_told_until_it_is_mended() -> Result<()> {
    let mesh = Mesh::create()?;
    let web = Service::new("web", &addresses(10), &[Port::new("http", 80, 8080)]).yaml();
    let misspelt = web.replace("selector:", "slector:");
    let refused = web
        .replace("name: web", "name: other")
        .replace("port: 80\n", "port: 80000\n");
    mesh.manifests.write("web.yaml", &(misspelt + &refused))?;
    mesh.manifests.write("broken.yaml", "kind: [\n")?;
    let (client, _sidecar) = mesh.client()?;

    let (json, _) = pc(&client, &["problems", "-o", "json"])?;
    let rows: Vec<Value> = serde_json::from_str(&json)?;
    let told = |file: &str, severity: &str| {
        let mut found = rows
            .iter()
            .filter(|row| row["file"] == file && row["severity"] == severity);
        found
            .next()
            .unwrap_or_else(|| panic!("no {severity} of {file} in {json}"))
    };
    let unknown = told("web.yaml", "warning");
    assert_eq!(unknown["field"], "spec.slector");
    assert_eq!(unknown["place"]["object"], "Service mesh/web");
    assert!(
        unknown["message"]
            .as_str()
            .is_some_and(|text| text.contains("did you mean `selector`?"))
    );
    let bad = told("web.yaml", "error");
    assert_eq!(
        (&bad["field"], &bad["place"]["document"]),
        (&"spec.ports[0].port".into(), &2.into())
    );
    assert_eq!(bad["place"]["object"], "Service mesh/other");
    told("broken.yaml", "error");

    let (table, _) = pc(&client, &["problems"])?;
    assert!(
        table.starts_with("SEVERITY   FILE") && table.contains("spec.slector"),
        "{table}"
    );
    let (_, hint) = pc(&client, &["clusters"])?;
    assert_eq!(hint, "3 manifests have problems: weir pc problems\n");
    assert_eq!(metric(&client, "error", "Service")?.as_deref(), Some("1"));
    assert_eq!(metric(&client, "error", "other")?.as_deref(), Some("1"));
    assert_eq!(metric(&client, "warning", "Service")?.as_deref(), Some("1"));

    mesh.manifests.write("web.yaml", &web)?;
    mesh.manifests.remove("broken.yaml")?;
    eventually("the problems to be gone", || {
        let (json, _) = pc(&client, &["problems", "-o", "json"]).ok()?;
        (json == "[]\n").then_some(())
    })?;
    let (_, hint) = pc(&client, &["clusters"])?;
    assert_eq!(hint, "");
    assert_eq!(metric(&client, "error", "Service")?.as_deref(), Some("0"));
    assert_eq!(metric(&client, "error", "other")?.as_deref(), Some("0"));
    Ok(())
}
