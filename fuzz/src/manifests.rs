//! Manifests: whatever a file holds, reading it ends, and what was good before stays.

use discovery::{Catalog, Reader, Severity, parse};
use registry::Table;

const GOOD: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: good, namespace: fuzz}\nspec: {clusterIP: 10.0.0.1}\n";

/// Reads a file, joins it with a good one, and reads it again.
///
/// # Panics
/// Where the same text is told twice, a refusal is not explained, or the good service is lost.
pub fn check_manifests(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let parsed = parse("any.yaml", text);
    let is_refused = parsed.unreadable || !parsed.refused.is_empty();
    let errors = parsed
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    assert!(!is_refused || errors.count() > 0, "refused without a word");
    for problem in &parsed.problems {
        assert!(!problem.to_string().is_empty());
    }

    // What a reader remembers of another text changes nothing.
    let mut reader = Reader::default();
    let half = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at));
    let _ = reader.read("any.yaml", &text[..half.unwrap_or(0)]);
    let again = reader.read("any.yaml", text);
    assert_eq!(format!("{again:?}"), format!("{parsed:?}"));

    let mut catalog = Catalog::default();
    let mut table = Table::new(None);
    let mut put = |catalog: &mut Catalog, file: &str, text: &str| {
        catalog.put(file, parse(file, text));
        let updates = catalog.updates();
        let told = updates.len();
        for update in updates {
            table.apply(update);
        }
        (told, table.snapshot())
    };
    put(&mut catalog, "good.yaml", GOOD);
    let (_, first) = put(&mut catalog, "any.yaml", text);
    let (told, second) = put(&mut catalog, "any.yaml", text);
    assert_eq!(told, 0, "the same text is no change");
    assert_eq!(first.version, second.version);
    assert!(second.service_by_host("good.fuzz").is_some());
}
