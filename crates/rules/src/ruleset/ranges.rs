//! Members of sets as ranges: sorted, none overlapping or touching the next, so that equal sets are equal
//! values however they were written. nftables merges them in the same way when it lists them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::family::Family;

/// Addresses of one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    family: Family,
    /// First and last of each range, as numbers.
    ranges: Vec<(u128, u128)>,
}

impl Addresses {
    /// Those of all these networks that are of that family.
    #[must_use]
    pub fn of(family: Family, nets: &[IpNet]) -> Self {
        let nets = nets.iter().filter(|net| Family::of(net.addr()) == family);
        Self::from_ranges(family, nets.map(|net| (net.network(), net.broadcast())))
    }

    /// Those from the first to the last of each pair.
    pub fn from_ranges(family: Family, ranges: impl Iterator<Item = (IpAddr, IpAddr)>) -> Self {
        let ranges = ranges.map(|(first, last)| (number(first), number(last)));
        Self {
            family,
            ranges: merged(ranges.collect()),
        }
    }

    /// Which family they are of.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Each of them, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let ranges = self.ranges.iter();
        ranges.flat_map(|(first, last)| (*first..=*last).map(|number| self.address(number)))
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(address.into())
    }

    /// Whether every address of the network is one of them.
    #[must_use]
    pub fn covers(&self, net: IpNet) -> bool {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let after = self.ranges.partition_point(|(start, _)| *start <= first);
        Family::of(net.addr()) == self.family && after > 0 && last <= self.ranges[after - 1].1
    }

    /// Whether every one of them is one of the others.
    #[must_use]
    pub fn is_within(&self, others: &Self) -> bool {
        self.family == others.family
            && self.ranges.iter().all(|(first, last)| {
                let after = others.ranges.partition_point(|(start, _)| start <= first);
                after > 0 && *last <= others.ranges[after - 1].1
            })
    }

    /// Whether none of them is one of the others.
    #[must_use]
    pub fn is_apart_from(&self, others: &Self) -> bool {
        self.family != others.family
            || self.ranges.iter().all(|(first, last)| {
                // The last of the others that starts before this range ends.
                let after = others.ranges.partition_point(|(start, _)| start <= last);
                after == 0 || others.ranges[after - 1].1 < *first
            })
    }

    /// The only network, where there is one that is all of them.
    #[must_use]
    pub fn single(&self) -> Option<IpNet> {
        match self.ranges[..] {
            [range] => self.network(range),
            _ => None,
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.family {
            // Made from an IPv4 address, so it fits.
            Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Family::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }

    fn network(&self, (first, last): (u128, u128)) -> Option<IpNet> {
        let bits = match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let host_bits = (first ^ last).count_ones();
        let net = IpNet::new(self.address(first), (bits - host_bits) as u8).ok()?;
        let is_whole = number(net.network()) == first && number(net.broadcast()) == last;
        is_whole.then_some(net)
    }
}

/// `10.0.0.0/8,192.0.2.1,192.0.2.5-192.0.2.9`.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match self.network(*range) {
                Some(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{comma}{}", net.addr())?,
                Some(net) => write!(f, "{comma}{net}")?,
                None => write!(f, "{comma}{}-{}", self.address(range.0), self.address(range.1))?,
            }
        }
        Ok(())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Sorted, with those that overlap or touch made one.
#[must_use]
pub fn merged<T>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)>
where
    T: Copy + Ord + Into<u128>,
{
    ranges.sort_unstable();
    let mut result: Vec<(T, T)> = vec![];
    for (first, last) in ranges {
        match result.last_mut() {
            Some((_, end)) if first.into() <= (*end).into().saturating_add(1) => *end = last.max(*end),
            _ => result.push((first, last)),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(nets: &[&str]) -> Addresses {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        Addresses::of(Family::of(nets[0].addr()), &nets)
    }

    #[test]
    fn however_a_set_is_written_it_is_the_same_value() {
        let halves = addresses(&["10.128.0.0/9", "10.0.0.0/9", "10.1.2.3/32"]);
        assert_eq!(halves, addresses(&["10.0.0.0/8"]));
        assert_eq!(halves.single(), "10.0.0.0/8".parse().ok());
        let uneven = addresses(&["10.0.0.0/8", "11.0.0.0/9", "192.0.2.1/32"]);
        assert_eq!(uneven.to_string(), "10.0.0.0-11.127.255.255,192.0.2.1");
        assert_eq!(uneven.single(), None);
        assert_eq!(addresses(&["::/0"]).single(), "::/0".parse().ok());
        assert_eq!(addresses(&["0.0.0.0/0"]).single(), "0.0.0.0/0".parse().ok());
    }

    #[test]
    fn the_edges_belong_to_a_set() {
        let set = addresses(&["10.0.0.0/8", "192.0.2.1/32"]);
        for (address, inside) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::a00:1", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }
}
