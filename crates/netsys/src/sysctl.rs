//! Settings of the kernel, as `/proc/sys` shows them to the calling thread: those under `net` are its network
//! namespace's.

use std::fs;

/// The text of one, by its path below `/proc/sys`; `None` where there is no such setting.
#[must_use]
pub fn read(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// One that is a number.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    read(name)?.parse().ok()
}

/// The devices that have settings of a family: `net/ipv6/conf`, without `all` and `default`.
#[must_use]
pub fn devices(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/sys/{folder}")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name != "all" && name != "default").collect();
    names.sort_unstable();
    names
}
