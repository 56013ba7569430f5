//! The application of a server pod: a process of its own, without any privilege, that knows nothing of a
//! mesh. It answers every GET, and says who it is, who called and when.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::SystemTime;

use crate::errors::OrNamed;
use anyhow::Result;
use model::ErrorName;
use netsys::contain;
use rustix::process::{Signal, set_parent_process_death_signal};

/// Serves on the listener that is its standard input, until it is killed.
pub(super) fn serve(name: &str) -> Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    contain::give_up_rights()?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let listener = TcpListener::from(stdin);
    loop {
        let (stream, _) = listener.accept().or_named(
            ErrorName::Usage,
            "standard input is to be a listener: weir demo starts this",
        )?;
        let name = name.to_owned();
        // A client that breaks off is no concern of the others.
        thread::spawn(move || drop(answer_all(&name, &stream)));
    }
}

fn answer_all(name: &str, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut lines = BufReader::new(stream).lines();
    loop {
        // One head: up to the empty line. None of our clients sends a body.
        loop {
            match lines.next().transpose()? {
                None => return Ok(()),
                Some(line) if line.is_empty() => break,
                Some(_) => {}
            }
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let body = format!("hello from {name}\n");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-pod: {name}\r\nx-peer: {peer}\r\nx-nanos: {}\r\n\r\n{body}",
            body.len(),
            now.as_nanos()
        );
        let mut writer = stream;
        writer.write_all(answer.as_bytes())?;
    }
}
