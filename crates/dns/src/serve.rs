//! The loops over the sockets: each query is answered or forwarded by a task of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{io, net};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::forward::{Resolvers, read_framed, write_framed};
use crate::message::{Question, failure, question};
use crate::{Named, Names};

/// Queries under way at most; beyond it UDP queries are dropped, which clients repeat.
const QUERIES_MAX: usize = 1000;
/// How long a TCP client may be silent.
const STREAM_IDLE: Duration = Duration::from_secs(20);

/// Where queries come in.
#[derive(Debug, Default)]
pub struct Sockets {
    /// UDP.
    pub datagrams: Vec<net::UdpSocket>,
    /// TCP.
    pub listeners: Vec<net::TcpListener>,
}

/// The running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    _stop: oneshot::Sender<()>,
    _thread: runtime::thread::Handle<()>,
}

struct Server {
    names: Names,
    resolvers: Resolvers,
    slots: Semaphore,
}

/// Serves on a thread of its own. `resolv_conf` is the file with the resolvers of other names.
///
/// # Errors
/// Where the thread does not start.
pub fn start(sockets: Sockets, names: Names, resolv_conf: PathBuf) -> Result<Handle, runtime::thread::Error> {
    let (stop, stopped) = oneshot::channel();
    let thread = runtime::thread::spawn("dns", move || async move {
        let server = Rc::new(Server {
            names,
            resolvers: Resolvers(resolv_conf),
            slots: Semaphore::new(QUERIES_MAX),
        });
        for socket in sockets.datagrams {
            spawn_local(datagrams(socket, Rc::clone(&server)));
        }
        for listener in sockets.listeners {
            spawn_local(streams(listener, Rc::clone(&server)));
        }
        // Ends by the sender's drop.
        let _ = stopped.await;
    })?;
    Ok(Handle {
        _stop: stop,
        _thread: thread,
    })
}

async fn datagrams(socket: net::UdpSocket, server: Rc<Server>) {
    let socket = match socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket))
    {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::error!(%error, "DNS socket is not usable"),
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let query = buffer[..length].to_vec();
                spawn_local(one_datagram(
                    query,
                    client,
                    Rc::clone(&socket),
                    Rc::clone(&server),
                ));
            }
            // An ICMP error for an answer that came too late.
            Err(error) => tracing::debug!(%error, "receiving a DNS query"),
        }
    }
}

async fn one_datagram(query: Vec<u8>, client: SocketAddr, socket: Rc<UdpSocket>, server: Rc<Server>) {
    let Ok(_slot) = server.slots.try_acquire() else {
        return;
    };
    let limit = question(&query).map_or(0, |question| question.limit);
    let answer = match server.own_answer(&query, limit).await {
        Some(answer) => Some(answer),
        None => server
            .resolvers
            .by_datagram(&query)
            .await
            .or_else(|| failure(&query)),
    };
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
        Err(error) => return tracing::error!(%error, "DNS listener is not usable"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = Rc::clone(&server);
                spawn_local(async move {
                    if let Err(error) = one_stream(stream, &server).await {
                        tracing::debug!(%error, %client, "DNS by TCP");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS client");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn one_stream(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    while let Ok(message) = timeout(STREAM_IDLE, read_framed(&mut stream)).await {
        let Some(query) = message? else { return Ok(()) };
        let answer = match server.own_answer(&query, usize::from(u16::MAX)).await {
            Some(answer) => Some(answer),
            None => server
                .resolvers
                .by_stream(&query)
                .await
                .or_else(|| failure(&query)),
        };
        let Some(answer) = answer else { return Ok(()) };
        write_framed(&mut stream, &answer).await?;
    }
    Ok(())
}

impl Server {
    /// Our answer where the name is one of the mesh.
    async fn own_answer(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let question = question(query)?;
        let addresses = match (self.names)(&question.name)? {
            Named::Addresses(addresses) => addresses,
            Named::Alias(name) => look_up(&question, &name).await,
        };
        Some(question.answer(&addresses, limit))
    }
}

/// The addresses of a name outside, by the C library of this process.
async fn look_up(question: &Question<'_>, name: &str) -> Vec<IpAddr> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "{} is an alias of {name}, which does not resolve", question.name);
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
