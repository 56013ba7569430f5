//! Reading of DNS messages (RFC 1035, EDNS by RFC 6891). Comes in: the bytes of a query, from anybody. Goes
//! out: its question where it could be ours, or what else is to be done with it. Nothing follows a compression
//! pointer except [`expand`], which only goes backwards.

mod check;
#[cfg(test)]
mod tests;
mod text;
mod write;

use registry::RecordType;

pub(crate) use check::check;
pub(crate) use text::text_of;
pub(crate) use write::{Answer, encode_name, error, query_for, rewritten};

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 12;
/// What a client without EDNS can take by UDP.
const PLAIN_LIMIT: usize = 512;
/// What we send by UDP at most, whatever a client offers.
const DATAGRAM_LIMIT: usize = 4096;
/// Bytes of a name at most, lengths included (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;

/// Types of records that we know.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}
pub(crate) const CLASS_IN: u16 = 1;

/// Response codes.
pub(crate) mod code {
    pub(crate) const NO_ERROR: u16 = 0;
    pub(crate) const FORMAT_ERROR: u16 = 1;
    pub(crate) const SERVER_FAILURE: u16 = 2;
    pub(crate) const NO_SUCH_NAME: u16 = 3;
    pub(crate) const NOT_IMPLEMENTED: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    /// Of an EDNS version that we do not speak; its upper bits are in the OPT record.
    pub(crate) const BAD_VERSION: u16 = 16;
}

/// What the bytes of a query are.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Received<'a> {
    /// A question of class IN for a host name: perhaps ours.
    Question(Question<'a>),
    /// Well formed, and for somebody else: another operation or class, no question, a name that is no host's.
    Foreign,
    /// Not to be understood: answered with a format error.
    Malformed,
    /// No query at all: an answer, or too short to have an id. Answering it could make two servers talk
    /// to each other for ever.
    Noise,
}

/// A query with one question, as resolvers send it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Question<'a> {
    query: &'a [u8],
    /// The name asked for, in lower case, without the trailing dot.
    pub(crate) name: String,
    /// The type asked for.
    pub(crate) kind: u16,
    /// Where the question section ends.
    end: usize,
    /// What its OPT record says, where it has one.
    pub(crate) edns: Option<Edns>,
}

/// An OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edns {
    /// Bytes that its sender takes by UDP.
    size: u16,
    version: u8,
    /// The DO bit: DNSSEC records are wanted.
    wants_dnssec: bool,
}

/// Reads a query.
pub(crate) fn read(query: &[u8]) -> Received<'_> {
    const RESPONSE: u16 = 0x8000;
    const OPERATION: u16 = 0x7800;
    let Some(flags) = number(query, 2).filter(|_| query.len() >= HEADER) else {
        return Received::Noise;
    };
    if flags & RESPONSE != 0 {
        return Received::Noise;
    }
    if flags & OPERATION != 0 {
        return Received::Foreign;
    }
    let questions = number(query, 4).unwrap_or(0);
    // Several questions were never defined (RFC 9619); none comes with a cookie alone (RFC 7873).
    if questions > 1 {
        return Received::Malformed;
    }
    let Some((end, asked)) = read_question(query, questions) else {
        return Received::Malformed;
    };
    let Some(edns) = read_edns(query, end) else {
        return Received::Malformed;
    };
    match asked {
        Some((name, kind, CLASS_IN)) if name != "." => Received::Question(Question {
            query,
            name,
            kind,
            end,
            edns,
        }),
        _ => Received::Foreign,
    }
}

type Asked = (String, u16, u16);

/// Where the question section ends, and what is asked, where it is about a host name. `None`: malformed.
fn read_question(query: &[u8], questions: u16) -> Option<(usize, Option<Asked>)> {
    if questions == 0 {
        return Some((HEADER, None));
    }
    let labels_end = uncompressed_end(query, HEADER)?;
    let (kind, class) = (number(query, labels_end)?, number(query, labels_end + 2)?);
    let asked = host_name(query, HEADER).map(|name| (name, kind, class));
    Some((labels_end + 4, asked))
}

pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Whether a whole zone is asked for, or what has changed in it (AXFR, IXFR): the answer may be many messages.
pub(crate) fn asks_for_transfer(query: &[u8]) -> bool {
    let kind = uncompressed_end(query, HEADER).and_then(|end| number(query, end));
    matches!(kind, Some(kind::IXFR | kind::AXFR))
}

/// Whether there was more to say than the message holds.
pub(crate) fn is_truncated(message: &[u8]) -> bool {
    number(message, 2).unwrap_or(0) & 0x0200 != 0
}

/// Where a name without compression ends. A question's name can have none: nothing stands before it.
fn uncompressed_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        if length > 63 || at > start + NAME_MAX || at > bytes.len() {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// A well-formed name as text, in lower case; `None` where a label has what no host's name has: a service
/// may begin with `_`, nothing has a dot or a blank within. The root is `.`.
fn host_name(bytes: &[u8], mut at: usize) -> Option<String> {
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length == 0 {
            return Some(if name.is_empty() { ".".to_owned() } else { name });
        }
        let label = bytes.get(at + 1..at + 1 + length)?;
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += 1 + length;
    }
}

/// Walks the records after the question. `None`: malformed (a record that does not end, two OPT records,
/// one elsewhere than among the additional records, or with a name).
fn read_edns(query: &[u8], mut at: usize) -> Option<Option<Edns>> {
    let mut edns = None;
    for (section, count) in [6, 8, 10].into_iter().enumerate() {
        for _ in 0..number(query, count)? {
            let record = record(query, at)?;
            if record.kind == kind::OPT {
                let is_root = query.get(at) == Some(&0);
                if section != 2 || !is_root || edns.is_some() {
                    return None;
                }
                edns = Some(Edns {
                    size: record.class,
                    version: (record.ttl >> 16) as u8,
                    wants_dnssec: record.ttl & 0x8000 != 0,
                });
            }
            at = record.data.end;
        }
    }
    Some(edns)
}

/// The head of a record and where its data is.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: std::ops::Range<usize>,
}

/// The record at `at`, whose name may be compressed.
fn record(bytes: &[u8], at: usize) -> Option<Record> {
    let at = skip_name(bytes, at)?;
    let start = at + 10;
    let end = start + usize::from(number(bytes, at + 8)?);
    let ttl = u32::from(number(bytes, at + 4)?) << 16 | u32::from(number(bytes, at + 6)?);
    (end <= bytes.len()).then_some(Record {
        kind: number(bytes, at)?,
        class: number(bytes, at + 2)?,
        ttl,
        data: start..end,
    })
}

/// Where a name ends, compressed or not.
fn skip_name(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            0xc0.. => return (at + 2 <= bytes.len()).then_some(at + 2),
            _ => return None,
        }
        if at > start + NAME_MAX {
            return None;
        }
    }
}

/// A name of an answer with its pointers followed, in wire form, and where it ended. A pointer leads backwards
/// from the one before, so that there is no loop.
pub(crate) fn expand(bytes: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let end = skip_name(bytes, start)?;
    let mut name = Vec::new();
    let (mut at, mut before) = (start, start);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0..=63 => {
                name.extend(bytes.get(at..=at + length)?);
                if name.len() > NAME_MAX {
                    return None;
                }
                if length == 0 {
                    return Some((name, end));
                }
                at += 1 + length;
            }
            0xc0.. => {
                let to = usize::from(number(bytes, at)? & 0x3fff);
                if to >= before {
                    return None;
                }
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
}

/// A record with its name expanded.
pub(crate) type Named = (Vec<u8>, Record);

/// Records of the answer section, each with its name expanded and its place.
pub(crate) fn answers(message: &[u8]) -> Option<Vec<Named>> {
    Some(sections(message)?.0)
}

/// The same of the answer section and of the authority section.
pub(crate) fn sections(message: &[u8]) -> Option<(Vec<Named>, Vec<Named>)> {
    let mut at = HEADER;
    for _ in 0..number(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut section = |count: u16| {
        let mut records = Vec::new();
        for _ in 0..count {
            let (name, _) = expand(message, at)?;
            let record = record(message, at)?;
            at = record.data.end;
            records.push((name, record));
        }
        Some(records)
    };
    Some((section(number(message, 6)?)?, section(number(message, 8)?)?))
}

/// Whether a message is an answer to a query: the id, the operation and the question are those asked, the
/// letters' case aside. A server that could not read the query may leave the question out.
pub(crate) fn is_answer_to(answer: &[u8], query: &[u8]) -> bool {
    let (Some(flags), Some(asked)) = (number(answer, 2), number(query, 2)) else {
        return false;
    };
    let is_response = flags & 0x8000 != 0 && (flags ^ asked) & 0x7800 == 0;
    if answer.len() < HEADER || answer[..2] != query[..2] || !is_response {
        return false;
    }
    match (number(answer, 4), number(query, 4)) {
        (Some(0), Some(asked)) => asked == 0 || flags & 0xf != code::NO_ERROR,
        (Some(1), Some(1)) => {
            let Some(end) = uncompressed_end(query, HEADER) else {
                // A query that we could not read and passed on all the same: another operation.
                return true;
            };
            let (names, classes) = (HEADER..end, end..end + 4);
            let is_same_name = match (answer.get(names.clone()), query.get(names)) {
                (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
                _ => false,
            };
            is_same_name && answer.get(classes.clone()) == query.get(classes)
        }
        (a, b) => a == b,
    }
}

impl<'a> Question<'a> {
    /// Bytes of an answer that its client takes by UDP.
    pub(crate) fn limit(&self) -> usize {
        let size = self.edns.map_or(PLAIN_LIMIT, |edns| edns.size.into());
        size.clamp(PLAIN_LIMIT, DATAGRAM_LIMIT)
    }

    /// Whether its EDNS version is one that nobody here speaks.
    pub(crate) fn is_of_unknown_version(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version != 0)
    }

    /// Which records of ours it asks for.
    pub(crate) fn wanted(&self) -> RecordType {
        match self.kind {
            kind::A => RecordType::A,
            kind::AAAA => RecordType::Aaaa,
            kind::CNAME => RecordType::Cname,
            kind::PTR => RecordType::Ptr,
            kind::SRV => RecordType::Srv,
            kind::ANY => RecordType::Any,
            _ => RecordType::Other,
        }
    }

    fn flags(&self) -> u16 {
        number(self.query, 2).unwrap_or(0)
    }

    /// Header and question as they came.
    fn head(&self) -> &'a [u8] {
        &self.query[..self.end]
    }
}

/// The name of a query type for metrics: those that clients ask for daily, all else as one.
pub(crate) fn kind_name(kind: u16) -> &'static str {
    match kind {
        kind::A => "A",
        kind::AAAA => "AAAA",
        kind::CNAME => "CNAME",
        kind::PTR => "PTR",
        kind::MX => "MX",
        kind::TXT => "TXT",
        kind::NS => "NS",
        kind::SOA => "SOA",
        kind::SRV => "SRV",
        kind::HTTPS => "HTTPS",
        kind::ANY => "ANY",
        _ => "other",
    }
}

/// The name of a response code.
pub(crate) fn code_name(code: u16) -> &'static str {
    match code {
        code::NO_ERROR => "NOERROR",
        code::FORMAT_ERROR => "FORMERR",
        code::SERVER_FAILURE => "SERVFAIL",
        code::NO_SUCH_NAME => "NXDOMAIN",
        code::NOT_IMPLEMENTED => "NOTIMP",
        code::REFUSED => "REFUSED",
        _ => "an error",
    }
}
