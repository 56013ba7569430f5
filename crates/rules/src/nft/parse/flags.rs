//! Flags of TCP as nftables lists tests of them, other than those of a first packet.

use super::keys::written;
use super::rule::{Reader, number};
use super::words::Word;
use crate::parse::foreign::TCP_FLAGS;
use crate::ruleset::{ForeignTest, Holds, Test};

impl Reader {
    /// Other flags: `tcp flags syn,ack / syn,ack`, `tcp flags & (syn | ack) == syn`, `tcp flags ! syn`, `tcp flags syn`.
    pub(super) fn flags(&mut self, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words.iter().map(Word::raw).collect();
        let start = 2 + usize::from(raw.get(2) == Some(&"!="));
        let negated = start == 3;
        let (mask, set, used, negated) = if raw.get(2) == Some(&"!") {
            let (mask, used) = flag_bits(&raw[3..])?;
            (mask, 0, 3 + used, false)
        } else if raw.get(2) == Some(&"&") {
            let (mask, used) = flag_bits(&raw[3..])?;
            let operator = raw.get(3 + used)?;
            let (set, more) = flag_bits(&raw[4 + used..])?;
            (mask, set, 4 + used + more, *operator == "!=")
        } else {
            let (set, used) = flag_bits(&raw[start..])?;
            match raw.get(start + used) {
                Some(&"/") => {
                    let (mask, more) = flag_bits(&raw[start + used + 1..])?;
                    (mask, set, start + used + 1 + more, negated)
                }
                // Without a mask any of them will do.
                _ => (set.is_power_of_two().then_some(set)?, set, start + used, negated),
            }
        };
        self.protocol("tcp")?;
        let text = written(&words[..used]);
        let holds = Holds::Flags { mask, set };
        self.add(negated, Test::Foreign(ForeignTest { text, holds }));
        Some(used)
    }
}

/// `syn`, `syn , ack`, `(syn | ack)`, `0x0`: the bits, and how many words they are.
fn flag_bits(raw: &[&str]) -> Option<(u8, usize)> {
    let bit = |name: &str| {
        let name = name.trim_matches(['(', ')']).to_uppercase();
        let name = if name == "ECN" { "ECE" } else { &name };
        let at = TCP_FLAGS.iter().position(|flag| *flag == name)?;
        Some(1_u8 << at)
    };
    if let Some(0) = raw.first().and_then(|word| number(word)) {
        return Some((0, 1));
    }
    let mut bits = bit(raw.first()?)?;
    let mut used = 1;
    while let Some(["," | "|", name, ..]) = raw.get(used..) {
        bits |= bit(name)?;
        used += 2;
    }
    Some((bits, used))
}
