//! `--publish`: a port of the caller's that stands for one of the command's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::errors::{OrNamed, named};
use anyhow::Result;
use model::{ErrorName, OrigDst};
use netsys::sock;
use proxy::Published;

/// `[ADDRESS:]PORT[:PORT]`, as container tools write it: where others come, and the command's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Publish {
    at: SocketAddr,
    port: u16,
}

impl FromStr for Publish {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |problem| {
            let form = "write PORT, PORT:COMMAND_PORT or ADDRESS:PORT:COMMAND_PORT, IPv6 in brackets";
            named(ErrorName::Publish, format!("{problem}; {form}"))
        };
        let (address, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            Some((address, ports)) => (Some(address), ports),
            None => match text.split_once(':') {
                Some((address, ports)) if address.contains('.') => (Some(address), ports),
                _ => (None, text),
            },
        };
        let ip = match address {
            None => Ipv4Addr::LOCALHOST.into(),
            Some(address) => IpAddr::from_str(address)
                .map_err(|_| bad(format!("`{address}` is no IP address of this machine")))?,
        };
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(bad(format!("`{text}` is no port from 1 to 65535"))),
            Ok(port) => Ok(port),
        };
        let (outer, inner) = ports.split_once(':').unwrap_or((ports, ports));
        Ok(Self {
            at: SocketAddr::new(ip, port(outer)?),
            port: port(inner)?,
        })
    }
}

/// Listens for the command, whose address is `own`.
pub(super) fn listen(all: &[Publish], own: IpAddr) -> Result<Vec<Published>> {
    let published = all.iter().map(|&Publish { at, port }| {
        let listener = sock::listen(at, false).or_named_with(ErrorName::Publish, || {
            format!("cannot publish {at}; give an address of this machine and a port that is free")
        })?;
        let to = OrigDst::new(SocketAddr::new(own, port));
        Ok(Published { listener, to })
    });
    published.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_container_tools_are_understood() {
        for (text, at, port) in [
            ("8080", "127.0.0.1:8080", 8080),
            ("8080:80", "127.0.0.1:8080", 80),
            ("0.0.0.0:8080", "0.0.0.0:8080", 8080),
            ("10.0.0.1:8080:80", "10.0.0.1:8080", 80),
            ("[::1]:8080", "[::1]:8080", 8080),
            ("[::]:8080:80", "[::]:8080", 80),
        ] {
            let expected = Publish {
                at: at.parse().unwrap(),
                port,
            };
            assert_eq!(text.parse::<Publish>().unwrap(), expected, "{text}");
        }
        for (text, problem) in [
            ("", "`` is no port"),
            ("0", "`0` is no port"),
            ("70000", "`70000` is no port"),
            ("8080:", "`` is no port"),
            ("1:2:3", "`2:3` is no port"),
            ("::1:8080", "`` is no port"),
            ("1.2.3:80", "`1.2.3` is no IP address"),
            ("localhost:80", "`localhost` is no port"),
        ] {
            let told = text.parse::<Publish>().unwrap_err().to_string();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }
}
