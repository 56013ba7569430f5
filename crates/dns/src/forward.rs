//! Forwarding, verbatim, to the resolvers of `/etc/resolv.conf`. The file is read for every query: a
//! laptop changes networks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const PORT: u16 = 53;
/// How long one resolver is waited for before the next is asked. Clients wait 5 s and ask again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Where the resolvers are written.
#[derive(Clone, Debug)]
pub(crate) struct Resolvers(pub(crate) PathBuf);

impl Resolvers {
    /// In order. Without any, the one on this machine, as the C library does.
    async fn addresses(&self) -> Vec<SocketAddr> {
        // A file of a few lines on a local disk: not worth a thread.
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut addresses = parse(&text);
        if addresses.is_empty() {
            addresses.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        addresses
    }

    /// Asks by UDP, one resolver after the other, until one answers.
    pub(crate) async fn by_datagram(&self, query: &[u8]) -> Option<Vec<u8>> {
        for address in self.addresses().await {
            if let Ok(Ok(answer)) = timeout(PATIENCE, ask_datagram(address, query)).await {
                return Some(answer);
            }
        }
        None
    }

    /// Asks by TCP, likewise.
    pub(crate) async fn by_stream(&self, query: &[u8]) -> Option<Vec<u8>> {
        for address in self.addresses().await {
            if let Ok(Ok(answer)) = timeout(PATIENCE, ask_stream(address, query)).await {
                return Some(answer);
            }
        }
        None
    }
}

/// The resolvers that a file like `/etc/resolv.conf` names. A client sends its queries to them, so it must
/// have a route there even where all its queries are captured. None where there is no such file.
#[must_use]
pub fn nameservers(resolv_conf: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    parse(&text).iter().map(SocketAddr::ip).collect()
}

/// The `nameserver` lines. An address may have a zone (`fe80::1%eth0`), which we leave out: such a
/// resolver is skipped.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, PORT))
        .collect()
}

/// A connected socket with a port of its own for each query: an answer from elsewhere does not reach it.
async fn ask_datagram(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 64 * 1024];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_stream(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream)
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// One message by TCP: its length in two bytes, then itself. `None` at the end of the stream.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message, in one piece.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_in_order() {
        let text = "# c\nsearch x\nnameserver 10.0.0.1\n nameserver\t::1 # that one\nnameservers 1.1.1.1\nnameserver fe80::1%eth0\n";
        let expected: Vec<SocketAddr> = vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(parse(text), expected);
    }
}
