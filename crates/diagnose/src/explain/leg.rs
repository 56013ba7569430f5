//! The client's leg: its packet put before the rules, and what becomes of it by them.

use std::net::SocketAddr;

use model::{Direction, ports};
use rules::ruleset::{Does, ForeignTarget, IpProtocol, Target};
use rules::{Family, Fate, Packet, Verdict};

use super::rule::{self, RuleStep};
use super::{End, Finding, Outcome, Side, Story, Way};

impl Story<'_> {
    pub(super) fn client_leg(&mut self) -> End {
        let packet = match self.packet() {
            Ok(packet) => packet,
            Err(finding) => return End::fails(finding.what.clone(), finding),
        };
        self.told.client = self.whose(&packet);
        if let Some(assumes) = self.network.assumes() {
            self.remark(assumes);
        }
        if let Some(finding) = self.unlearned() {
            return End::fails("the client does not learn the address", finding);
        }
        if let Some(why) = &self.rules.unread {
            return self.without_rules(&packet, why);
        }
        let installed = &self.rules.installed;
        let verdict = installed.evaluate_in(&packet, &self.question.client.cgroups, self.network);
        self.told.asked = rule::asked(installed, &packet, &verdict);
        self.told.near_misses = rule::near_misses(installed, &packet, &verdict);
        self.told.rule = verdict
            .decided_by()
            .and_then(|step| RuleStep::at(installed, step.at));
        if verdict.fate == Fate::Split {
            return self.split(&packet, &verdict);
        }
        let says = match verdict.decided_by() {
            Some(step) => rule::told(installed, step),
            None if !installed.has_rules(Family::of(packet.destination)) => String::from("none is installed"),
            None => String::from("none decides: it passes every chain to its end"),
        };
        self.step("rule", says);
        self.end_of(&packet, &verdict)
    }

    /// What holds if rules lead it to the proxy, where nobody can say whether they do.
    fn without_rules(&mut self, packet: &Packet, why: &str) -> End {
        self.step("rule", "not read");
        let port = match self.question.direction {
            Direction::Outbound => ports::OUTBOUND,
            Direction::Inbound => ports::INBOUND,
        };
        let at = SocketAddr::new(packet.destination, port);
        let end = match (packet.protocol, self.listener(packet.protocol, at)) {
            (IpProtocol::Tcp, Ok(listener)) if self.question.direction == Direction::Outbound => {
                self.outbound(listener)
            }
            (IpProtocol::Tcp, Ok(listener)) => self.inbound(listener),
            (IpProtocol::Tcp, Err(())) => End::Passes(format!("nobody listens on port {port}, so it fails")),
            _ => End::Passes(String::from("of what is not TCP it takes look-ups alone")),
        };
        let (_, headline, finding) = end.parts();
        if let Some(finding) = finding {
            self.remark(format!("if they do: {}; {}", finding.what, finding.fix));
        }
        End::Stops(
            Outcome::Unknown,
            format!("whether rules lead it to the proxy is not known; if they do: {headline}"),
            Finding::new(
                Side::Rules,
                format!("the rules were not read: {why}"),
                "run as root",
            ),
        )
    }

    /// What becomes of it by a verdict that does not split.
    fn end_of(&mut self, packet: &Packet, verdict: &Verdict) -> End {
        match verdict.fate {
            Fate::Unknown | Fate::Split => self.not_known(packet, verdict),
            Fate::Drop | Fate::Reject => self.stopped(verdict, "the packet"),
            fate => match self.full_conntrack(verdict) {
                Some(end) => end,
                None => match fate {
                    Fate::Redirect { port } | Fate::Tproxy { port } => self.captured(packet, verdict, port),
                    Fate::Dnat { to, port } => self.led_elsewhere(packet, verdict, (to, port).into()),
                    _ => self.left_alone(packet, verdict),
                },
            },
        }
    }

    /// Chance decides: each way is followed, and the worst is what it comes to.
    fn split(&mut self, packet: &Packet, verdict: &Verdict) -> End {
        let installed = &self.rules.installed;
        self.step(
            "rule",
            format!("chance decides between {} ways", verdict.ways.len()),
        );
        let mut worst: Option<(Outcome, String, Option<Finding>)> = None;
        for way in &verdict.ways {
            let steps = self.told.steps.len();
            let (outcome, headline, finding) = self.end_of(packet, &way.verdict).parts();
            self.told.steps.truncate(steps);
            let share = percent(way.millionths);
            let by = way.verdict.decided_by();
            let told = by.map_or_else(|| String::from("no rule"), |step| rule::told(installed, step));
            self.step("way", format!("{share}: {headline} (by {told})"));
            self.told.ways.push(Way {
                share: f64::from(way.millionths) / 1e6,
                outcome,
                headline: headline.clone(),
                rule: by.and_then(|step| RuleStep::at(installed, step.at)),
            });
            if worst.as_ref().is_none_or(|(known, ..)| outcome > *known) {
                worst = Some((outcome, format!("{share} of connections: {headline}"), finding));
            }
        }
        match worst {
            Some((outcome, headline, Some(finding))) => End::Stops(outcome, headline, finding),
            Some((Outcome::Passes, ..)) => End::Passes(each_leads_on(verdict)),
            _ => End::Works(each_leads_on(verdict)),
        }
    }

    fn full_conntrack(&mut self, verdict: &Verdict) -> Option<End> {
        /// From here on, in percent, a burst of connections fills it.
        const HIGH: u64 = 90;
        const FULL: u64 = 99;
        let usage = self.network.conntrack()?;
        let reaches = |percent: u64| {
            let limit = u128::from(usage.limit) * u128::from(percent);
            verdict.is_tracked && usage.limit > 0 && u128::from(usage.entries) * 100 >= limit
        };
        let is_full = reaches(FULL);
        if reaches(HIGH) && !is_full {
            self.remark(format!(
                "the kernel's table of connections is nearly full: {} of at most {}",
                usage.entries, usage.limit
            ));
        }
        is_full.then(|| {
            End::fails(
                "the kernel's table of connections is full, so it drops what opens a new one",
                Finding::new(
                    Side::Rules,
                    format!(
                        "conntrack has {} of at most {} entries",
                        usage.entries, usage.limit
                    ),
                    "raise net.netfilter.nf_conntrack_max, or see by `conntrack -L` who holds so many; \
                     the metric weir_conntrack_entries warns beforehand",
                ),
            )
        })
    }

    fn not_known(&self, packet: &Packet, verdict: &Verdict) -> End {
        let installed = &self.rules.installed;
        let step = verdict.decided_by();
        let by = step.map_or_else(String::new, |step| rule::told(installed, step));
        let asked = step.and_then(|step| {
            let mut asked = self.told.asked.iter();
            asked.find(|asked| !asked.fits && Some(&asked.rule) == RuleStep::at(installed, step.at).as_ref())
        });
        let what = match (asked, step.map(|step| &step.rule.target)) {
            (Some(asked), _) => format!("{by}: {}", asked.because.join("; ")),
            (None, Some(Target::Other(_))) => format!("{by}: what it does is not known here"),
            (None, Some(Target::Foreign(ForeignTarget { does, .. }))) => match does {
                Does::Dnat(_) => format!(
                    "{by}: whether that is an address of this namespace is not known, and other rules treat the two differently"
                ),
                _ => format!("{by}: which of its cases fits is not known here"),
            },
            _ => {
                let family = Family::of(packet.destination);
                let ties = installed.ties(family);
                let ties: Vec<_> = ties
                    .iter()
                    .map(|(one, other)| format!("{one} and {other}"))
                    .collect();
                format!(
                    "{} are asked at the same priority: which of them is first depends on which was made last, and \
                     here they decide differently",
                    ties.join(", ")
                )
            }
        };
        let fix = self.how_to_know(&what);
        End::Stops(
            Outcome::Unknown,
            String::from("a rule could decide of which it cannot be said what it does"),
            Finding::new(Side::Rules, what, fix),
        )
    }

    /// What would tell more: of a file of rules, what is missing in it.
    fn how_to_know(&self, what: &str) -> &'static str {
        let is_file = self.network.assumes().is_some();
        match is_file {
            true if what.contains("-m set ") => {
                "add to the file what `ipset save` prints in that namespace; a set whose members have a time-out stays unknown"
            }
            true if what.contains("xt match") || what.contains("xt target") => {
                "nft does not show this rule whole: give what `iptables-save -c` prints instead"
            }
            true if ["-type ", "fib ", "an address of this namespace"]
                .iter()
                .any(|part| what.contains(part)) =>
            {
                "add to the file what `ip addr` prints in that namespace, so that its own addresses are known"
            }
            true => {
                "run `weir explain --trace` in that namespace: it sends one connection and shows what the kernel does with it"
            }
            false if what.contains("-m set ") => {
                "--trace sends one connection and shows what the kernel does with it; sets are read by the program ipset, and \
                 one whose members have a time-out changes by itself"
            }
            false => "--trace sends one connection and shows what the kernel does with it",
        }
    }

    /// By a rule, or by the policy of a chain. `what` says whose packet it is.
    pub(super) fn stopped(&self, verdict: &Verdict, what: &str) -> End {
        let installed = &self.rules.installed;
        let how = if verdict.fate == Fate::Drop {
            "drops"
        } else {
            "rejects"
        };
        let feels = match verdict.fate {
            Fate::Drop => "the client waits until it times out",
            _ => "the client is refused at once",
        };
        let Some(step) = verdict.decided_by() else {
            let dropping = super::reason::dropping(installed, Family::of(self.question.to.ip()));
            return End::fails(
                format!("the policy of a chain drops {what}: {feels}"),
                Finding::new(
                    Side::Rules,
                    format!("no rule accepts it, and {dropping} at its end"),
                    "add a rule that accepts it there, or set the chain's policy to accept",
                ),
            );
        };
        let rule = rule::told(installed, step);
        End::fails(
            format!("a rule {how} {what}: {feels}"),
            Finding::new(Side::Rules, rule, rule::removal(installed, step.at)),
        )
    }
}

fn each_leads_on(verdict: &Verdict) -> String {
    let ways = verdict.ways.len();
    format!("chance decides: it goes one of {ways} ways, and each leads on")
}

/// `33.3 %`.
fn percent(millionths: u32) -> String {
    let tenths = (millionths + 500) / 1000;
    match tenths % 10 {
        0 => format!("{} %", tenths / 10),
        rest => format!("{}.{rest} %", tenths / 10),
    }
}
