//! `weir pc problems`: what is wrong with the manifests, the worst first.

use model::{Problem, Severity};
use registry::Dump;

use super::Row;

impl Row for Problem {
    const COLUMNS: &'static [&'static str] = &["SEVERITY", "FILE", "DOCUMENT", "OBJECT", "FIELD", "PROBLEM"];
    const WRAPS_LAST: bool = true;

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        let place = &self.place;
        let document = match (place.document, place.item) {
            (0, _) => "-".to_owned(),
            (document, None) => format!("{document} (line {})", place.line),
            (document, Some(item)) => format!("{document} (line {}), item {item}", place.line),
        };
        vec![
            self.severity.as_str().to_owned(),
            self.file.to_string(),
            document,
            or_dash(&place.object),
            or_dash(&self.field),
            format!("{} [{}]", self.message, self.name),
        ]
    }
}

/// The rows of this severity, or all.
#[must_use]
pub fn problems(dump: &Dump, severity: Option<Severity>) -> Vec<Problem> {
    let listed = dump.problems.listed.iter();
    listed
        .filter(|problem| severity.is_none_or(|wanted| problem.severity == wanted))
        .cloned()
        .collect()
}

/// One line under other tables where manifests have errors or warnings.
#[must_use]
pub fn problems_hint(dump: &Dump) -> Option<String> {
    match dump.problems.manifests {
        0 => None,
        1 => Some("1 manifest has problems: weir pc problems".to_owned()),
        many => Some(format!("{many} manifests have problems: weir pc problems")),
    }
}

/// What is said under the table of problems where not all of them are listed.
#[must_use]
pub fn problems_left_out(dump: &Dump) -> Option<String> {
    let (listed, total) = (dump.problems.listed.len(), dump.problems.total());
    (listed < total).then(|| format!("{listed} of {total} problems are listed; mend these to see the others"))
}
