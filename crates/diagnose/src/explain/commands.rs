//! Commands in what is to be done, as people paste them: where the client is in another namespace, they have to be run
//! in that one, or they act on the namespace of the shell, which on a node is the node's own.

use crate::place::Shell;

/// Programs that act on the namespace they are run in.
const OF_NAMESPACE: &[&str] = &[
    "conntrack",
    "ip",
    "ip6tables-legacy",
    "ip6tables-nft",
    "ipset",
    "iptables-legacy",
    "iptables-nft",
    "nft",
    "weir",
];

/// The text with each command in it, which stands between backticks, as it is to be run.
#[must_use]
pub fn commands_by(shell: &Shell, text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let program = part.split(' ').next().unwrap_or_default();
        let is_command = index % 2 == 1 && part.contains(' ') && OF_NAMESPACE.contains(&program);
        // It takes the namespace by its own option.
        match is_command && !part.starts_with("weir explain") {
            true => format!("{shell}{part}"),
            false => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_run_where_they_are_meant() {
        let there = Shell::of_process(7);
        for (text, expected) in [
            (
                "`iptables-nft -t filter -D OUTPUT 1` takes it out",
                "`nsenter -t 7 -n iptables-nft -t filter -D OUTPUT 1` takes it out",
            ),
            (
                "`nft -a list chain a b` shows, `nft delete rule a` takes it out",
                "`nsenter -t 7 -n nft -a list chain a b` shows, `nsenter -t 7 -n nft delete rule a` takes it out",
            ),
            ("run `weir explain --in` there", "run `weir explain --in` there"),
            (
                "ip route says `Connection refused`",
                "ip route says `Connection refused`",
            ),
        ] {
            assert_eq!(commands_by(&there, text), expected);
            assert_eq!(commands_by(&Shell::here(), text), text);
        }
    }
}
