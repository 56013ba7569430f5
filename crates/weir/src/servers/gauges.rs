//! Gauges that are set when metrics are scraped: what the registry holds, and what is wrong with the
//! manifests that feed it.

use discovery::parse::Kind;
use model::{Problem, Severity};
use registry::Snapshot;
use runtime::metrics::{Family, Gauge, Label, Metrics};

/// What is no object of a kind that is read: another kind, a document, a whole file.
const OTHER: &str = "other";

/// What the registry holds.
pub(super) struct SnapshotGauges {
    version: Gauge,
    services: Gauge,
    workloads: Gauge,
}

/// What is wrong with the manifests.
pub(super) struct ProblemGauges(Family<Gauge, 2>);

impl SnapshotGauges {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            version: metrics.gauge(
                "weir_snapshot_version",
                "Grows with each change of the registry that this proxy sees",
            ),
            services: metrics.gauge("weir_services", "Services in the registry"),
            workloads: metrics.gauge("weir_workloads", "Pods in the registry"),
        }
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        self.version
            .set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        self.services.set(number(snapshot.services.len()));
        self.workloads.set(number(snapshot.workloads.len()));
    }
}

impl ProblemGauges {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(metrics.gauges(
            "weir_manifest_problems",
            "Problems with the manifests as they are now, by severity (error, warning, note) and kind of object \
             (other: a document or file that is not even that); `weir pc problems` lists them",
            [Label::fixed("severity"), Label::fixed("kind")],
        ))
    }

    /// Sets every label set, so that one that is mended goes back to zero.
    pub(super) fn set(&self, problems: &[Problem]) {
        for severity in Severity::ALL {
            for kind in kinds().chain([OTHER]) {
                let count = problems
                    .iter()
                    .filter(|problem| problem.severity == severity && kind_of(problem) == kind)
                    .count();
                self.0.with([severity.as_str(), kind]).set(number(count));
            }
        }
    }
}

/// Kinds of object that have a label value of their own.
fn kinds() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().map(Kind::as_str)
}

fn kind_of(problem: &Problem) -> &'static str {
    let word = problem.place.object.split(' ').next().unwrap_or_default();
    kinds().find(|kind| *kind == word).unwrap_or(OTHER)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Place;

    #[test]
    fn problems_are_counted_by_severity_and_kind_and_go_away() {
        let metrics = Metrics::default();
        let gauges = ProblemGauges::new(&metrics);
        let problem = |severity, object: &str| Problem {
            name: model::ErrorName::ManifestField,
            file: "a.yaml".into(),
            place: Place {
                object: object.to_owned(),
                ..Place::default()
            },
            field: String::new(),
            severity,
            message: String::new(),
        };
        gauges.set(&[
            problem(Severity::Error, "Service a/b"),
            problem(Severity::Error, "Service a/c"),
            problem(Severity::Warning, "Anything"),
            problem(Severity::Error, ""),
        ]);
        let at = |severity: &str, kind: &str| {
            let line = format!("weir_manifest_problems{{severity=\"{severity}\",kind=\"{kind}\"}} ");
            let text = metrics.encode();
            let found = text
                .lines()
                .find_map(|l| l.strip_prefix(&line).map(str::to_owned));
            found.unwrap_or_else(|| panic!("no {line} in {text}"))
        };
        assert_eq!(at("error", "Service"), "2");
        assert_eq!(at("warning", "other"), "1");
        assert_eq!(at("error", "other"), "1");
        assert_eq!(at("note", "Pod"), "0");
        gauges.set(&[]);
        assert_eq!(at("error", "Service"), "0");
    }
}
