//! The text of `iptables-save` as a [`Ruleset`]. What is not known is kept as text, never dropped; only
//! what is not a dump at all is an error.

pub(crate) mod foreign;

use ipnet::IpNet;

use crate::family::Family;
use crate::intent::SocketMark;
use crate::ruleset::{
    Chain, ChainKind, IpProtocol, Match, Memory, Policy, PortRange, Rule, Ruleset, Table, TableName, Target,
    Test,
};

/// The text is not a dump.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line} of the {family} dump: {problem}: {text}")]
pub struct BadDump {
    family: Family,
    line: usize,
    problem: &'static str,
    text: String,
}

/// Reads a dump, or restore text that declares its chains first.
///
/// # Errors
/// Where a line is none that `iptables-save` prints.
pub fn parse(family: Family, text: &str) -> Result<Ruleset, BadDump> {
    let mut tables: Vec<Table> = vec![];
    let mut open = None;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        let bad = |problem| BadDump {
            family,
            line: index + 1,
            problem,
            text: line.to_owned(),
        };
        match line.as_bytes().first() {
            None | Some(b'#') => {}
            Some(b'*') => open = Some(empty_table(line).ok_or_else(|| bad("no such table"))?),
            _ if line == "COMMIT" => tables.extend(open.take()),
            Some(_) => {
                let table: &mut Table = open.as_mut().ok_or_else(|| bad("outside a table"))?;
                if line.starts_with(':') {
                    table.chains.push(chain(line).ok_or_else(|| bad("not a chain"))?);
                } else {
                    append(table, line).map_err(bad)?;
                }
            }
        }
    }
    tables.sort_by_key(|table| table.name);
    Ok(Ruleset { family, tables })
}

fn empty_table(line: &str) -> Option<Table> {
    let name = line[1..].trim();
    TableName::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, name)| Table { name, chains: vec![] })
}

/// `:OUTPUT ACCEPT [12:720]` or `:WEIR_OUTPUT - [0:0]`.
fn chain(line: &str) -> Option<Chain> {
    let (name, rest) = line[1..].split_once(' ')?;
    let kind = match rest.split(' ').next()? {
        "ACCEPT" => ChainKind::Builtin(Policy::Accept),
        "DROP" => ChainKind::Builtin(Policy::Drop),
        "-" => ChainKind::User,
        _ => return None,
    };
    Some(Chain {
        name: name.to_owned(),
        kind,
        rules: vec![],
    })
}

fn append(table: &mut Table, line: &str) -> Result<(), &'static str> {
    let words = words(line);
    let mut words = words.as_slice();
    // Counters, where the dump was made with them.
    if let [counters, rest @ ..] = words
        && counters.raw.starts_with('[')
    {
        words = rest;
    }
    let [command, name, rest @ ..] = words else {
        return Err("not a rule");
    };
    if command.raw != "-A" {
        return Err("not a rule");
    }
    let rule = rule(rest, |name| table.chain(name).is_some());
    let chain = table
        .chains
        .iter_mut()
        .find(|chain| chain.name == name.text)
        .ok_or("a rule of a chain that is not declared")?;
    chain.rules.push(rule);
    Ok(())
}

/// One word of a line: as it stands there, and without its quotes.
struct Word<'a> {
    raw: &'a str,
    text: String,
}

fn words(mut line: &str) -> Vec<Word<'_>> {
    let mut words = vec![];
    loop {
        line = line.trim_start_matches(' ');
        let mut text = String::new();
        let (mut quoted, mut escaped) = (false, false);
        let mut end = line.len();
        for (index, c) in line.char_indices() {
            match c {
                _ if escaped => {
                    text.push(c);
                    escaped = false;
                }
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ' ' if !quoted => {
                    end = index;
                    break;
                }
                _ => text.push(c),
            }
        }
        if end == 0 {
            return words;
        }
        let (raw, rest) = line.split_at(end);
        words.push(Word { raw, text });
        line = rest;
    }
}

fn rule(mut words: &[Word<'_>], is_chain: impl Fn(&str) -> bool) -> Rule {
    let mut matches = vec![];
    let mut negated = false;
    while let [word, rest @ ..] = words {
        let used = match (word.raw, rest) {
            ("!", _) => {
                negated = true;
                words = rest;
                continue;
            }
            ("-j" | "-g", [name, arguments @ ..]) => {
                let target = match word.raw {
                    "-g" => Target::Goto(name.text.clone()),
                    _ if arguments.is_empty() && is_chain(&name.text) => Target::Jump(name.text.clone()),
                    _ => extension(&name.text, arguments),
                };
                return Rule { matches, target };
            }
            ("-m", [module, rest @ ..]) => {
                let end = rest
                    .iter()
                    .position(|word| matches!(word.raw, "-m" | "-j" | "-g"));
                let options = &rest[..end.unwrap_or(rest.len())];
                if module.raw == "recent"
                    && end.is_none()
                    && let Some(memory) = Memory::recent(&joined(options), Memory::told)
                {
                    let target = Target::Remember(memory);
                    return Rule { matches, target };
                }
                let all = &words[..2 + options.len()];
                match module_tests(&module.text, options) {
                    Some(tests) => matches.extend(tests),
                    None => matches.push(foreign::module(all).unwrap_or_else(|| other(false, all))),
                }
                2 + options.len()
            }
            (option, [value, ..]) if option.starts_with('-') => {
                matches.push(match plain_test(option, &value.text) {
                    Some(test) => Match { negated, test },
                    None => other(negated, &words[..2]),
                });
                2
            }
            _ => {
                matches.push(other(negated, &words[..1]));
                1
            }
        };
        negated = false;
        words = &words[used..];
    }
    Rule {
        matches,
        target: Target::Continue,
    }
}

fn other(negated: bool, words: &[Word<'_>]) -> Match {
    Match {
        negated,
        test: Test::Other(joined(words)),
    }
}

fn joined(words: &[Word<'_>]) -> String {
    let raw: Vec<_> = words.iter().map(|word| word.raw).collect();
    raw.join(" ")
}

fn extension(name: &str, arguments: &[Word<'_>]) -> Target {
    let texts: Vec<_> = arguments.iter().map(|word| word.text.as_str()).collect();
    if let ("TPROXY", Some(target)) = (name, tproxy(&texts)) {
        return target;
    }
    match (name, texts.as_slice()) {
        ("ACCEPT", []) => Target::Accept,
        ("DROP", []) => Target::Drop,
        ("RETURN", []) => Target::Return,
        ("REJECT", ["--reject-with", with]) => Target::Reject((*with).to_owned()),
        ("REDIRECT", ["--to-ports", port]) if port.parse::<u16>().is_ok() => {
            Target::Redirect(port.parse().unwrap_or_default())
        }
        ("CT", ["--notrack"]) => Target::Notrack,
        ("CONNMARK", ["--set-xmark", mark]) if whole_mark(mark).is_some() => {
            Target::MarkConnection(whole_mark(mark).unwrap_or_default())
        }
        ("CONNMARK", ["--save-mark", "--nfmask", ALL_BITS, "--ctmask", ALL_BITS]) => Target::SaveMark,
        ("CONNMARK", ["--restore-mark", "--nfmask", ALL_BITS, "--ctmask", ALL_BITS]) => Target::RestoreMark,
        ("MARK", ["--set-xmark", mark]) if whole_mark(mark).is_some() => {
            Target::Mark(whole_mark(mark).unwrap_or_default())
        }
        ("CT", ["--zone", zone]) if zone.parse::<u16>().is_ok() => {
            Target::Zone(zone.parse().unwrap_or_default())
        }
        _ => foreign::target(name, arguments).unwrap_or_else(|| other_target(name, arguments)),
    }
}

fn other_target(name: &str, arguments: &[Word<'_>]) -> Target {
    match arguments.is_empty() {
        true => Target::Other(name.to_owned()),
        false => Target::Other(format!("{name} {}", joined(arguments))),
    }
}

/// With all of its options, as a dump has them, or with those alone that say something.
fn tproxy(options: &[&str]) -> Option<Target> {
    let ["--on-port", port, rest @ ..] = options else {
        return None;
    };
    let rest = match rest {
        ["--on-ip", "0.0.0.0" | "::", rest @ ..] => rest,
        rest => rest,
    };
    let mark = match rest {
        [] | ["--tproxy-mark", "0x0/0x0"] => None,
        ["--tproxy-mark", mark] => Some(whole_mark(mark)?),
        _ => return None,
    };
    let port = port.parse().ok()?;
    Some(Target::Tproxy {
        port,
        mark,
        connection: None,
        or_next: false,
    })
}

const ALL_BITS: &str = "0xffffffff";

/// `0x53a/0xffffffff`.
fn whole_mark(text: &str) -> Option<u32> {
    let value = text
        .strip_suffix(ALL_BITS)?
        .strip_suffix('/')?
        .strip_prefix("0x")?;
    u32::from_str_radix(value, 16).ok()
}

/// The options that iptables has itself.
fn plain_test(option: &str, value: &str) -> Option<Test> {
    Some(match option {
        "-s" => Test::Source(network(value)?),
        "-d" => Test::Destination(network(value)?),
        "-i" => Test::InInterface(value.to_owned()),
        "-o" => Test::OutInterface(value.to_owned()),
        "-p" => Test::Protocol(protocol(value)?),
        _ => return None,
    })
}

/// The tests of one extension, where every option of it is known.
fn module_tests(module: &str, options: &[Word<'_>]) -> Option<Vec<Match>> {
    if module == "recent" {
        let (negated, options) = match options {
            [not, rest @ ..] if not.raw == "!" => (true, rest),
            _ => (false, options),
        };
        let test = Test::Alive(Memory::recent(&joined(options), Memory::asked)?);
        return Some(vec![Match { negated, test }]);
    }
    if module == "socket" && options.is_empty() {
        return Some(vec![Match {
            negated: false,
            test: Test::Socket,
        }]);
    }
    let mut tests = vec![];
    let mut options = options;
    while !options.is_empty() {
        let negated = options[0].raw == "!";
        let options_here = &options[usize::from(negated)..];
        if let ("tcp", [option, asked, set, rest @ ..]) = (module, options_here)
            && (option.raw, asked.raw, set.raw) == ("--tcp-flags", "FIN,SYN,RST,ACK", "SYN")
        {
            tests.push(Match {
                negated,
                test: Test::Opens,
            });
            options = rest;
            continue;
        }
        if let ("socket", false, [option, rest @ ..]) = (module, negated, options_here)
            && option.raw == "--transparent"
        {
            tests.push(Match {
                negated,
                test: Test::Transparent,
            });
            options = rest;
            continue;
        }
        let [option, value, rest @ ..] = options_here else {
            return None;
        };
        tests.push(Match {
            negated,
            test: module_test(module, option.raw, &value.text)?,
        });
        options = rest;
    }
    (!tests.is_empty()).then_some(tests)
}

fn module_test(module: &str, option: &str, value: &str) -> Option<Test> {
    Some(match (module, option) {
        ("tcp" | "udp" | "sctp", "--sport") => Test::SourcePort(ports(value)?),
        ("tcp" | "udp" | "sctp", "--dport") => Test::DestinationPort(ports(value)?),
        ("multiport", "--dports") => {
            Test::DestinationPorts(value.split(',').map(ports).collect::<Option<_>>()?)
        }
        ("owner", "--uid-owner") => ids(value).map(|(first, last)| Test::Uid(first, last))?,
        ("owner", "--gid-owner") => ids(value).map(|(first, last)| Test::Gid(first, last))?,
        ("mark", "--mark") => Test::Mark(mark(value)?),
        ("cgroup", "--cgroup") => Test::Class(value.parse().ok()?),
        ("cgroup", "--path") => Test::Cgroup(value.to_owned()),
        ("connmark", "--mark") => Test::ConnectionMark(mark(value)?),
        ("conntrack", "--ctstate") => Test::State(value.split(',').map(str::to_owned).collect()),
        ("conntrack", "--ctdir") if value == "ORIGINAL" => Test::Original,
        ("comment", "--comment") => Test::Comment(value.to_owned()),
        _ => return None,
    })
}

fn network(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse::<std::net::IpAddr>().ok().map(IpNet::from),
    }
}

pub(crate) fn protocol(text: &str) -> Option<IpProtocol> {
    let known = |number: u8| match number {
        1 => IpProtocol::Icmp,
        6 => IpProtocol::Tcp,
        17 => IpProtocol::Udp,
        58 => IpProtocol::Icmpv6,
        132 => IpProtocol::Sctp,
        _ => IpProtocol::Number(number),
    };
    let named = IpProtocol::NAMES.iter().find(|(name, _)| *name == text);
    named
        .map(|(_, protocol)| *protocol)
        .or_else(|| text.parse().ok().map(known))
}

fn ports(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    Some(PortRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    })
}

fn ids(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn mark(text: &str) -> Option<SocketMark> {
    text.parse().ok()
}
