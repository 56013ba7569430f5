//! What is not captured, and why: by the tests of the rule that let it pass, whoever wrote it.

use std::net::SocketAddr;

use model::{Direction, ports};
use registry::Deny;
use rules::evaluate::Step;
use rules::hook::HookPoint;
use rules::ruleset::{ChainKind, IpProtocol, Policy, Target, Test};
use rules::{Family, Installed, Packet, Verdict};

use super::rule::{self, captures};
use super::{End, Finding, Mesh, Outcome, Side, Story};

const DNS_PORT: u16 = 53;

impl Story<'_> {
    /// It goes where it was going.
    pub(super) fn left_alone(&mut self, packet: &Packet, verdict: &Verdict) -> End {
        let to = self.question.to;
        let why = self.why_left(packet, verdict);
        let stays = packet.device == "lo" || self.question.direction == Direction::Inbound;
        if stays && self.listener(packet.protocol, to).is_err() {
            self.step("endpoint", format!("nobody listens at {to}"));
            return End::fails(
                format!("it goes straight to {to} in this namespace, where nobody listens"),
                Finding::new(
                    Side::Endpoint,
                    format!("no process of this namespace listens at {to}"),
                    "start the application, or give the port that it listens on",
                ),
            );
        }
        if stays && ports::is_capture_port(to.port()) {
            return self.denied(Deny::Loop);
        }
        if let Some(end) = self.dns_past_the_proxy(packet, &why) {
            return end;
        }
        if let Some(owner) = self
            .owner(to)
            .filter(|_| packet.protocol == IpProtocol::Tcp && packet.device != "lo")
        {
            return End::Stops(
                Outcome::Bypasses,
                format!(
                    "it goes past the proxy, straight to {to}, which is {owner}: no routing, retry or policy applies"
                ),
                why,
            );
        }
        if !stays && let Some(end) = self.lost_answer(packet) {
            return end;
        }
        let answered = match stays || packet.protocol != IpProtocol::Tcp {
            true => None,
            false => self.answers_to_client(to),
        };
        self.remark(why.what);
        if let Mesh::Unknown { why, fix } = self.mesh {
            self.remark(format!(
                "whether the mesh owns {to}, and it should go by the proxy, is not known: {why}; {fix}"
            ));
        }
        answered.unwrap_or_else(|| End::Passes(format!("it goes straight to {to}, not by the proxy")))
    }

    /// What of the mesh has the address.
    pub(super) fn owner(&self, to: SocketAddr) -> Option<String> {
        let snapshot = self.snapshot()?;
        if self.question.direction == Direction::Inbound {
            let cluster = snapshot.inbound.get(&to.port())?;
            return Some(format!("a port of {} here", cluster.host));
        }
        let by_address = snapshot
            .by_vip_ip
            .get(&to.ip())
            .map(|service| service.host.to_string());
        let endpoint = || {
            let (cluster, _) = snapshot.by_endpoint.get(&to)?;
            Some(format!("an endpoint of {}", cluster.host))
        };
        by_address
            .map(|host| format!("the address of {host}"))
            .or_else(endpoint)
    }

    /// Queries that nobody leads to a proxy that would answer them.
    fn dns_past_the_proxy(&mut self, packet: &Packet, why: &Finding) -> Option<End> {
        if packet.destination_port != DNS_PORT || packet.device == "lo" {
            return None;
        }
        let proxy = SocketAddr::new(
            match packet.destination.is_ipv4() {
                true => std::net::Ipv4Addr::LOCALHOST.into(),
                false => std::net::Ipv6Addr::LOCALHOST.into(),
            },
            ports::DNS,
        );
        if !matches!(self.listener(packet.protocol, proxy), Ok(Some(_))) {
            self.remark("DNS is not captured here: names of the mesh are known to a client only if its resolver knows them");
            return None;
        }
        let what = match captures(&self.rules.installed, Family::of(packet.destination)) {
            true => format!("the proxy serves DNS at {proxy}, and no rule leads queries there"),
            false => why.what.clone(),
        };
        Some(End::Stops(
            Outcome::Bypasses,
            format!(
                "the query goes straight to {}, past the proxy's DNS: names of the mesh stay unknown",
                self.question.to
            ),
            Finding::new(
                Side::Rules,
                what,
                "run `weir init` with --redirect-dns, and with --capture-all-dns where the server is none of resolv.conf's",
            ),
        ))
    }

    /// Why no rule captured it.
    fn why_left(&self, packet: &Packet, verdict: &Verdict) -> Finding {
        let installed = &self.rules.installed;
        let family = Family::of(packet.destination);
        if !captures(installed, family) {
            return nothing_captured(installed, family);
        }
        // What a table that captures nothing accepts, another one may still capture.
        let lets_pass = |step: &&Step| {
            let captures = installed.tables[step.at.table]
                .chains
                .iter()
                .flat_map(|chain| &chain.rules)
                .any(|rule| matches!(rule.target, Target::Redirect(_) | Target::Tproxy { .. }));
            captures && matches!(step.rule.target, Target::Accept | Target::Return)
        };
        match verdict.path.iter().rev().find(lets_pass) {
            Some(step) => self.let_pass(step, packet),
            None if packet.protocol != IpProtocol::Tcp => Finding::new(
                Side::Rules,
                format!("no rule captures {} to this port: only TCP is", packet.protocol),
                "nothing need be done where that is meant",
            ),
            None => Finding::new(
                Side::Rules,
                format!(
                    "{} is not among what the rules capture (-i, -q of weir init)",
                    self.question.to
                ),
                "add its network to -i, or its port to -q, and run `weir init` again",
            ),
        }
    }

    fn let_pass(&self, step: &Step, packet: &Packet) -> Finding {
        let installed = &self.rules.installed;
        let table = &installed.tables[step.at.table];
        let told = rule::told(installed, step);
        let is_of_mesh = step.chain.starts_with("ISTIO_") || step.chain.starts_with("PROXY_INIT_");
        if !rule::is_ours(table, &step.chain, &step.rule) && !is_of_mesh {
            return Finding::new(
                Side::Rules,
                format!("a rule in front of those that capture lets it pass: {told}"),
                format!(
                    "{}; what must stay belongs behind the jump that captures",
                    rule::removal(installed, step.at)
                ),
            );
        }
        let inbound = self.question.direction == Direction::Inbound;
        let positive = step.rule.matches.iter().filter(|found| !found.negated);
        let mut reason = None;
        for found in positive {
            let more = match &found.test {
                Test::Uid(..) | Test::Uids(_) => {
                    Some(taken_for_proxy("uid", &self.question.client.uid.to_string()))
                }
                Test::Gid(..) | Test::Gids(_) if step.purpose().contains("group") => Some((
                    Side::Rules,
                    format!("connections of gid {} are left alone", self.question.client.gid),
                    String::from("change ISTIO_OUTBOUND_OWNER_GROUPS(_EXCLUDE) and run `weir init` again"),
                )),
                Test::Gid(..) | Test::Gids(_) => {
                    Some(taken_for_proxy("gid", &self.question.client.gid.to_string()))
                }
                Test::Mark(_) => Some(taken_for_proxy(
                    "mark",
                    &format!("{:#x}", self.question.client.mark),
                )),
                Test::Destination(_) | Test::Destinations(_) => Some((
                    Side::Rules,
                    format!(
                        "{} is in an excluded network ({})",
                        packet.destination, found.test
                    ),
                    String::from(
                        "take it out of -x (--istio-service-exclude-cidr) and run `weir init` again",
                    ),
                )),
                Test::DestinationPort(_) | Test::DestinationPorts(_) => Some((
                    Side::Rules,
                    format!("port {} is excluded", packet.destination_port),
                    String::from(match inbound {
                        true => "take it out of -d (--istio-local-exclude-ports) and run `weir init` again",
                        false => {
                            "take it out of -o (--istio-local-outbound-ports-exclude) and run `weir init` again"
                        }
                    }),
                )),
                Test::InInterface(name) | Test::OutInterface(name) if name != "lo" => Some((
                    Side::Rules,
                    format!("the device {name} is excluded"),
                    String::from("take it out of -c (--istio-exclude-interfaces) and run `weir init` again"),
                )),
                Test::Source(_) | Test::Sources(_) if inbound => Some((
                    Side::Rules,
                    format!("what comes from {} is excluded", packet.source),
                    String::from("take it out of --inbound-exclude-sources and run `weir init` again"),
                )),
                _ => None,
            };
            reason = reason.or(more);
        }
        let (side, what, fix) = reason.unwrap_or_else(|| {
            let purpose = step.purpose();
            let why = if purpose.is_empty() {
                "the rules leave it alone"
            } else {
                purpose
            };
            (
                Side::Rules,
                why.to_owned(),
                String::from("nothing need be done where that is meant"),
            )
        });
        Finding::new(side, format!("{what}: {told}"), fix)
    }
}

fn taken_for_proxy(kind: &str, value: &str) -> (Side, String, String) {
    let what = format!(
        "the client has {kind} {value}, by which the rules recognise the proxy, so it is not captured"
    );
    let fix = match kind {
        "mark" => String::from("give the application's sockets another mark, or the proxy (--proxy-mark)"),
        _ => format!(
            "run the application with another {kind}, or have the proxy recognised by a mark (`weir init --proxy-mark`)"
        ),
    };
    (Side::Client, what, fix)
}

fn nothing_captured(installed: &Installed, family: Family) -> Finding {
    let other = match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    if captures(installed, other) {
        return Finding::new(
            Side::Rules,
            format!(
                "no rule captures {family} here, while {other} is captured: {family} goes past the proxy"
            ),
            format!("run `weir init` again with --families both, or switch {family} off in the namespace"),
        );
    }
    Finding::new(
        Side::Rules,
        "no rule of this namespace captures anything: they were never installed, or somebody took them out",
        "run `weir init --sidecar` in the namespace",
    )
}

/// Chains whose policy drops what no rule accepts.
pub(super) fn dropping(installed: &Installed, family: Family) -> String {
    let mut found = vec![];
    for table in installed.of(family) {
        for (chain, base) in table.chains.iter().zip(&table.bases) {
            let is_asked = base.is_some_and(|base| base.point != HookPoint::Forward);
            if is_asked && chain.kind == ChainKind::Builtin(Policy::Drop) {
                found.push(format!("{table} {} drops", chain.name));
            }
        }
    }
    found.join(" or ")
}
