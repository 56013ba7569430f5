//! Writing of answers: header and question as they were asked, records, an OPT record where the query had one.

use std::net::IpAddr;
use std::ops::Range;

use registry::Record;

use super::{CLASS_IN, Edns, HEADER, NAME_MAX, Question, code, kind, number, read_edns};

/// Bytes of UDP that we say we take, in answers with EDNS (the value that DNS flag day 2020 settled on).
const OWN_SIZE: u16 = 1232;
const OPT_LENGTH: usize = 11;
const FLAG_TRUNCATED: u16 = 0x0200;

/// An answer under construction.
#[derive(Debug)]
pub(crate) struct Answer<'q, 'a> {
    question: &'q Question<'a>,
    message: Vec<u8>,
    limit: usize,
    count: u16,
    authority_count: u16,
    is_truncated: bool,
    pub(crate) code: u16,
}

/// Type and data of a record of ours; `None` where it holds a name that DNS cannot carry.
fn encode(record: &Record) -> Option<(u16, Vec<u8>)> {
    Some(match record {
        Record::Address(IpAddr::V4(v4)) => (kind::A, v4.octets().to_vec()),
        Record::Address(IpAddr::V6(v6)) => (kind::AAAA, v6.octets().to_vec()),
        Record::Pointer(name) => (kind::PTR, encode_name(name)?),
        Record::Alias(name) => (kind::CNAME, encode_name(name)?),
        Record::Port(place) => {
            // Priority 0, weight 100: all alike.
            let mut bytes = vec![0, 0, 0, 100];
            bytes.extend(place.port.to_be_bytes());
            bytes.extend(encode_name(&place.host)?);
            (kind::SRV, bytes)
        }
    })
}

impl<'q, 'a> Answer<'q, 'a> {
    /// An answer without records yet. `limit` bounds its bytes: what does not fit is left out and the answer
    /// marked as truncated, so that the client asks again by TCP.
    pub(crate) fn new(question: &'q Question<'a>, limit: usize) -> Self {
        let kept = question.edns.map_or(0, |_| OPT_LENGTH);
        Self {
            question,
            message: question.head().to_vec(),
            limit: limit.saturating_sub(kept),
            count: 0,
            authority_count: 0,
            is_truncated: false,
            code: code::NO_ERROR,
        }
    }

    /// Adds a record of this name, given in wire form, or else of the one that was asked for.
    pub(crate) fn add(&mut self, owner: Option<&[u8]>, ttl: u32, record: &Record) {
        // A pointer to the question's name.
        const ASKED: &[u8] = &[0xc0, HEADER as u8];
        if let Some((kind, data)) = encode(record) {
            self.add_record(owner.unwrap_or(ASKED), kind, CLASS_IN, ttl, &data);
        }
    }

    /// Adds a record of any name, given in wire form.
    pub(crate) fn add_record(&mut self, name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) {
        if self.is_truncated || !self.append(name, kind, class, ttl, data) {
            self.is_truncated = true;
            return;
        }
        self.count += 1;
    }

    /// Adds a record that says for how long there is no more (RFC 2308), after all others; left out where it does not
    /// fit.
    pub(crate) fn add_authority(&mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        if !self.is_truncated && self.append(name, kind, CLASS_IN, ttl, data) {
            self.authority_count += 1;
        }
    }

    /// Marks the answer as one that does not hold everything.
    pub(crate) fn truncate(&mut self) {
        self.is_truncated = true;
    }

    /// Whether it fits.
    fn append(&mut self, name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) -> bool {
        let Ok(length) = u16::try_from(data.len()) else {
            return true;
        };
        if self.message.len() + name.len() + 10 + data.len() > self.limit {
            return false;
        }
        self.message.extend(name);
        self.message.extend(kind.to_be_bytes());
        self.message.extend(class.to_be_bytes());
        self.message.extend(ttl.to_be_bytes());
        self.message.extend(length.to_be_bytes());
        self.message.extend(data);
        true
    }

    /// The whole message.
    pub(crate) fn finish(self) -> Vec<u8> {
        // QR, AA, RA; RD and CD as they were asked.
        const FLAGS: u16 = 0x8480;
        const KEPT: u16 = 0x0110;
        let mut message = self.message;
        let truncated = if self.is_truncated { FLAG_TRUNCATED } else { 0 };
        let flags = FLAGS | truncated | (self.question.flags() & KEPT) | (self.code & 0xf);
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&self.count.to_be_bytes());
        message[8..10].copy_from_slice(&self.authority_count.to_be_bytes());
        message[10..12].fill(0);
        if let Some(edns) = self.question.edns {
            add_opt(&mut message, edns, self.code);
        }
        message
    }
}

/// Our OPT record, in answer to one: the upper bits of the code, version 0, flags; no options.
fn add_opt(message: &mut Vec<u8>, edns: Edns, code: u16) {
    message[11] = 1;
    message.push(0);
    message.extend(kind::OPT.to_be_bytes());
    message.extend(OWN_SIZE.to_be_bytes());
    let dnssec = if edns.wants_dnssec { 0x80 } else { 0 };
    message.extend([(code >> 4) as u8, 0, dnssec, 0, 0, 0]);
}

/// An answer of a code alone to bytes that need not be well formed; the question is repeated where there is
/// a whole one, and there is an OPT record where the query has a readable one (RFC 6891, 6.1.1). `None` where there
/// is no whole header.
pub(crate) fn error(query: &[u8], code: u16) -> Option<Vec<u8>> {
    if query.len() < HEADER {
        return None;
    }
    let end = match number(query, 4) {
        Some(1) => super::uncompressed_end(query, HEADER).map(|end| end + 4),
        _ => None,
    };
    let whole = end.filter(|&end| end <= query.len());
    let mut message = query[..whole.unwrap_or(HEADER)].to_vec();
    // QR and RA; operation, RD and CD as they came.
    let flags = 0x8080 | (number(query, 2)? & 0x7910) | (code & 0xf);
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[4..6].copy_from_slice(&u16::from(whole.is_some()).to_be_bytes());
    message[6..12].fill(0);
    if let Some(edns) = whole.and_then(|end| read_edns(query, end)).flatten() {
        add_opt(&mut message, edns, code);
    }
    Some(message)
}

/// A name in wire form; `None` where a label or the whole is empty or too long.
pub(crate) fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_MAX).then_some(bytes)
}

/// The data of a record that is taken over from another message, its names expanded: a pointer of the old
/// message means nothing in the new one. Types that may be compressed are those of RFC 1035, and SRV.
pub(crate) fn rewritten(message: &[u8], kind: u16, data: Range<usize>) -> Option<Vec<u8>> {
    let (before, names) = match kind {
        kind::NS | kind::CNAME | kind::PTR => (0, 1),
        kind::SOA => (0, 2),
        kind::MX => (2, 1),
        kind::SRV => (6, 1),
        _ => return message.get(data).map(<[u8]>::to_vec),
    };
    let mut at = data.start + before;
    let mut bytes = message.get(data.start..at)?.to_vec();
    for _ in 0..names {
        let (name, end) = super::expand(message, at)?;
        bytes.extend(name);
        at = end;
    }
    bytes.extend(message.get(at..data.end)?);
    Some(bytes)
}

/// A query for another name, of the type that was asked for, with what the client said of DNSSEC and recursion.
/// Its id is the forwarder's to choose.
pub(crate) fn query_for(question: &Question<'_>, name: &[u8]) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    let flags = question.flags() & 0x0110;
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[5] = 1;
    message.extend(name);
    message.extend(question.kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    if let Some(edns) = question.edns {
        add_opt(&mut message, edns, 0);
    }
    message
}
