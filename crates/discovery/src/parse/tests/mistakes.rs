//! Texts that are wrong: what is told of each, and that none does harm.

use proptest::prelude::*;

use super::*;

#[test]
fn mistakes_are_told_with_their_place() {
    let parsed = parse("m.yaml", MISTAKEN);
    let told: Vec<String> = parsed
        .problems
        .iter()
        .map(|p| format!("{:?} {p}", p.severity))
        .collect();
    let web = "document 2 (line 6), Service";
    let ok = "document 3 (line 18), Service default/ok";
    let expected = [
        format!("Error m.yaml: {web}, metadata.name: must be lower-case letters, digits, `-` and `.`"),
        format!(
            "Warning m.yaml: {web}, spec.clusterip: is not a known field and is ignored; did you mean `clusterIP`?"
        ),
        format!(
            "Warning m.yaml: {web}, spec.slector: is not a known field and is ignored; did you mean `selector`?"
        ),
        format!("Error m.yaml: {web}, spec.ports[0].port: must be a number from 1 to 65535, and is 70000"),
        format!("Error m.yaml: {web}, spec.ports[0].name: is missing; each of several ports needs one"),
        format!(
            "Warning m.yaml: {web}, spec.ports[1].apProtocol: is not a known field and is ignored; did you mean `appProtocol`?"
        ),
        format!(
            "Error m.yaml: {web}, spec.ports[1].protocol: must be one of TCP, UDP, SCTP, and is `tcp`; did you mean `TCP`?"
        ),
        format!(
            "Error m.yaml: {web}, spec.ports[1].port: must be a number from 1 to 65535, and is the text `http`"
        ),
        format!(
            "Error m.yaml: {web}, spec.sessionAffinity: must be one of None, ClientIP, and is `ClientIp`; did you mean `ClientIP`?"
        ),
        format!("Error m.yaml: {ok}, spec.clusterIP: must be an IP address or `None`, and is `10.0.0.1.2`"),
        format!("Error m.yaml: {ok}, spec.ports: must be a list, and is a map"),
        format!(
            "Warning m.yaml: {ok}, metadata.annotations[weir.dev/access-log]: is a setting of the whole mesh and is ignored here; put it into the MeshConfig"
        ),
        format!(
            "Warning m.yaml: {ok}, metadata.annotations[weir.dev/conect-timeout]: is not a known setting and is ignored; did you mean `weir.dev/connect-timeout`?"
        ),
        format!("Error m.yaml: {ok}, metadata.annotations[weir.dev/retries]: must be a number from 0 to 100"),
        format!(
            "Error m.yaml: {ok}, metadata.annotations[weir.dev/eject-time]: must be a duration, for example `5s`, `250ms` or `1m30s`"
        ),
    ];
    for (told, expected) in told.iter().zip(&expected) {
        let name = match expected.starts_with("Error") {
            true => ErrorName::ManifestField,
            false => ErrorName::ManifestUnknown,
        };
        assert_eq!(*told, format!("{expected} [{name}]"));
    }
    let rest = told[expected.len()..].join("\n");
    assert!(
        rest.contains("document 4 (line 31): not valid YAML, line "),
        "{rest}"
    );
    assert!(
        rest.contains("document 5 (line 33): the document is no object"),
        "{rest}"
    );
    assert!(
        rest.contains("MeshConfig that is read is `weir.dev/v1alpha1`"),
        "{rest}"
    );
    assert!(
        rest.contains("the apiVersion of EndpointSlice that is read is `discovery.k8s.io/v1`"),
        "{rest}"
    );
    assert!(parsed.objects.is_empty());
    assert_eq!(
        parsed.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Service default/ok"]
    );
    assert!(parsed.unreadable);
}

#[test]
fn hostile_texts() {
    let bomb = {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (new, old) in "bcdefghi".chars().zip("abcdefgh".chars()) {
            text += &format!("{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(","));
        }
        text + "kind: Service\napiVersion: v1\n"
    };
    let deep = "[".repeat(100_000);
    let deep_json = format!("{{\"kind\": {}", "{\"a\":".repeat(100_000));
    let refused = [
        bomb,
        deep,
        deep_json,
        "kind: Service\n\tapiVersion: v1".to_owned(),
        "kind: Service\0\napiVersion: v1".to_owned(),
        "kind: a\nkind: b".to_owned(),
        "&a [*a]".to_owned(),
        "*nothing".to_owned(),
        "? [complex]\n: key".to_owned(),
        "'unclosed".to_owned(),
        "{".to_owned(),
        "]".to_owned(),
        "- - - a".to_owned(),
        "99999999999999999999999999".to_owned(),
        "<<: 1".to_owned(),
        "a: <<<<<<< HEAD\n=======\n>>>>>>> other".to_owned(),
    ];
    for text in refused {
        let parsed = parse("m.yaml", &text);
        let short: String = text.chars().take(40).collect();
        assert!(parsed.objects.is_empty(), "{short}");
        assert!(parsed.unreadable, "{short}");
        for problem in &parsed.problems {
            assert!(problem.to_string().len() < 500, "{problem}");
            assert!(!problem.to_string().contains('\0'));
        }
    }
    let values = [
        "1e400",
        ".inf",
        "-1",
        "0x50",
        "0o10",
        "010",
        "8_0",
        "true",
        "null",
        "~",
        "[]",
        "{}",
        "[80]",
        "''",
        "\"80\"",
        "!!binary YQ==",
        "!!str 80",
        "2001-01-01",
        "18446744073709551616",
        "-9223372036854775809",
    ];
    let fields = [
        "metadata",
        "spec",
        "spec.ports",
        "spec.ports.0",
        "spec.ports.0.port",
        "spec.ports.0.name",
        "spec.ports.0.targetPort",
        "spec.clusterIP",
        "spec.clusterIPs",
        "spec.selector",
        "spec.selector.app",
        "spec.sessionAffinity",
        "metadata.name",
        "metadata.annotations",
        "metadata.labels",
    ];
    for field in fields {
        for value in values {
            let _ = parse("m.yaml", &planted(field, value));
        }
    }
}

/// A service with a value planted at a field.
fn planted(field: &str, value: &str) -> String {
    let mut parts = field.split('.');
    let first = parts.next().unwrap_or_default();
    let mut tail = value.to_owned();
    for part in parts.rev() {
        tail = if part == "0" {
            format!("[{tail}]")
        } else {
            format!("{{{part}: {tail}}}")
        };
    }
    let name = if first == "metadata" {
        ""
    } else {
        "metadata: {name: x}\n"
    };
    format!("apiVersion: v1\nkind: Service\n{name}{first}: {tail}\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse("m.yaml", &text);
    }

    /// Cut anywhere, or with a byte changed anywhere, a good manifest is read or refused.
    #[test]
    fn no_damage_panics(at in 0..SERVICE.len(), byte in 0_u8..128, cut in any::<bool>()) {
        let mut bytes = SERVICE.as_bytes().to_vec();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let _ = parse("m.yaml", &String::from_utf8_lossy(&bytes));
    }
}
