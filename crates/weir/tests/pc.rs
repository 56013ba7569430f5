//! `weir pc` as a user runs it, against admin sockets that answer a dump.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to the lint")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use model::{Place, Problem, Severity, Update, Workload};
use registry::dump::ProcessDump;
use registry::{Dump, Table};

/// The directory of the sockets, under an `XDG_RUNTIME_DIR` of its own.
struct Runtime(tempfile::TempDir);

impl Runtime {
    fn new() -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let directory = runtime.path().join("weir");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
        Self(runtime)
    }

    /// A proxy of this process id, which answers one request after the other.
    fn proxy(&self, id: &str, own: &str) {
        self.proxy_in(id, own, netsys::process::netns_of(std::process::id()));
    }

    /// The same, which lives in a network namespace.
    fn proxy_in(&self, id: &str, own: &str, netns: Option<u64>) {
        let listener = UnixListener::bind(self.0.path().join(format!("weir/{id}.sock"))).unwrap();
        let mut dump: Dump = serde_json::from_str(&dump(own)).unwrap();
        dump.process = Some(ProcessDump {
            pid: id.parse().unwrap(),
            version: "1.2.3".to_owned(),
            started: 1_700_000_000,
            netns,
        });
        let dump = serde_json::to_string(&dump).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                assert!(request.starts_with(b"GET /config_dump HTTP/1.1\r\n"));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", dump.len());
                stream.write_all((head + &dump).as_bytes()).unwrap();
            }
        });
    }

    fn pc(&self, arguments: &[&str]) -> (bool, String, String) {
        told(&self.output(arguments))
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        let weir = weir
            .arg("pc")
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.0.path());
        weir.output().unwrap()
    }
}

fn told(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The dump of a proxy whose pod is all that it knows.
fn dump(own: &str) -> String {
    dump_with(own, &[])
}

/// The same, with problems.
fn dump_with(own: &str, problems: &[Problem]) -> String {
    let name: model::ObjectName = own.parse().unwrap();
    let mut table = Table::new(Some(name.clone()));
    table.apply(Update::Workload(Box::new(Workload {
        name,
        uid: Arc::default(),
        addresses: vec!["10.1.0.1".parse().unwrap()],
        service_account: "default".into(),
        node: Arc::default(),
        ready: true,
    })));
    serde_json::to_string(&Dump::new(&table.snapshot(), &[], problems, 0)).unwrap()
}

#[test]
fn the_only_proxy_is_found_and_one_of_several_is_named() {
    let runtime = Runtime::new();
    // What a killed proxy left behind.
    drop(UnixListener::bind(runtime.0.path().join("weir/7.sock")).unwrap());
    runtime.proxy("41", "a/one");
    let (ok, out, _) = runtime.pc(&["workloads"]);
    assert!(ok);
    assert_eq!(
        out,
        "NAMESPACE   POD NAME   ADDRESS    NODE   READY\na           one        10.1.0.1   -      true\n"
    );

    runtime.proxy("42", "b/two");
    let (ok, _, err) = runtime.pc(&["clusters"]);
    assert!(!ok);
    assert!(
        err.contains("2 proxies run here; say which:\n  --proxy 41       a/one\n  --proxy 42       b/two"),
        "{err}"
    );
    let (ok, out, _) = runtime.pc(&["w", "--proxy", "42"]);
    assert!(ok && out.contains("two"), "{out}");
    let socket = runtime.0.path().join("weir/41.sock");
    let (ok, out, _) = runtime.pc(&["w", "--proxy", socket.to_str().unwrap()]);
    assert!(ok && out.contains("one"), "{out}");
    let (ok, _, err) = runtime.pc(&["w", "--proxy", "nobody"]);
    assert!(
        !ok && err.contains("--proxy nobody is no process id, no socket file and no HOST:PORT"),
        "{err}"
    );
    let (ok, _, err) = runtime.pc(&["w", "--proxy", "4194305"]);
    assert!(
        !ok && err.contains("no proxy of this user has the process id 4194305, and there is no such process; `weir pc proxies`"),
        "{err}"
    );
    let (ok, _, err) = runtime.pc(&["w", "--proxy", "7"]);
    assert!(!ok && err.contains("cannot ask the proxy 7"), "{err}");
}

#[test]
fn those_that_run_are_listed_and_one_elsewhere_is_told() {
    let runtime = Runtime::new();
    runtime.proxy_in("4194301", "a/one", Some(1));
    let (ok, _, err) = runtime.pc(&["workloads"]);
    let told =
        "weir: no proxy in this network namespace; this is the proxy of a/one, process 4194301, in net:[1]\n";
    assert!(ok && err == told, "{err}");
    runtime.proxy_in("4194302", "b/two", Some(2));
    let (ok, _, err) = runtime.pc(&["workloads"]);
    assert!(
        !ok && err.contains("2 proxies run in other network namespaces; say which:"),
        "{err}"
    );
    runtime.proxy("4194303", "c/three");
    let (ok, out, err) = runtime.pc(&["workloads"]);
    assert!(
        ok && err.is_empty() && out.contains("three"),
        "that of this namespace: {out}{err}"
    );

    let (_, out, _) = runtime.pc(&["proxies", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    let ours = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["proxy"].as_str().unwrap().starts_with("41943"));
    let ours: Vec<_> = ours
        .map(|row| (row["pod"].as_str(), row["netns"].as_str(), row["since"].as_str()))
        .collect();
    let since = Some("2023-11-14T22:13:20Z");
    let expected = [
        ("a/one", "net:[1]"),
        ("b/two", "net:[2]"),
        ("c/three", "this one"),
    ];
    assert_eq!(ours, expected.map(|(pod, netns)| (Some(pod), Some(netns), since)));
}

#[test]
fn one_that_hangs_is_told_so() {
    let runtime = Runtime::new();
    // It listens and accepts nothing.
    let _hung = UnixListener::bind(runtime.0.path().join("weir/4194301.sock")).unwrap();
    let output = runtime.output(&["clusters"]);
    let (_, _, err) = told(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(
        err.contains("4194301.sock: it listens, and has not answered within 5 s"),
        "{err}"
    );
    assert!(!err.contains("temporarily unavailable"), "{err}");
}

#[test]
fn status_help_and_forms() {
    let runtime = Runtime::new();
    runtime.proxy("4194301", "a/one");
    let (ok, out, _) = runtime.pc(&["dump", "-o", "yaml"]);
    assert!(ok && out.contains("pid: 4194301\n"), "{out}");
    let output = runtime.output(&["dump", "-o", "table"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output)
            .2
            .contains("a dump is no table; ask for -o json or -o yaml")
    );
    let (_, help, _) = runtime.pc(&["clusters", "--help"]);
    assert!(help.contains("possible values: outbound, inbound"), "{help}");

    let bare = runtime.output(&[]);
    let (_, _, err) = told(&bare);
    assert!(
        bare.status.code() == Some(2) && err.contains("Usage: weir pc") && !err.contains("WEIR-USAGE"),
        "{err}"
    );
    let (ok, out, err) = runtime.pc(&["help", "-h"]);
    assert!(
        ok && out.contains("Usage: weir pc") && err.is_empty(),
        "{out}{err}"
    );
    let (ok, _, err) = runtime.pc(&["clusters", "--direction", "up"]);
    assert!(
        !ok && err.contains("[possible values: outbound, inbound]") && err.contains("[WEIR-USAGE]"),
        "{err}"
    );
}

#[test]
fn nobody_who_reads_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = weir
        .args(["completions", "bash"])
        .stdout(writer)
        .output()
        .unwrap();
    let (_, _, err) = told(&output);
    assert_eq!((output.status.code(), err.as_str()), (Some(141), ""));
}

#[test]
fn a_saved_dump_is_read_and_what_is_none_is_refused() {
    let runtime = Runtime::new();
    runtime.proxy("41", "a/one");
    let (ok, saved, _) = runtime.pc(&["dump"]);
    assert!(ok);
    let file = runtime.0.path().join("dump.json");
    std::fs::write(&file, &saved).unwrap();
    let from_file = |what: &str| runtime.pc(&[what, "--file", file.to_str().unwrap(), "-o", "json"]);
    let (ok, out, _) = from_file("clusters");
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(ok && rows.as_array().unwrap().len() == 3, "{out}");
    let (ok, out, err) = runtime.pc(&["endpoints", "-f", file.to_str().unwrap()]);
    assert!(
        ok && out == "ENDPOINT   STATUS   OUTLIER CHECK   CLUSTER\n"
            && err.contains("no service has an endpoint"),
        "{out}{err}"
    );
    let (_, _, err) = runtime.pc(&["ep", "-f", file.to_str().unwrap(), "--port", "80"]);
    assert!(err.contains("nothing matches"), "{err}");
    let (ok, out, _) = runtime.pc(&["w", "-f", file.to_str().unwrap(), "-o", "yaml"]);
    assert!(ok && out.contains("service_account: default\n"), "{out}");
    std::fs::write(&file, "{}").unwrap();
    let (ok, _, err) = from_file("clusters");
    assert!(
        !ok && err.contains("not a dump of a proxy of this version"),
        "{err}"
    );
    let (ok, _, err) = runtime.pc(&["l", "--file", "/nowhere"]);
    assert!(!ok && err.contains("cannot read the dump /nowhere"), "{err}");
}

#[test]
fn problems_are_a_table_and_a_hint_under_the_others() {
    let runtime = Runtime::new();
    let problem = |document, severity, field: &str| Problem {
        name: model::ErrorName::ManifestField,
        file: "web.yaml".into(),
        place: Place {
            document,
            line: 14,
            item: None,
            object: "Service a/web".to_owned(),
        },
        field: field.to_owned(),
        severity,
        message: "is amiss".to_owned(),
    };
    let file = runtime.0.path().join("dump.json");
    let pc = |problems: &[Problem], arguments: &[&str]| {
        std::fs::write(&file, dump_with("a/one", problems)).unwrap();
        let from = ["--file", file.to_str().unwrap()];
        runtime.pc(&[arguments, &from].concat())
    };
    let hint = "2 manifests have problems: weir pc problems\n";
    let two = [
        problem(1, Severity::Warning, "spec.slector"),
        problem(2, Severity::Error, "spec.ports"),
    ];
    let (ok, out, err) = pc(&two, &["workloads"]);
    assert!(ok && out.lines().count() == 2 && err == hint, "{out}{err}");
    let (_, out, err) = pc(&two, &["workloads", "-o", "json"]);
    assert!(err.is_empty() && out.starts_with('['), "{out}{err}");
    let (_, out, err) = pc(&two, &["problems"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        (
            "SEVERITY   FILE       DOCUMENT      OBJECT          FIELD          PROBLEM\n\
             error      web.yaml   2 (line 14)   Service a/web   spec.ports     is amiss [WEIR-MANIFEST-FIELD]\n\
             warning    web.yaml   1 (line 14)   Service a/web   spec.slector   is amiss [WEIR-MANIFEST-FIELD]\n",
            ""
        )
    );
    let (_, out, _) = pc(&two, &["problems", "--severity", "error", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["field"], "spec.ports");
    let (_, _, err) = pc(&two, &["problems", "--severity", "bad"]);
    assert!(err.contains("[possible values: error, warning, note]"), "{err}");
    // A note is worth knowing, and no problem to hint at.
    let (_, _, err) = pc(&[problem(1, Severity::Note, "")], &["workloads"]);
    assert_eq!(err, "");
    let (_, out, err) = pc(&[], &["problems"]);
    assert_eq!(out.lines().count(), 1);
    assert_eq!(err, "weir: nothing is wrong with the manifests\n");
}
