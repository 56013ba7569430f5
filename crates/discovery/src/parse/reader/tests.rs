//! Whatever the text, and whatever it was before: a reader that takes it apart and remembers says what one
//! says that parses it whole.

use proptest::prelude::*;

use super::*;

/// What parsing every document whole says.
fn parsed_whole(text: &str) -> Parsed {
    let file: Arc<str> = "m.yaml".into();
    let mut parsed = Parsed::default();
    for document in document::split(text) {
        let place = Place {
            document: document.number,
            line: document.line,
            ..Place::default()
        };
        match document.value().and_then(|value| whole(&value)) {
            Ok(contents) => contents.tell(&file, &place, &mut parsed),
            Err(message) => parsed.refuse(&file, place, ErrorName::ManifestSyntax, message),
        }
    }
    parsed
}

/// Everything that a file came to, to be compared.
fn told(parsed: &Parsed) -> String {
    format!("{parsed:#?}")
}

fn items_taken_apart(text: &str) -> usize {
    let mut reader = Reader::default();
    let _ = reader.read("m.yaml", text);
    reader.known.items.len()
}

const LIST: &str = "\
apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations:
      note: |
        - apiVersion: v1
        items:
    name: a
  spec:
    clusterIP: 10.96.0.1
    ports:
    - port: 80
# a comment
- apiVersion: v1
  kind: Service
  metadata: {name: b}
  spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
kind: List
metadata:
  resourceVersion: \"\"
";

const JSON: &str = r#"{"apiVersion": "v1", "items": [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.1"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"clusterIP": "10.96.0.2"}}
], "kind": "List", "metadata": {"resourceVersion": ""}}"#;

#[test]
fn a_list_as_kubectl_prints_it_is_taken_apart() {
    let (head, rest) = LIST.split_once("items:\n").expect("a list");
    let (items, tail) = rest.split_once("kind: List").expect("its end");
    let items: String = items.lines().map(|line| format!("  {line}\n")).collect();
    let indented = format!("{head}items:\n{items}kind: List{tail}");
    let typed = LIST
        .replace("kind: List", "kind: ServiceList")
        .replace("- apiVersion: v1\n  kind: Service\n  metadata", "- metadata");
    let crlf = LIST.replace('\n', "\r\n");
    for text in [LIST, JSON, &indented, &typed, &crlf, &format!("---\n{LIST}")] {
        assert_eq!(items_taken_apart(text), 2, "{text}");
        assert_eq!(told(&parse_once(text)), told(&parsed_whole(text)), "{text}");
        assert_eq!(parse_once(text).objects.len(), 2, "{text}");
    }
}

fn parse_once(text: &str) -> Parsed {
    Reader::default().read("m.yaml", text)
}

#[test]
fn what_cannot_be_taken_apart_for_sure_is_parsed_whole() {
    let item = |name: &str, more: &str| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata: {{name: {name}}}\n  spec: {{clusterIP: 10.96.0.1}}\n{more}"
        )
    };
    let list = |items: &str| format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    let table = [
        // An alias to another item's anchor.
        list(
            "- &a {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1}}\n- *a\n",
        ),
        list(&item("a", "  x: \"open\n- still\n  open\"\n")),
        list(&item("a", "  x: [open,\n- still]\n")),
        list(&item("a", " - odd: 1\n")),
        format!("x: \"\nitems:\n{}\"\nkind: List\napiVersion: v1\n", item("a", "")),
        format!("--- !!map\n{}", list(&item("a", ""))),
        format!("{}items: []\n", list(&item("a", ""))),
        list(""),
        list(&item("a", "...\nmore: 1\n")),
        JSON.replace("\"kind\": \"List\"", "\"kind\": \"List\", \"kind\": \"List\""),
        JSON.replace("}},\n", "}}\n"),
    ];
    for text in table {
        assert_eq!(items_taken_apart(&text), 0, "{text}");
        assert_eq!(told(&parse_once(&text)), told(&parsed_whole(&text)), "{text}");
    }
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let mut reader = Reader::default();
    let objects = |parsed: &Parsed| -> Vec<_> {
        let objects = parsed.objects.values();
        objects
            .map(|(place, object)| (place.clone(), Arc::clone(object)))
            .collect()
    };
    for text in [LIST, JSON] {
        let first = objects(&reader.read("m.yaml", text));
        let second = objects(&reader.read("m.yaml", &text.replace("10.96.0.2", "10.96.0.3")));
        assert!(Arc::ptr_eq(&first[0].1, &second[0].1));
        assert_ne!(first[1].1, second[1].1);
    }
    // Moved within the file, objects are what they were, at their new places.
    let first = objects(&reader.read("m.yaml", LIST));
    let moved = objects(&reader.read("m.yaml", &format!("---\nkind: Other\n---\n{LIST}")));
    assert!(
        first
            .iter()
            .zip(&moved)
            .all(|(one, other)| Arc::ptr_eq(&one.1, &other.1))
    );
    let place = &moved[1].0;
    assert_eq!((place.document, place.line, place.item), (2, 3, Some(2)));
}

/// Lines of which lists are made, and what is apt to break taking them apart.
const LINES: &[&str] = &[
    "items:",
    "items:",
    "items: []",
    "- a: 1",
    "- apiVersion: v1",
    "  - b",
    "  kind: Service",
    "  kind: Pod",
    "  metadata: {name: a}",
    "  metadata: {name: b}",
    "  spec: {clusterIP: 10.96.0.1}",
    "  spec: [bad]",
    "  metadata:",
    "    name: c",
    "  x: |",
    "  x: >-",
    "    text",
    "  x: \"open",
    "  close\"",
    "- \"open",
    "close\"",
    "  x: 'open",
    "  close'",
    "  x: [",
    "  ]",
    "  x: {",
    "  }",
    "- &a {k: v}",
    "- *a",
    "- <<: *a",
    "kind: List",
    "kind: ServiceList",
    "apiVersion: v1",
    "metadata:",
    "  resourceVersion: \"\"",
    "---",
    "...",
    "# c",
    "",
    "  ",
    "-",
    "- ",
    "- - a",
    "- ? a",
    "  : b",
    "- !!str a",
    "%YAML 1.2",
    "\t- a",
    "- |",
    "- >",
    " - a",
    "- a # c",
    "items: # c",
    "\"items\":",
    "? items",
    "- {a: b,",
    "-a",
    "- a:",
    "  - apiVersion: v1",
    "    kind: Service",
    "    metadata: {name: d}",
    "    spec: {clusterIP: 10.96.0.9}",
];

fn text() -> impl Strategy<Value = String> {
    let good = "- apiVersion: v1\n  kind: Service\n  metadata: {name: g}\n  spec: {clusterIP: 10.96.0.7}";
    let line = prop_oneof![
        8 => prop::sample::select(LINES),
        1 => Just(good),
    ];
    let end = prop_oneof![9 => Just("\n"), 1 => Just("\r\n")];
    let lines = prop::collection::vec((line, end), 0..14);
    let head = prop_oneof![Just(""), Just("apiVersion: v1\nkind: List\nitems:\n")];
    (head, lines).prop_map(|(head, lines)| {
        let lines = lines.into_iter().map(|(line, end)| line.to_owned() + end);
        head.to_owned() + &lines.collect::<String>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_reader_says_what_parsing_whole_says(texts in prop::collection::vec(text(), 1..4)) {
        let mut reader = Reader::default();
        for text in texts {
            let read = reader.read("m.yaml", &text);
            prop_assert_eq!(told(&read), told(&parsed_whole(&text)), "{}", text);
        }
    }
}
