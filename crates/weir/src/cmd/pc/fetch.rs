//! One GET from the admin of a proxy, over TCP or a socket file. The answer is ours: HTTP/1.1 with a
//! length, one a connection; only what goes on has none.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use model::ErrorName;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::errors::{OrNamed, fail};

/// Time for the connection, and for each read of the answer.
const TIME: Duration = Duration::from_secs(5);

/// Where the admin of a proxy answers.
#[derive(Clone, Debug)]
pub(crate) enum Admin {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Socket(file) => write!(f, "{}", file.display()),
        }
    }
}

/// Somebody listens, and nothing more.
#[derive(Debug)]
pub(crate) struct Silent;

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = TIME.as_secs();
        write!(
            f,
            "it listens, and has not answered within {seconds} s: it hangs or is stopped"
        )
    }
}

impl std::error::Error for Silent {}

/// Whether it failed because a proxy is [`Silent`].
pub(crate) fn is_silent(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Silent>())
}

/// The body of a path.
pub(crate) fn get(admin: &Admin, path: &str) -> Result<String> {
    let mut stream = connect(admin)?;
    ask(&mut stream, path, "1.1")?;
    let mut answer = String::new();
    heard(admin, stream.read_to_string(&mut answer))?;
    body(&answer)
}

/// The body of a path that goes on, line by line.
pub(crate) fn stream(admin: &Admin, path: &str) -> Result<Stream> {
    let mut stream = connect(admin)?;
    // Of the old version, for which a body without a length ends with the connection.
    ask(&mut stream, path, "1.0")?;
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if heard(admin, lines.read_line(&mut head))? == 0 {
            break;
        }
    }
    let mut stream = Stream {
        lines,
        admin: admin.clone(),
    };
    if status(&head) != "200" {
        let why = stream.line()?.unwrap_or_default();
        fail!(BadAnswer, "the proxy answers {}: {why}", status(&head));
    }
    Ok(stream)
}

/// What a proxy tells for as long as it is asked.
pub(crate) struct Stream {
    lines: BufReader<Socket>,
    admin: Admin,
}

impl Stream {
    /// The next line; none at the end. The proxy sends an empty one where it has nothing to tell.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok(match heard(&self.admin, self.lines.read_line(&mut line))? {
            0 => None,
            _ => Some(line.trim_end().to_owned()),
        })
    }
}

fn heard(admin: &Admin, read: io::Result<usize>) -> Result<usize> {
    match read {
        Err(error) if is_time_out(&error) => silent(admin),
        other => other.or_named(
            ErrorName::BadAnswer,
            "the proxy does not answer as an admin port does",
        ),
    }
}

fn silent<T>(admin: &Admin) -> Result<T> {
    Err(Silent).or_named_with(ErrorName::NoProxy, || {
        format!("no answer of the proxy at {admin}")
    })
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// With a time limit: the queue of one that accepts nothing may be full.
fn connect(admin: &Admin) -> Result<Socket> {
    let connected = || {
        let (domain, to) = match admin {
            Admin::Address(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Admin::Socket(file) => (Domain::UNIX, SockAddr::unix(file)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect_timeout(&to, TIME)?;
        socket.set_read_timeout(Some(TIME))?;
        Ok(socket)
    };
    match connected() {
        Err(error) if is_time_out(&error) => silent(admin),
        other => other.or_named_with(ErrorName::NoProxy, || format!("cannot connect to {admin}")),
    }
}

fn ask(stream: &mut impl Write, path: &str, version: &str) -> Result<()> {
    // In one write: `write!` on a socket would send each piece alone.
    let request = format!("GET {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    Ok(stream.write_all(request.as_bytes())?)
}
/// The word after the version.
fn status(head: &str) -> &str {
    let line = head.lines().next().unwrap_or_default();
    line.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").or_named(
        ErrorName::BadAnswer,
        "the answer is no HTTP; is this the admin port of a proxy?",
    )?;
    if status(head) != "200" {
        let why = body.lines().next().unwrap_or_default();
        fail!(BadAnswer, "the proxy answers {}: {why}", status(head));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        fail!(BadAnswer, "the answer was cut off; ask again");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let table = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Ok("{}")),
            ("HTTP/1.1 200 OK\r\n\r\n{}", Ok("{}")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Err("cut off")),
            (
                "HTTP/1.1 404 Not Found\r\n\r\nno such path",
                Err("404: no such path"),
            ),
            ("+PONG", Err("no HTTP")),
            ("", Err("no HTTP")),
        ];
        for (answer, expected) in table {
            match (body(answer), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
                (found, expected) => panic!("{answer}: {found:?}, not {expected:?}"),
            }
        }
    }
}
