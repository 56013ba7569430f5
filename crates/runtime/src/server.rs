//! A small HTTP server for operators: metrics, health and admin are each a [`Routes`] and a
//! [`Listener`], put together by the caller and run on the control thread. Answers are made at once,
//! from memory; every connection carries one request and is bounded in time and size.

mod answer;
mod socket;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::random::Random;

pub use answer::{Reply, Request, Routes};
pub use socket::{Socket, SocketError};

/// Connections a server has at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// Time for one connection, from accept to the last byte of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const MOST_HEADER_BYTES: usize = 16 << 10;

/// Where a server listens.
#[derive(Debug)]
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A socket file.
    Unix(Socket),
}

/// Who can reach a server this way: says what a request must prove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Whoever can connect, a web page in somebody's browser included.
    Tcp,
    /// Only who may open the socket file.
    Unix,
}

/// Serves until `stop` resolves; requests under way are then cut off. Runs inside a local task set
/// ([`crate::thread::spawn`] has one).
pub async fn serve(listener: Listener, routes: Rc<Routes>, stop: impl Future<Output = ()>) {
    match listener {
        Listener::Tcp(listener) => {
            let accept = async || listener.accept().await.map(|(stream, _)| stream);
            accept_until(accept, Reach::Tcp, routes, stop).await;
        }
        Listener::Unix(socket) => {
            let listener: &UnixListener = socket.listener();
            let accept = async || listener.accept().await.map(|(stream, _)| stream);
            accept_until(accept, Reach::Unix, routes, stop).await;
        }
    }
}

async fn accept_until<S>(
    accept: impl AsyncFn() -> io::Result<S>,
    reach: Reach,
    routes: Rc<Routes>,
    stop: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    let mut random = Random::from_system();
    loop {
        // The semaphore is never closed, so a place always comes.
        let next = async { (Arc::clone(&places).acquire_owned().await, accept().await) };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut stop => return,
            Some(_) = connections.join_next() => continue,
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                backoff.reset();
                let routes = Rc::clone(&routes);
                connections.spawn_local(async move {
                    let _place = place;
                    serve_one(stream, reach, &routes).await;
                });
            }
            Err(error) => {
                tracing::warn!(see = "WEIR-DESCRIPTORS", %error, server = routes.name(), "cannot accept");
                tokio::time::sleep(backoff.next(&mut || random.bits())).await;
            }
        }
    }
}

async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, reach: Reach, routes: &Routes) {
    let goes_on = Cell::new(false);
    let service = service_fn(async |request| {
        let answer = routes.answer(request, reach).await;
        goes_on.set(matches!(answer.body(), answer::Body::GoingOn(_)));
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MOST_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = match tokio::time::timeout(CONNECTION_TIMEOUT, &mut connection).await {
        Err(_) if goes_on.get() => Ok(connection.await),
        ended => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, server = routes.name(), "request not served"),
        Err(_) => tracing::debug!(server = routes.name(), "request not served: its time was up"),
    }
}

#[cfg(test)]
mod tests;
