//! Sockets that are made in a cgroup of version 2, for tests, which are in none of their own.

use std::os::fd::AsFd;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use netsys::fdpass::{self, Channel, DESCRIPTORS_MAX};
use socket2::{Domain, Socket, Type};

use crate::cgroup::Cgroup;
use crate::net::Pod;
use crate::program::{APP_ID, Program, RunAs, command};

/// A process in a cgroup of version 2 that makes sockets for a test, as an application's user.
#[derive(Debug)]
pub struct Maker {
    channel: Channel,
    program: Program,
}

/// Reads how many sockets of which family and kind are wanted, and passes them out.
const MAKER: &str = r#"
import json, socket
to = socket.socket(fileno=0)
while True:
    asked = to.recv(65536)
    if not asked:
        break
    made = [socket.socket(family, kind) for family, kind in json.loads(asked)]
    socket.send_fds(to, [b"made"], [one.fileno() for one in made])
    for one in made:
        one.close()
"#;

impl Maker {
    /// Starts it there.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(pod: &Pod, cgroup: &Cgroup) -> Result<Self> {
        let script = format!(
            "{} && exec setpriv --reuid {APP_ID} --regid {APP_ID} --clear-groups -- python3 -c \"$0\"",
            cgroup.entering()
        );
        let (channel, its) = fdpass::pair()?;
        let mut command = command(pod.netns(), RunAs::Root, "sh");
        command.args(["-c", &script, MAKER]);
        command.stdin(Stdio::from(its.as_fd().try_clone_to_owned()?));
        let program = Program::start(&mut command, "a maker of sockets")?;
        Ok(Self { channel, program })
    }

    /// Sockets that were made there.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn sockets(&self, kinds: &[(Domain, Type)]) -> Result<Vec<Socket>> {
        let mut all = vec![];
        for some in kinds.chunks(DESCRIPTORS_MAX) {
            let each = some
                .iter()
                .map(|(domain, kind)| format!("[{},{}]", i32::from(*domain), i32::from(*kind)));
            let asked = format!("[{}]", each.collect::<Vec<_>>().join(","));
            self.channel.send(asked.as_bytes(), &[])?;
            let answer = self.channel.receive()?;
            let (_, made) = answer.with_context(|| self.program.said())?;
            ensure!(
                made.len() == some.len(),
                "{} sockets: {}",
                made.len(),
                self.program.said()
            );
            all.extend(made.into_iter().map(Socket::from));
        }
        Ok(all)
    }
}
