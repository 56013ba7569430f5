//! What is wrong with the manifests, as part of a dump: all of it counted, the worst of it listed.

use std::collections::BTreeSet;

use model::{Problem, Severity};
use serde::{Deserialize, Serialize};

/// Most that are listed, so that a folder of broken files makes no huge dump.
pub const MOST_LISTED: usize = 1_000;
/// Most characters of one text of a problem, which may quote what a file says.
const MOST_CHARACTERS: usize = 500;

/// Problems with the manifests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProblemsDump {
    /// Objects, and documents or files that are not even that, with an error or a warning.
    pub manifests: usize,
    /// How many errors.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// How many notes.
    pub notes: usize,
    /// The first [`MOST_LISTED`], errors before warnings before notes, each in the order of the files.
    pub listed: Vec<Problem>,
}

impl ProblemsDump {
    /// Counts all of them and keeps the worst.
    #[must_use]
    pub fn new(problems: &[Problem]) -> Self {
        let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
        let amiss: BTreeSet<_> = problems
            .iter()
            .filter(|problem| problem.severity != Severity::Note)
            .map(|problem| (&problem.file, problem.place.document, problem.place.item))
            .collect();
        let mut worst: Vec<&Problem> = problems.iter().collect();
        worst.sort_by_key(|problem| (problem.severity, *problem));
        Self {
            manifests: amiss.len(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            listed: worst.into_iter().take(MOST_LISTED).map(shortened).collect(),
        }
    }

    /// How many there are, listed or not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.errors + self.warnings + self.notes
    }
}

fn shortened(problem: &Problem) -> Problem {
    let mut problem = problem.clone();
    for text in [
        &mut problem.place.object,
        &mut problem.field,
        &mut problem.message,
    ] {
        if let Some((end, _)) = text.char_indices().nth(MOST_CHARACTERS) {
            text.truncate(end);
            text.push('…');
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Place;

    fn problem(file: &str, document: usize, severity: Severity, message: &str) -> Problem {
        Problem {
            name: model::ErrorName::ManifestField,
            file: file.into(),
            place: Place {
                document,
                line: 1,
                ..Place::default()
            },
            field: String::new(),
            severity,
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_worst_come_first_and_manifests_are_counted_once() {
        let all = [
            problem("a.yaml", 1, Severity::Note, "n"),
            problem("a.yaml", 2, Severity::Warning, "w"),
            problem("a.yaml", 2, Severity::Error, "e"),
            problem("b.yaml", 0, Severity::Error, "f"),
        ];
        let dump = ProblemsDump::new(&all);
        assert_eq!((dump.manifests, dump.total()), (2, 4));
        assert_eq!((dump.errors, dump.warnings, dump.notes), (2, 1, 1));
        let listed: Vec<&str> = dump.listed.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(listed, ["e", "f", "w", "n"]);
    }

    #[test]
    fn a_folder_of_broken_files_makes_no_huge_dump() {
        let long = "é".repeat(100_000);
        let all: Vec<Problem> = (0..5_000)
            .map(|number| problem("a.yaml", number, Severity::Warning, &long))
            .chain([problem("z.yaml", 1, Severity::Error, "e")])
            .collect();
        let dump = ProblemsDump::new(&all);
        assert_eq!((dump.total(), dump.manifests), (5_001, 5_001));
        assert_eq!(dump.listed.len(), MOST_LISTED);
        assert_eq!(dump.listed[0].message, "e");
        assert_eq!(
            dump.listed[1].message.chars().count(),
            MOST_CHARACTERS + 1,
            "cut, and said so"
        );
    }
}
