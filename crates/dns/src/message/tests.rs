//! Queries as resolvers send them, and as nobody should.

use std::net::IpAddr;

use super::Received::{Foreign, Malformed, Noise};
use super::*;

fn query(name: &str, kind: u16, additional: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional.len() as u8];
    bytes.extend(encode_name(name).unwrap());
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(additional.concat());
    bytes
}

/// An OPT record of version 0 that offers 4096 bytes.
const OPT: &[u8] = &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];

fn question(query: &[u8]) -> Question<'_> {
    match read(query) {
        Received::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn answer(query: &[u8], addresses: &[IpAddr], limit: usize) -> Vec<u8> {
    let question = question(query);
    let mut answer = Answer::new(&question, limit);
    for &address in addresses {
        answer.add(None, 5, &registry::Record::Address(address));
    }
    answer.finish()
}

#[test]
fn an_answer_has_the_question_as_it_was_asked() {
    let query = query("NGiNX.sidecar", kind::A, &[]);
    let read = question(&query);
    assert_eq!((read.name.as_str(), read.limit()), ("nginx.sidecar", 512));
    let answer = answer(&query, &["10.0.0.1".parse().unwrap()], 512);
    assert_eq!(&answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(&answer[12..query.len()], &query[12..]);
    assert_eq!(
        &answer[query.len()..],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1]
    );
}

#[test]
fn edns_is_answered_by_edns_alone() {
    let dnssec: &[u8] = &[0, 0, 41, 4, 0, 0, 0, 0x80, 0, 0, 4, 0, 10, 0, 0];
    let query = query("web", kind::A, &[dnssec]);
    assert_eq!(question(&query).limit(), 1024);
    let answer = answer(&query, &[], 1024);
    assert_eq!(answer[11], 1);
    assert_eq!(
        answer[answer.len() - 11..],
        [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0],
        "DO kept, no option"
    );
}

#[test]
fn a_version_of_edns_that_nobody_speaks_is_named() {
    let query = query("web", kind::A, &[&[0, 0, 41, 4, 0, 0, 1, 0, 0, 0, 0]]);
    let read = question(&query);
    assert!(read.is_of_unknown_version());
    let mut answer = Answer::new(&read, 512);
    answer.code = code::BAD_VERSION;
    let bytes = answer.finish();
    assert_eq!((bytes[3] & 0xf, bytes[bytes.len() - 6]), (0, 1));
}

#[test]
fn what_does_not_fit_is_marked() {
    let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let plain = query("web", kind::A, &[]);
    let bytes = answer(&plain, &many, question(&plain).limit());
    assert!(bytes.len() <= 512 && bytes[2] & 2 != 0);
    let edns = query("web", kind::A, &[OPT]);
    let bytes = answer(&edns, &many, question(&edns).limit());
    assert_eq!((bytes[2] & 2, bytes[7]), (0, 100));
    let bytes = answer(&edns, &many, 600);
    assert!(bytes.len() <= 600 && bytes[2] & 2 != 0 && bytes[11] == 1);
}

/// A good query with some bytes changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = query("web", kind::A, &[]);
    change(&mut bytes);
    bytes
}

/// What it is, the bytes, and what is to become of them.
type Case = (&'static str, Vec<u8>, Received<'static>);

fn hostile_headers() -> Vec<Case> {
    vec![
        ("nothing", Vec::new(), Noise),
        ("half a header", changed(|b| b.truncate(11)), Noise),
        ("an answer", changed(|b| b[2] |= 0x80), Noise),
        ("a question cut off", changed(|b| b.truncate(12)), Malformed),
        ("two questions counted", changed(|b| b[5] = 2), Malformed),
        ("65535 questions", changed(|b| b[4..6].fill(255)), Malformed),
        ("NOTIFY", changed(|b| b[2] |= 4 << 3), Foreign),
        ("UPDATE", changed(|b| b[2] |= 5 << 3), Foreign),
        ("an answer that is not there", changed(|b| b[7] = 1), Malformed),
        ("an authority that is not there", changed(|b| b[9] = 1), Malformed),
        ("65535 records", changed(|b| b[10..12].fill(255)), Malformed),
    ]
}

fn hostile_names() -> Vec<Case> {
    let mut long = changed(|b| b.truncate(HEADER));
    for _ in 0..5 {
        long.push(63);
        long.extend([b'a'; 63]);
    }
    long.extend([0, 0, 1, 0, 1]);
    let root = changed(|b| {
        b.truncate(HEADER);
        b.extend([0, 0, 2, 0, 1]);
    });
    let none = changed(|b| {
        b[5] = 0;
        b.truncate(HEADER);
    });
    let pointing = |to: u8| changed(|b| b[12..14].copy_from_slice(&[0xc0, to]));
    vec![
        ("no question", none, Foreign),
        ("class CH", changed(|b| b[20] = 3), Foreign),
        ("class ANY", changed(|b| b[20] = 255), Foreign),
        ("the root", root, Foreign),
        ("a pointer to itself", pointing(12), Malformed),
        ("a pointer into the header", pointing(0), Malformed),
        ("a pointer beyond the end", pointing(200), Malformed),
        ("a label of an unknown kind", changed(|b| b[12] = 0x40), Malformed),
        ("a label beyond the end", changed(|b| b[12] = 60), Malformed),
        ("a name of 320 bytes", long, Malformed),
        ("a blank in a label", changed(|b| b[13] = b' '), Foreign),
        ("a dot in a label", changed(|b| b[14] = b'.'), Foreign),
        ("a zero in a label", changed(|b| b[14] = 0), Foreign),
    ]
}

fn hostile_edns() -> Vec<Case> {
    let with = |records: &[&[u8]]| query("web", kind::A, records);
    let named = [&[1, b'a'], OPT].concat();
    let long = [&OPT[..10], &[9]].concat();
    let mut elsewhere = with(&[OPT]);
    elsewhere.swap(7, 11);
    vec![
        ("two OPT records", with(&[OPT, OPT]), Malformed),
        ("an OPT record with a name", with(&[&named]), Malformed),
        ("an OPT record cut off", with(&[&OPT[..10]]), Malformed),
        ("an OPT record beyond the end", with(&[&long]), Malformed),
        ("an OPT record as an answer", elsewhere, Malformed),
    ]
}

#[test]
fn hostile_bytes() {
    for (what, bytes, expected) in [hostile_headers(), hostile_names(), hostile_edns()]
        .into_iter()
        .flatten()
    {
        assert_eq!(read(&bytes), expected, "{what}");
        let answer = error(&bytes, code::FORMAT_ERROR);
        assert_eq!(answer.is_some(), bytes.len() >= HEADER, "{what}");
        if let Some(answer) = answer {
            assert!(
                answer.len() <= bytes.len().max(HEADER),
                "{what}: nothing is amplified"
            );
            assert_eq!((answer[2] & 0x80, answer[3] & 0xf), (0x80, 1), "{what}");
        }
    }
    let good = query("web", kind::A, &[OPT]);
    for cut in 0..good.len() {
        let expected = if cut < HEADER { Noise } else { Malformed };
        assert_eq!(read(&good[..cut]), expected, "{cut}");
    }
    let trailing = [good.as_slice(), b"more"].concat();
    assert_eq!(question(&trailing).name, "web", "what follows is nobody's");
}

#[test]
fn an_error_keeps_the_question() {
    let plain = query("WEB", kind::A, &[]);
    let message = error(&plain, code::SERVER_FAILURE).unwrap();
    assert_eq!(message[..12], [0x12, 0x34, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(message[12..], plain[12..]);
    let with_edns = error(&query("WEB", kind::A, &[OPT]), code::SERVER_FAILURE).unwrap();
    assert_eq!((with_edns[3], with_edns[11]), (0x82, 1));
    assert_eq!(
        with_edns[message.len()..],
        [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0],
        "EDNS is answered by EDNS"
    );
}

#[test]
fn pointers_lead_backwards_only() {
    // example.org at 12, www + pointer to it at 25.
    let mut bytes = vec![0; HEADER];
    bytes.extend(encode_name("example.org").unwrap());
    bytes.extend([3, b'w', b'w', b'w', 0xc0, 12]);
    let (name, end) = expand(&bytes, 25).unwrap();
    assert_eq!((name, end), (encode_name("www.example.org").unwrap(), 31));
    for to in [25, 29, 30, 200] {
        let mut looped = bytes.clone();
        looped[30] = to;
        assert_eq!(expand(&looped, 25), None, "{to}");
    }
    assert_eq!(expand(&bytes[..30], 25), None, "half a pointer");
}

#[test]
fn an_answer_is_to_its_question() {
    let asked = query("web.example", kind::A, &[OPT]);
    let good = {
        let mut bytes = query("WEB.example", kind::A, &[]);
        bytes[2] |= 0x80;
        bytes
    };
    assert!(is_answer_to(&good, &asked));
    let otherwise = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        is_answer_to(&bytes, &asked)
    };
    assert!(!otherwise(&|b| b[0] ^= 1), "another id");
    assert!(!otherwise(&|b| b[2] &= 0x7f), "a query");
    assert!(!otherwise(&|b| b[2] |= 8), "another operation");
    assert!(!otherwise(&|b| b[13] = b'x'), "another name");
    assert!(!otherwise(&|b| b[26] = 28), "another type");
    assert!(!otherwise(&|b| b[5] = 0), "no question, and all is well");
    assert!(!otherwise(&|b| b.truncate(20)));
    assert!(
        otherwise(&|b| {
            b.truncate(HEADER);
            b[5] = 0;
            b[3] = 1;
        }),
        "a format error"
    );
}

#[test]
fn taken_over_records_have_whole_names() {
    let mut bytes = vec![0; HEADER];
    bytes.extend(encode_name("example.org").unwrap());
    let start = bytes.len();
    bytes.extend([0, 10, 4, b'm', b'a', b'i', b'l', 0xc0, 12]);
    let whole = [&[0, 10][..], &encode_name("mail.example.org").unwrap()].concat();
    assert_eq!(rewritten(&bytes, kind::MX, start..bytes.len()), Some(whole));
    assert_eq!(
        rewritten(&bytes, 99, start..bytes.len()).as_deref(),
        Some(&bytes[start..])
    );
}

#[test]
fn whatever_is_changed_in_a_query_what_must_hold_holds() {
    let mut random = runtime::random::Random::from_seed(1);
    let mut below = |limit: usize| (random.bits() % limit as u64) as usize;
    let mut answer = query("www.example.org", kind::MX, &[]);
    answer[7] = 1;
    answer.extend([0xc0, 16, 0, 15, 0, 1, 0, 0, 0, 60, 0, 4, 0, 10, 0xc0, 12]);
    let seeds = [query("web.mesh.svc.cluster.local", kind::A, &[OPT]), answer];
    for round in 0..100_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at] = [0, 12, 0xc0, 0xff][below(4)],
                2 => bytes.insert(at, below(256) as u8),
                _ => bytes.truncate(at.max(1)),
            }
        }
        check(&bytes);
    }
}
