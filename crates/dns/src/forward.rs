//! Forwarding: a query goes to the resolvers as it came but for its id, and their answer comes back as it came
//! but for its id. Each try has a socket, and so a port, of its own, and an id that nobody can guess.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use netsys::sock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use crate::message::{HEADER, code, is_answer_to, number};
use crate::report::Upstream;
use crate::resolvers::Resolvers;

/// How a resolver is asked: as the client asked us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Datagram,
    Stream,
}

/// Asks resolvers. Of one thread.
pub(crate) struct Forwarder {
    resolvers: Resolvers,
    /// Its keys are secret and its hashes not to be told from chance (SipHash), so that the hash of a count
    /// makes an id that nobody can guess.
    ids: RandomState,
    count: Cell<u64>,
    /// What every answer is received into: on one thread one is enough.
    buffer: RefCell<Vec<u8>>,
    mark: Option<u32>,
    reports: Upstream,
}

/// What was answered, and by whom.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) answer: Vec<u8>,
    pub(crate) resolver: SocketAddr,
}

impl Forwarder {
    pub(crate) fn new(resolvers: Resolvers, mark: Option<u32>, reports: Upstream) -> Self {
        Self {
            resolvers,
            ids: RandomState::new(),
            count: Cell::new(0),
            buffer: RefCell::new(vec![0; 64 * 1024]),
            mark,
            reports,
        }
    }

    /// The answer of the first resolver that has one. One that fails or refuses is an answer only where none
    /// of the others does better, as for the C library.
    pub(crate) async fn ask(&self, query: &[u8], by: By) -> Option<Asked> {
        let id = query.get(..2)?;
        let (conf, first) = self.resolvers.now();
        let count = conf.addresses.len();
        let mut poor = None;
        for _ in 0..conf.attempts {
            for turn in 0..count {
                let to = conf.addresses[(first + turn) % count];
                let begin = Instant::now();
                let mut answer = match timeout(conf.patience, self.ask_one(to, query, by)).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, %to, "asking a resolver");
                        self.reports.fail("unreachable");
                        continue;
                    }
                    Err(_) => {
                        self.reports.fail("silent");
                        continue;
                    }
                };
                self.reports.durations.observe(begin.elapsed());
                answer[..2].copy_from_slice(id);
                let is_poor = is_poor(&answer);
                let asked = Asked { answer, resolver: to };
                if is_poor {
                    self.reports.fail("refused");
                    poor = Some(asked);
                } else {
                    return Some(asked);
                }
            }
            // Its client asks again where it wants to.
            if poor.is_some() {
                break;
            }
        }
        poor
    }

    async fn ask_one(&self, to: SocketAddr, query: &[u8], by: By) -> io::Result<Vec<u8>> {
        let mut query = query.to_vec();
        query[..2].copy_from_slice(&self.id().to_be_bytes());
        match by {
            By::Datagram => self.ask_datagram(to, &query).await,
            By::Stream => self.ask_stream(to, &query).await,
        }
    }

    fn id(&self) -> u16 {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        self.ids.hash_one(count) as u16
    }

    /// The socket is connected: what comes from elsewhere does not reach it. What comes from there and is
    /// no answer to this query is passed over.
    async fn ask_datagram(&self, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::from_std(sock::datagram_to(to, self.mark)?)?;
        socket.send(query).await?;
        loop {
            // That nobody listens there is told as an error alone, which is not "readable".
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            let mut buffer = self.buffer.borrow_mut();
            match socket.try_recv(&mut buffer) {
                Ok(length) if is_answer_to(&buffer[..length], query) => {
                    return Ok(buffer[..length].to_vec());
                }
                Ok(_) => tracing::debug!(%to, "a datagram that is no answer to our query"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_error() => {}
                Err(error) => return Err(socket.take_error()?.unwrap_or(error)),
            }
        }
    }

    async fn ask_stream(&self, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = sock::stream_to(to)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        let mut stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
        write_framed(&mut stream, query).await?;
        match read_framed(&mut stream).await? {
            Some(answer) if is_answer_to(&answer, query) => Ok(answer),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Whether another resolver may do better.
fn is_poor(answer: &[u8]) -> bool {
    let code = number(answer, 2).unwrap_or(0) & 0xf;
    [code::SERVER_FAILURE, code::NOT_IMPLEMENTED, code::REFUSED].contains(&code)
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
