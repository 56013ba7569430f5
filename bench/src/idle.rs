//! Memory of a contender: at rest, with a thousand and with nine thousand idle connections, and after them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::contenders::{Contender, HTTP_PORT};
use crate::usage::{Memory, memory};

const FEW: usize = 1_000;
/// Two descriptors a connection at L4, and a hard limit of 20,000 on common machines.
const MANY: usize = 9_000;
/// Time for buffers to be given back and for allocators to notice.
const SETTLE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(5);

/// What one contender held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Idle {
    pub(crate) at_rest: Memory,
    pub(crate) few: Memory,
    pub(crate) many: Memory,
    pub(crate) after: Memory,
}

impl Idle {
    /// Resident KiB for each connection more.
    pub(crate) fn slope_kib(&self) -> f64 {
        (self.many.resident_kib as f64 - self.few.resident_kib as f64) / (MANY - FEW) as f64
    }
}

/// Opens connections from the contender's client, one request each, and looks at its memory meanwhile.
pub(crate) fn measure(on: &Contender) -> Result<Idle> {
    let at_rest = memory(&on.processes)?;
    let target = SocketAddr::new(on.server.into(), HTTP_PORT);
    let mut open = Vec::with_capacity(MANY);
    let mut grow = |count: usize| -> Result<Memory> {
        on.client.within(|| -> Result<()> {
            while open.len() < count {
                let number = open.len();
                let opened = ask(target).with_context(|| format!("connection {number}"));
                open.push(opened.with_context(|| on.name.clone())?);
            }
            Ok(())
        })??;
        thread::sleep(SETTLE);
        memory(&on.processes)
    };
    let few = grow(FEW)?;
    let many = grow(MANY)?;
    drop(open);
    thread::sleep(AFTER);
    Ok(Idle {
        at_rest,
        few,
        many,
        after: memory(&on.processes)?,
    })
}

/// A connection that has done one request and is kept.
fn ask(target: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /2b HTTP/1.1\r\nHost: server\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut some = [0; 1024];
        let length = stream.read(&mut some)?;
        ensure!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..length]);
    }
    Ok(stream)
}
