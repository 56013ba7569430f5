//! Tables that the nft variant of iptables makes when it is first used: remembered, and taken away again
//! when nothing of others is in them, which iptables itself has no word for. Each is taken away by one transaction of
//! the kernel with the chain that marks it, so that a run that is cut off leaves none that nobody knows.

use std::io;

use rules::ruleset::{Chain, ChainKind, OWN_CHAIN_PREFIX, Policy, Rule, Table, TableName};
use rules::{Family, Ruleset};

use super::nf_tables::{CHAIN_NAME, Object, Socket, name_of, protocol, value, zero_ended};

/// An empty chain that says who made the table that it is in.
const MARK: &str = "WEIR_MADE_THIS_TABLE";

/// Adds the mark to those tables that are not there yet, or have it; and keeps it in those that `wanted` has no use
/// for, until [`remove_unused`].
pub(super) fn mark_made(held: &Ruleset, wanted: &mut Ruleset) {
    for table in &mut wanted.tables {
        let is_ours = held.table(table.name).is_none_or(is_marked);
        if is_ours && !is_marked(table) {
            table.chains.push(mark());
        }
    }
    let unwanted = held.tables.iter().filter(|table| is_marked(table));
    let unwanted: Vec<_> = unwanted
        .filter(|table| wanted.table(table.name).is_none())
        .map(|table| Table {
            name: table.name,
            chains: vec![mark()],
        })
        .collect();
    wanted.tables.extend(unwanted);
}

fn mark() -> Chain {
    Chain {
        name: MARK.to_owned(),
        kind: ChainKind::User,
        rules: vec![],
    }
}

/// Those that an earlier run made, and `wanted` has no use for.
pub(super) fn made_and_unwanted(held: &Ruleset, wanted: &Ruleset) -> Vec<TableName> {
    let tables = held.tables.iter().filter(|table| is_marked(table));
    tables
        .map(|table| table.name)
        .filter(|name| wanted.table(*name).is_none_or(has_no_use))
        .collect()
}

/// Whether there is nothing in it but the mark, if that.
pub(super) fn has_no_use(table: &Table) -> bool {
    table.chains.iter().all(|chain| chain.name == MARK)
}

fn is_marked(table: &Table) -> bool {
    table.chain(MARK).is_some()
}

/// How often it is looked again where somebody changed a rule meanwhile: the other family, mostly.
const LOOKS: usize = 100;

/// Takes all that is ours away with the tables that it is in, at once, where each of them is marked and holds nothing
/// else. Answers whether that was so.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn remove_whole(family: Family, held: &Ruleset) -> io::Result<bool> {
    let own = held.own();
    let names: Vec<_> = own.tables.iter().map(|table| table.name).collect();
    let is_ours = |name: &TableName| {
        held.table(*name)
            .is_some_and(|table| is_marked(table) && !has_foreign(table))
    };
    if names.is_empty() || !names.iter().all(is_ours) {
        return Ok(false);
    }
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let socket = Socket::open()?;
    for _ in 0..LOOKS {
        let generation = socket.generation()?;
        for name in &names {
            if !holds_only(&socket, family, name, Content::Ours)? {
                return Ok(false);
            }
        }
        if socket.remove_tables(protocol(family), &names, generation)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_foreign(table: &Table) -> bool {
    let mut others = table.chains.iter().filter(|chain| !chain.is_own());
    others.any(|chain| {
        chain.kind != ChainKind::Builtin(Policy::Accept) || !chain.rules.iter().all(Rule::is_own)
    })
}

/// Takes those tables away that have nothing in them but the mark and built-in chains without a rule; from others, the
/// mark. The kernel is asked, as a dump does not show what others keep in the same table.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn remove_unused(family: Family, names: &[TableName]) -> io::Result<()> {
    let socket = Socket::open()?;
    let protocol = protocol(family);
    for name in names {
        let name = name.as_str();
        for _ in 0..LOOKS {
            let generation = socket.generation()?;
            let is_done = match holds_only(&socket, family, name, Content::Mark)? {
                true => socket.remove_tables(protocol, &[name], generation)?,
                false => socket.remove_chain(protocol, name, MARK, generation)?,
            };
            if is_done {
                break;
            }
        }
    }
    Ok(())
}

/// What may be in a table that is taken away, besides built-in chains that let everything pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The mark.
    Mark,
    /// All chains of ours, and in built-in ones the jumps to them.
    Ours,
}

const BUILTIN: [&[u8]; 5] = [
    b"PREROUTING\0",
    b"INPUT\0",
    b"FORWARD\0",
    b"OUTPUT\0",
    b"POSTROUTING\0",
];
/// `NF_ACCEPT`.
const ACCEPT: [u8; 4] = 1_u32.to_be_bytes();

fn holds_only(socket: &Socket, family: Family, table: &str, content: Content) -> io::Result<bool> {
    const TABLE_USE: u16 = 3;
    const CHAIN_POLICY: u16 = 5;
    const CHAIN_USE: u16 = 6;
    let name = zero_ended(table);
    let is_this = |object: &&Object| name_of(object) == Some(name.as_slice());
    let tables = socket.tables(protocol(family))?;
    let Some(table) = tables.iter().find(is_this) else {
        return Ok(false);
    };
    let chains = socket.chains(protocol(family))?;
    let chains: Vec<_> = chains.iter().filter(is_this).collect();
    // A table counts its chains, sets and all else that it holds; a chain its rules and the jumps to it.
    let holds_only_chains = value(table, TABLE_USE) == Some(&(chains.len() as u32).to_be_bytes()[..]);
    let is_idle = |chain: &Object| value(chain, CHAIN_USE).is_none_or(|count| count == [0; 4]);
    let may_go = |chain: &&Object| {
        let name = value(chain, CHAIN_NAME).unwrap_or_default();
        match content {
            _ if BUILTIN.contains(&name) => {
                value(chain, CHAIN_POLICY).is_none_or(|policy| policy == ACCEPT)
                    && (content == Content::Ours || is_idle(chain))
            }
            Content::Mark => name == zero_ended(MARK) && is_idle(chain),
            Content::Ours => name.starts_with(OWN_CHAIN_PREFIX.as_bytes()),
        }
    };
    if !holds_only_chains || !chains.iter().all(may_go) {
        return Ok(false);
    }
    Ok(content == Content::Mark || !holds_foreign_rules(socket, protocol(family), &name)?)
}

/// Whether a rule in a built-in chain leads to no chain of ours.
fn holds_foreign_rules(socket: &Socket, protocol: u8, table: &[u8]) -> io::Result<bool> {
    const RULE_CHAIN: u16 = 2;
    const RULE_EXPRESSIONS: u16 = 4;
    let leads_to_ours = |rule: &Object| {
        let expressions = value(rule, RULE_EXPRESSIONS).unwrap_or_default();
        let mut places = expressions.windows(OWN_CHAIN_PREFIX.len());
        places.any(|place| place == OWN_CHAIN_PREFIX.as_bytes())
    };
    let rules = socket.rules()?;
    let mut in_builtin = rules.iter().filter(|rule| {
        let chain = value(rule, RULE_CHAIN).unwrap_or_default();
        rule.protocol == protocol && name_of(rule) == Some(table) && BUILTIN.contains(&chain)
    });
    Ok(in_builtin.any(|rule| !leads_to_ours(rule)))
}
