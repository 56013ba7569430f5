//! One GET from the admin of a proxy, over TCP or a socket file. The answer is ours: HTTP/1.1 with a
//! length, one a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::errors::{OrNamed, fail};
use anyhow::Result;
use model::ErrorName;

/// Time for the connection, and for each read of the answer.
const TIME: Duration = Duration::from_secs(5);

/// Where the admin of a proxy answers.
#[derive(Debug)]
pub(crate) enum Admin {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// The body of a path.
pub(crate) fn get(admin: &Admin, path: &str) -> Result<String> {
    let answer = match admin {
        Admin::Address(address) => {
            let stream = TcpStream::connect_timeout(address, TIME)
                .or_named_with(ErrorName::NoProxy, || format!("cannot connect to {address}"))?;
            stream.set_read_timeout(Some(TIME))?;
            ask(stream, path)?
        }
        Admin::Socket(file) => {
            let stream = UnixStream::connect(file).or_named_with(ErrorName::NoProxy, || {
                format!("cannot connect to {}", file.display())
            })?;
            stream.set_read_timeout(Some(TIME))?;
            ask(stream, path)?
        }
    };
    body(&answer)
}

fn ask(mut stream: impl Read + Write, path: &str) -> Result<String> {
    // In one write: `write!` on a socket would send each piece alone.
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).or_named(
        ErrorName::BadAnswer,
        "the proxy does not answer as an admin port does",
    )?;
    Ok(answer)
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").or_named(
        ErrorName::BadAnswer,
        "the answer is no HTTP; is this the admin port of a proxy?",
    )?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .nth(1)
        .unwrap_or_default();
    if status != "200" {
        fail!(
            BadAnswer,
            "the proxy answers {status}: {}",
            body.lines().next().unwrap_or_default()
        );
    }
    let length = lines
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
