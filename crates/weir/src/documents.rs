//! The documents that list what the code defines: they are made from it, and a test fails where they
//! differ. `UPDATE_DOCS=1 cargo test -p weir documents` writes them anew.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use discovery::Catalog;
use discovery::parse::Object;
use model::{Explained, Settings, Update};
use runtime::tap::Tap;
use tokio::sync::watch;

use crate::servers;

/// What stands before the list in docs/metrics.md.
const METRICS: &str = "\
# Metrics

A proxy serves its metrics on port 15020, at `/metrics` and at `/stats/prometheus`, as OpenMetrics text.
This list is made from the code: `UPDATE_DOCS=1 cargo test -p weir documents` writes it anew.

Durations are in seconds, sizes in bytes. Labels:

- `direction` is `outbound` (from the workload) or `inbound` (to it).
- `cluster` is the cluster's name as `weir pc clusters` shows it, such as
  `outbound|80||nginx.sidecar.svc.cluster.local`; `PassthroughCluster` is what no service owns.
- A metric holds at most 2,000 sets of label values. Clusters that come later are counted together as `other`, so a
  growing mesh cannot grow a proxy's memory.

";

#[test]
fn the_list_of_metrics_is_that_of_the_code() {
    let (metrics, _) = servers::metrics();
    let _reports = proxy::Reports::new(&metrics, None, Tap::default());
    let _dns = dns::Reports::new(&metrics, Tap::default());
    let (_, snapshots) = watch::channel(std::sync::Arc::default());
    let (_, problems) = watch::channel(std::sync::Arc::default());
    drop(servers::scraper(metrics.clone(), snapshots, problems));
    let mut text = METRICS.to_owned();
    text.push_str("| metric | kind | labels | says |\n|---|---|---|---|\n");
    for it in metrics.descriptions() {
        let labels: Vec<_> = it.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels, help) = (it.name, it.kind, labels.join(", "), it.help);
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    compare("docs/metrics.md", &text);
}

/// What stands before the list in docs/errors.md.
const ERRORS: &str = "\
# Errors

Each error that Weir prints ends with its name in brackets, `[WEIR-PORT-IN-USE]`; a warning of its log has it in the field `see`, and
an answer that the proxy gives itself has it in its text. `weir explain WEIR-PORT-IN-USE` prints what stands here.
Names of two or three letters are the flags of the access log ([access-log](access-log.md)).
This list is made from the code: `UPDATE_DOCS=1 cargo test -p weir documents` writes it anew.
";

#[test]
fn the_list_of_errors_is_that_of_the_code() {
    let mut text = ERRORS.to_owned();
    for name in model::ErrorName::ALL {
        let Explained {
            name,
            says,
            because,
            fix,
        } = name.explained();
        write!(
            text,
            "\n## {name}\n\n{says}\n\n- How it comes about: {because}\n- What to do: {fix}\n"
        )
        .unwrap();
    }
    compare("docs/errors.md", &text);
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let text = read("docs/settings.md");
    let [mesh, service] = ["MeshConfig", "Service"].map(|kind| example(&text, kind));

    let parsed = discovery::parse("docs/settings.md", &mesh);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let objects: Vec<_> = parsed
        .objects
        .values()
        .map(|(_, object)| (**object).clone())
        .collect();
    assert_eq!(objects, [Object::MeshConfig(Box::default())]);

    for name in setting_names() {
        let value = mesh
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
        let value = value.unwrap_or_else(|| panic!("the MeshConfig in docs/settings.md lacks {name}"));
        let row = format!("| `{name}` | `{value}` |");
        assert!(text.contains(&row), "docs/settings.md has no row {row}");
    }

    let mut catalog = Catalog::default();
    catalog.put("docs/settings.md", discovery::parse("docs/settings.md", &service));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let updates = catalog.updates();
    let overrides = updates.iter().find_map(|update| match update {
        Update::Service(service) => Some(serde_json::to_value(&service.settings).unwrap()),
        _ => None,
    });
    for (name, value) in overrides.unwrap().as_object().unwrap() {
        assert!(
            !value.is_null(),
            "the Service in docs/settings.md lacks an annotation for {name}"
        );
    }
}

/// Every setting there is, as a MeshConfig spells it.
fn setting_names() -> Vec<String> {
    let settings = serde_json::to_value(Settings::default()).unwrap();
    let mut fields = settings.as_object().unwrap().clone();
    let policy = fields.remove("policy").unwrap();
    let names = fields.keys().chain(policy.as_object().unwrap().keys());
    names.map(|name| camel(name)).collect()
}

/// `connect_timeout` as `connectTimeout`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

/// The YAML block of this kind.
fn example(text: &str, kind: &str) -> String {
    let blocks = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let of_kind = format!("\nkind: {kind}\n");
    blocks.filter(|block| block.contains(&of_kind)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// Compares a document with what it must be, or writes it where `UPDATE_DOCS` is set.
fn compare(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(file, text).unwrap();
        return;
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    let differs = found
        .lines()
        .zip(text.lines())
        .find(|(found, wanted)| found != wanted);
    assert!(
        found == text,
        "{path} is not what the code says, first here: {differs:?}\nwrite it anew: UPDATE_DOCS=1 cargo test -p weir documents"
    );
}
