//! Programs at the devices of the calling thread's namespace: by tc's filters, by tcx, and by XDP.

use std::io;

use super::{Attached, Hook, attached};
use crate::netlink::{self, LIST_LINKS, NAME, attributes, name, number};
use crate::sys::bpf;

/// Both ways of tc, with the parent of their filters (`TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `.._EGRESS`) and
/// their numbers in `enum bpf_attach_type`.
const WAYS: [(Hook, u32, u32); 2] = [
    (Hook::DeviceIn, 0xffff_fff2, 46),
    (Hook::DeviceOut, 0xffff_fff3, 47),
];

/// Those of every device.
///
/// # Errors
/// Where netlink or bpf(2) is refused: the latter without `CAP_NET_ADMIN` over the machine.
pub fn at_devices() -> io::Result<Vec<Attached>> {
    let filtered = filtered()?;
    let mut found = vec![];
    for body in netlink::list(LIST_LINKS)? {
        let Some(device) = device(&body) else {
            continue;
        };
        let of = |id: u32| Attached {
            hook: Hook::Xdp,
            place: device.name.clone(),
            id,
            name: bpf::program_name(id).ok(),
        };
        found.extend(device.xdp.iter().copied().map(of));
        for (hook, parent, by_tcx) in WAYS {
            if filtered.contains(&device.index) {
                found.extend(by_filters(hook, parent, &device)?);
            }
            found.extend(attached(hook, by_tcx, device.index, 0, &device.name)?);
        }
    }
    Ok(found)
}

struct Device {
    index: u32,
    name: String,
    /// The programs of XDP, one a mode.
    xdp: Vec<u32>,
}

/// An `ifinfomsg`, then attributes.
fn device(body: &[u8]) -> Option<Device> {
    const FIXED: usize = 16;
    const XDP: u16 = 43;
    const PROGRAMS: std::ops::RangeInclusive<u16> = 4..=7;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let find = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
    let inside = attributes(find(XDP).unwrap_or_default());
    // In one mode, its program is told twice.
    let mut xdp: Vec<_> = inside
        .filter(|(kind, _)| PROGRAMS.contains(kind))
        .filter_map(|(_, value)| number(value).filter(|id| *id != 0))
        .collect();
    xdp.sort_unstable();
    xdp.dedup();
    Some(Device {
        index: number(&fixed[4..8])?,
        name: name(find(NAME)?),
        xdp,
    })
}

/// A `tcmsg`: of which device, and which parent.
fn tcmsg(device: u32, parent: u32) -> Vec<u8> {
    [0, device, 0, parent, 0].map(u32::to_ne_bytes).concat()
}

/// Bytes of a `tcmsg`.
const FIXED: usize = 20;
const KIND: u16 = 1;

/// The devices that have filters at both ways of tc, or at the way in.
fn filtered() -> io::Result<Vec<u32>> {
    const LIST_QUEUES: u16 = 38;
    let kinds: [&[u8]; 2] = [b"clsact\0", b"ingress\0"];
    let of = |body: &Vec<u8>| {
        let (fixed, rest) = body.split_at_checked(FIXED)?;
        let is_one = attributes(rest).any(|(kind, value)| kind == KIND && kinds.contains(&value));
        number(&fixed[4..8]).filter(|_| is_one)
    };
    Ok(netlink::list(LIST_QUEUES)?.iter().filter_map(of).collect())
}

fn by_filters(hook: Hook, parent: u32, device: &Device) -> io::Result<Vec<Attached>> {
    const LIST_FILTERS: u16 = 46;
    let bodies = match netlink::list_of(LIST_FILTERS, &tcmsg(device.index, parent)) {
        // One for packets that come in has no other way.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => vec![],
        bodies => bodies?,
    };
    Ok(bodies
        .iter()
        .filter_map(|body| filter(hook, device, body))
        .collect())
}

/// A `tcmsg`, then attributes. None of a filter that is no program: the list also has a line for each priority, which
/// names none.
fn filter(hook: Hook, device: &Device, body: &[u8]) -> Option<Attached> {
    const OPTIONS: u16 = 2;
    const PROGRAM_NAME: u16 = 7;
    const PROGRAM: u16 = 11;
    let rest = body.get(FIXED..)?;
    let find = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
    if find(KIND)? != b"bpf\0" {
        return None;
    }
    let options = find(OPTIONS)?;
    let find = |wanted| attributes(options).find_map(|(kind, value)| (kind == wanted).then_some(value));
    // A classic one decides on its class alone, and leads nothing away.
    let id = number(find(PROGRAM)?)?;
    Some(Attached {
        hook,
        place: device.name.clone(),
        id,
        // tc keeps the name that its filter was given, for everybody to read.
        name: bpf::program_name(id)
            .ok()
            .or_else(|| find(PROGRAM_NAME).map(name)),
    })
}
