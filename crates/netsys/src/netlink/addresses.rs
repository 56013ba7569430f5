//! What is asked of addresses: that a link has one of its own, or no longer.

use std::net::IpAddr;

use super::message::{attribute, family, host_bits, octets};
use super::{Changes, LinkIndex, REQUEST_ACK};

const NEW_ADDRESS: u16 = 20;
const REMOVE_ADDRESS: u16 = 21;
pub(crate) const LIST_ADDRESSES: u16 = 22;

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const ROUTE_METRIC: u16 = 9;

impl Changes {
    /// Gives a link an address of its own (/32 or /128), usable at once (no duplicate address detection).
    pub fn address(&mut self, link: LinkIndex, address: IpAddr) -> &mut Self {
        self.new_address(link, address, None)
    }

    /// The same; the kernel keeps the metric of its route with it (Linux 4.18 and later).
    pub fn address_with_metric(&mut self, link: LinkIndex, address: IpAddr, metric: u32) -> &mut Self {
        self.new_address(link, address, Some(metric))
    }

    fn new_address(&mut self, link: LinkIndex, address: IpAddr, metric: Option<u32>) -> &mut Self {
        const NO_DUPLICATE_DETECTION: u8 = 2;
        let what = format!("add address {address}");
        self.message(NEW_ADDRESS, self.create(), what, |bytes| {
            bytes.extend([family(address), host_bits(address), NO_DUPLICATE_DETECTION, 0]);
            bytes.extend(link.0.to_ne_bytes());
            attribute(bytes, LOCAL, &octets(address));
            attribute(bytes, ADDRESS, &octets(address));
            if let Some(metric) = metric {
                attribute(bytes, ROUTE_METRIC, &metric.to_ne_bytes());
            }
        })
    }

    /// Takes away what [`Changes::address`] gave.
    pub fn remove_address(&mut self, link: LinkIndex, address: IpAddr) -> &mut Self {
        let what = format!("remove address {address}");
        self.message(REMOVE_ADDRESS, REQUEST_ACK, what, |bytes| {
            bytes.extend([family(address), host_bits(address), 0, 0]);
            bytes.extend(link.0.to_ne_bytes());
            attribute(bytes, LOCAL, &octets(address));
        })
    }
}
