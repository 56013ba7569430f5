//! The network of a command: its link, addresses and routes, which are made at its start and added to later, and
//! how they are told from one process to another.

use std::fs;
use std::net::TcpListener;
use std::str::FromStr;

use super::{Families, Network};
use crate::netlink::{Changes, Error, LinkIndex};

/// The link that the command sees, and its other end, which nobody listens on.
const LINK: (LinkIndex, &str) = (LinkIndex(2), "eth0");
const LINK_END: (LinkIndex, &str) = (LinkIndex(3), "weir0");

/// What the kernel speaks here; loopback must be up.
pub(super) fn families() -> Families {
    match TcpListener::bind("[::1]:0") {
        Ok(_) => Families::Both,
        Err(_) => Families::V4,
    }
}

/// A veth pair with both ends here; where the kernel has none, the loopback device serves.
pub(super) fn links() -> Result<(), Error> {
    Changes::new().up(LinkIndex::LOOPBACK).commit()?;
    // Where this fails there is no `eth0`, and `connect` finds that out.
    drop(Changes::new().veth(LINK, LINK_END).commit());
    Ok(())
}

/// Gives the namespace addresses and routes. Those of a family that the kernel lacks are left out.
pub(super) fn connect(network: &Network, families: Families, mut changes: Changes) -> Result<(), String> {
    let has_link = fs::read_to_string("/proc/net/dev").is_ok_and(|text| text.contains(LINK.1));
    let link = if has_link { LINK.0 } else { LinkIndex::LOOPBACK };
    for &address in &network.addresses {
        if families == Families::V4 && address.is_ipv6() {
            continue;
        }
        changes.address(link, address);
        for &route in &network.routes {
            if route.addr().is_ipv4() == address.is_ipv4() {
                changes.route(route, link, address);
            }
        }
    }
    changes.commit().map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{error}{cause}")
    })
}

/// What the text of a [`Network`] begins with.
pub(super) const NETWORK: &str = "network";

/// A [`Network`] as text: a word and an address or network a line.
pub(super) fn encode(network: &Network) -> Vec<u8> {
    let mut text = format!("{NETWORK}\n");
    for address in &network.addresses {
        text.push_str(&format!("address {address}\n"));
    }
    for route in &network.routes {
        text.push_str(&format!("route {route}\n"));
    }
    for address in &network.later {
        text.push_str(&format!("later {address}\n"));
    }
    text.into_bytes()
}

pub(super) fn decode(bytes: &[u8]) -> Network {
    fn all<T: FromStr>(text: &str, word: &str) -> Vec<T> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let of_word = lines.filter(|(first, _)| *first == word);
        of_word.filter_map(|(_, rest)| rest.parse().ok()).collect()
    }
    let text = String::from_utf8_lossy(bytes);
    Network {
        addresses: all(&text, "address"),
        routes: all(&text, "route"),
        later: all(&text, "later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_survives_the_channel() {
        let network = Network {
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            routes: vec!["0.0.0.0/0".parse().unwrap(), "fd00::9/128".parse().unwrap()],
            later: vec!["fd00::2".parse().unwrap()],
        };
        assert_eq!(decode(&encode(&network)), network);
        assert_eq!(decode(&encode(&Network::default())), Network::default());
    }
}
