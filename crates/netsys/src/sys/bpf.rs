//! bpf(2), as far as looking goes: which programs are attached somewhere, and what they are called. Caller:
//! [`crate::ebpf`].
#![allow(unsafe_code, reason = "part of the syscall seam")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` uses.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    unused: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// The ids of the programs that are attached to a target: the number of a descriptor or of a device, as
/// `attach_type` (`enum bpf_attach_type`) has it.
pub(crate) fn attached(target: u32, attach_type: u32, flags: u32) -> io::Result<Vec<u32>> {
    const QUERY: libc::c_int = 16;
    let mut ids = vec![0_u32; 64];
    loop {
        let mut query = Query {
            target,
            attach_type,
            flags,
            ids: ids.as_mut_ptr() as u64,
            count: ids.len() as u32,
            ..Query::default()
        };
        // SAFETY: the query is a live value of the layout that this command reads and writes, zero where nothing is
        // said; `ids` has room for as many numbers as it says and is used by nobody else meanwhile.
        match unsafe { bpf(QUERY, &raw mut query) } {
            Ok(_) => {
                ids.truncate(query.count as usize);
                return Ok(ids);
            }
            // There are more; the kernel has said how many.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                ids.resize((query.count as usize).max(ids.len() * 2), 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a program is called, as far as the kernel keeps it (15 bytes); empty where it was given no name.
pub(crate) fn program_name(id: u32) -> io::Result<String> {
    const DESCRIPTOR_BY_ID: libc::c_int = 13;
    const INFO: libc::c_int = 15;
    /// The beginning of `struct bpf_prog_info`, up to the name.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        before: [u64; 8],
        name: [u8; 16],
    }
    #[repr(C)]
    struct InfoOf {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut by_id = [id, 0, 0];
    // SAFETY: the numbers are the layout that this command reads.
    let number = unsafe { bpf(DESCRIPTOR_BY_ID, &raw mut by_id) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(number) };
    let mut info = Info::default();
    let mut info_of = InfoOf {
        descriptor: program.as_raw_fd().cast_unsigned(),
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info_of` is the layout that this command reads; it points to `info` and says how much room is there.
    unsafe { bpf(INFO, &raw mut info_of) }?;
    let length = info.name.iter().position(|&byte| byte == 0);
    let name = &info.name[..length.unwrap_or(info.name.len())];
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// One command.
///
/// # Safety
/// `attributes` is what this command reads and writes, with all that it points to.
unsafe fn bpf<T>(command: libc::c_int, attributes: *mut T) -> io::Result<libc::c_int> {
    // SAFETY: as the caller says; the length is that of the value.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as libc::c_int)
}
