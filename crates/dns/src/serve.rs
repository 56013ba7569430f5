//! The loops over the sockets: a query that takes a resolver is answered by a task of its own, within bounds on
//! how many there are at once, of queries and of TCP clients.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use model::ErrorName;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::Config;
use crate::answer::{Answerer, AtOnce};
use crate::forward::{By, read_framed, write_framed};
use crate::resolvers::RESOLVERS_MAX;
use crate::token::{self, Received};

/// Queries at resolvers at most; beyond it UDP queries are dropped, which clients repeat.
const QUERIES_MAX: u32 = 1000;
/// TCP clients at once; more wait in the backlog.
const STREAMS_MAX: u32 = 200;
/// One of so many descriptors may be for a query, and for a TCP client.
const PART_FOR_QUERIES: usize = 10;
const PART_FOR_STREAMS: usize = 40;
/// Queries of one TCP client that are under way at once.
const PIPELINED_MAX: usize = 32;
/// What the kernel keeps of queries that come all at once, in bytes of its own bookkeeping: some thousands.
const QUEUE: usize = 4 << 20;
/// How often it is looked whether the kernel lost queries.
const LOOK: Duration = Duration::from_secs(5);
/// How long a client waits for an answer, as far as is known.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a TCP client may be silent, or not read.
const STREAM_IDLE: Duration = Duration::from_secs(20);
/// How long it may be silent while others wait for its place (RFC 7766, 6.2.3).
const STREAM_IDLE_CROWDED: Duration = Duration::from_secs(2);
/// Answers that wait for a TCP client to read: where it does not, nothing more is read of it.
const UNREAD_MAX: usize = 1;

/// How much a server does at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    queries: u32,
    streams: u32,
}

impl Places {
    /// Of a process that may have so many descriptors: most of few are for something else.
    #[must_use]
    pub fn within(descriptors: usize) -> Self {
        let part = |part: usize, most: u32| {
            let count = u32::try_from(descriptors / part).unwrap_or(u32::MAX);
            count.clamp(1, most)
        };
        Self {
            queries: part(PART_FOR_QUERIES, QUERIES_MAX),
            streams: part(PART_FOR_STREAMS, STREAMS_MAX),
        }
    }

    /// Queries that can be at resolvers.
    #[must_use]
    pub fn queries(self) -> u32 {
        self.queries
    }

    /// Whether more descriptors would make more of them.
    #[must_use]
    pub fn are_few(self) -> bool {
        self.queries < QUERIES_MAX
    }

    /// Descriptors that they take at most: a socket a client, and one for each resolver that a query waits for.
    #[must_use]
    pub fn descriptors(self) -> usize {
        self.queries as usize * RESOLVERS_MAX + self.streams as usize
    }
}

/// Where queries come in.
#[derive(Debug, Default)]
pub struct Sockets {
    /// UDP.
    pub datagrams: Vec<net::UdpSocket>,
    /// TCP.
    pub listeners: Vec<net::TcpListener>,
}

impl Sockets {
    /// Sockets on this port of loopback, which is where REDIRECT leads; a socket bound to every address would
    /// answer from another than was asked. Both families, where the kernel has both.
    ///
    /// # Errors
    /// Where the port is in use.
    pub fn bind_loopback(port: u16) -> io::Result<Self> {
        let mut sockets = Self::default();
        sockets.add((Ipv4Addr::LOCALHOST, port).into())?;
        match sockets.add((Ipv6Addr::LOCALHOST, port).into()) {
            Err(error) if !netsys::sock::lacks_family(&error) => Err(error),
            _ => Ok(sockets),
        }
    }

    fn add(&mut self, address: SocketAddr) -> io::Result<()> {
        self.datagrams.push(net::UdpSocket::bind(address)?);
        self.listeners.push(netsys::sock::listen(address, false)?);
        Ok(())
    }
}

/// The running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    hand_over: watch::Sender<bool>,
    queries: Arc<Semaphore>,
    places: Places,
    // In this order: the thread's end is waited for.
    _stop: oneshot::Sender<()>,
    _thread: runtime::thread::Handle<()>,
}

impl Handle {
    /// Gives no more signs of life, and resolves when look-ups go direct and the last that came here is answered.
    pub async fn hand_over(&self) {
        self.hand_over.send_replace(true);
        // Those who give them go when the last sign is forgotten.
        self.hand_over.closed().await;
        // Whoever has not got an answer by now has given up.
        let _ = timeout(PATIENCE, self.queries.acquire_many(self.places.queries)).await;
    }
}

struct Server {
    answerer: Answerer,
    queries: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// Serves on a thread of its own.
///
/// # Errors
/// Where the thread does not start.
pub fn start(sockets: Sockets, config: Config) -> Result<Handle, runtime::thread::Error> {
    let (stop, stopped) = oneshot::channel();
    let (hand_over, handed_over) = watch::channel(false);
    let places = config.places;
    let queries = Arc::new(Semaphore::new(places.queries as usize));
    let slots = Arc::clone(&queries);
    let thread = runtime::thread::spawn("dns", move || async move {
        let (gives_signs, mark) = (config.gives_signs, config.mark);
        let server = Rc::new(Server {
            answerer: Answerer::new(config),
            queries: slots,
            streams: Arc::new(Semaphore::new(places.streams as usize)),
        });
        for socket in sockets.datagrams {
            let received = Rc::new(Received::default());
            if gives_signs && let Ok(to) = socket.local_addr() {
                let give = token::give(to, mark, Rc::clone(&received), handed_over.clone());
                let (server, mut stop) = (Rc::clone(&server), handed_over.clone());
                spawn_local(async move {
                    // Without resolvers look-ups do better to go direct.
                    let is_known = tokio::select! {
                        () = server.answerer.has_resolvers() => true,
                        _ = stop.wait_for(|stop| *stop) => false,
                    };
                    drop(stop);
                    if is_known {
                        give.await;
                    }
                });
            }
            spawn_local(datagrams(socket, Rc::clone(&server), received));
        }
        for listener in sockets.listeners {
            spawn_local(streams(listener, Rc::clone(&server)));
        }
        drop(handed_over);
        // Ends by the sender's drop.
        let _ = stopped.await;
    })?;
    Ok(Handle {
        hand_over,
        queries,
        places,
        _stop: stop,
        _thread: thread,
    })
}

async fn datagrams(socket: net::UdpSocket, server: Rc<Server>, received: Rc<Received>) {
    let socket = match socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket))
    {
        Ok(socket) => Rc::new(socket),
        Err(error) => {
            return tracing::error!(see = %ErrorName::ListenerLost, %error, "DNS socket is not usable");
        }
    };
    if let Err(error) = netsys::sock::queue_up_to(&socket, QUEUE) {
        tracing::debug!(%error, "a longer queue for DNS queries");
    }
    spawn_local(count_lost(Rc::clone(&socket), Rc::clone(&server)));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, client)) if received.is_token(client) => {}
            Ok((length, client)) => {
                let query = &buffer[..length];
                let asks = match server.answerer.at_once(query, By::Datagram) {
                    AtOnce::Answered(answer) => {
                        send(&socket, answer, client).await;
                        continue;
                    }
                    AtOnce::Asks(asks) => asks,
                };
                let Ok(slot) = Arc::clone(&server.queries).try_acquire_owned() else {
                    server.answerer.count_dropped();
                    continue;
                };
                let (socket, server) = (Rc::clone(&socket), Rc::clone(&server));
                let query = query.to_vec();
                spawn_local(async move {
                    let answer = server.answerer.ask(&query, client, By::Datagram, asks).await;
                    send(&socket, answer, client).await;
                    drop(slot);
                });
            }
            // An ICMP error for an answer that came too late.
            Err(error) => tracing::debug!(%error, "receiving a DNS query"),
        }
    }
}

/// What the kernel dropped: it did not come as far as here.
async fn count_lost(socket: Rc<UdpSocket>, server: Rc<Server>) {
    let mut counted = 0;
    loop {
        sleep(LOOK).await;
        match netsys::sock::lost(&socket) {
            Ok(lost) => {
                server.answerer.count_lost(lost.wrapping_sub(counted));
                counted = lost;
            }
            Err(error) => return tracing::debug!(%error, "how many queries were lost"),
        }
    }
}

async fn send(socket: &UdpSocket, answer: Option<Vec<u8>>, client: SocketAddr) {
    if let Some(answer) = answer
        && let Err(error) = socket.send_to(&answer, client).await
    {
        tracing::debug!(%error, %client, "sending a DNS answer");
    }
}

async fn streams(listener: net::TcpListener, server: Rc<Server>) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::error!(see = %ErrorName::ListenerLost, %error, "DNS listener is not usable");
        }
    };
    // It is never closed, so that there is always a slot to come.
    while let Ok(slot) = Arc::clone(&server.streams).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = Rc::clone(&server);
                spawn_local(async move {
                    if let Err(error) = one_stream(stream, client, server).await {
                        tracing::debug!(%error, %client, "DNS by TCP");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS client");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Queries may come one after the other without waiting; each is answered as soon as its answer is there, in
/// whatever order (RFC 7766, 6.2.1.1). A client that has sent its last query gets all its answers.
async fn one_stream(stream: TcpStream, client: SocketAddr, server: Rc<Server>) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (sender, answers) = mpsc::channel(UNREAD_MAX);
    let mut writing = pin!(write_answers(writer, answers));
    tokio::select! {
        // The client reads no more.
        written = &mut writing => return written,
        read = read_queries(reader, client, server, sender) => read?,
    }
    writing.await
}

async fn read_queries(
    mut reader: OwnedReadHalf,
    client: SocketAddr,
    server: Rc<Server>,
    answers: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let pipelined = Arc::new(Semaphore::new(PIPELINED_MAX));
    while let Ok(turn) = Arc::clone(&pipelined).acquire_owned().await {
        let Some(query) = next_query(&mut reader, &server.streams).await? else {
            return Ok(());
        };
        let asks = match server.answerer.at_once(&query, By::Stream) {
            AtOnce::Answered(None) => continue,
            // Nobody listens where the client is gone.
            AtOnce::Answered(Some(answer)) => match answers.send(answer).await {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            AtOnce::Asks(asks) => asks,
        };
        let (server, answers) = (Rc::clone(&server), answers.clone());
        spawn_local(async move {
            let Ok(slot) = Arc::clone(&server.queries).acquire_owned().await else {
                return;
            };
            let answer = server.answerer.ask(&query, client, By::Stream, asks).await;
            // A client that does not read keeps nobody else waiting.
            drop(slot);
            if let Some(answer) = answer {
                let _ = answers.send(answer).await;
            }
            drop(turn);
        });
    }
    Ok(())
}

/// `None` where the client has ended, or is silent for too long.
async fn next_query(reader: &mut OwnedReadHalf, places: &Semaphore) -> io::Result<Option<Vec<u8>>> {
    let mut reading = pin!(read_framed(reader));
    let begin = Instant::now();
    while begin.elapsed() < STREAM_IDLE {
        if let Ok(message) = timeout(STREAM_IDLE_CROWDED, &mut reading).await {
            return message;
        }
        if places.available_permits() == 0 {
            break;
        }
    }
    Ok(None)
}

/// Ends with the last sender.
async fn write_answers(mut writer: OwnedWriteHalf, mut answers: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        timeout(STREAM_IDLE, write_framed(&mut writer, &answer)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
