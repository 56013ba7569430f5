//! Which rule of the installed set sent a connection to the proxy: the dump, asked by [`rules::evaluate()`].

use std::net::IpAddr;

use model::{Direction, OrigDst, Remote};
use rules::evaluate::{Fate, Origin, Packet, State, evaluate};
use rules::ruleset::IpProtocol;
use rules::{Family, Ruleset};

use super::RuleOf;

/// Whose sockets are in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct MadeBy {
    /// Outbound connections.
    pub application: Origin,
    /// The proxy's calls to its own workload, which are turned inwards.
    pub proxy: Origin,
}

/// Explains connections by what was dumped in the namespace that they were captured in, one set a family.
#[must_use]
pub fn from_dump(rulesets: Vec<Ruleset>, made_by: MadeBy) -> RuleOf {
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
    made_by: MadeBy,
) -> String {
    let to_itself = |ip: IpAddr| ip.is_loopback() || ip == source.ip();
    let packet = Packet {
        origin: match direction {
            Direction::Outbound => made_by.application,
            Direction::Inbound if to_itself(original_dst.ip()) => made_by.proxy,
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
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    };
    let verdict = evaluate(ruleset, &packet);
    let rule = match verdict.decided_by() {
        Some(step) => format!(
            "{} {} {} ({})",
            step.table,
            step.chain,
            step.number,
            step.purpose()
        ),
        None => String::from("no rule"),
    };
    match verdict.fate {
        Fate::Redirect { port } | Fate::Tproxy { port } => format!("{rule}: to port {port}"),
        fate => format!("{rule} says {fate:?} by the dump, but it came here: the rules have changed since"),
    }
}

#[cfg(test)]
mod tests {
    use rules::{Facts, Intent, SocketMark};

    use super::*;

    #[test]
    fn the_deciding_rule_is_named() {
        let own = vec!["100.64.0.2".parse().unwrap()];
        let intent = Intent::contained(own, Some(SocketMark::exact(7)));
        let plan = rules::plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
        let of_socket = |mark| Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark,
        };
        let made_by = MadeBy {
            application: of_socket(0),
            proxy: of_socket(7),
        };
        let rule_of = from_dump(rules::render(&plan), made_by);
        let source = Remote::new("100.64.0.2:4000".parse().unwrap());
        for to in ["10.0.0.1:80", "[2001:db8::1]:443"] {
            let told = rule_of(Direction::Outbound, source, OrigDst::new(to.parse().unwrap()));
            assert!(
                told.starts_with("nat WEIR_") && told.ends_with("(everything else): to port 15001"),
                "{told}"
            );
        }
        let inwards = rule_of(
            Direction::Inbound,
            source,
            OrigDst::new("100.64.0.2:8080".parse().unwrap()),
        );
        assert!(
            inwards.ends_with("(proxy calls its own workload: inbound): to port 15006"),
            "{inwards}"
        );
        let stays = rule_of(
            Direction::Outbound,
            source,
            OrigDst::new("127.0.0.1:80".parse().unwrap()),
        );
        assert!(stays.contains("the rules have changed since"), "{stays}");
    }
}
