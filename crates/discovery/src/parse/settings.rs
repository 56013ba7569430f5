//! Settings: the `spec` of a MeshConfig (`connectTimeout: 5s`), and the annotations of a Service
//! (`weir.dev/connect-timeout: 5s`), which are the same words spelt as annotations are.

use std::time::Duration;

use model::settings::{AccessLog, Balancing, DNS_TTL_MAX, OutboundPolicy, Overrides};
use model::{ErrorName, Settings, duration};

use super::node::Node;
use runtime::nearest::nearest;

/// Prefix of the annotations.
const PREFIX: &str = "weir.dev/";

/// What a service may override, and so what annotations there are.
const OF_SERVICE: [&str; 10] = [
    "balancing",
    "connect-timeout",
    "eject-after",
    "eject-max-percent",
    "eject-time",
    "per-try-timeout",
    "retries",
    "retry-body-bytes",
    "retry-budget-percent",
    "timeout",
];
/// What only the whole mesh has.
const OF_MESH: [&str; 10] = [
    "access-log",
    "automatic-addresses",
    "dns-ttl",
    "drain-deadline",
    "header-timeout",
    "http-idle-timeout",
    "outbound-policy",
    "pool-idle-timeout",
    "request-id",
    "tcp-idle-timeout",
];

/// The annotations of one service.
pub(super) fn overrides(annotations: &Node) -> Overrides {
    for (name, node) in annotations.entries() {
        let Some(name) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if OF_MESH.contains(&name) {
            node.warn(
                ErrorName::ManifestUnknown,
                "is a setting of the whole mesh and is ignored here; put it into the MeshConfig",
            );
        } else if !OF_SERVICE.contains(&name) && !OF_OTHER_USE.contains(&name) {
            let hint = nearest(name, &OF_SERVICE).map(|near| format!("; did you mean `{PREFIX}{near}`?"));
            node.warn(
                ErrorName::ManifestUnknown,
                format!(
                    "is not a known setting and is ignored{}",
                    hint.unwrap_or_default()
                ),
            );
        }
    }
    of_service(&|name| annotations.at(&format!("{PREFIX}{name}")))
}

/// Annotations that are read elsewhere.
const OF_OTHER_USE: [&str; 2] = ["sidecar.enable", "sidecar.version"];

/// A MeshConfig.
pub(super) fn mesh(root: &Node) -> Option<Settings> {
    root.known(&["apiVersion", "kind", "metadata", "spec"]);
    let spec = root.at("spec");
    let names: Vec<String> = OF_SERVICE
        .iter()
        .chain(&OF_MESH)
        .map(|name| camel(name))
        .collect();
    spec.known(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let at = |name: &str| spec.at(&camel(name));
    let mut settings = Settings {
        policy: of_service(&at).over(&model::settings::Policy::default()),
        ..Settings::default()
    };
    set(
        &mut settings.outbound_policy,
        choice(
            &at("outbound-policy"),
            &[
                ("allow-any", OutboundPolicy::AllowAny),
                ("registry-only", OutboundPolicy::RegistryOnly),
            ],
        ),
    );
    set(
        &mut settings.access_log,
        choice(
            &at("access-log"),
            &[
                ("off", AccessLog::Off),
                // What YAML 1.1 makes of a bare `off`.
                ("false", AccessLog::Off),
                ("text", AccessLog::Text),
                ("json", AccessLog::Json),
            ],
        ),
    );
    set(&mut settings.request_id, at("request-id").flag());
    set(&mut settings.header_timeout, time(&at("header-timeout")));
    set(&mut settings.http_idle_timeout, time(&at("http-idle-timeout")));
    set(&mut settings.pool_idle_timeout, time(&at("pool-idle-timeout")));
    set(&mut settings.tcp_idle_timeout, time(&at("tcp-idle-timeout")));
    set(&mut settings.drain_deadline, time(&at("drain-deadline")));
    set(
        &mut settings.automatic_addresses,
        at("automatic-addresses").flag(),
    );
    set(&mut settings.dns_ttl, seconds(&at("dns-ttl"), DNS_TTL_MAX));
    Some(settings)
}

fn of_service<'a>(at: &dyn Fn(&str) -> Node<'a>) -> Overrides {
    Overrides {
        connect_timeout: time(&at("connect-timeout")),
        timeout: time_or_none(&at("timeout")),
        per_try_timeout: time_or_none(&at("per-try-timeout")),
        retries: number(&at("retries"), 100),
        retry_budget_percent: number(&at("retry-budget-percent"), 100),
        retry_body_bytes: bytes(&at("retry-body-bytes")),
        balancing: choice(
            &at("balancing"),
            &[
                ("round-robin", Balancing::RoundRobin),
                ("least-request", Balancing::LeastRequest),
            ],
        ),
        eject_after: number(&at("eject-after"), 1_000_000),
        eject_time: time(&at("eject-time")),
        eject_max_percent: number(&at("eject-max-percent"), 100),
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn choice<T: Copy>(node: &Node, choices: &[(&'static str, T)]) -> Option<T> {
    let text = node.scalar()?;
    let found = choices
        .iter()
        .find(|(word, _)| *word == text)
        .map(|&(_, value)| value);
    if found.is_none() {
        let words: Vec<&str> = choices
            .iter()
            .map(|(word, _)| *word)
            .filter(|word| *word != "false")
            .collect();
        let hint = nearest(&text, &words).map(|near| format!("; did you mean `{near}`?"));
        let hint = hint.unwrap_or_default();
        node.error(format!("must be one of {}{hint}", words.join(", ")));
    }
    found
}

fn number(node: &Node, most: u32) -> Option<u32> {
    let text = node.scalar()?;
    let number = text.parse().ok().filter(|&number| number <= most);
    if number.is_none() {
        node.error(format!("must be a number from 0 to {most}"));
    }
    number
}

/// More than zero.
fn time(node: &Node) -> Option<Duration> {
    let text = node.scalar()?;
    match duration::parse(&text) {
        Ok(time) if !time.is_zero() => Some(time),
        Ok(_) => {
            node.error("must be longer than zero");
            None
        }
        Err(error) => {
            node.error(error.to_string());
            None
        }
    }
}

/// Whole seconds, perhaps none.
fn seconds(node: &Node, most: Duration) -> Option<Duration> {
    let text = node.scalar()?;
    let time = match text.as_str() {
        "0" => Ok(Duration::ZERO),
        text => duration::parse(text),
    };
    let told = match time {
        Ok(time) if time <= most && time.subsec_nanos() == 0 => return Some(time),
        Ok(_) => format!("must be whole seconds, from 0 to {}s", most.as_secs()),
        Err(error) => error.to_string(),
    };
    node.error(told);
    None
}

/// `none` or zero turn a time-out off.
#[expect(
    clippy::option_option,
    reason = "unset, off and a value are three different things"
)]
fn time_or_none(node: &Node) -> Option<Option<Duration>> {
    match node.scalar()?.as_str() {
        "none" | "0" => Some(None),
        text => match duration::parse(text) {
            Ok(time) => Some(Some(time).filter(|time| !time.is_zero())),
            Err(error) => {
                node.error(format!("{error}, or `none`"));
                None
            }
        },
    }
}

/// A number of bytes, `65536` or `64Ki`.
fn bytes(node: &Node) -> Option<usize> {
    const MOST: usize = 64 * 1024 * 1024;
    let text = node.scalar()?;
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text.as_str(), ""),
    };
    let unit = match unit {
        "" => Some(1),
        "Ki" => Some(1024),
        "Mi" => Some(1024 * 1024),
        _ => None,
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|&bytes| bytes <= MOST);
    if bytes.is_none() {
        node.error("must be a number of bytes up to 64Mi, for example `65536` or `64Ki`");
    }
    bytes
}

/// `connect-timeout` as a field: `connectTimeout`.
fn camel(name: &str) -> String {
    let mut upper = false;
    name.chars()
        .filter_map(|c| {
            let out = if upper { c.to_ascii_uppercase() } else { c };
            upper = c == '-';
            (!upper).then_some(out)
        })
        .collect()
}
