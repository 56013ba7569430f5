//! Statements that Weir's own rules have not, and other people's do: what only watches is passed over, what a test
//! of ours says in another way is that test.

use super::rule::{Reader, device, protocol};
use super::words::Word;
use crate::plan::Family;
use crate::ruleset::{Target, Test};

impl Reader {
    /// How many words the first statement has; none where it is not known.
    pub(super) fn foreign(&mut self, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words.iter().take(5).map(Word::raw).collect();
        match raw[..] {
            ["log", ..] => Some(1 + options(&words[1..], &["prefix", "level", "flags", "group", "snaplen"])),
            ["iif", ..] => self.by_index(words, Test::InInterface),
            ["oif", ..] => self.by_index(words, Test::OutInterface),
            ["meta", "iif" | "iifname" | "oif" | "oifname", ..] => {
                let used = match raw[1] {
                    "iif" | "iifname" => self.by_index(&words[1..], Test::InInterface),
                    _ => self.by_index(&words[1..], Test::OutInterface),
                }?;
                Some(used + 1)
            }
            ["ip", "protocol", name, ..] => self.header(Family::V4, name),
            ["ip6", "nexthdr", name, ..] => self.header(Family::V6, name),
            ["meta", "protocol", "ip", ..] => self.only(Family::V4).map(|()| 3),
            ["meta", "protocol", "ip6", ..] => self.only(Family::V6).map(|()| 3),
            ["reject", "with", ..] => {
                let with: Vec<_> = words[2..].iter().map(Word::text).collect();
                self.target = Target::Reject(with.join(" "));
                Some(words.len())
            }
            _ => None,
        }
    }

    /// A device that is known by its number is listed by its name all the same.
    fn by_index(&mut self, words: &[Word], test: fn(String) -> Test) -> Option<usize> {
        let negated = words.get(1)?.raw() == "!=";
        let name = words.get(1 + usize::from(negated))?;
        if matches!(name.raw(), "{" | "@" | "vmap") {
            return None;
        }
        self.add(negated, test(device(name.text())));
        Some(2 + usize::from(negated))
    }

    fn header(&mut self, family: Family, name: &str) -> Option<usize> {
        self.only(family)?;
        self.add(false, Test::Protocol(protocol(name)?));
        Some(3)
    }
}

/// How many words are options of these names, each with a value.
fn options(words: &[Word], names: &[&str]) -> usize {
    let pairs = words.chunks(2);
    let are_options = |pair: &&[Word]| pair.len() == 2 && names.contains(&pair[0].raw());
    2 * pairs.take_while(are_options).count()
}
