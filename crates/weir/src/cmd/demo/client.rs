//! The client applications: curl where there is one for the request that is shown, and for the load a
//! plain HTTP/1.1 client that knows nothing of a mesh.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use model::ErrorName;
use netsys::netns::Netns;
use rules::Family;

use super::mesh::HOST;
use super::names;
use crate::errors::OrNamed;

/// Longer than anything here takes; a request that takes so long is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let found = self
            .fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The pod whose application answered; empty where none did.
    pub(super) fn pod(&self) -> String {
        self.field("x-pod").to_owned()
    }

    /// Who called the application, as it saw it.
    pub(super) fn peer(&self) -> String {
        self.field("x-peer").to_owned()
    }

    /// When the application answered, by its own clock.
    pub(super) fn served_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.field("x-nanos").parse().unwrap_or_default())
    }

    /// Reads a head and as much body as it says.
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        from.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(bad)?;
        let mut fields = vec![];
        loop {
            line.clear();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let mut answer = Self {
            status,
            fields,
            body: String::new(),
        };
        let length = answer.field("content-length").parse().map_err(|_| bad())?;
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        answer.body = String::from_utf8(body).map_err(|_| bad())?;
        Ok(answer)
    }
}

/// One connection, kept alive.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    /// To the service, by its name.
    pub(super) fn connect(family: Family) -> io::Result<Self> {
        let stream = TcpStream::connect(names::look_up(HOST, family)?)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        Answer::read(&mut self.0)
    }
}

/// One request from its application to its application.
pub(super) struct Call {
    /// What was run, as one would type it.
    pub(super) what: String,
    pub(super) answer: Answer,
}

/// Makes one request of the service in a namespace, by its name.
pub(super) fn call(netns: &Netns, family: Family, path: &str) -> Result<Call> {
    let url = format!("http://{HOST}{path}");
    let only = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let mut curl = Command::new("curl");
    // Without proxies or settings of the machine's.
    curl.args(["-q", "--noproxy", "*", "-sSi", "--max-time", "10", only, &url]);
    netns.start_in(&mut curl);
    let (what, answer) = match curl.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let answer = Answer::read(&mut output.stdout.as_slice())
                .or_named_with(ErrorName::Demo, || format!("curl {url}: {said}"))?;
            (format!("curl {only} {url}"), answer)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let answer = netns
                .run(|| Client::connect(family)?.get(path))?
                .or_named_with(ErrorName::Demo, || url.clone())?;
            (
                format!("GET {url} (curl is not installed; a client of the demo's own)"),
                answer,
            )
        }
        Err(error) => return Err(error).or_named(ErrorName::Demo, "cannot run curl"),
    };
    Ok(Call { what, answer })
}
