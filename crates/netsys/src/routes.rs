//! What the calling thread's namespace can reach, by its main routing table. Caller: `weir run`, which
//! gives the command no more than that: an address family without a route must not look usable.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
/// Of IPv6: an address of this machine.
const LOCAL: u32 = 0x8000_0000;

/// The destinations of unicast routes to elsewhere, in no order.
///
/// # Errors
/// Where `/proc` is not mounted. A kernel without IPv6 has no IPv6 routes.
pub fn reachable() -> io::Result<Vec<IpNet>> {
    let v4 = fs::read_to_string("/proc/thread-self/net/route")?;
    let v6 = match fs::read_to_string("/proc/thread-self/net/ipv6_route") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let v4 = v4.lines().skip(1).filter_map(v4_route).map(IpNet::V4);
    let v6 = v6.lines().filter_map(v6_route).map(IpNet::V6);
    Ok(v4.chain(v6).collect())
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ..`, addresses in the machine's byte order.
fn v4_route(line: &str) -> Option<Ipv4Net> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let address = |index| number(index).map(|value| Ipv4Addr::from(value.to_ne_bytes()));
    let net = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
    (number(3)? & (UP | REJECT) == UP).then_some(net)
}

/// `destination length source length next-hop metric refcnt use flags device`, all hexadecimal.
fn v6_route(line: &str) -> Option<Ipv6Net> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = Ipv6Addr::from(u128::from_str_radix(fields.first()?, 16).ok()?);
    let length = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let elsewhere = !address.is_multicast() && !address.is_unicast_link_local() && !address.is_loopback();
    let useful = flags & (UP | REJECT | LOCAL) == UP && fields.get(9) != Some(&"lo");
    (elsewhere && useful)
        .then(|| Ipv6Net::new(address, length).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicast_routes_to_elsewhere() {
        let v4 = [
            "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0",
            "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0",
        ];
        let v4: Vec<String> = v4
            .into_iter()
            .filter_map(v4_route)
            .map(|net| net.to_string())
            .collect();
        assert_eq!(v4, ["0.0.0.0/0", "192.0.2.0/24"]);
        let zero = "0".repeat(32);
        let rest =
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000";
        let cases = [
            (format!("{zero} 00 {rest} 00000003 eth0"), Some("::/0")),
            (format!("{zero} 00 {rest} 00200200 lo"), None),
            (
                format!("fd000000000000000000000000000000 40 {rest} 00000001 eth0"),
                Some("fd00::/64"),
            ),
            (
                format!("fd000000000000000000000000000002 80 {rest} 80200001 eth0"),
                None,
            ),
            (
                format!("fe800000000000000000000000000000 40 {rest} 00000001 eth0"),
                None,
            ),
            (
                format!("ff000000000000000000000000000000 08 {rest} 00000001 eth0"),
                None,
            ),
        ];
        for (line, expected) in cases {
            let net = v6_route(&line).map(|net| net.to_string());
            assert_eq!(net.as_deref(), expected, "{line}");
        }
    }
}
