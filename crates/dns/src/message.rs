//! The little of the DNS wire format (RFC 1035) that it takes to answer address queries.

use std::net::IpAddr;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// What a client without EDNS can take by UDP.
const PLAIN_LIMIT: usize = 512;
/// Seconds an answer may be kept: endpoints of a headless service come and go.
const TTL: u32 = 5;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// A query with one question, as resolvers send it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Question<'a> {
    query: &'a [u8],
    /// The name asked for, in lower case, without the trailing dot.
    pub(crate) name: String,
    kind: u16,
    /// Where the question section ends.
    end: usize,
    /// Bytes the client takes by UDP.
    pub(crate) limit: usize,
}

/// Reads a query. `None`: nothing that we could answer ourselves, and so to be forwarded.
pub(crate) fn question(query: &[u8]) -> Option<Question<'_>> {
    let flags = number(query, 2)?;
    let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(|at| number(query, at));
    // QR and OPCODE are zero in a standard query.
    if flags & 0xf800 != 0 || questions? != 1 || answers? != 0 || authorities? != 0 {
        return None;
    }
    let (name, at) = name(query, HEADER)?;
    let (kind, class) = (number(query, at)?, number(query, at + 2)?);
    let end = at + 4;
    let limit = if additional? == 0 {
        PLAIN_LIMIT
    } else {
        edns_limit(query, end)
    };
    (class == CLASS_IN).then_some(Question {
        query,
        name,
        kind,
        end,
        limit,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A name without compression (there is nothing before a question that it could point to), and where it ends.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => return Some((name, at)),
            1..=63 => {}
            _ => return None,
        }
        let label = bytes.get(at..at + length)?;
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
}

/// The size an OPT record (root name, class = size) offers.
fn edns_limit(query: &[u8], at: usize) -> usize {
    let is_opt = query.get(at) == Some(&0) && number(query, at + 1) == Some(TYPE_OPT);
    let size = number(query, at + 3).filter(|_| is_opt);
    size.map_or(PLAIN_LIMIT, usize::from).max(PLAIN_LIMIT)
}

impl Question<'_> {
    /// The answer with those of the addresses that are of the type asked for. What does not fit in `limit`
    /// is left out and the answer marked as truncated, so that the client asks again by TCP.
    pub(crate) fn answer(&self, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        const TRUNCATED: u16 = 0x0200;
        // QR, AA, RA; RD as it was asked.
        const FLAGS: u16 = 0x8480;
        let mut message = self.query[..self.end].to_vec();
        let mut flags = FLAGS | (number(self.query, 2).unwrap_or(0) & 0x0100);
        let mut count: u16 = 0;
        for &address in addresses {
            let Some(record) = self.record(address) else {
                continue;
            };
            if message.len() + record.len() > limit {
                flags |= TRUNCATED;
                break;
            }
            message.extend(record);
            count += 1;
        }
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message[10..12].fill(0);
        message
    }

    fn record(&self, address: IpAddr) -> Option<Vec<u8>> {
        let (kind, octets) = match address {
            IpAddr::V4(v4) => (TYPE_A, v4.octets().to_vec()),
            IpAddr::V6(v6) => (TYPE_AAAA, v6.octets().to_vec()),
        };
        // The name: a pointer to the question's.
        let mut record = vec![0xc0, HEADER as u8];
        record.extend(kind.to_be_bytes());
        record.extend(CLASS_IN.to_be_bytes());
        record.extend(TTL.to_be_bytes());
        record.extend((octets.len() as u16).to_be_bytes());
        record.extend(octets);
        (kind == self.kind).then_some(record)
    }
}

/// "Server failure" to any query, the question repeated where there is a whole header.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    const SERVER_FAILURE: u8 = 2;
    let mut message = query.to_vec();
    let flags = message.get_mut(2..4)?;
    flags[0] |= 0x80;
    flags[1] = 0x80 | SERVER_FAILURE;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, kind as u8, 0, 1]);
        if let Some(size) = edns {
            bytes.extend([0, 0, 41]);
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    #[test]
    fn an_address_query_is_answered_with_its_family() {
        let query = query("NGINX.sidecar", TYPE_A, None);
        let question = question(&query).unwrap();
        assert_eq!((question.name.as_str(), question.limit), ("nginx.sidecar", 512));
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let answer = question.answer(&addresses, 512);
        assert_eq!(&answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(
            &answer[12..query.len()],
            &query[12..],
            "the question as it was asked"
        );
        assert_eq!(
            &answer[query.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1]
        );
    }

    #[test]
    fn a_name_of_ours_without_such_a_record_has_an_empty_answer() {
        let query = query("nginx", 15, None);
        let answer = question(&query)
            .unwrap()
            .answer(&["10.0.0.1".parse().unwrap()], 512);
        assert_eq!((answer[3] & 0xf, answer[7], answer.len()), (0, 0, query.len()));
    }

    #[test]
    fn what_does_not_fit_is_marked() {
        let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let plain = query("web", TYPE_A, None);
        let question_plain = question(&plain).unwrap();
        let answer = question_plain.answer(&many, question_plain.limit);
        assert!(answer.len() <= 512 && answer[2] & 2 != 0);
        let edns = query("web", TYPE_A, Some(4096));
        let question_edns = question(&edns).unwrap();
        let answer = question_edns.answer(&many, question_edns.limit);
        assert_eq!((answer[2] & 2, answer[7]), (0, 100));
    }

    #[test]
    fn what_is_no_plain_query_is_left_alone() {
        let good = query("web", TYPE_A, None);
        assert!(question(&good).is_some());
        for cut in 0..good.len() {
            assert!(question(&good[..cut]).is_none(), "{cut}");
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert!(question(&response).is_none());
        let mut chaos = good.clone();
        *chaos.last_mut().unwrap() = 3;
        assert!(question(&chaos).is_none());
        let mut pointer = good;
        pointer[12] = 0xc0;
        assert!(question(&pointer).is_none());
    }

    #[test]
    fn failure_keeps_the_question() {
        let query = query("web", TYPE_A, None);
        let message = failure(&query).unwrap();
        assert_eq!(
            (message[2] & 0x80, message[3] & 0xf, message.len()),
            (0x80, 2, query.len())
        );
        assert!(failure(&[1, 2]).is_none());
    }
}
