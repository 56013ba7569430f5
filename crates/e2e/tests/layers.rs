//! The layers of ARCHITECTURE.md, and the house rules that a machine can see: which crate may use
//! which, what stays out of the pure ones, how a file opens, where unsafe code lives.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of ours and those of ours that it may use. Lower rows first: an arrow never points up.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("runtime", &[]),
    ("rules", &["model"]),
    ("registry", &["model"]),
    ("netsys", &["model", "rules"]),
    ("discovery", &["model", "registry", "runtime"]),
    ("dns", &["model", "registry", "netsys", "runtime"]),
    ("proxy", &["model", "registry", "netsys", "runtime"]),
    ("diagnose", &["model", "rules", "registry", "netsys", "runtime"]),
    (
        "weir",
        &[
            "model",
            "rules",
            "registry",
            "netsys",
            "runtime",
            "discovery",
            "dns",
            "proxy",
            "diagnose",
        ],
    ),
    ("e2e", &["model", "rules", "registry", "netsys", "runtime"]),
    ("bench", &["e2e"]),
];

/// Crates that decide, and do nothing: no I/O, no tasks.
const PURE: &[&str] = &["model", "rules", "registry"];
/// What they must not reach, however indirectly.
const IMPURE: &[&str] = &["tokio", "hyper", "rustix", "socket2", "mio", "kube", "tonic"];

#[test]
fn dependencies_point_down() {
    let graph = Graph::read();
    let known: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for name in &graph.ours {
        let allowed = known.get(name.as_str()).unwrap_or_else(|| {
            panic!("crate {name} is new: give it a line in MAY_USE and in ARCHITECTURE.md, with the reason for it")
        });
        for used in graph.uses(name).filter(|used| graph.ours.contains(*used)) {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} uses {used}, which ARCHITECTURE.md does not allow"
            );
        }
    }
}

#[test]
fn what_decides_cannot_act() {
    let graph = Graph::read();
    for name in PURE {
        let mut reached = BTreeSet::new();
        let mut left = vec![(*name).to_owned()];
        while let Some(next) = left.pop() {
            for used in graph.uses(&next) {
                if reached.insert(used.clone()) {
                    left.push(used.clone());
                }
            }
        }
        for impure in IMPURE {
            assert!(
                !reached.contains(*impure),
                "{name} reaches {impure}: it must stay pure"
            );
        }
    }
}

#[test]
fn files_open_with_what_they_are_for() {
    let opens = |text: &str| {
        let first = text.lines().find(|line| !line.starts_with("#!["));
        first.is_some_and(|line| line.starts_with("//! "))
    };
    // `tests.rs` is for what its parent is for.
    let must = |path: &Path| !path.ends_with("tests.rs");
    let all = sources().into_iter();
    let bad: Vec<_> = all
        .filter(|(path, text)| must(path) && !opens(text))
        .map(|(path, _)| path)
        .collect();
    assert!(
        bad.is_empty(),
        "these do not open with //! and what they are for: {bad:#?}"
    );
}

#[test]
fn unsafe_code_lives_behind_one_seam() {
    for (path, text) in sources() {
        let name = path.display().to_string();
        let seam = name.contains("/netsys/src/sys/") || name.ends_with("/netsys/src/sys.rs");
        let allows = text.contains(&["allow(", "unsafe_code"].concat());
        assert!(seam || !allows, "{name}: unsafe code is for netsys/src/sys alone");
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for entry in fs::read_dir(crates).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        // netsys denies it, so that its one seam can allow it; the others inherit "forbid".
        let lints = if text.contains("name = \"netsys\"") {
            "unsafe_code = \"deny\""
        } else {
            "[lints]\nworkspace = true"
        };
        assert!(text.contains(lints), "{}: {lints} is missing", manifest.display());
    }
}

#[test]
fn no_test_is_ignored() {
    let mark = ["#[", "ignore"].concat();
    for (path, text) in sources() {
        assert!(
            !text.contains(&mark),
            "{}: a test that needs something must run or fail",
            path.display()
        );
    }
}

/// Every Rust file of ours with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let bench = crates.with_file_name("bench");
    let mut left = vec![crates.to_owned(), bench];
    let mut files = Vec::new();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 20, "the sources are not where they were");
    files
}

/// Packages and what each of them uses outside its tests.
struct Graph {
    ours: BTreeSet<String>,
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        // For this platform alone: what others would need was never downloaded.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
            .arg(platform)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let names: BTreeMap<String, String> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let ours = list(&metadata["workspace_members"])
            .iter()
            .map(|id| names[&text(id)].clone())
            .collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = |dependency: &&Value| {
                list(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            };
            let dependencies = list(&node["deps"]);
            let used = dependencies
                .iter()
                .filter(normal)
                .map(|dependency| names[&text(&dependency["pkg"])].clone());
            uses.entry(names[&text(&node["id"])].clone())
                .or_default()
                .extend(used);
        }
        Self { ours, uses }
    }

    fn uses(&self, name: &str) -> impl Iterator<Item = &String> {
        self.uses.get(name).into_iter().flatten()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
