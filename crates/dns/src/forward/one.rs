//! One resolver asked, by UDP or TCP. Each try has a socket, and so a port, of its own, and an id that nobody can
//! guess.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netsys::sock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{By, Forwarder};
use crate::message::{HEADER, is_answer_to};

impl Forwarder {
    /// By UDP it is asked `again` after so long without an answer: a datagram may be lost.
    pub(super) async fn ask_one(
        &self,
        to: SocketAddr,
        query: &[u8],
        by: By,
        again: Duration,
    ) -> io::Result<Vec<u8>> {
        let mut query = query.to_vec();
        query[..2].copy_from_slice(&self.id().to_be_bytes());
        match by {
            By::Datagram => self.ask_datagram(to, &query, again).await,
            By::Stream => self.ask_stream(to, &query).await,
        }
    }

    /// The socket is connected: what comes from elsewhere does not reach it. What comes from there and is
    /// no answer to this query is passed over.
    async fn ask_datagram(&self, to: SocketAddr, query: &[u8], again: Duration) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::from_std(sock::datagram_to(to, self.mark)?)?;
        let _own = self.own.note(socket.local_addr()?, query);
        loop {
            socket.send(query).await?;
            if let Ok(answer) = timeout(again, self.receive(&socket, query)).await {
                return answer;
            }
        }
    }

    async fn receive(&self, socket: &UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            // That nobody listens there is told as an error alone, which is not "readable".
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            let mut buffer = self.buffer.borrow_mut();
            match socket.try_recv(&mut buffer) {
                Ok(length) if is_answer_to(&buffer[..length], query) => {
                    return Ok(buffer[..length].to_vec());
                }
                Ok(_) => tracing::debug!("a datagram that is no answer to our query"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_error() => {}
                Err(error) => return Err(socket.take_error()?.unwrap_or(error)),
            }
        }
    }

    async fn ask_stream(&self, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(to).await?;
        let _own = self.own.note(stream.local_addr()?, query);
        write_framed(&mut stream, query).await?;
        match read_framed(&mut stream).await? {
            Some(answer) if is_answer_to(&answer, query) => Ok(answer),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = sock::stream_to(to)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }
}

/// One message by TCP: its length in two bytes, then itself. `None` at the end of the stream.
pub(crate) async fn read_framed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => usize::from(other?),
    };
    // Taken as it comes: who announces much has not sent it yet.
    let mut message = Vec::with_capacity(length.min(HEADER + 512));
    stream.take(length as u64).read_to_end(&mut message).await?;
    if message.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

/// Writes one message, in one piece.
pub(crate) async fn write_framed(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}
