//! What a file for people says about capture, as [`Flags`]: each field stands for a flag, and a flag that is
//! given as well wins. Mistakes are told by the names of the fields, all at once.

use serde_json::{Map, Value};

use crate::flags::Flags;
use crate::plan::{Mistake, TRACKING_FLAG};

/// What may stand in `apiVersion`.
pub const API_VERSION: &str = "weir.dev/v1alpha1";
/// What may stand in `kind`.
pub const KIND: &str = "Capture";

/// A field: its place in the file, the flag that it stands for, and where that is kept.
struct Field {
    path: &'static str,
    flag: &'static str,
    kept: fn(&mut Flags) -> &mut Option<String>,
}

const fn field(path: &'static str, flag: &'static str, kept: fn(&mut Flags) -> &mut Option<String>) -> Field {
    Field { path, flag, kept }
}

const FIELDS: [Field; 29] = [
    field("families", "--families", |to| &mut to.families),
    field("dropInvalid", "--drop-invalid", |to| &mut to.drop_invalid),
    field("proxy.uids", "-u (--proxy-uid)", |to| &mut to.proxy_uid),
    field("proxy.gids", "-g (--proxy-gid)", |to| &mut to.proxy_gid),
    field("proxy.marks", "--proxy-mark", |to| &mut to.proxy_mark),
    field("proxy.classIds", "--proxy-class-id", |to| &mut to.proxy_class_id),
    field("proxy.cgroups", "--proxy-cgroup", |to| &mut to.proxy_cgroup),
    field("outbound.port", "-p (--envoy-port)", |to| &mut to.outbound_port),
    field("outbound.cidrs", "-i (--istio-service-cidr)", |to| {
        &mut to.outbound_cidrs
    }),
    field(
        "outbound.excludeCidrs",
        "-x (--istio-service-exclude-cidr)",
        |to| &mut to.outbound_exclude_cidrs,
    ),
    field("outbound.ports", "-q (--istio-outbound-ports)", |to| {
        &mut to.outbound_ports
    }),
    field(
        "outbound.excludePorts",
        "-o (--istio-local-outbound-ports-exclude)",
        |to| &mut to.outbound_exclude_ports,
    ),
    field("outbound.groups", "ISTIO_OUTBOUND_OWNER_GROUPS", |to| {
        &mut to.owner_groups
    }),
    field(
        "outbound.excludeGroups",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        |to| &mut to.owner_groups_exclude,
    ),
    field(
        "outbound.loopbackCidr",
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        |to| &mut to.loopback_cidr,
    ),
    field("inbound.mode", "-m (--istio-inbound-interception-mode)", |to| {
        &mut to.mode
    }),
    field("inbound.tproxyMark", "-t (--istio-inbound-tproxy-mark)", |to| {
        &mut to.tproxy_mark
    }),
    field(
        "inbound.tproxyTable",
        "-r (--istio-inbound-tproxy-route-table)",
        |to| &mut to.tproxy_table,
    ),
    field("inbound.tproxyConntrack", TRACKING_FLAG, |to| {
        &mut to.tproxy_conntrack
    }),
    field("inbound.port", "-z (--inbound-capture-port)", |to| {
        &mut to.inbound_port
    }),
    field("inbound.tunnelPort", "-e (--inbound-tunnel-port)", |to| {
        &mut to.tunnel_port
    }),
    field("inbound.ports", "-b (--istio-inbound-ports)", |to| {
        &mut to.inbound_ports
    }),
    field("inbound.excludePorts", "-d (--istio-local-exclude-ports)", |to| {
        &mut to.inbound_exclude_ports
    }),
    field("inbound.excludeSources", "--inbound-exclude-sources", |to| {
        &mut to.exclude_sources
    }),
    field("dns.capture", "--redirect-dns", |to| &mut to.redirect_dns),
    field("dns.allServers", "--capture-all-dns", |to| {
        &mut to.capture_all_dns
    }),
    field("dns.failClosed", "--dns-fail-closed", |to| {
        &mut to.dns_fail_closed
    }),
    field("devices.exclude", "-c (--istio-exclude-interfaces)", |to| {
        &mut to.exclude_interfaces
    }),
    field("devices.virtualMachines", "-k (--kube-virt-interfaces)", |to| {
        &mut to.kube_virt_interfaces
    }),
];

/// Adds to the flags what the document says, where they do not say it themselves.
///
/// # Errors
/// All fields that are not known or have no value of their kind. What a value says is looked at by
/// [`Flags::intent`], which tells the field's name.
pub fn read(document: &Value, flags: &mut Flags) -> Result<(), Vec<Mistake>> {
    let mut mistakes = vec![];
    match document {
        Value::Null => {}
        Value::Object(fields) => section("", fields, flags, &mut mistakes),
        _ => mistakes.push(Mistake::new(
            "the file",
            "is no list of fields; write `outbound:` and so on",
        )),
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

fn section(prefix: &str, fields: &Map<String, Value>, flags: &mut Flags, mistakes: &mut Vec<Mistake>) {
    for (name, value) in fields {
        let path = format!("{prefix}{name}");
        let is_section = FIELDS.iter().any(|field| {
            let rest = field.path.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        });
        if let Some(field) = FIELDS.iter().find(|field| field.path == path) {
            match text(value) {
                // As if it were not there.
                _ if value.is_null() => {}
                Ok(text) => keep(field, text, flags),
                Err(problem) => mistakes.push(Mistake::new(path, problem)),
            }
            continue;
        }
        match (path.as_str(), value) {
            ("apiVersion", Value::String(version)) if version == API_VERSION => {}
            ("kind", Value::String(kind)) if kind == KIND => {}
            ("apiVersion" | "kind", _) => mistakes.push(Mistake::new(
                path,
                format!(
                    "is not what this file is: write apiVersion: {API_VERSION} and kind: {KIND}, or neither"
                ),
            )),
            ("sidecar", Value::Bool(sidecar)) => flags.sidecar |= sidecar,
            ("sidecar", _) => mistakes.push(Mistake::new(path, "is neither true nor false")),
            (_, Value::Null) if is_section => {}
            (_, Value::Object(inner)) if is_section => section(&format!("{path}."), inner, flags, mistakes),
            _ if is_section => mistakes.push(Mistake::new(path, "has fields of its own, not a value")),
            _ => mistakes.push(Mistake::new(path, unknown(prefix))),
        }
    }
}

fn unknown(prefix: &str) -> String {
    let mut known: Vec<_> = FIELDS
        .iter()
        .filter_map(|field| field.path.strip_prefix(prefix)?.split('.').next())
        .collect();
    if prefix.is_empty() {
        known.extend(["apiVersion", "kind", "sidecar"]);
    }
    known.sort_unstable();
    known.dedup();
    format!("is no field; there are {}", known.join(", "))
}

fn keep(field: &Field, text: String, flags: &mut Flags) {
    let kept = (field.kept)(flags);
    if kept.as_deref().unwrap_or_default().is_empty() {
        *kept = Some(text);
        flags.named.push((field.flag, field.path));
    }
}

/// One value, or several in a list.
fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(scalar).collect();
            Ok(items?.join(","))
        }
        value => scalar(value),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => Err("is neither a value nor a list of values".to_owned()),
    }
}
