//! `--loopback`: which ports of localhost lead to the caller's loopback where nothing of the command's own
//! listens there.

use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::errors::{OrNamed, named};
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net};
use model::{ErrorName, ports};
use netsys::socket_table;

/// Of the caller's loopback, what the command may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Loopback {
    /// Every port on which something listens when the command starts.
    Listening,
    /// Nothing.
    None,
    /// These ports, whether or not something listens already.
    Ports(Vec<u16>),
}

impl FromStr for Loopback {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "listening" => Ok(Self::Listening),
            "none" => Ok(Self::None),
            list => list
                .split(',')
                .map(|port| match port.parse() {
                    Ok(0) | Err(_) => Err(named(
                        ErrorName::Setting,
                        format!("`{port}` is no port from 1 to 65535; write listening, none, or ports separated by commas"),
                    )),
                    Ok(port) => Ok(port),
                })
                .collect::<Result<_>>()
                .map(Self::Ports),
        }
    }
}

/// The loopback destinations to capture. Exactly those at which the caller would find a listener: all others
/// are refused inside at once, as anywhere, and a client goes on to its next address. A listed port on which
/// nothing listens yet is taken for one of IPv4.
pub(super) fn lent(wanted: &Loopback) -> Result<Vec<(IpNet, u16)>> {
    const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    if *wanted == Loopback::None {
        return Ok(vec![]);
    }
    let mut lent = socket_table::on_loopback().or_named(
        ErrorName::System,
        "cannot tell what listens on this machine's loopback; give --loopback none",
    )?;
    // Ours, or a sidecar's beside us: inside, the same ports are taken.
    lent.retain(|(_, port)| !ports::is_capture_port(*port) && *port != ports::DNS);
    if let Loopback::Ports(wanted) = wanted {
        lent.retain(|(_, port)| wanted.contains(port));
        let missing = wanted
            .iter()
            .filter(|port| !lent.iter().any(|(_, there)| there == *port));
        let missing: Vec<_> = missing.map(|port| (V4.into(), *port)).collect();
        lent.extend(missing);
    }
    Ok(lent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_all_that_listen_or_a_list() {
        assert_eq!("none".parse::<Loopback>().unwrap(), Loopback::None);
        assert_eq!("listening".parse::<Loopback>().unwrap(), Loopback::Listening);
        assert_eq!(
            "5432,6379".parse::<Loopback>().unwrap(),
            Loopback::Ports(vec![5432, 6379])
        );
        for text in ["", "all", "5432,", "0", "5432-5440"] {
            let told = text.parse::<Loopback>().unwrap_err().to_string();
            assert!(
                told.contains("is no port from 1 to 65535; write listening, none"),
                "{text}: {told}"
            );
        }
    }
}
