//! What a look-up of a name is answered, record by record. Comes in: a name as DNS has it, and the type of
//! records wanted. Goes out: records, and whether they are all. DNS puts them on the wire, `weir pc dns` prints
//! them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use model::ObjectName;

use crate::names::{PortAt, Resolved};
use crate::snapshot::Snapshot;

/// Names that an alias may lead through.
const ALIASES_MAX: usize = 8;

/// Which records a look-up asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are the standard's names")]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Ptr,
    Srv,
    /// All of them.
    Any,
    /// One that no name of the mesh has.
    Other,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME.
    Alias(Arc<str>),
    /// PTR.
    Pointer(Arc<str>),
    /// SRV.
    Port(PortAt),
}

/// What a look-up of a name of the mesh is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Records in their order, aliases first; each of the name before it leads to, or else asked for.
    pub records: Vec<Record>,
    /// How it ends.
    pub end: End,
    /// The service that the name asked for is, or is below; none where several are.
    pub service: Option<ObjectName>,
}

/// How an answer ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Those are all the records of that type.
    Complete,
    /// Nothing has the name.
    Missing,
    /// The last alias leads to this name of somebody else's, which has the rest.
    Outside(Arc<str>),
    /// Aliases in a circle, or to what is no name.
    Nowhere,
}

impl Record {
    /// The type of it.
    #[must_use]
    pub fn kind(&self) -> RecordType {
        match self {
            Self::Address(IpAddr::V4(_)) => RecordType::A,
            Self::Address(IpAddr::V6(_)) => RecordType::Aaaa,
            Self::Alias(_) => RecordType::Cname,
            Self::Pointer(_) => RecordType::Ptr,
            Self::Port(_) => RecordType::Srv,
        }
    }
}

impl RecordType {
    /// Whether who asks for this type wants records of that one.
    #[must_use]
    pub fn wants(self, other: Self) -> bool {
        self == other || self == Self::Any
    }
}

/// In any case. Any other word is another type.
impl FromStr for RecordType {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "A" => Self::A,
            "AAAA" => Self::Aaaa,
            "CNAME" => Self::Cname,
            "PTR" => Self::Ptr,
            "SRV" => Self::Srv,
            "ANY" => Self::Any,
            _ => Self::Other,
        })
    }
}

impl Snapshot {
    /// What a look-up of this name is answered. `None`: it is no name of the mesh, and somebody else's to answer.
    /// The name is in lower case.
    #[must_use]
    pub fn look_up(&self, name: &str, wanted: RecordType) -> Option<Answer> {
        let found = self.find(name)?;
        let service = found.service.map(|service| service.name.clone());
        let mut records = Vec::new();
        let end = self.follow(found.resolved, wanted, &mut records);
        Some(Answer {
            records,
            end,
            service,
        })
    }

    fn follow(&self, mut resolved: Resolved, wanted: RecordType, records: &mut Vec<Record>) -> End {
        while records.len() < ALIASES_MAX {
            let target = match resolved {
                Resolved::Alias(target) if is_name(&target) => target,
                Resolved::Alias(_) => return End::Nowhere,
                Resolved::Missing => return End::Missing,
                resolved => {
                    records.extend(of(resolved).filter(|record| wanted.wants(record.kind())));
                    return End::Complete;
                }
            };
            let is_same =
                |record: &Record| matches!(record, Record::Alias(seen) if is_same_name(seen, &target));
            if records.iter().any(is_same) {
                return End::Nowhere;
            }
            records.push(Record::Alias(Arc::clone(&target)));
            // Who asks for the alias itself does not want what it leads to.
            if wanted.wants(RecordType::Cname) {
                return End::Complete;
            }
            let name = target.strip_suffix('.').unwrap_or(&target).to_ascii_lowercase();
            match self.find(&name) {
                Some(next) => resolved = next.resolved,
                None => return End::Outside(target),
            }
        }
        End::Nowhere
    }
}

fn of(resolved: Resolved) -> impl Iterator<Item = Record> {
    let (addresses, names, ports) = match resolved {
        Resolved::Addresses(addresses) => (addresses, Vec::new(), Vec::new()),
        Resolved::Names(names) => (Vec::new(), names, Vec::new()),
        Resolved::Ports(ports) => (Vec::new(), Vec::new(), ports),
        Resolved::Alias(_) | Resolved::Missing => (Vec::new(), Vec::new(), Vec::new()),
    };
    let addresses = addresses.into_iter().map(Record::Address);
    let names = names.into_iter().map(|name| Record::Pointer(name.into()));
    addresses.chain(names).chain(ports.into_iter().map(Record::Port))
}

fn is_same_name(one: &str, other: &str) -> bool {
    let whole = |name: &str| name.len() - usize::from(name.ends_with('.'));
    one[..whole(one)].eq_ignore_ascii_case(&other[..whole(other)])
}

/// Whether DNS can carry a name: each label 1 to 63 bytes, with their lengths 255 in all (RFC 1035, 2.3.4).
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use model::{Service, ServiceKind};

    use super::*;
    use crate::testing::{ip, name, put, service, table};

    fn snapshot() -> Arc<Snapshot> {
        let alias = |name, to: &str| {
            put(Service {
                kind: ServiceKind::ExternalName(to.into()),
                ..service(name, &[], &[])
            })
        };
        let mut table = table(
            Some("a/me"),
            [
                put(service("a/web", &["10.96.0.1", "fd00::1"], &[80])),
                alias("a/inside", "Web.A.svc."),
                alias("a/outside", "db.Example.com"),
                alias("a/far", "outside.a"),
                alias("a/circle", "other.a"),
                alias("a/other", "circle.a"),
                alias("a/nonsense", "a..b"),
            ],
        );
        table.snapshot()
    }

    #[test]
    fn records_are_those_of_the_type_and_aliases_are_followed() {
        let address = |text| Record::Address(ip(text));
        let alias = |text: &str| Record::Alias(text.into());
        let complete = End::Complete;
        let outside = || End::Outside("db.Example.com".into());
        let table = [
            ("web", RecordType::A, vec![address("10.96.0.1")], complete.clone()),
            (
                "web",
                RecordType::Aaaa,
                vec![address("fd00::1")],
                complete.clone(),
            ),
            (
                "web",
                RecordType::Any,
                vec![address("10.96.0.1"), address("fd00::1")],
                complete.clone(),
            ),
            ("web", RecordType::Other, vec![], complete.clone()),
            ("web", RecordType::Cname, vec![], complete.clone()),
            (
                "inside.a.svc",
                RecordType::A,
                vec![alias("Web.A.svc."), address("10.96.0.1")],
                complete.clone(),
            ),
            (
                "inside",
                RecordType::Cname,
                vec![alias("Web.A.svc.")],
                complete.clone(),
            ),
            ("inside", RecordType::Any, vec![alias("Web.A.svc.")], complete),
            ("outside", RecordType::A, vec![alias("db.Example.com")], outside()),
            (
                "far",
                RecordType::Other,
                vec![alias("outside.a"), alias("db.Example.com")],
                outside(),
            ),
            ("x.y.web.a.svc.cluster.local", RecordType::A, vec![], End::Missing),
            ("nonsense", RecordType::A, vec![], End::Nowhere),
        ];
        let snapshot = snapshot();
        for (asked, wanted, records, end) in table {
            let answer = snapshot.look_up(asked, wanted).expect(asked);
            assert_eq!((answer.records, answer.end), (records, end), "{asked} {wanted:?}");
        }
        let circle = snapshot.look_up("circle", RecordType::A).expect("one of ours");
        assert_eq!(
            (circle.records, circle.end),
            (vec![alias("other.a"), alias("circle.a")], End::Nowhere)
        );
        assert_eq!(snapshot.look_up("example.com", RecordType::A), None);
        let whose = |asked, wanted| snapshot.look_up(asked, wanted).and_then(|answer| answer.service);
        assert_eq!(whose("inside", RecordType::A), Some(name("a/inside")));
        assert_eq!(
            whose("1.0.96.10.in-addr.arpa", RecordType::Ptr),
            Some(name("a/web"))
        );
    }
}
