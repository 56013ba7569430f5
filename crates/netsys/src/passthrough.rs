//! `::6` on loopback, which the proxy calls its application from. The kernel keeps with an address the metric
//! of its route: one that nobody else gives says that it is Weir's, whatever becomes of the rules.
//! Everything acts on the network namespace of the calling thread.

use std::io;

use model::ports::PASSTHROUGH_V6;

use crate::netlink::{self, Changes, LIST_ADDRESSES, LinkIndex, attributes};

/// "weir". Before Linux 4.18 the kernel keeps none, and the address counts as another's.
const METRIC: u32 = u32::from_be_bytes(*b"weir");

/// Whether the address is there, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passthrough {
    /// It is not there.
    Absent,
    /// Put there by [`add`].
    Ours,
    /// Put there by somebody else: to be left there.
    Foreign,
}

/// Looks.
///
/// # Errors
/// Where netlink is refused.
pub fn find() -> io::Result<Passthrough> {
    let addresses = netlink::list(LIST_ADDRESSES)?;
    let found = addresses.iter().find_map(|body| of_address(body));
    Ok(found.unwrap_or(Passthrough::Absent))
}

/// An `ifaddrmsg`, then attributes. None where it is another address.
fn of_address(body: &[u8]) -> Option<Passthrough> {
    const FIXED: usize = 8;
    const ADDRESS: u16 = 1;
    const ROUTE_METRIC: u16 = 9;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let on_loopback = fixed[4..] == LinkIndex::LOOPBACK.0.to_ne_bytes();
    let has = |kind, wanted: &[u8]| attributes(rest).any(|found| found == (kind, wanted));
    if !on_loopback || !has(ADDRESS, &PASSTHROUGH_V6.octets()) {
        return None;
    }
    Some(match has(ROUTE_METRIC, &METRIC.to_ne_bytes()) {
        true => Passthrough::Ours,
        false => Passthrough::Foreign,
    })
}

/// Puts `::6/128` there. It may be there already, and is then whose it was.
///
/// # Errors
/// Without `CAP_NET_ADMIN`, or where loopback does not speak IPv6.
pub fn add() -> Result<(), netlink::Error> {
    let mut changes = Changes::new();
    changes.address_with_metric(LinkIndex::LOOPBACK, PASSTHROUGH_V6.into(), METRIC);
    tolerate(changes.commit(), libc::EEXIST)
}

/// Takes it away, whosever it is; it need not be there.
///
/// # Errors
/// Without `CAP_NET_ADMIN`.
pub fn remove() -> Result<(), netlink::Error> {
    let mut changes = Changes::new();
    changes.remove_address(LinkIndex::LOOPBACK, PASSTHROUGH_V6.into());
    tolerate(changes.commit(), libc::EADDRNOTAVAIL)
}

fn tolerate(result: Result<(), netlink::Error>, errno: i32) -> Result<(), netlink::Error> {
    match result {
        Err(netlink::Error::Refused { source, .. }) if source.raw_os_error() == Some(errno) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    #[test]
    fn it_comes_and_goes_and_may_be_asked_for_twice() {
        Netns::create()
            .unwrap()
            .run(|| {
                assert_eq!(find().unwrap(), Passthrough::Absent);
                add().unwrap();
                add().unwrap();
                assert_eq!(find().unwrap(), Passthrough::Ours);
                std::net::TcpListener::bind("[::6]:0").unwrap();
                remove().unwrap();
                remove().unwrap();
                assert_eq!(find().unwrap(), Passthrough::Absent);
            })
            .unwrap();
    }

    #[test]
    fn what_others_put_there_stays_theirs() {
        Netns::create()
            .unwrap()
            .run(|| {
                let mut theirs = Changes::new();
                theirs.address(LinkIndex::LOOPBACK, PASSTHROUGH_V6.into());
                theirs.commit().unwrap();
                assert_eq!(find().unwrap(), Passthrough::Foreign);
                add().unwrap();
                assert_eq!(find().unwrap(), Passthrough::Foreign);
            })
            .unwrap();
    }

    #[test]
    fn an_address_of_another_device_or_a_message_too_short_is_not_it() {
        let mut body = vec![10, 128, 2, 0];
        body.extend(2_u32.to_ne_bytes());
        netlink::attribute(&mut body, 1, &PASSTHROUGH_V6.octets());
        assert_eq!(of_address(&body), None);
        body[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(of_address(&body), Some(Passthrough::Foreign));
        netlink::attribute(&mut body, 9, &METRIC.to_ne_bytes());
        assert_eq!(of_address(&body), Some(Passthrough::Ours));
        for length in 0..28 {
            assert_eq!(of_address(&body[..length]), None, "{length}");
        }
    }
}
