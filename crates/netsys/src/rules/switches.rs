//! The switches by which marks pass from packets to what answers them, of the calling thread's namespace: read,
//! set, and put back. The rules remember which of them are ours, and the routes beside them (see [`super::policy`]).

use std::fs;
use std::io;

use rules::plan::Switch;

use super::Error;

fn path(switch: Switch) -> String {
    format!("/proc/sys/{}", switch.name().replace('.', "/"))
}

pub(super) fn is_on(switch: Switch) -> io::Result<bool> {
    Ok(fs::read_to_string(path(switch))?.trim() != "0")
}

/// Whether it is on, or can be set; else why not. Nothing is written.
pub(super) fn can_be_on(switch: Switch) -> Result<bool, String> {
    let name = switch.name();
    let is_on = is_on(switch).map_err(|error| format!("the kernel has no {name} ({error})"))?;
    if is_on {
        return Ok(true);
    }
    match fs::OpenOptions::new().write(true).open(path(switch)) {
        Ok(_) => Ok(false),
        Err(error) => Err(format!(
            "{name} is 0 and cannot be set ({error}): have the pod set it (securityContext.sysctls: {name}=1), or \
             run where /proc/sys is writable"
        )),
    }
}

/// Whether the kernel may answer by SYN cookies, in either family.
pub(super) fn syn_cookies() -> bool {
    let value = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies");
    // A kernel built without them has no such file.
    value.is_ok_and(|value| value.trim() != "0")
}

/// Sets those of them that are not on. Answers whether any was not.
pub(super) fn set(switches: &[Switch]) -> Result<bool, Error> {
    change(switches, true)
}

/// Puts those of `ours` back that are not `wanted`. Answers whether there was any.
pub(super) fn put_back(ours: &[Switch], wanted: &[Switch]) -> Result<bool, Error> {
    let mut unwanted = ours.to_vec();
    unwanted.retain(|switch| !wanted.contains(switch));
    change(&unwanted, false)
}

fn change(switches: &[Switch], to: bool) -> Result<bool, Error> {
    let mut any = false;
    for &switch in switches {
        let failed = |source| Error::Switch {
            name: switch.name(),
            value: u8::from(to),
            source,
        };
        if is_on(switch).map_err(failed)? != to {
            fs::write(path(switch), u8::from(to).to_string()).map_err(failed)?;
            any = true;
        }
    }
    Ok(any)
}
