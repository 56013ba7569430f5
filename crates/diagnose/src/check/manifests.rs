//! Manifests: what is wrong with each by itself, and what a proxy that serves them would lack. Pure.

use std::collections::BTreeSet;

use model::{Direction, ErrorName, ObjectName, Problem, Severity};
use registry::Dump;
use registry::dump::{ClusterDump, EndpointDump};

use super::{Finding, Manifests, Report};

pub(super) fn look(manifests: &Manifests, report: &mut Report) {
    let Manifests { dump, problems } = manifests;
    report.findings.extend(problems.iter().map(of_problem));
    let found = dump
        .clusters
        .iter()
        .filter(|cluster| cluster.direction == Direction::Outbound)
        // Why is said already.
        .filter(|cluster| !has_mismatch(problems, &cluster.service))
        .filter_map(without_endpoints);
    report.findings.extend(found);
    report.findings.extend(strays(dump));
    let saw = format!("{} services, {} pods", dump.services.len(), dump.workloads.len());
    report.looked("manifests", saw);
}

fn of_problem(problem: &Problem) -> Finding {
    let place = &problem.place;
    let parts = [place.object.as_str(), problem.field.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let line = if place.line > 0 {
        format!(":{}", place.line)
    } else {
        String::new()
    };
    let explained = problem.name.explained();
    Finding {
        severity: problem.severity,
        name: problem.name,
        subject: format!("{}{line}", problem.file),
        found: [parts.join(" "), problem.message.clone()].join(": "),
        why: explained.says.to_owned(),
        fix: explained.fix.to_owned(),
    }
}

/// Whether the service itself is said not to fit its pods.
fn has_mismatch(problems: &[Problem], service: &ObjectName) -> bool {
    let object = format!("Service {service}");
    let mut mismatches = problems
        .iter()
        .filter(|problem| problem.name == ErrorName::ManifestMismatch);
    mismatches.any(|problem| problem.place.object == object)
}

fn without_endpoints(cluster: &ClusterDump) -> Option<Finding> {
    if cluster.endpoints.iter().any(|endpoint| endpoint.usable) {
        return None;
    }
    let found = match cluster.endpoints.len() {
        0 => "no endpoint: no pod or slice gives it one".to_owned(),
        1 => "its only endpoint is not ready".to_owned(),
        many => format!("none of its {many} endpoints is ready"),
    };
    Some(Finding {
        severity: Severity::Warning,
        name: ErrorName::NoEndpoints,
        subject: format!("Service {} port {}", cluster.service, cluster.port),
        found,
        why: "a client gets 503, or its connection is closed".to_owned(),
        fix: "compare spec.selector with the pods' labels, and look at their readiness".to_owned(),
    })
}

/// Endpoints of pods that the folder lacks, where it describes pods at all.
fn strays(dump: &Dump) -> Vec<Finding> {
    if dump.workloads.is_empty() {
        return vec![];
    }
    let known: BTreeSet<&ObjectName> = dump.workloads.iter().map(|workload| &workload.name).collect();
    let mut found: BTreeSet<(&ObjectName, &ObjectName)> = BTreeSet::new();
    for cluster in &dump.clusters {
        let pods = cluster
            .endpoints
            .iter()
            .filter_map(|endpoint: &EndpointDump| endpoint.workload.as_ref());
        found.extend(
            pods.filter(|pod| !known.contains(pod))
                .map(|pod| (&cluster.service, pod)),
        );
    }
    let stray = |(service, pod): (&ObjectName, &ObjectName)| Finding {
        severity: Severity::Warning,
        name: ErrorName::StrayEndpoint,
        subject: format!("endpoints of Service {service}"),
        found: format!("they name the pod {pod}, which no manifest describes"),
        why: "traffic goes to whoever has the address now".to_owned(),
        fix: "add the pod's manifest, or write the slice anew".to_owned(),
    };
    found.into_iter().map(stray).collect()
}
