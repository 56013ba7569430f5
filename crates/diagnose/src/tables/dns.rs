//! `weir pc dns`: what look-ups are answered, and by whom. The names of the mesh, or one name as a client's
//! resolver would try it, search list and all; answered by the function of the data path.

use std::net::IpAddr;

use registry::dump::DnsDump;
use registry::lookup::{Answer, End};
use registry::{Dump, Record, RecordType, Snapshot};
use serde::Serialize;

use super::Row;

/// One look-up, of a name and a type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DnsRow {
    /// The name as it is asked for, in full.
    pub name: String,
    /// The type of records.
    #[serde(rename = "type")]
    pub kind: String,
    /// What becomes of it.
    pub result: LookUpResult,
    /// The records, in words; of a name outside those of the mesh's part alone.
    pub answer: Vec<String>,
    /// The service whose name it is, `NAMESPACE/NAME`.
    pub service: Option<String>,
    /// The resolvers that are asked, the first that answers is believed.
    pub resolvers: Vec<IpAddr>,
    /// Seconds that the mesh's part of the answer may be kept.
    pub ttl: Option<u32>,
}

/// What becomes of a look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LookUpResult {
    /// There are records.
    Answered,
    /// The name is there, without such a record.
    NoData,
    /// There is no such name.
    NxDomain,
    /// An alias in a circle, or to what is no name.
    ServFail,
    /// The resolvers say.
    Forwarded,
}

impl LookUpResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoData => "nodata",
            Self::NxDomain => "nxdomain",
            Self::ServFail => "servfail",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct DnsFilter {
    /// How this name, or address, is looked up; else every name that the mesh has.
    pub name: Option<String>,
    /// Only records of this type; else addresses of a name, and whatever a name of the mesh has.
    pub kind: Option<String>,
}

impl Row for DnsRow {
    const COLUMNS: &'static [&'static str] = &["NAME", "TYPE", "RESULT", "ANSWER", "FROM", "TTL"];
    const NARROW: usize = 5;

    fn cells(&self) -> Vec<String> {
        let service = self.service.iter().map(|name| format!("service {name}"));
        let resolvers: Vec<String> = self.resolvers.iter().map(ToString::to_string).collect();
        let resolvers = (!resolvers.is_empty()).then(|| format!("resolver {}", resolvers.join(", ")));
        vec![
            self.name.clone(),
            self.kind.clone(),
            self.result.as_str().to_owned(),
            or_none(self.answer.join(", ")),
            or_none(service.chain(resolvers).collect::<Vec<_>>().join(", then ")),
            self.ttl.map_or_else(|| "-".to_owned(), |ttl| format!("{ttl}s")),
        ]
    }
}

/// The rows: of a name in the order in which a resolver tries them, up to the first that is answered; else by
/// name.
#[must_use]
pub fn dns(dump: &Dump, filter: &DnsFilter) -> Vec<DnsRow> {
    let conf = dump.dns.clone().unwrap_or_default();
    let asker = Asker {
        snapshot: &dump.snapshot(),
        conf: &conf,
    };
    let kind = filter.kind.as_deref();
    match &filter.name {
        Some(name) => asker.tries(name, kind),
        None => asker.everything(kind),
    }
}

/// What is to be said where the rows do not tell the whole story.
#[must_use]
pub fn dns_remark(dump: &Dump) -> Option<&'static str> {
    dump.dns.is_none().then_some(
        "This proxy serves no DNS (`weir proxy --dns`): that is what it would answer, without a search list.",
    )
}

struct Asker<'a> {
    snapshot: &'a Snapshot,
    conf: &'a DnsDump,
}

impl Asker<'_> {
    fn tries(&self, name: &str, kind: Option<&str>) -> Vec<DnsRow> {
        let address = name.parse::<IpAddr>().ok().map(reverse);
        let (names, kinds) = match (&address, kind) {
            (Some(reverse), kind) => (vec![reverse.clone()], vec![kind.unwrap_or("PTR")]),
            (None, Some(kind)) => (tried(name, self.conf), vec![kind]),
            (None, None) => (tried(name, self.conf), vec!["A", "AAAA"]),
        };
        let mut rows = Vec::new();
        for name in names {
            let of_name = kinds.iter().map(|kind| self.row(&name, kind));
            rows.extend(of_name);
            if rows
                .iter()
                .any(|row: &DnsRow| row.result == LookUpResult::Answered)
            {
                break;
            }
        }
        rows
    }

    fn everything(&self, kind: Option<&str>) -> Vec<DnsRow> {
        const KINDS: [&str; 4] = ["A", "AAAA", "CNAME", "SRV"];
        let kinds: Vec<&str> = kind.map_or(KINDS.to_vec(), |kind| vec![kind]);
        let names = self.snapshot.names();
        let rows = names
            .iter()
            .flat_map(|name| kinds.iter().map(|kind| self.row(name, kind)));
        let has_records = |row: &DnsRow| row.result == LookUpResult::Answered;
        // Once is enough for an alias: of every type there is the same to say.
        rows.filter(|row| has_records(row) && (row.kind == "CNAME" || kind.is_some() || !is_alias(row)))
            .collect()
    }

    fn row(&self, name: &str, kind: &str) -> DnsRow {
        let Ok(wanted) = kind.parse::<RecordType>();
        let lower = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let answer = self.snapshot.look_up(&lower, wanted);
        let resolvers = || self.conf.resolvers.iter().map(|resolver| resolver.ip()).collect();
        let row = DnsRow {
            name: format!("{lower}."),
            kind: kind.to_ascii_uppercase(),
            result: LookUpResult::Forwarded,
            answer: Vec::new(),
            service: None,
            resolvers: Vec::new(),
            ttl: None,
        };
        match answer {
            None => DnsRow {
                resolvers: resolvers(),
                ..row
            },
            Some(answer) => DnsRow {
                result: result(&answer),
                resolvers: match answer.end {
                    End::Outside(_) => resolvers(),
                    _ => Vec::new(),
                },
                answer: answer.records.iter().map(words).collect(),
                service: answer.service.map(|name| name.to_string()),
                ttl: (!answer.records.is_empty()).then_some(self.conf.ttl),
                ..row
            },
        }
    }
}

fn is_alias(row: &DnsRow) -> bool {
    row.answer.first().is_some_and(|first| first.starts_with(ALIAS))
}

fn result(answer: &Answer) -> LookUpResult {
    match answer.end {
        End::Complete if answer.records.is_empty() => LookUpResult::NoData,
        End::Complete | End::Outside(_) => LookUpResult::Answered,
        End::Missing => LookUpResult::NxDomain,
        End::Nowhere => LookUpResult::ServFail,
    }
}

const ALIAS: &str = "alias of ";

fn words(record: &Record) -> String {
    match record {
        Record::Address(address) => address.to_string(),
        Record::Alias(name) => format!("{ALIAS}{name}"),
        Record::Pointer(name) => name.to_string(),
        Record::Port(place) => format!("port {} of {}", place.port, place.host),
    }
}

/// The names that a resolver tries for one, in order (resolv.conf(5)): one that ends with a dot alone; one with
/// few dots in the domains of the search list first, one with many as it is first.
fn tried(name: &str, conf: &DnsDump) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let in_domains = conf.search.iter().map(|domain| format!("{name}.{domain}"));
    let dots = name.matches('.').count();
    let is_first = u32::try_from(dots).is_ok_and(|dots| dots >= conf.ndots);
    let as_it_is = [name.to_owned()].into_iter();
    if is_first {
        as_it_is.chain(in_domains).collect()
    } else {
        in_domains.chain(as_it_is).collect()
    }
}

/// The name by which an address is looked up.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits: Vec<String> = format!("{:032x}", v6.to_bits())
                .chars()
                .rev()
                .map(String::from)
                .collect();
            digits.join(".") + ".ip6.arpa"
        }
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(search: &[&str], ndots: u32) -> DnsDump {
        DnsDump {
            search: search.iter().map(|&domain| domain.to_owned()).collect(),
            ndots,
            ..DnsDump::default()
        }
    }

    #[test]
    fn names_are_tried_as_resolvers_do() {
        let kubernetes = conf(&["a.svc.cluster.local", "cluster.local"], 5);
        let lists = [
            (
                "web.a",
                vec!["web.a.a.svc.cluster.local", "web.a.cluster.local", "web.a"],
            ),
            ("web.a.", vec!["web.a."]),
            (
                "a.b.c.d.e.f",
                vec![
                    "a.b.c.d.e.f",
                    "a.b.c.d.e.f.a.svc.cluster.local",
                    "a.b.c.d.e.f.cluster.local",
                ],
            ),
        ];
        for (name, expected) in lists {
            assert_eq!(tried(name, &kubernetes), expected);
        }
        assert_eq!(tried("web", &conf(&["x"], 1)), ["web.x", "web"]);
        assert_eq!(tried("web.a", &conf(&["x"], 1)), ["web.a", "web.a.x"]);
        assert_eq!(tried("web", &conf(&[], 0)), ["web"]);
    }

    #[test]
    fn addresses_are_looked_up_by_their_reverse_names() {
        let of = |text: &str| reverse(text.parse().unwrap());
        assert_eq!(of("10.96.0.1"), "1.0.96.10.in-addr.arpa");
        let six = of("fd00::1");
        assert!(
            six.starts_with("1.0.0.0.") && six.ends_with(".0.0.d.f.ip6.arpa"),
            "{six}"
        );
        assert_eq!(six.len(), 72);
    }
}
