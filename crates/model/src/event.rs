//! What the data path reports: one [`AccessRecord`] for each connection or request when it ends, and,
//! while somebody watches, each step of it as an [`Event`].

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::addr::{Direction, Local, OrigDst, Remote};
use crate::names::{ClusterName, ObjectName};
use crate::protocol::{KnownBy, Protocol};

/// What went wrong, as a set of short words. Named as Envoy's response flags where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr, $code:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $code)),*];
        }
    };
}

flags! {
    /// `UF`: no endpoint accepted a connection.
    UPSTREAM_CONNECT_FAILURE = 0, "UF";
    /// `UC`: the endpoint closed or reset the connection before the answer was complete.
    UPSTREAM_CLOSED = 1, "UC";
    /// `UT`: the request's time was up.
    UPSTREAM_TIMEOUT = 2, "UT";
    /// `UH`: the cluster has no usable endpoint.
    NO_HEALTHY_UPSTREAM = 3, "UH";
    /// `URX`: retries were used up.
    RETRIES_EXHAUSTED = 4, "URX";
    /// `URB`: the retry budget forbade a retry.
    RETRY_BUDGET = 5, "URB";
    /// `DC`: the client closed or reset the connection first.
    DOWNSTREAM_CLOSED = 6, "DC";
    /// `DPE`: the client's message was malformed or ambiguous.
    DOWNSTREAM_PROTOCOL = 7, "DPE";
    /// `UPE`: the endpoint's message was malformed.
    UPSTREAM_PROTOCOL = 8, "UPE";
    /// `NR`: the address that was asked for is no HTTP service any more.
    NO_ROUTE = 9, "NR";
    /// `LOOP`: the connection was made to the proxy's own port, or is its own and came back to it.
    LOOP = 10, "LOOP";
    /// `BH`: the destination is unknown and the mesh is "registry only".
    BLACK_HOLE = 11, "BH";
    /// `DT`: the client took too long to send a request head.
    DOWNSTREAM_TIMEOUT = 12, "DT";
    /// `IT`: the connection was silent too long.
    IDLE_TIMEOUT = 13, "IT";
    /// `DR`: the drain's deadline cut it off.
    DRAINED = 14, "DR";
    /// `OV`: the proxy itself lacked what a connection takes.
    OVERLOAD = 15, "OV";
    /// `RT`: retried at least once.
    RETRIED = 16, "RT";
    /// `CUT`: the answer was cut off after its first byte had been passed on.
    CUT = 17, "CUT";
}

impl Flags {
    /// Every flag there is, for documents and tests.
    #[must_use]
    pub fn every() -> Self {
        Self(Self::ALL.iter().fold(0, |bits, (flag, _)| bits | flag.0))
    }

    /// Adds the other's.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether all of the other's are in.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The short words of those that are in.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        Self::ALL
            .iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|&(_, code)| code)
    }
}

/// Comma-separated, `-` for none.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, code) in self.codes().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(code)?;
        }
        Ok(())
    }
}

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.codes())
    }
}

/// One that is not known is left out: it is a newer version's.
impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let codes = Vec::<Box<str>>::deserialize(deserializer)?;
        let known = Self::ALL
            .iter()
            .filter(|(_, code)| codes.iter().any(|it| **it == **code));
        Ok(Self(known.fold(0, |bits, (flag, _)| bits | flag.0)))
    }
}

/// Times in JSON: microseconds, as whole numbers.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    fn of(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        of(*time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, of};

        #[expect(clippy::ref_option, reason = "serde calls it so")]
        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(of).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            let micros = Option::<u64>::deserialize(deserializer)?;
            Ok(micros.map(Duration::from_micros))
        }
    }

    /// Of an instant, since 1970.
    pub(super) mod since_1970 {
        use std::time::SystemTime;

        use super::{Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            super::serialize(&since, serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<SystemTime, D::Error> {
            Ok(SystemTime::UNIX_EPOCH + super::deserialize(deserializer)?)
        }
    }
}

/// The HTTP half of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HttpRecord {
    /// Request method.
    pub method: Box<str>,
    /// Host asked for, from the request target or the Host field; empty where there was none.
    pub authority: Box<str>,
    /// Request target without its authority.
    pub path: Box<str>,
    /// Value of `x-request-id`.
    pub request_id: Box<str>,
    /// Status sent to the client; 0 where none was sent.
    pub status: u16,
    /// Number of tries made.
    pub tries: u32,
}

/// One connection or one HTTP request, when it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessRecord {
    /// When it began.
    #[serde(rename = "start_us", with = "micros::since_1970")]
    pub start: SystemTime,
    /// Which listener it came by.
    pub direction: Direction,
    /// Number of the client connection within this process.
    pub connection: u64,
    /// The client.
    pub source: Remote,
    /// Where the client meant to go.
    pub original_dst: OrigDst,
    /// What was spoken.
    pub protocol: Protocol,
    /// How that was known.
    pub known_by: KnownBy,
    /// Host name of the service; absent for passthrough.
    pub service: Option<Arc<str>>,
    /// Cluster that took it.
    pub cluster: ClusterName,
    /// Endpoint of the last try.
    pub endpoint: Option<SocketAddr>,
    /// Present for HTTP that was parsed.
    pub http: Option<Box<HttpRecord>>,
    /// Server name of a TLS hello.
    pub sni: Option<Box<str>>,
    /// What went wrong.
    pub flags: Flags,
    /// From the first byte, or from accept, to the end.
    #[serde(rename = "duration_us", with = "micros")]
    pub duration: Duration,
    /// Time the connection to the endpoint took; absent where a pooled one was used.
    #[serde(rename = "connect_us", with = "micros::optional")]
    pub connect: Option<Duration>,
    /// From start to the first byte of the answer.
    #[serde(rename = "first_byte_us", with = "micros::optional")]
    pub first_byte: Option<Duration>,
    /// Bytes that came from the client (HTTP: of the body).
    pub bytes_received: u64,
    /// Bytes that went to the client (HTTP: of the body).
    pub bytes_sent: u64,
}

/// A query to our DNS, when it was answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LookUp {
    /// The name asked for, in lower case.
    pub name: Box<str>,
    /// The type asked for, `A`; `other` for one that is seldom seen.
    pub kind: Cow<'static, str>,
    /// The service whose name it is; none where it was forwarded.
    pub service: Option<ObjectName>,
    /// The resolver that answered, where one was asked.
    pub resolver: Option<SocketAddr>,
    /// Response code, `NOERROR`.
    pub code: Cow<'static, str>,
    /// Whether the client has to ask again by TCP.
    pub is_truncated: bool,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The first records of the answer, in words.
    pub records: Vec<Box<str>>,
    /// How many it has.
    pub records_count: usize,
    /// From the query to the answer.
    #[serde(rename = "took_us", with = "micros")]
    pub took: Duration,
}

/// One step of a connection, or a look-up, sent only while somebody watches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When.
    #[serde(rename = "at_us", with = "micros::since_1970")]
    pub at: SystemTime,
    /// Number of the client connection within this process, from 1. 0: of none, as look-ups are.
    pub connection: u64,
    /// What.
    pub step: Step,
}

/// Where an address is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// There is but one, or the address means the same in both.
    Only,
    /// The application's, which is another one than the proxy's.
    Inside,
    /// The proxy's, as nobody answered inside.
    Outside,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A connection was accepted, and it is known where it was going.
    Captured {
        /// Which listener.
        direction: Direction,
        /// The client.
        source: Remote,
        /// Where it meant to go.
        original_dst: OrigDst,
        /// Where it came to, if not by capture: a published port, which stands for `original_dst`.
        published: Option<Local>,
    },
    /// The registry decided.
    Decided {
        /// Host name of the service, if any.
        service: Option<Arc<str>>,
        /// Cluster chosen.
        cluster: ClusterName,
        /// What the port is declared to speak.
        protocol: Protocol,
        /// How that is known.
        known_by: KnownBy,
        /// One clause saying why, for people.
        why: Cow<'static, str>,
    },
    /// The first bytes told the protocol.
    Detected {
        /// What is spoken.
        protocol: Protocol,
        /// Server name of a TLS hello.
        sni: Option<Box<str>>,
        /// Whether the server spoke first.
        server_first: bool,
    },
    /// A request head was read.
    Request {
        /// Counts from 1 on each connection.
        number: u64,
        /// Request method.
        method: Box<str>,
        /// Host asked for.
        authority: Box<str>,
        /// Request target without its authority.
        path: Box<str>,
        /// Name of the route taken.
        route: Arc<str>,
    },
    /// An endpoint was chosen.
    Chosen {
        /// The endpoint.
        endpoint: SocketAddr,
        /// Counts from 1 for each request or connection.
        attempt: u32,
        /// Endpoints that could have been chosen.
        usable: usize,
        /// Endpoints the cluster has.
        of: usize,
        /// In which network, where the address means something else in another.
        network: Network,
    },
    /// There is a connection to the endpoint.
    Connected {
        /// The endpoint.
        endpoint: SocketAddr,
        /// How long it took; absent where a pooled connection was used.
        #[serde(rename = "took_us", with = "micros::optional")]
        took: Option<Duration>,
    },
    /// A try failed.
    TryFailed {
        /// The endpoint.
        endpoint: SocketAddr,
        /// Why.
        why: Box<str>,
        /// Whether another try follows.
        retry: bool,
    },
    /// A response head was passed to the client.
    Response {
        /// Status code.
        status: u16,
        /// From the request's first byte.
        #[serde(rename = "took_us", with = "micros")]
        took: Duration,
    },
    /// A request or connection ended.
    Ended(Box<AccessRecord>),
    /// A name was looked up: no step of a connection, but perhaps what comes before one.
    LookedUp(Box<LookUp>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_back_as_it_was_written() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        let mut flags = Flags::UPSTREAM_TIMEOUT;
        flags.insert(Flags::RETRIED);
        let ended = Step::Ended(Box::new(AccessRecord {
            start: at,
            direction: Direction::Outbound,
            connection: 7,
            source: Remote::new("10.0.0.1:4000".parse().unwrap()),
            original_dst: OrigDst::new("[fd00::1]:80".parse().unwrap()),
            protocol: Protocol::Http,
            known_by: KnownBy::FirstBytes,
            service: Some("web.shop".into()),
            cluster: ClusterName::fixed("PassthroughCluster"),
            endpoint: None,
            http: None,
            sni: None,
            flags,
            duration: Duration::from_micros(1500),
            connect: None,
            first_byte: Some(Duration::from_micros(9)),
            bytes_received: 1,
            bytes_sent: 2,
        }));
        let look_up = Step::LookedUp(Box::new(LookUp {
            name: "web".into(),
            kind: "A".into(),
            service: None,
            resolver: None,
            code: "NOERROR".into(),
            is_truncated: false,
            addresses: vec![],
            records: vec![],
            records_count: 0,
            took: Duration::from_micros(50),
        }));
        for step in [ended, look_up] {
            let event = Event {
                at,
                connection: 7,
                step,
            };
            let text = serde_json::to_string(&event).unwrap();
            let read: Event = serde_json::from_str(&text).unwrap();
            assert_eq!(format!("{read:?}"), format!("{event:?}"), "{text}");
            assert!(
                text.starts_with("{\"at_us\":1700000000000001,\"connection\":7,\"step\":{"),
                "{text}"
            );
        }
    }
}
