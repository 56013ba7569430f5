//! The matches and targets of iptables that Weir's rules do not have and other people's do: those of kube-proxy,
//! Docker, other meshes and firewalls. What is not here either stays text.

use std::net::IpAddr;

use super::{Word, joined, module_test, network, ports};
use crate::family::Family;
use crate::ruleset::{
    Addresses, Chance, Does, ForeignTarget, ForeignTest, Holds, MarkChange, Match, NewDestination, Target,
    Test,
};

/// All that one `-m MODULE` says, where every option of it is known. `words` begin with `-m`.
pub(super) fn module(words: &[Word<'_>]) -> Option<Match> {
    let [_, module, options @ ..] = words else {
        return None;
    };
    let holds = match (module.raw, options) {
        ("statistic", options) => by_chance(options)?,
        // The protocol has been asked already; it counts.
        ("tcp" | "udp" | "sctp", []) | ("nfacct", [_, _]) => Holds::Always,
        ("recent", options) if options.iter().any(|word| word.raw == "--set") => match options[0].raw {
            "!" => return None,
            _ => Holds::Always,
        },
        (module, options) => Holds::OneOf(vec![all_of(module, options)?]),
    };
    let text = joined(words);
    Some(Match {
        negated: false,
        test: Test::Foreign(ForeignTest { text, holds }),
    })
}

/// Each option as a test; all of them must hold.
fn all_of(module: &str, mut options: &[Word<'_>]) -> Option<Vec<Match>> {
    let mut row = vec![];
    while let Some(first) = options.first() {
        let negated = first.raw == "!";
        let here = &options[usize::from(negated)..];
        let (test, used) = option(module, here)?;
        row.push(Match { negated, test });
        options = &here[used..];
    }
    (!row.is_empty()).then_some(row)
}

/// One option, and how many words it is.
fn option(module: &str, words: &[Word<'_>]) -> Option<(Test, usize)> {
    let foreign = |used: usize, holds: Holds| {
        let text = joined(&words[..used]);
        Some((Test::Foreign(ForeignTest { text, holds }), used))
    };
    match (module, words) {
        ("owner", [exists, ..]) if exists.raw == "--socket-exists" => foreign(1, Holds::Owned),
        ("tcp", [flags, mask, set, ..]) if flags.raw == "--tcp-flags" => {
            let (mask, set) = (tcp_flags(mask.raw)?, tcp_flags(set.raw)?);
            foreign(3, Holds::Flags { mask, set })
        }
        (_, [name, value, ..]) => {
            let value = value.text.as_str();
            let known = match (module, name.raw) {
                ("state", "--state") => module_test("conntrack", "--ctstate", value),
                ("conntrack", "--ctstatus") if value.split(',').all(|one| one == "DNAT" || one == "SNAT") => {
                    module_test("conntrack", "--ctstate", value)
                }
                ("iprange", "--src-range") => Some(Test::Sources(range(value)?)),
                ("iprange", "--dst-range") => Some(Test::Destinations(range(value)?)),
                (module, option) => module_test(module, option, value),
            };
            if let Some(test) = known {
                return Some((test, 2));
            }
            let kinds = || value.split(',').map(str::to_owned).collect();
            let holds = match (module, name.raw) {
                ("addrtype", "--src-type") => Holds::SourceKind(kinds()),
                ("addrtype", "--dst-type") => Holds::DestinationKind(kinds()),
                ("multiport", "--sports") => Holds::SourcePort(several(value)?),
                ("multiport", "--ports") => {
                    let from = Test::Foreign(ForeignTest {
                        text: format!("--sports {value}"),
                        holds: Holds::SourcePort(several(value)?),
                    });
                    let each = [from, Test::DestinationPorts(several(value)?)];
                    Holds::OneOf(each.map(|test| vec![Match { negated: false, test }]).into())
                }
                ("conntrack", "--ctorigdst") => Holds::OriginalDestination(network(value)?),
                ("conntrack", "--ctorigdstport") => Holds::OriginalPort(ports(value)?),
                _ => return None,
            };
            foreign(2, holds)
        }
        _ => None,
    }
}

fn several(text: &str) -> Option<Vec<crate::ruleset::PortRange>> {
    text.split(',').map(ports).collect()
}

fn range(text: &str) -> Option<Addresses> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    Some(Addresses::from_ranges(
        Family::of(first),
        [(first, last)].into_iter(),
    ))
}

/// Bits of the flags' byte, lowest first.
pub(crate) const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// `FIN,SYN`, `NONE`, `ALL`: what iptables calls all are six.
fn tcp_flags(text: &str) -> Option<u8> {
    match text {
        "NONE" => return Some(0),
        "ALL" => return Some(0x3f),
        _ => {}
    }
    let mut bits = 0;
    for name in text.split(',') {
        bits |= 1 << TCP_FLAGS.iter().position(|flag| *flag == name)?;
    }
    Some(bits)
}

/// `--mode random --probability 0.5`, `--mode nth --every 3 --packet 0`.
fn by_chance(options: &[Word<'_>]) -> Option<Holds> {
    /// What the kernel counts probabilities in.
    const WHOLE: u32 = 1 << 31;
    let (negated, raw): (Vec<_>, Vec<_>) = options.iter().map(|word| word.raw).partition(|word| *word == "!");
    let chance = match raw[..] {
        ["--mode", "random", "--probability", share] => {
            let share: f64 = share.parse().ok()?;
            Chance {
                times: (share.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u32,
                of: WHOLE,
            }
        }
        ["--mode", "nth", "--every", every] | ["--mode", "nth", "--every", every, "--packet", _] => Chance {
            times: 1,
            of: every.parse().ok().filter(|every| *every > 0)?,
        },
        _ => return None,
    };
    Some(Holds::ByChance(match negated.is_empty() {
        true => chance,
        false => Chance {
            times: chance.of - chance.times,
            ..chance
        },
    }))
}

/// A target with its arguments.
pub(super) fn target(name: &str, arguments: &[Word<'_>]) -> Option<Target> {
    let raw: Vec<_> = arguments.iter().map(|word| word.raw).collect();
    let does = match (name, &raw[..]) {
        ("DNAT", ["--to-destination", to, rest @ ..]) if only_how(rest) => Does::Dnat(new_destination(to)?),
        ("SNAT", ["--to-source", to, rest @ ..]) if only_how(rest) => {
            let to = new_destination(to)?;
            // With a choice of several it is not known.
            Does::Snat(
                to.addresses
                    .filter(|(first, last)| first == last)
                    .map(|(first, _)| first),
            )
        }
        ("MASQUERADE", _) => Does::Snat(None),
        ("MARK" | "CONNMARK", ["--set-xmark", mark]) => {
            let (flip, mask) = masked(mark)?;
            Does::ChangeMark(MarkChange {
                of_connection: name == "CONNMARK",
                keep: !mask,
                flip,
                take: 0,
            })
        }
        (
            "CONNMARK",
            [
                how @ ("--save-mark" | "--restore-mark"),
                "--nfmask",
                packet,
                "--ctmask",
                connection,
            ],
        ) => {
            let (packet, connection) = (number(packet)?, number(connection)?);
            let of_connection = *how == "--save-mark";
            let (keep, take) = match of_connection {
                true => (!connection, packet),
                false => (!packet, connection),
            };
            Does::ChangeMark(MarkChange {
                of_connection,
                keep,
                flip: 0,
                take,
            })
        }
        _ => return None,
    };
    let text = match raw.is_empty() {
        true => name.to_owned(),
        false => format!("{name} {}", joined(arguments)),
    };
    Some(Target::Foreign(ForeignTarget { text, does }))
}

/// Words that say how the kernel chooses among several, and nothing else.
fn only_how(words: &[&str]) -> bool {
    let how = ["--random", "--random-fully", "--persistent"];
    words.iter().all(|word| how.contains(word))
}

/// `10.0.0.9`, `10.0.0.9:80`, `:80`, `10.0.0.1-10.0.0.4`, `[fd00::9]:80`, `fd00::9`. None with a choice of ports.
pub(crate) fn new_destination(text: &str) -> Option<NewDestination> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (addresses, port) = match bracketed {
        Some((addresses, "")) => (addresses, None),
        Some((addresses, port)) => (addresses, Some(port.strip_prefix(':')?)),
        // The last colon of a bare IPv6 address is within it.
        None => match text.rsplit_once(':') {
            Some((addresses, port)) if !addresses.contains(':') => (addresses, Some(port)),
            _ => (text, None),
        },
    };
    let addresses = match addresses {
        "" => None,
        _ => {
            let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
            let bare = |text: &str| text.trim_matches(['[', ']']).parse().ok();
            Some((bare(first)?, bare(last)?))
        }
    };
    let port = match port {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    (addresses.is_some() || port.is_some()).then_some(NewDestination { addresses, port })
}

/// `0x4000/0x4000`.
fn masked(text: &str) -> Option<(u32, u32)> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Some((number(value)?, number(mask)?))
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
