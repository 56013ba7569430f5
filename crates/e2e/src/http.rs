//! A small HTTP/1.1 client for tests: it says exactly how a request ended, which `curl` does not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::Pod;

/// Longer than anything a proxy may take; an answer later than this never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kept connection. After an error it is of no use any more.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

/// A whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its header lines, as they came.
    pub headers: Vec<String>,
    /// Its body, decoded.
    pub body: String,
}

/// How a request failed.
#[derive(Debug)]
pub enum Failure {
    /// Before the first byte of an answer.
    Unanswered(io::Error),
    /// After it: the answer is cut.
    Cut(io::Error),
}

impl Client {
    /// Connects from inside the pod.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(pod: &Pod, to: SocketAddr) -> io::Result<Self> {
        let stream = pod.dial(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One GET on the kept connection.
    ///
    /// # Errors
    /// Where no whole answer comes.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Answer, Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let sent = self.0.get_mut().write_all(request.as_bytes());
        sent.map_err(Failure::Unanswered)?;
        match self.0.fill_buf() {
            Ok([]) => Err(Failure::Unanswered(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => self.answer().map_err(Failure::Cut),
            Err(error) => Err(Failure::Unanswered(error)),
        }
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            headers.push(line);
        }
        let mut answer = Answer {
            status,
            headers,
            body: String::new(),
        };
        let body = if answer.header("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else {
            let length = answer.header("content-length").and_then(|text| text.parse().ok());
            self.exactly(length.ok_or_else(|| io::Error::other("an answer without a length"))?)?
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Answer {
    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}
