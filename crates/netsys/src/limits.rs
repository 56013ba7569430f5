//! What the kernel allows this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the limit is none, so many are planned for.
const PLENTY: usize = 1 << 20;

/// Raises the limit of descriptors as far as it goes without privilege, and says what it is now.
///
/// # Errors
/// Where the kernel refuses, which it does not for a soft limit.
pub fn raise_descriptors() -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(limit
        .maximum
        .and_then(|maximum| usize::try_from(maximum).ok())
        .unwrap_or(PLENTY))
}

/// How many descriptors a process may come to have: the hard limit of that process, or of this one.
///
/// # Errors
/// Where there is no such process.
pub fn descriptors_at_most(pid: Option<u32>) -> io::Result<u64> {
    let Some(pid) = pid else {
        return Ok(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    };
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(hard.and_then(|hard| hard.parse().ok()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_proc_say_the_same() {
        let of_proc = descriptors_at_most(Some(std::process::id())).unwrap();
        assert_eq!(descriptors_at_most(None).unwrap(), of_proc);
    }
}
