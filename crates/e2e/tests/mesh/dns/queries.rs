//! Queries of every sort that resolvers see, the same in each run.

/// Names that unbound knows, each with the type of its record, and some that nobody does. None is of the mesh.
const NAMES: &[(&str, u16)] = &[
    ("db.example.com", 28),
    ("example.com", 15),
    ("mail.example.com", 1),
    ("_sip._udp.example.com", 33),
    ("www.example.com", 65),
    ("long.example.com", 16),
    ("odd.example.com", 65280),
    ("7.2.0.192.in-addr.arpa", 12),
    ("nobody.example.org", 1),
    ("web.mesh.mesh.svc.cluster.local", 1),
    ("_udp.web.mesh.svc.cluster.local", 33),
    ("version.bind", 16),
    ("", 2),
];
/// A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DS, DNSKEY, HTTPS, ANY, and one of private use.
const TYPES: &[u16] = &[1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 48, 65, 255, 65280];

/// SplitMix64, seeded by the number of the query.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// Query number N: name, letters' case, type, class, flags and EDNS options by chance.
pub(super) fn query(number: usize) -> Vec<u8> {
    let mut chance = Chance(number as u64);
    let id = (number as u16).to_be_bytes();
    // RD mostly; sometimes AD, CD.
    let flags = [
        u8::from(chance.below(8) > 0),
        [0, 0x10, 0x20, 0x30][chance.below(4)],
    ];
    let with_edns = chance.below(3) > 0;
    let mut bytes = [&id[..], &flags, &[0, 1, 0, 0, 0, 0, 0, u8::from(with_edns)]].concat();
    let (name, own_type) = NAMES[chance.below(NAMES.len())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes().map(|byte| match chance.below(2) {
            0 => byte.to_ascii_uppercase(),
            _ => byte,
        }));
    }
    bytes.push(0);
    let asked = match chance.below(2) {
        0 => own_type,
        _ => TYPES[chance.below(TYPES.len())],
    };
    bytes.extend(asked.to_be_bytes());
    // Sometimes of class CH.
    bytes.extend([0, if chance.below(20) == 0 { 3 } else { 1 }]);
    if with_edns {
        bytes.extend(opt(&mut chance));
    }
    bytes
}

/// An OPT record: some size, perhaps DO, perhaps an NSID request, a cookie, padding, or an option that nobody knows.
fn opt(chance: &mut Chance) -> Vec<u8> {
    let size = [512_u16, 1232, 4096, 65535][chance.below(4)];
    let mut options = Vec::new();
    for (code, length) in [(3_u16, 0), (10, 8), (12, 17), (65001, 5)] {
        if chance.below(3) == 0 {
            options.extend(code.to_be_bytes());
            options.extend([0, length]);
            options.extend((0..length).map(|_| chance.below(256) as u8));
        }
    }
    let mut bytes = vec![0, 0, 41];
    bytes.extend(size.to_be_bytes());
    bytes.extend([0, 0, if chance.below(2) == 0 { 0x80 } else { 0 }, 0]);
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend(options);
    bytes
}
