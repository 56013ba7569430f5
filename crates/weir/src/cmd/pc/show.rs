//! What was asked for, in the form that was asked for, and a remark where that needs one. Rows go to
//! standard output; remarks to standard error, where they are in nobody's way who reads the rows.

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use diagnose::tables::{self, Row, Shape};
use model::{ErrorName, ObjectName, Severity};
use registry::Dump;

use super::proxies::ProxyRow;
use super::{Form, What, print, severity};
use crate::errors::{OrNamed, fail, say};

/// Prints the rows of a dump, and a remark.
pub(super) fn show(dump: &Dump, what: What, form: Form) -> Result<ExitCode> {
    let is_for_people = matches!(form, Form::Table | Form::Wide);
    let remark = match &what {
        What::Problems { .. } => tables::problems_left_out(dump),
        What::Dns { .. } => tables::dns_remark(dump)
            .map(str::to_owned)
            .or_else(|| tables::problems_hint(dump)),
        _ => tables::problems_hint(dump),
    };
    let nothing = nothing(dump, &what);
    let is_of_problems = matches!(what, What::Problems { .. });
    let is_bad = matches!(&what, What::Problems { severity } if has_errors(dump, severity.as_deref()));
    let (text, is_empty) = rows(dump, what, form)?;
    print(&text)?;
    if is_for_people && is_empty {
        say(&format!("weir: {nothing}"));
    }
    if is_for_people
        && is_of_problems
        && let Some(own) = undescribed(dump)
    {
        say(&format!(
            "weir: no manifest describes {own}, the pod of this proxy"
        ));
    }
    if is_for_people && let Some(remark) = remark {
        say(&remark);
    }
    Ok(ExitCode::from(u8::from(is_bad)))
}

/// The pod of the proxy, where no manifest describes it.
fn undescribed(dump: &Dump) -> Option<&ObjectName> {
    let own = dump.own.as_ref()?;
    let is_described = dump.workloads.iter().any(|workload| workload.name == *own);
    (!is_described).then_some(own)
}

/// Whether an error is among the problems that are shown.
fn has_errors(dump: &Dump, word: Option<&str>) -> bool {
    let shown = tables::problems(dump, word.and_then(severity));
    shown.iter().any(|problem| problem.severity == Severity::Error)
}

/// Prints the proxies that run.
pub(super) fn proxies(rows: &[ProxyRow], form: Form) -> Result<ExitCode> {
    print(&text(rows, form)?.0)?;
    if rows.is_empty() && matches!(form, Form::Table | Form::Wide) {
        say("weir: no proxy runs that can be seen from here; as root all on this machine are");
    }
    Ok(ExitCode::from(u8::from(rows.iter().any(|row| !row.answers))))
}

/// Prints a whole dump: JSON as it came.
pub(super) fn whole(text: &str, form: Form) -> Result<ExitCode> {
    let text = match form {
        Form::Json => text.trim_end().to_owned() + "\n",
        Form::Yaml => {
            let value: serde_json::Value = serde_json::from_str(text)
                .or_named(ErrorName::BadAnswer, "this is no dump: it is no JSON")?;
            serde_saphyr::to_string(&value).or_named(ErrorName::Defect, "cannot write it as YAML")?
        }
        Form::Table | Form::Wide => fail!(Usage, "a dump is no table; ask for -o json or -o yaml"),
    };
    print(&text)
}

/// The rows as text, and whether there are none.
fn rows(dump: &Dump, what: What, form: Form) -> Result<(String, bool)> {
    match what {
        What::Listeners { address, port, kind } => {
            let address = address.map(|ip| ip.to_string());
            let filter = tables::ListenerFilter { address, port, kind };
            text(&tables::listeners(dump, &filter), form)
        }
        What::Routes { name } => text(&tables::routes(dump, &tables::RouteFilter { name }), form),
        What::Clusters {
            fqdn,
            direction,
            port,
            subset,
        } => {
            let filter = tables::ClusterFilter {
                fqdn,
                direction: direction.as_deref().map(super::direction),
                port,
                subset,
            };
            text(&tables::clusters(dump, &filter), form)
        }
        What::Endpoints {
            address,
            port,
            cluster,
            status,
        } => {
            let filter = tables::EndpointFilter {
                address,
                port,
                cluster,
                status,
            };
            text(&tables::endpoints(dump, &filter), form)
        }
        What::Services { namespace } => text(&tables::services(dump, namespace.as_deref()), form),
        What::Workloads { namespace } => text(&tables::workloads(dump, namespace.as_deref()), form),
        What::Dns { name, kind } => text(&tables::dns(dump, &tables::DnsFilter { name, kind }), form),
        What::Settings => text(&tables::settings(dump)?, form),
        What::Problems { severity } => text(
            &tables::problems(dump, severity.as_deref().and_then(super::severity)),
            form,
        ),
        // Printed otherwise.
        What::Dump | What::Proxies | What::Journey { .. } => Ok((String::new(), false)),
    }
}

fn text<R: Row>(rows: &[R], form: Form) -> Result<(String, bool)> {
    let table = |is_wide, terminal| tables::as_table(rows, Shape { is_wide, terminal });
    let text = match form {
        Form::Json => tables::as_json(rows)? + "\n",
        Form::Yaml => tables::as_yaml(rows)?,
        Form::Table => table(false, netsys::terminal::columns(&io::stdout())),
        Form::Wide => table(true, None),
    };
    Ok((text, rows.is_empty()))
}

/// What is said where there are no rows.
fn nothing(dump: &Dump, what: &What) -> String {
    if let Some(others) = other_names(dump, what) {
        return others;
    }
    let said = match what {
        What::Endpoints {
            address: None,
            port: None,
            cluster: None,
            status: None,
        } => "no service has an endpoint; `weir pc services` shows what there is",
        What::Routes { name: None } => {
            "no port carries HTTP, so there are no routes; `weir pc clusters` shows the protocols"
        }
        What::Services { namespace: None } => {
            "the manifests hold no service; `weir pc problems` says what is wrong with them, if anything"
        }
        What::Dns {
            name: None,
            kind: None,
        } => "the mesh has no names: every look-up is forwarded",
        What::Workloads { namespace: None } => {
            "the manifests hold no pod; services may have their endpoints from EndpointSlices"
        }
        What::Problems { severity: None } => "nothing is wrong with the manifests",
        _ => "nothing matches; without the filters everything is shown",
    };
    said.to_owned()
}

/// Where a name was given that nothing has: some that there are, those that contain it before all others.
fn other_names(dump: &Dump, what: &What) -> Option<String> {
    const SHOWN: usize = 5;
    let (kind, wanted, mut names): (_, _, Vec<String>) = match what {
        What::Routes { name: Some(name) } => {
            let rows = tables::routes(dump, &tables::RouteFilter::default());
            ("route", name, rows.into_iter().map(|row| row.name).collect())
        }
        What::Endpoints {
            cluster: Some(name), ..
        } => {
            let clusters = dump.clusters.iter();
            (
                "cluster",
                name,
                clusters.map(|cluster| cluster.name.to_string()).collect(),
            )
        }
        _ => return None,
    };
    if names.contains(wanted) {
        return None;
    }
    names.dedup();
    names.sort_by_key(|name| !name.contains(wanted.as_str()));
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names.truncate(SHOWN);
    Some(match names.is_empty() {
        true => format!("no {kind} is named `{wanted}`, and there is no other"),
        false => format!(
            "no {kind} is named `{wanted}`; there are {}{more}",
            names.join(", ")
        ),
    })
}
