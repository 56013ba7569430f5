//! The destination, as people have it at hand: HOST:PORT, or the URL that hangs.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (default, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(80), rest),
            Some(("https", rest)) => (Some(443), rest),
            Some((scheme, _)) => {
                return Err(format!("what port {scheme}:// has is not known; write HOST:PORT"));
            }
            None => (None, text),
        };
        let place = match default {
            Some(_) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
            None => rest,
        };
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of a bare IPv6 address is within it.
            Some((host, port)) if !port.ends_with(']') && (host.starts_with('[') || !host.contains(':')) => {
                (host, Some(port))
            }
            _ => (place, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("write HOST:PORT, such as web.shop:80 or [fd00::1]:80".to_owned());
        }
        let port = match port {
            Some("") | None => default,
            Some(port) => match port.parse().ok().filter(|port| *port > 0) {
                Some(number) => Some(number),
                None => return Err(format!("{port} is no port: it is a number from 1 to 65535")),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port: port.ok_or("the port is missing: write HOST:PORT, such as web.shop:80 or [fd00::1]:80")?,
        })
    }
}

/// `web.shop:80`, `[fd00::1]:80`.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Asks the resolver of this machine, in the namespace of the calling thread.
pub(crate) fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_it() {
        for (text, host, port) in [
            ("web.shop:80", "web.shop", 80),
            ("10.96.0.10:8080", "10.96.0.10", 8080),
            ("[fd00::1]:80", "fd00::1", 80),
            ("http://web.shop/a?b=c:9", "web.shop", 80),
            ("https://web.shop:8443/", "web.shop", 8443),
            ("http://[fd00::1]/", "fd00::1", 80),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
        }
        for text in [
            "web.shop",
            "web.shop:",
            "web.shop:0",
            ":80",
            "fd00::1",
            "redis://cache:6379",
            "a:99999",
            "http://",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        let wrong = "web:99999".parse::<Target>().unwrap_err();
        assert!(wrong.contains("99999 is no port"), "{wrong}");
        assert_eq!(
            "[fd00::1]:80".parse::<Target>().unwrap().to_string(),
            "[fd00::1]:80"
        );
    }
}
