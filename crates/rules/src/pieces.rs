//! What rules are made of, each piece by itself: where the kernel refuses a whole rule set, it can be asked about one
//! table, one test or one target at a time. Comes in: a rule set. Goes out: small ones, with what each is called and
//! which module of the kernel has it.

use crate::family::Family;
use crate::ruleset::{Chain, ChainKind, IpProtocol, Match, Rule, Ruleset, Table, TableName, Target, Test};

/// One thing that rules take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// As people know it: `table nat`, `match owner`, `target REDIRECT`; of nftables `ct`, `redirect`.
    pub name: String,
    /// The module of the kernel that has it.
    pub module: String,
    /// Rules that take it and as little else as can be.
    pub ruleset: Ruleset,
}

impl Piece {
    /// The table that it is in, or is.
    #[must_use]
    pub fn table(&self) -> Option<TableName> {
        self.ruleset.tables.first().map(|table| table.name)
    }

    /// Whether it is a table itself.
    #[must_use]
    pub fn is_table(&self) -> bool {
        let chains = self.ruleset.tables.iter().flat_map(|table| &table.chains);
        chains.flat_map(|chain| &chain.rules).next().is_none()
    }
}

/// In which language rules are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// That of iptables, kept by its own kernel interface.
    IptablesLegacy,
    /// That of iptables, kept in nftables.
    IptablesNft,
    /// That of nftables.
    Nft,
}

/// The tables first, which all else is in; each once.
#[must_use]
pub fn pieces(ruleset: &Ruleset, language: Language) -> Vec<Piece> {
    let mut all = vec![];
    let mut add = |piece: Option<Piece>| {
        let is_new = |piece: &Piece| !all.iter().any(|known: &Piece| known.name == piece.name);
        all.extend(piece.filter(is_new));
    };
    for table in &ruleset.tables {
        add(Some(of_table(ruleset, table, language)));
    }
    for table in &ruleset.tables {
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for found in &rule.matches {
                add(of_test(ruleset, table.name, rule, found, language));
            }
            add(of_target(ruleset, table.name, rule, language));
        }
    }
    all
}

fn of_table(ruleset: &Ruleset, table: &Table, language: Language) -> Piece {
    let name = table.name.as_str();
    let (name, module) = match language {
        Language::IptablesLegacy => (
            format!("table {name}"),
            format!("{}table_{name}", prefix(ruleset.family)),
        ),
        Language::IptablesNft if table.name == TableName::Nat => {
            (format!("table {name}"), "nft_chain_nat".to_owned())
        }
        Language::IptablesNft => (format!("table {name}"), "nf_tables".to_owned()),
        Language::Nft if table.name == TableName::Nat => {
            ("chains of nat".to_owned(), "nft_chain_nat".to_owned())
        }
        Language::Nft => (format!("chains of {name}"), "nf_tables".to_owned()),
    };
    // Of iptables an own chain makes the table; of nftables the hooks are what can be lacking.
    let chains = match language {
        Language::Nft => {
            let empty = table.chains.iter().map(|chain| Chain {
                rules: vec![],
                ..chain.clone()
            });
            empty.collect()
        }
        _ => vec![chain(vec![])],
    };
    let table = Table {
        name: table.name,
        chains,
    };
    Piece {
        name,
        module,
        ruleset: Ruleset {
            tables: vec![table],
            ..*ruleset
        },
    }
}

/// With which names of what belongs to a family begin.
fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// None of what the packet filter has itself.
fn of_test(
    ruleset: &Ruleset,
    table: TableName,
    rule: &Rule,
    found: &Match,
    language: Language,
) -> Option<Piece> {
    let (name, module) = match language {
        Language::Nft => {
            let (name, module) = in_nft(&found.test)?;
            (name.to_owned(), module.to_owned())
        }
        _ => {
            let module = found.test.module(IpProtocol::Tcp);
            let name = Some(module).filter(|module| !module.is_empty())?;
            (format!("match {name}"), format!("xt_{}", module_of_match(name)))
        }
    };
    let alone = Rule {
        matches: protocols(rule).chain([found.clone()]).collect(),
        target: Target::Continue,
    };
    Some(piece(ruleset, table, name, module, alone))
}

/// None of what the packet filter has itself.
fn of_target(ruleset: &Ruleset, table: TableName, rule: &Rule, language: Language) -> Option<Piece> {
    let (name, module) = match language {
        Language::Nft => {
            let (name, module) = target_in_nft(&rule.target)?;
            (name.to_owned(), module.to_owned())
        }
        _ => {
            let name = in_iptables(&rule.target)?;
            let module = if name == "REJECT" {
                format!("{}t_REJECT", prefix(ruleset.family))
            } else {
                format!("xt_{name}")
            };
            (format!("target {name}"), module)
        }
    };
    let alone = Rule {
        matches: protocols(rule).collect(),
        target: rule.target.clone(),
    };
    Some(piece(ruleset, table, name, module, alone))
}

/// The module of the kernel is called otherwise than the match.
fn module_of_match(name: &str) -> &str {
    match name {
        "tcp" | "udp" => "tcpudp",
        name => name,
    }
}

/// What tests of ports and most targets insist on.
fn protocols(rule: &Rule) -> impl Iterator<Item = Match> {
    let is_one = |found: &&Match| matches!(found.test, Test::Protocol(_)) && !found.negated;
    rule.matches.iter().filter(is_one).take(1).cloned()
}

fn in_iptables(target: &Target) -> Option<&'static str> {
    Some(match target {
        Target::Reject(_) => "REJECT",
        Target::Redirect(_) => "REDIRECT",
        Target::Tproxy { .. } => "TPROXY",
        Target::Mark(_) => "MARK",
        Target::MarkConnection(_) | Target::SaveMark | Target::RestoreMark => "CONNMARK",
        Target::Notrack | Target::Zone(_) => "CT",
        Target::Remember(_) => "recent",
        _ => return None,
    })
}

/// A statement, and the module that has it.
fn in_nft(test: &Test) -> Option<(&'static str, &'static str)> {
    Some(match test {
        Test::Uid(..) | Test::Uids(_) | Test::Gid(..) | Test::Gids(_) => ("meta skuid, skgid", "nf_tables"),
        Test::Class(_) | Test::Classes(_) => ("meta cgroup", "nf_tables and CONFIG_CGROUP_NET_CLASSID"),
        Test::Cgroup(_) => ("socket cgroupv2", "nft_socket (Linux 5.13)"),
        Test::Transparent => ("socket transparent", "nft_socket"),
        Test::ConnectionMark(_) | Test::State(_) | Test::Original | Test::Zone(_) => ("ct", "nft_ct"),
        Test::Sources(_) | Test::Destinations(_) | Test::DestinationServices(_) => ("sets", "nf_tables"),
        _ => return None,
    })
}

fn target_in_nft(target: &Target) -> Option<(&'static str, &'static str)> {
    Some(match target {
        Target::Reject(_) => ("reject", "nft_reject_inet"),
        Target::Redirect(_) => ("redirect", "nft_redir"),
        Target::Tproxy { .. } => ("tproxy", "nft_tproxy"),
        Target::MarkConnection(_) | Target::SaveMark | Target::RestoreMark => ("ct mark set", "nft_ct"),
        Target::Notrack => ("notrack", "nft_ct"),
        Target::Zone(_) => ("ct zone set", "nft_ct and CONFIG_NF_CONNTRACK_ZONES"),
        Target::Remember(_) => ("sets with time-outs", "nf_tables"),
        _ => return None,
    })
}

fn piece(ruleset: &Ruleset, name: TableName, what: String, module: String, rule: Rule) -> Piece {
    let table = Table {
        name,
        chains: vec![chain(vec![rule])],
    };
    Piece {
        name: what,
        module,
        ruleset: Ruleset {
            tables: vec![table],
            ..*ruleset
        },
    }
}

/// One of ours, which nothing jumps to.
fn chain(rules: Vec<Rule>) -> Chain {
    Chain {
        name: "WEIR_TRY".to_owned(),
        kind: ChainKind::User,
        rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Facts, Flags};

    fn names(language: Language) -> Vec<String> {
        let flags = Flags {
            sidecar: true,
            ..Flags::default()
        };
        let plan = crate::plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap();
        let rulesets = match language {
            Language::Nft => crate::nft::render(&plan),
            _ => crate::render(&plan),
        };
        let ruleset = rulesets
            .iter()
            .find(|ruleset| ruleset.family == Family::V6)
            .unwrap();
        let pieces = pieces(ruleset, language);
        pieces
            .iter()
            .map(|piece| format!("{}: {}", piece.name, piece.module))
            .collect()
    }

    #[test]
    fn each_is_there_once_with_its_module() {
        assert_eq!(
            names(Language::IptablesLegacy),
            [
                "table nat: ip6table_nat",
                "match tcp: xt_tcpudp",
                "match comment: xt_comment",
                "target REDIRECT: xt_REDIRECT",
                "match owner: xt_owner",
            ]
        );
        assert_eq!(
            names(Language::Nft),
            [
                "chains of nat: nft_chain_nat",
                "redirect: nft_redir",
                "meta skuid, skgid: nf_tables"
            ]
        );
    }
}
