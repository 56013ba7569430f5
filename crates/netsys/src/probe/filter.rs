//! Hands packets that come in by one device to another one, as if they had come in by that. All of it belongs to the
//! first device and goes with it.

use crate::netlink::{
    self, CREATE_EXCLUSIVE, CREATE_OR_REPLACE, Changes, LinkIndex, REQUEST_ACK, attribute, nested, text,
};

const NEW_QUEUE: u16 = 36;
const NEW_FILTER: u16 = 44;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `ffff:`, the queue that what comes in is led through.
const INGRESS: u32 = 0xffff_0000;

/// What comes from a sender to the device `from` comes in by the device `to`.
///
/// # Errors
/// Where the kernel has no ingress queue, no filter `u32` or no action `mirred`.
pub(super) fn hand_over(from: LinkIndex, sender: &[u8; 6], to: LinkIndex) -> Result<(), netlink::Error> {
    const TO_INGRESS: u32 = 0xffff_fff1;
    // Once for all of them.
    let mut queue = Changes::new();
    let what = "have filters see what comes in by the wire".to_owned();
    queue.message(NEW_QUEUE, REQUEST_ACK | CREATE_OR_REPLACE, what, |bytes| {
        header(bytes, from, INGRESS, TO_INGRESS, 0);
        attribute(bytes, KIND, &text("ingress"));
    });
    let _ = queue.commit();
    let mut changes = Changes::new();
    let what = "hand packets of the wire to a device".to_owned();
    changes.message(NEW_FILTER, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
        let [.., number, _, _] = *sender;
        let priority = (u32::from(number) + 1) << 16;
        let every_protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
        header(bytes, from, 0, INGRESS, priority | every_protocol);
        attribute(bytes, KIND, &text("u32"));
        nested(bytes, OPTIONS, |bytes| of_sender(bytes, sender, to));
    });
    changes.commit()
}

/// A `tcmsg`.
fn header(bytes: &mut Vec<u8>, device: LinkIndex, handle: u32, parent: u32, info: u32) {
    bytes.extend([0; 4]);
    for number in [device.0, handle, parent, info] {
        bytes.extend(number.to_ne_bytes());
    }
}

fn of_sender(bytes: &mut Vec<u8>, sender: &[u8; 6], to: LinkIndex) {
    const SELECTOR: u16 = 5;
    const ACTIONS: u16 = 7;
    const TERMINAL: u8 = 1;
    /// Where the sender begins in an Ethernet header, seen from the end of that.
    const SENDER_AT: i32 = -8;
    // A `tc_u32_sel` with one `tc_u32_key`.
    let mut selector = vec![TERMINAL, 0, 1, 0];
    selector.extend([0; 12]);
    selector.extend([0xff; 4]);
    selector.extend(&sender[..4]);
    selector.extend(SENDER_AT.to_ne_bytes());
    selector.extend([0; 4]);
    attribute(bytes, SELECTOR, &selector);
    nested(bytes, ACTIONS, |bytes| {
        nested(bytes, 1, |bytes| redirect(bytes, to));
    });
}

fn redirect(bytes: &mut Vec<u8>, to: LinkIndex) {
    const PARAMETERS: u16 = 2;
    /// `TC_ACT_STOLEN`: no more is done with it.
    const STOLEN: u32 = 4;
    /// `TCA_INGRESS_REDIR`.
    const AS_IF_IT_CAME_IN: u32 = 3;
    attribute(bytes, KIND, &text("mirred"));
    nested(bytes, OPTIONS, |bytes| {
        // A `tc_mirred`.
        let numbers = [0, 0, STOLEN, 0, 0, AS_IF_IT_CAME_IN, to.0];
        attribute(bytes, PARAMETERS, &numbers.map(u32::to_ne_bytes).concat());
    });
}
