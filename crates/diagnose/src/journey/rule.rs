//! Which rule of the installed set sent a connection to the proxy: the dump, asked by [`rules::evaluate()`].

use std::net::IpAddr;

use model::{Direction, OrigDst, Remote};
use rules::evaluate::{Fate, Origin, Packet, evaluate};
use rules::ruleset::IpProtocol;
use rules::{Family, Ruleset};

use super::RuleOf;

/// Explains connections by what was dumped in the namespace that they were captured in, one set a family.
/// `made_by` says whose sockets the outbound ones are.
#[must_use]
pub fn from_dump(rulesets: Vec<Ruleset>, made_by: Origin) -> RuleOf {
    Box::new(move |direction, source, original_dst| {
        let family = Family::of(original_dst.ip());
        let Some(ruleset) = rulesets.iter().find(|ruleset| ruleset.family == family) else {
            return format!("not known: no {family} rules were dumped");
        };
        explain(ruleset, direction, source, original_dst, made_by)
    })
}

fn explain(
    ruleset: &Ruleset,
    direction: Direction,
    source: Remote,
    original_dst: OrigDst,
    made_by: Origin,
) -> String {
    let to_itself = |ip: IpAddr| ip.is_loopback() || ip == source.ip();
    let packet = Packet {
        origin: match direction {
            Direction::Outbound => made_by,
            Direction::Inbound => Origin::Remote,
        },
        protocol: IpProtocol::Tcp,
        source: source.ip(),
        source_port: source.port(),
        destination: original_dst.ip(),
        destination_port: original_dst.port(),
        device: String::from(if to_itself(original_dst.ip()) {
            "lo"
        } else {
            "eth0"
        }),
    };
    let verdict = evaluate(ruleset, &packet);
    let rule = match verdict.decided_by() {
        Some(step) => format!(
            "{} {} {} ({})",
            step.table.as_str(),
            step.chain,
            step.number,
            step.purpose()
        ),
        None => String::from("no rule"),
    };
    match verdict.fate {
        Fate::Redirect { port } => format!("{rule}: to port {port}"),
        fate => format!("{rule} says {fate:?} by the dump, but it came here: the rules have changed since"),
    }
}

#[cfg(test)]
mod tests {
    use rules::{Facts, Intent};

    use super::*;

    #[test]
    fn the_deciding_rule_is_named() {
        let intent = Intent::contained(vec![], None);
        let plan = rules::plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
        let of_socket = Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark: 0,
        };
        let rule_of = from_dump(rules::render(&plan), of_socket);
        let source = Remote::new("100.64.0.2:4000".parse().unwrap());
        for to in ["10.0.0.1:80", "[2001:db8::1]:443"] {
            let told = rule_of(Direction::Outbound, source, OrigDst::new(to.parse().unwrap()));
            assert!(
                told.starts_with("nat WEIR_") && told.ends_with("(everything else): to port 15001"),
                "{told}"
            );
        }
        let stays = rule_of(
            Direction::Outbound,
            source,
            OrigDst::new("127.0.0.1:80".parse().unwrap()),
        );
        assert!(stays.contains("the rules have changed since"), "{stays}");
    }
}
