//! Settings: every knob of the data path, its default as a named constant, and where it comes from.
//!
//! Mesh-wide values come from one `MeshConfig` document; a service overrides its own by annotations
//! `weir.dev/<setting>`. Sources parse, this module only holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time allowed for a connection to an endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries after the first try.
pub const RETRIES: u32 = 2;
/// Retries allowed at any moment, in percent of the requests under way.
pub const RETRY_BUDGET_PERCENT: u32 = 20;
/// Retries always allowed however few requests are under way.
pub const RETRY_BUDGET_MIN: u32 = 3;
/// Retries allowed beyond that in a burst, as when an endpoint with many requests under way dies; each request
/// earns [`RETRY_BUDGET_PERCENT`] of one back.
pub const RETRY_BURST: u32 = 100;
/// Bytes of a request body kept for a retry; a longer body is not retried.
pub const RETRY_BODY_BYTES: usize = 64 * 1024;
/// Refused connections or resets in a row that eject an endpoint.
pub const EJECT_AFTER: u32 = 3;
/// How long the first ejection lasts; each next one lasts as much longer.
pub const EJECT_TIME: Duration = Duration::from_secs(10);
/// The longest an ejection lasts.
pub const EJECT_TIME_MAX: Duration = Duration::from_secs(300);
/// At most this many percent of a cluster's endpoints are ejected at once.
pub const EJECT_MAX_PERCENT: u32 = 50;
/// Time allowed for a request head once its first byte came.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection with no request under way is kept.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long an unused upstream connection is kept.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an opaque connection may be silent in both directions.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// A drain ends before its deadline when there has been no connection for so long: applications often
/// make their last connections after the proxy was told to stop.
pub const DRAIN_QUIET: Duration = Duration::from_secs(5);
/// How long a drain waits for connections to end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long answers of DNS for names of the mesh may be kept: endpoints of a headless service come and go.
pub const DNS_TTL: Duration = Duration::from_secs(5);
/// A day; nothing in a mesh keeps its address for longer without a look.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// What happens to a connection whose destination no service owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboundPolicy {
    /// It passes through untouched.
    #[default]
    AllowAny,
    /// It is closed at once.
    RegistryOnly,
}

/// How endpoints are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The less busy of two drawn at random.
    LeastRequest,
}

/// Form of the access log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLog {
    /// None is written.
    Off,
    /// One line of text each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Settings that a service may override for itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Time allowed for a connection to an endpoint.
    #[serde(with = "crate::duration")]
    pub connect_timeout: Duration,
    /// Time allowed for a whole request, retries included; none by default.
    #[serde(with = "crate::duration::optional", default)]
    pub timeout: Option<Duration>,
    /// Time allowed for one try, up to the response head; none by default.
    #[serde(with = "crate::duration::optional", default)]
    pub per_try_timeout: Option<Duration>,
    /// Retries after the first try.
    pub retries: u32,
    /// Retries under way allowed, in percent of requests under way.
    pub retry_budget_percent: u32,
    /// Bytes of body kept for a retry.
    pub retry_body_bytes: usize,
    /// How endpoints are chosen.
    pub balancing: Balancing,
    /// Failures in a row that eject an endpoint; zero turns ejection off.
    pub eject_after: u32,
    /// How long the first ejection lasts.
    #[serde(with = "crate::duration")]
    pub eject_time: Duration,
    /// At most this many percent are ejected at once.
    pub eject_max_percent: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            timeout: None,
            per_try_timeout: None,
            retries: RETRIES,
            retry_budget_percent: RETRY_BUDGET_PERCENT,
            retry_body_bytes: RETRY_BODY_BYTES,
            balancing: Balancing::RoundRobin,
            eject_after: EJECT_AFTER,
            eject_time: EJECT_TIME,
            eject_max_percent: EJECT_MAX_PERCENT,
        }
    }
}

/// A service's own values; `None` leaves the mesh-wide one. For the two time-outs `Some(None)` turns it off.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(
    clippy::option_option,
    reason = "unset, off and a value are three different things"
)]
#[expect(missing_docs, reason = "each field is the one of `Policy` with the same name")]
pub struct Overrides {
    pub connect_timeout: Option<Duration>,
    pub timeout: Option<Option<Duration>>,
    pub per_try_timeout: Option<Option<Duration>>,
    pub retries: Option<u32>,
    pub retry_budget_percent: Option<u32>,
    pub retry_body_bytes: Option<usize>,
    pub balancing: Option<Balancing>,
    pub eject_after: Option<u32>,
    pub eject_time: Option<Duration>,
    pub eject_max_percent: Option<u32>,
}

impl Overrides {
    /// Which settings it has, by their annotation names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let all = [
            ("connect-timeout", self.connect_timeout.is_some()),
            ("timeout", self.timeout.is_some()),
            ("per-try-timeout", self.per_try_timeout.is_some()),
            ("retries", self.retries.is_some()),
            ("retry-budget-percent", self.retry_budget_percent.is_some()),
            ("retry-body-bytes", self.retry_body_bytes.is_some()),
            ("balancing", self.balancing.is_some()),
            ("eject-after", self.eject_after.is_some()),
            ("eject-time", self.eject_time.is_some()),
            ("eject-max-percent", self.eject_max_percent.is_some()),
        ];
        let set = all.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(name, _)| name.to_owned()).collect()
    }

    /// The mesh-wide policy with these values put over it.
    #[must_use]
    pub fn over(&self, mesh: &Policy) -> Policy {
        Policy {
            connect_timeout: self.connect_timeout.unwrap_or(mesh.connect_timeout),
            timeout: self.timeout.unwrap_or(mesh.timeout),
            per_try_timeout: self.per_try_timeout.unwrap_or(mesh.per_try_timeout),
            retries: self.retries.unwrap_or(mesh.retries),
            retry_budget_percent: self.retry_budget_percent.unwrap_or(mesh.retry_budget_percent),
            retry_body_bytes: self.retry_body_bytes.unwrap_or(mesh.retry_body_bytes),
            balancing: self.balancing.unwrap_or(mesh.balancing),
            eject_after: self.eject_after.unwrap_or(mesh.eject_after),
            eject_time: self.eject_time.unwrap_or(mesh.eject_time),
            eject_max_percent: self.eject_max_percent.unwrap_or(mesh.eject_max_percent),
        }
    }
}

/// Everything mesh-wide.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Unknown destinations.
    pub outbound_policy: OutboundPolicy,
    /// What services may override.
    pub policy: Policy,
    /// Give a request an `x-request-id` where it has none.
    pub request_id: bool,
    /// Time allowed for a request head.
    #[serde(with = "crate::duration")]
    pub header_timeout: Duration,
    /// How long a client connection with no request under way is kept.
    #[serde(with = "crate::duration")]
    pub http_idle_timeout: Duration,
    /// How long an unused upstream connection is kept.
    #[serde(with = "crate::duration")]
    pub pool_idle_timeout: Duration,
    /// How long an opaque connection may be silent.
    #[serde(with = "crate::duration")]
    pub tcp_idle_timeout: Duration,
    /// How long a drain waits.
    #[serde(with = "crate::duration")]
    pub drain_deadline: Duration,
    /// Form of the access log.
    pub access_log: AccessLog,
    /// How long answers of DNS for names of the mesh may be kept, in whole seconds.
    #[serde(with = "crate::duration", default = "dns_ttl")]
    pub dns_ttl: Duration,
    /// Whether services without a cluster address are given one.
    #[serde(default = "yes")]
    pub automatic_addresses: bool,
}

fn dns_ttl() -> Duration {
    DNS_TTL
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            outbound_policy: OutboundPolicy::AllowAny,
            policy: Policy::default(),
            request_id: true,
            header_timeout: HEADER_TIMEOUT,
            http_idle_timeout: HTTP_IDLE_TIMEOUT,
            pool_idle_timeout: POOL_IDLE_TIMEOUT,
            tcp_idle_timeout: TCP_IDLE_TIMEOUT,
            drain_deadline: DRAIN_DEADLINE,
            access_log: AccessLog::Text,
            dns_ttl: DNS_TTL,
            automatic_addresses: true,
        }
    }
}
