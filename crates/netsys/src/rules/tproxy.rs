//! What a session finds out for TPROXY: whether the back-end that rules would go to takes them, and which of the
//! kernel's switches are ours.

use rules::intent::Families;
use rules::plan::{Stack, Switch, TproxyFacts, remembered};
use rules::{Facts, Family};

use super::program::Backend;
use super::support::{self, Writer};
use super::{Session, policy, switches};

impl Session {
    /// What there is for TPROXY; for the kind without conntrack only where that is `untracked_asked`.
    pub(super) fn tproxy(&self, families: Families, facts: &Facts, untracked_asked: bool) -> TproxyFacts {
        let captured: Vec<_> = [(Family::V4, &facts.ipv4), (Family::V6, &facts.ipv6)]
            .into_iter()
            .filter(|(family, stack)| {
                **stack == Stack::On && !matches!(families, Families::Only(only) if only != *family)
            })
            .map(|(family, _)| family)
            .collect();
        let writers = self.writers(&captured);
        let lacks = writers.iter().find_map(|writer| support::lacks_capture(*writer));
        let is_iptables = writers.iter().any(|writer| matches!(writer, Writer::Iptables(_)));
        let mut found = TproxyFacts {
            lacks,
            syn_cookies_by_iptables: is_iptables && switches::syn_cookies(),
            ..TproxyFacts::default()
        };
        if untracked_asked && found.lacks.is_none() {
            let lack = writers
                .iter()
                .find_map(|writer| support::lacks_untracked(*writer));
            found.untracked = match lack {
                Some(lack) => Err(lack),
                None => self.switches_for_us(&captured),
            };
        }
        found
    }

    fn writers(&self, families: &[Family]) -> Vec<Writer<'_>> {
        // Where there is none for one of them, that is an error of its own.
        let choices = self.choices(families).unwrap_or_default();
        if choices.iter().any(|choice| choice.backend == Backend::Nft) {
            return vec![Writer::Native(&self.native)];
        }
        let programs = self.all().map(|(programs, _)| programs);
        let is_chosen = |family, backend| {
            choices
                .iter()
                .any(|choice| (choice.family, choice.backend) == (family, backend))
        };
        programs
            .filter(|programs| is_chosen(programs.family, programs.backend))
            .map(Writer::Iptables)
            .collect()
    }

    /// The switches that are off, or that we have set; why they cannot be on, where they cannot.
    fn switches_for_us(&self, captured: &[Family]) -> Result<Vec<Switch>, String> {
        let held = self.switches();
        let mut ours = vec![];
        for switch in Switch::ALL {
            if matches!(switch, Switch::Reflect(family) if !captured.contains(&family)) {
                continue;
            }
            if !switches::can_be_on(switch)? || held.contains(&switch) {
                ours.push(switch);
            }
        }
        Ok(ours)
    }

    /// The switches that we have set, as the rules remember, and the routes where the rules have gone.
    pub(super) fn switches(&self) -> Vec<Switch> {
        let native = self.native.held().iter();
        let held = self.all().map(|(_, held)| held).chain(native);
        let mut all: Vec<_> = held.flat_map(remembered).collect();
        all.extend(policy::remembered(&self.local_routes));
        all
    }
}
