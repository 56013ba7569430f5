//! Values of flags: each as text to what it stands for. What is wrong is kept, and a usual value taken in its place.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::family::Family;
use crate::intent::TRACKING_FLAG;
use crate::intent::{Families, LOOPBACK_V4, Tracking};
use crate::mistake::Mistake;

#[derive(Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn wrong(&mut self, flag: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake::new(flag, problem));
    }

    /// Anything but zero, decimal or hexadecimal.
    pub(super) fn number(&mut self, flag: &str, text: Option<&str>, default: u32) -> u32 {
        let text = text.unwrap_or_default().trim();
        let number = match text.strip_prefix("0x") {
            _ if text.is_empty() => return default,
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.ok().filter(|number| *number != 0).unwrap_or_else(|| {
            self.wrong(flag, format!("`{text}` is no number from 1 to {}", u32::MAX));
            default
        })
    }

    /// Items between commas; empty ones are dropped.
    pub(super) fn items<T>(
        &mut self,
        flag: &str,
        text: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let items = text.unwrap_or_default().split(',').map(str::trim);
        items
            .filter(|item| !item.is_empty())
            .filter_map(|item| match read(item) {
                Ok(value) => Some(value),
                Err(problem) => {
                    self.wrong(flag, problem);
                    None
                }
            })
            .collect()
    }

    pub(super) fn ports(&mut self, flag: &str, text: Option<&str>) -> Vec<u16> {
        self.items(flag, text, port)
    }

    pub(super) fn port(&mut self, flag: &str, text: Option<&str>, default: u16) -> u16 {
        match text.unwrap_or_default().trim() {
            "" => default,
            text => port(text).unwrap_or_else(|problem| {
                self.wrong(flag, problem);
                default
            }),
        }
    }

    pub(super) fn networks(&mut self, flag: &str, text: Option<&str>) -> Vec<IpNet> {
        self.items(flag, text, |item| {
            let address = || item.parse::<IpAddr>().ok().map(IpNet::from);
            item.parse().ok().or_else(address).ok_or_else(|| match item {
                "*" => "`*` means everything and stands alone, not in a list".to_owned(),
                _ => format!("`{item}` is no network: write 10.0.0.0/8 or fd00::/8, or * for all"),
            })
        })
    }

    pub(super) fn boolean(&mut self, flag: &str, text: Option<&str>) -> bool {
        match text.unwrap_or_default() {
            "" | "false" | "False" | "FALSE" | "0" | "f" | "F" => false,
            "true" | "True" | "TRUE" | "1" | "t" | "T" => true,
            other => {
                self.wrong(flag, format!("`{other}` is neither true nor false"));
                false
            }
        }
    }

    pub(super) fn families(&mut self, text: Option<&str>) -> Families {
        match text.unwrap_or_default() {
            "" => Families::InUse,
            "both" => Families::Both,
            "ipv4" => Families::Only(Family::V4),
            "ipv6" => Families::Only(Family::V6),
            other => {
                let problem = format!(
                    "`{other}` is no choice; write ipv4, ipv6 or both, or nothing for each that the namespace speaks"
                );
                self.wrong("--families", problem);
                Families::InUse
            }
        }
    }

    /// A file has truth for on and off.
    pub(super) fn tracking(&mut self, text: Option<&str>) -> Tracking {
        match text.unwrap_or_default() {
            "" | "on" | "true" => Tracking::On,
            "off" | "false" => Tracking::Off,
            "auto" => Tracking::OffIfPossible,
            other => {
                let problem = format!("`{other}` is no choice; write on, off or auto");
                self.wrong(TRACKING_FLAG, problem);
                Tracking::On
            }
        }
    }

    pub(super) fn loopback(&mut self, text: Option<&str>) -> Ipv4Net {
        let text = match text.unwrap_or_default().trim() {
            "" => return LOOPBACK_V4,
            text => text,
        };
        match text.parse::<Ipv4Net>() {
            Ok(net) if net.addr().is_loopback() && net.prefix_len() >= 8 => net.trunc(),
            _ => {
                self.wrong(
                    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
                    format!("`{text}` is no IPv4 loopback network: write one within 127.0.0.0/8"),
                );
                LOOPBACK_V4
            }
        }
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ if text == "*" => Err("`*` means all ports and stands alone, not in a list".to_owned()),
        _ => Err(format!("`{text}` is no port: write a number from 1 to 65535")),
    }
}

pub(super) fn id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no numeric id; names are not looked up, write one like 1337"))
}

/// A device's name; a trailing `+` stands for any ending.
pub(super) fn device(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('+').unwrap_or(text);
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "_-.:@".contains(c);
    if name.chars().all(is_fit) && text != "+" && text.len() < MOST_DEVICE_BYTES {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no device's name: write one like eth1, or tap+ for all that begin with tap"
    ))
}

/// `IFNAMSIZ`, its zero included.
const MOST_DEVICE_BYTES: usize = 16;
