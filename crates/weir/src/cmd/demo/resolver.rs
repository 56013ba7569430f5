//! The resolver of the cluster, a process like the [applications](super::app): it knows one name, which is not of
//! the mesh, and says of all others that they do not exist.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;
use model::ErrorName;
use netsys::contain;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::errors::OrNamed;

/// The name that it knows.
pub(super) const OUTSIDE: &str = "www.example";
/// What that stands for.
pub(super) const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);

const HEADER: usize = 12;

/// Serves on the socket that is its standard input, until it is killed.
pub(super) fn serve() -> Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    contain::give_up_rights()?;
    let socket = UdpSocket::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut query = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut query).or_named(
            ErrorName::Usage,
            "standard input is to be a UDP socket: weir demo starts this",
        )?;
        if let Some(answer) = answer(&query[..length]) {
            // A client that has gone asks no more.
            drop(socket.send_to(&answer, client));
        }
    }
}

/// To a query of one question (RFC 1035, 4.1).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const NO_SUCH_NAME: u8 = 3;
    /// The question's name, class IN, 5 s.
    const OF_THE_NAME: [u8; 2] = [0xc0, HEADER as u8];
    const IN_5_SECONDS: [u8; 6] = [0, 1, 0, 0, 0, 5];
    let name_end = HEADER + 1 + query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let mut answer = query.get(..name_end + 4)?.to_vec();
    let is_known = answer[HEADER..name_end].eq_ignore_ascii_case(&encoded(OUTSIDE));
    let kind = [answer[name_end], answer[name_end + 1]];
    let data = match kind {
        [0, 1] if is_known => OUTSIDE_V4.octets().to_vec(),
        [0, 28] if is_known => OUTSIDE_V6.octets().to_vec(),
        _ => vec![],
    };
    // An answer; recursion as it was desired, and available.
    answer[2] = 0x80 | query[2] & 1;
    answer[3] = 0x80 | if is_known { 0 } else { NO_SUCH_NAME };
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    if !data.is_empty() {
        answer.extend(
            [
                &OF_THE_NAME[..],
                &kind,
                &IN_5_SECONDS,
                &[0, data.len() as u8],
                &data,
            ]
            .concat(),
        );
    }
    Some(answer)
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').chain([""]);
    labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect()
}
