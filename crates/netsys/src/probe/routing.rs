//! Where probes' packets are routed: by tables of their own, whatever the namespace's routes are.

use std::io;
use std::net::IpAddr;

use rules::Family;

use super::addresses::Addresses;
use crate::netlink::{
    self, CREATE_EXCLUSIVE, CREATE_OR_REPLACE, Changes, LIST_ROUTES, LinkIndex, NEW_POLICY, NEW_ROUTE,
    POLICY_MARK, POLICY_MASK, POLICY_PROTOCOL, REMOVE_POLICY, REMOVE_ROUTE, REQUEST_ACK, ROUTE_LOCAL, TABLE,
    address, address_family, attribute, attributes, host_bits, nested, number, octets,
};

/// Where packets of the ends are routed; the devices' tables follow. Before any routing rule but that of local
/// addresses.
pub(super) const PROBE_TABLE: u32 = 0x7765_6972;
const PRIORITY: u32 = 3;
/// Who says so.
const OURS: u8 = 88;

/// The far address is known to be nobody's, and is not asked for.
pub(super) fn neighbour(changes: &mut Changes, link: LinkIndex, address: IpAddr, mac: [u8; 6]) {
    const NEW_NEIGHBOUR: u16 = 28;
    const PERMANENT: u16 = 0x80;
    const DESTINATION: u16 = 1;
    const MAC: u16 = 2;
    let what = format!("add the neighbour {address}");
    changes.message(NEW_NEIGHBOUR, REQUEST_ACK | CREATE_OR_REPLACE, what, |bytes| {
        bytes.extend([address_family(Family::of(address)), 0, 0, 0]);
        bytes.extend(link.0.to_ne_bytes());
        bytes.extend(PERMANENT.to_ne_bytes());
        bytes.extend([0, 0]);
        attribute(bytes, DESTINATION, &octets(address));
        attribute(bytes, MAC, &mac);
    });
}

/// Whose packets a routing rule of ours is about.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// What is from there.
    From(IpAddr),
    /// What goes there.
    To(IpAddr),
}

/// Has a table of ours asked about packets; not about those that are marked, which go by their mark.
pub(super) fn ask(changes: &mut Changes, of: Of, table: u32) {
    let what = "add the probes' routing rule".to_owned();
    changes.message(NEW_POLICY, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
        routing_rule(bytes, of, table);
    });
}

/// The way of everything that a table of ours is asked about.
pub(super) struct WayOut {
    /// Of which packets.
    pub(super) family: Family,
    /// In which table.
    pub(super) table: u32,
    /// By which device.
    pub(super) link: LinkIndex,
    /// Through whom, if not to its end at once.
    pub(super) by: Option<IpAddr>,
    /// How large packets may be, if not as large as the device takes.
    pub(super) mtu: Option<u32>,
}

impl WayOut {
    pub(super) fn add(&self, changes: &mut Changes) {
        let what = format!("add the probes' route by device {}", self.link.0);
        changes.message(NEW_ROUTE, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            self.write(bytes);
        });
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        const OUTPUT_LINK: u16 = 4;
        const GATEWAY: u16 = 5;
        const METRICS: u16 = 8;
        const MTU: u16 = 2;
        const TABLE_UNSPECIFIED: u8 = 0;
        const SCOPE_ANYWHERE: u8 = 0;
        const SCOPE_LINK: u8 = 253;
        const UNICAST: u8 = 1;
        const ON_LINK: u32 = 4;
        let (scope, flags) = match self.by {
            Some(_) => (SCOPE_ANYWHERE, ON_LINK),
            None => (SCOPE_LINK, 0),
        };
        bytes.extend([address_family(self.family), 0, 0, 0]);
        bytes.extend([TABLE_UNSPECIFIED, OURS, scope, UNICAST]);
        bytes.extend(flags.to_ne_bytes());
        attribute(bytes, OUTPUT_LINK, &self.link.0.to_ne_bytes());
        attribute(bytes, TABLE, &self.table.to_ne_bytes());
        if let Some(by) = self.by {
            attribute(bytes, GATEWAY, &octets(by));
        }
        if let Some(mtu) = self.mtu {
            nested(bytes, METRICS, |bytes| attribute(bytes, MTU, &mtu.to_ne_bytes()));
        }
    }
}

/// Takes away every route and rule of probes, of this run or an earlier one. Most often there is none.
pub(super) fn remove_all() {
    let mut changes = Changes::new();
    let local = local_routes().unwrap_or_default();
    for (ip, _) in local.into_iter().filter(|(_, table)| *table == PROBE_TABLE) {
        let what = "take a local route away".to_owned();
        changes.message(REMOVE_ROUTE, REQUEST_ACK, what, |bytes| local_route(bytes, ip));
    }
    for family in Family::ALL {
        for table in (0..Addresses::DEVICES_MAX).map(table_of) {
            let what = "take a device's route away".to_owned();
            changes.message(REMOVE_ROUTE, REQUEST_ACK, what, |bytes| {
                any_route(bytes, family, table);
            });
        }
        for addresses in Addresses::CHOICES {
            let of_devices = (0..Addresses::DEVICES_MAX).map(|number| {
                let from = Of::From(addresses.of_device(family, number));
                (from, table_of(number))
            });
            let (near, far) = (addresses.near(family), addresses.far(family));
            let of_ends = [Of::From(near), Of::From(far), Of::To(far)];
            let of_ends = of_ends.into_iter().map(|of| (of, PROBE_TABLE));
            for (of, table) in of_devices.chain(of_ends) {
                let what = "take a routing rule away".to_owned();
                changes.message(REMOVE_POLICY, REQUEST_ACK, what, |bytes| {
                    routing_rule(bytes, of, table);
                });
            }
        }
    }
    let _ = changes.commit();
}

/// The table of the device with this number.
pub(super) fn table_of(number: u8) -> u32 {
    PROBE_TABLE + 1 + u32::from(number)
}

/// The default route of a table of ours, whichever device it leaves by.
fn any_route(bytes: &mut Vec<u8>, family: Family, table: u32) {
    const SCOPE_NOWHERE: u8 = 255;
    bytes.extend([address_family(family), 0, 0, 0]);
    bytes.extend([0, OURS, SCOPE_NOWHERE, 0]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, TABLE, &table.to_ne_bytes());
}

/// Delivers packets to an address here, of those that our table is asked about.
pub(super) fn deliver_here(changes: &mut Changes, ip: IpAddr) {
    let what = format!("add the local route of {ip}");
    changes.message(NEW_ROUTE, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
        local_route(bytes, ip);
    });
}

/// An `rtmsg` and its attributes.
fn local_route(bytes: &mut Vec<u8>, to: IpAddr) {
    const DESTINATION: u16 = 1;
    const OUTPUT_LINK: u16 = 4;
    const SCOPE_HOST: u8 = 254;
    let bits = if to.is_ipv4() { 32 } else { 128 };
    bytes.extend([address_family(Family::of(to)), bits, 0, 0]);
    bytes.extend([0, OURS, SCOPE_HOST, ROUTE_LOCAL]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, DESTINATION, &octets(to));
    attribute(bytes, OUTPUT_LINK, &LinkIndex::LOOPBACK.0.to_ne_bytes());
    attribute(bytes, TABLE, &PROBE_TABLE.to_ne_bytes());
}

/// Single addresses that are delivered here, and the table that says so.
pub(super) fn local_routes() -> io::Result<Vec<(IpAddr, u32)>> {
    const FIXED: usize = 12;
    const DESTINATION: u16 = 1;
    let of = |body: &Vec<u8>| -> Option<(IpAddr, u32)> {
        let (fixed, rest) = body.split_at_checked(FIXED)?;
        let find = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
        let to = find(DESTINATION).filter(|_| fixed[7] == ROUTE_LOCAL)?;
        Some((address(to)?, number(find(TABLE)?)?))
    };
    Ok(netlink::list(LIST_ROUTES)?.iter().filter_map(of).collect())
}

/// A `fib_rule_hdr` and its attributes. What is marked goes its own way: by its mark, if it comes to that.
fn routing_rule(bytes: &mut Vec<u8>, of: Of, table: u32) {
    const DESTINATION: u16 = 1;
    const SOURCE: u16 = 2;
    const PRIORITY_OF_RULE: u16 = 6;
    const TO_TABLE: u8 = 1;
    let (ip, attribute_of) = match of {
        Of::From(ip) => (ip, SOURCE),
        Of::To(ip) => (ip, DESTINATION),
    };
    let bits = host_bits(ip);
    let (to, from) = match of {
        Of::From(_) => (0, bits),
        Of::To(_) => (bits, 0),
    };
    // What answers the far end goes there, whatever address it is from; all else from a device's address by that.
    let priority = match (of, table) {
        (Of::To(_), _) => PRIORITY,
        (_, PROBE_TABLE) => PRIORITY + 2,
        _ => PRIORITY + 1,
    };
    bytes.extend([address_family(Family::of(ip)), to, from, 0, 0, 0, 0, TO_TABLE]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, attribute_of, &octets(ip));
    attribute(bytes, PRIORITY_OF_RULE, &priority.to_ne_bytes());
    attribute(bytes, TABLE, &table.to_ne_bytes());
    attribute(bytes, POLICY_MARK, &0_u32.to_ne_bytes());
    attribute(bytes, POLICY_MASK, &u32::MAX.to_ne_bytes());
    attribute(bytes, POLICY_PROTOCOL, &[OURS]);
}
