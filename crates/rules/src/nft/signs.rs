//! What a table remembers of the DNS proxy's signs of life: read from a listing, to be written into the table that
//! takes its place. Else look-ups would go direct after each replacement until the proxy gives the next sign.

use std::time::Duration;

use model::liveness::HELD_FOR;

use super::parse::words::{Word, lines};
use crate::family::Family;
use crate::ruleset::SET;

/// A sign that is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sign {
    /// Whose look-ups it is for.
    pub family: Family,
    /// For how long yet.
    pub left: Duration,
}

impl Sign {
    /// As an element of the set.
    pub(super) fn element(self) -> String {
        let Self { family, left } = self;
        // As nft prints it.
        let left = match (left.as_secs(), left.subsec_millis()) {
            (seconds, 0) => format!("{seconds}s"),
            (0, millis) => format!("{millis}ms"),
            (seconds, millis) => format!("{seconds}s{millis}ms"),
        };
        let (family, held) = (word(family), HELD_FOR.as_secs());
        format!("{family} timeout {held}s expires {left}")
    }
}

/// Those in what `nft list table` prints.
#[must_use]
pub fn signs(listing: &str) -> Vec<Sign> {
    let mut signs = vec![];
    let mut is_ours = false;
    for line in lines(listing) {
        let words: Vec<_> = line.iter().map(Word::raw).collect();
        match words[..] {
            ["set", name, "{"] => is_ours = name == SET,
            ["}"] => is_ours = false,
            ["elements", "=", "{", ref elements @ .., "}"] if is_ours => {
                signs.extend(elements.split(|word| *word == ",").filter_map(sign));
            }
            _ => {}
        }
    }
    signs
}

/// `ipv4 timeout 3s expires 1s992ms`.
fn sign(element: &[&str]) -> Option<Sign> {
    let [name, .., "expires", left] = element else {
        return None;
    };
    let family = Family::ALL.into_iter().find(|family| word(*family) == *name)?;
    let (seconds, millis) = match left.strip_suffix("ms") {
        Some(rest) => rest.split_once('s').unwrap_or(("0", rest)),
        None => (left.strip_suffix('s')?, "0"),
    };
    let left = Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(millis.parse().ok()?);
    (!left.is_zero()).then_some(Sign { family, left })
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
