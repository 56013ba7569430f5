//! Every way that a packet may take where chance decides: one walk for each throw of the dice, joined to one verdict.

use std::collections::HashSet;
use std::rc::Rc;

use super::Packet;
use super::verdict::{Asked, At, Fate, Verdict, Way};
use super::view::Known;
use super::walk::{Hooked, Telling, Walk};

/// Ways that are followed; what goes by one beyond them is not known.
const MOST_WAYS: usize = 1000;
const MILLION: f64 = 1e6;

/// The same through any chains that the kernel asks; those of one hook and priority in the order given.
pub(crate) fn follow(
    mut hooked: Vec<Hooked<'_>>,
    packet: &Packet,
    known: Known<'_>,
    telling: Telling,
) -> Verdict {
    hooked.sort_by_key(|hooked| hooked.base.priority);
    let hooked: Rc<[Hooked<'_>]> = hooked.into();
    let mut dice = Dice::default();
    let mut ways = vec![];
    loop {
        let walk = Walk::new(Rc::clone(&hooked), packet, known, telling, &mut dice);
        let verdict = walk.verdict(packet);
        ways.push((dice.share(), verdict));
        let is_last = !dice.turn();
        if is_last {
            return join(ways);
        }
        if ways.len() >= MOST_WAYS {
            for (_, verdict) in &mut ways {
                verdict.fate = Fate::Unknown;
            }
            return join(ways);
        }
    }
}

/// One verdict where all ways end alike. What was asked on any of them was asked.
fn join(ways: Vec<(f64, Verdict)>) -> Verdict {
    let mut all: Vec<(f64, Verdict)> = vec![];
    let mut asked: Vec<Asked> = vec![];
    let mut seen: HashSet<At> = HashSet::new();
    for (share, mut verdict) in ways {
        let its = std::mem::take(&mut verdict.asked);
        let new = its.into_iter().filter(|one| !seen.contains(&one.at));
        asked.extend(new);
        seen.extend(asked.iter().map(|one| one.at));
        match all.iter_mut().find(|(_, known)| known.fate == verdict.fate) {
            Some((known, _)) => *known += share,
            None => all.push((share, verdict)),
        }
    }
    let Some((_, first)) = all.first() else {
        // The first walk is always there.
        return Verdict::nothing();
    };
    let first = Verdict {
        asked,
        ..first.clone()
    };
    if all.len() == 1 {
        return first;
    }
    let ways = all.into_iter().map(|(share, verdict)| Way {
        millionths: (share * MILLION).round() as u32,
        verdict,
    });
    Verdict {
        fate: Fate::Split,
        ways: ways.collect(),
        ..first
    }
}

/// What has been thrown on this walk, and what is to be thrown on the next one.
#[derive(Default)]
pub(super) struct Dice {
    /// Side, and the share of each side.
    thrown: Vec<(usize, Vec<f64>)>,
    next: usize,
}

impl Dice {
    /// A side of a die whose sides have these shares.
    pub(super) fn throw(&mut self, shares: Vec<f64>) -> usize {
        if self.next == self.thrown.len() {
            let first = possible(&shares, 0).unwrap_or(0);
            self.thrown.push((first, shares));
        }
        self.next += 1;
        self.thrown[self.next - 1].0
    }

    /// How often all that was thrown comes together.
    fn share(&self) -> f64 {
        self.thrown.iter().map(|(side, shares)| shares[*side]).product()
    }

    /// On to what has not been thrown yet; false where everything has.
    fn turn(&mut self) -> bool {
        self.next = 0;
        while let Some((side, shares)) = self.thrown.pop() {
            if let Some(next) = possible(&shares, side + 1) {
                self.thrown.push((next, shares));
                return true;
            }
        }
        false
    }
}

/// The first side from there on that ever comes up.
fn possible(shares: &[f64], from: usize) -> Option<usize> {
    (from..shares.len()).find(|side| shares[*side] > 0.0)
}
