//! What is asked of routes: that a network leaves by a link, and that a table delivers everything here.

use std::net::IpAddr;

use ipnet::IpNet;
use rules::Family;

use super::message::{address_family, attribute, family, octets};
use super::{Changes, LinkIndex, REQUEST_ACK};

pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const REMOVE_ROUTE: u16 = 25;
/// With [`super::REQUEST`] alone it asks where one packet would go.
pub(crate) const LIST_ROUTES: u16 = 26;

const OUTPUT_LINK: u16 = 4;
/// `RTA_PRIORITY`.
pub(crate) const METRIC: u16 = 6;
/// Attribute of a route and of a routing rule: the table.
pub(crate) const TABLE: u16 = 15;
/// `RTN_LOCAL`.
pub(crate) const ROUTE_LOCAL: u8 = 2;

/// A route that delivers everything here. The kernel keeps several in a table, one a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalDefault {
    /// Of which packets.
    pub family: Family,
    /// The routing table that it is in.
    pub table: u32,
    /// 0 is the kernel's default, which IPv6 shows as 1024.
    pub metric: u32,
}

impl Changes {
    /// Sends a network out of a link, without a gateway, from `source`.
    pub fn route(&mut self, to: IpNet, link: LinkIndex, source: IpAddr) -> &mut Self {
        const DESTINATION: u16 = 1;
        const PREFERRED_SOURCE: u16 = 7;
        const TABLE_MAIN: u8 = 254;
        const PROTOCOL_STATIC: u8 = 4;
        const SCOPE_LINK: u8 = 253;
        const UNICAST: u8 = 1;
        let what = format!("add a route to {to}");
        self.message(NEW_ROUTE, self.create(), what, |bytes| {
            bytes.extend([family(to.addr()), to.prefix_len(), 0, 0]);
            bytes.extend([TABLE_MAIN, PROTOCOL_STATIC, SCOPE_LINK, UNICAST]);
            bytes.extend(0_u32.to_ne_bytes());
            attribute(bytes, DESTINATION, &octets(to.network()));
            attribute(bytes, OUTPUT_LINK, &link.0.to_ne_bytes());
            attribute(bytes, PREFERRED_SOURCE, &octets(source));
        })
    }

    /// Delivers everything that is routed by a table here, over loopback.
    pub fn local_default(&mut self, route: LocalDefault, protocol: u8) -> &mut Self {
        let what = format!("add the local route of table {}", route.table);
        self.message(NEW_ROUTE, self.create(), what, |bytes| {
            local_route(bytes, route, protocol);
        })
    }

    /// Takes away what [`Changes::local_default`] made.
    pub fn remove_local_default(&mut self, route: LocalDefault, protocol: u8) -> &mut Self {
        let what = format!("take away the local route of table {}", route.table);
        self.message(REMOVE_ROUTE, REQUEST_ACK, what, |bytes| {
            local_route(bytes, route, protocol);
        })
    }
}

/// An `rtmsg` and its attributes.
fn local_route(bytes: &mut Vec<u8>, route: LocalDefault, protocol: u8) {
    const SCOPE_HOST: u8 = 254;
    bytes.extend([address_family(route.family), 0, 0, 0]);
    bytes.extend([0, protocol, SCOPE_HOST, ROUTE_LOCAL]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, OUTPUT_LINK, &LinkIndex::LOOPBACK.0.to_ne_bytes());
    attribute(bytes, TABLE, &route.table.to_ne_bytes());
    if route.metric != 0 {
        attribute(bytes, METRIC, &route.metric.to_ne_bytes());
    }
}
