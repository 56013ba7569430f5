//! The load: queries by UDP at a fixed rate, whatever the answers take, and a check of each answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::NAMES;

/// Where names of others are.
pub(crate) const OUTSIDE: &str = "bench.example";
/// Where names of the mesh are.
pub(crate) const OWN: &str = "mesh.svc.cluster.local";
/// How long an answer is waited for: clients give up about then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Queries of one socket: each has an id of its own.
const BY_SOCKET: usize = 60_000;

/// What one load gave.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) sent: u64,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU seconds of the forwarder's processes.
    pub(crate) cpu_s: f64,
}

pub(crate) fn label(number: u16) -> String {
    format!("n{number}")
}

pub(crate) fn name(number: u16, zone: &str) -> String {
    format!("{}.{zone}", label(number))
}

/// The address of a name.
pub(crate) fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 200, high, low)
}

/// Asks `to` for names of `zone`, `rate` times a second. From the calling thread's namespace.
pub(crate) fn put(to: SocketAddr, zone: &str, rate: u32, length: Duration) -> Result<Sample> {
    let count = rate as usize * usize::try_from(length.as_secs())?;
    let pause = Duration::from_secs(1) / rate;
    let queries: Vec<Vec<u8>> = (0..NAMES).map(|number| query(&name(number, zone))).collect();
    let sockets = (0..count.div_ceil(BY_SOCKET))
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        })
        .collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let due = |index: usize| begin + pause * u32::try_from(index).unwrap_or(u32::MAX);
    let is_over = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| -> Result<_> {
        let receivers: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(place, socket)| {
                let (queries, is_over) = (&queries, &is_over);
                let first = place * BY_SOCKET;
                let expected = BY_SOCKET.min(count - first);
                scope.spawn(move || receive(socket, first, expected, queries, due, is_over))
            })
            .collect();
        let sent = send(&sockets, &queries, count, due);
        let end = Instant::now() + PATIENCE;
        while receivers.iter().any(|receiver| !receiver.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
        let mut all = Received::default();
        for receiver in receivers {
            let one = receiver.join().ok().context("a receiver panicked")??;
            all.wrong += one.wrong;
            all.latencies.extend(one.latencies);
        }
        Ok((sent?, all))
    })?;
    Ok(sample(sent, received))
}

fn sample(sent: u64, mut received: Received) -> Sample {
    received.latencies.sort_unstable();
    let right = received.latencies.len();
    let quantile = |percent: usize| {
        let index = (right * percent / 100).min(right.saturating_sub(1));
        received
            .latencies
            .get(index)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    };
    Sample {
        sent,
        wrong: received.wrong,
        lost: sent.saturating_sub(right as u64 + received.wrong),
        p50_us: quantile(50),
        p99_us: quantile(99),
        cpu_s: 0.0,
    }
}

/// Sends each query when it is due; what is overdue, at once.
fn send(
    sockets: &[UdpSocket],
    queries: &[Vec<u8>],
    count: usize,
    due: impl Fn(usize) -> Instant,
) -> io::Result<u64> {
    for index in 0..count {
        let left = due(index).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
        let mut query = queries[index % queries.len()].clone();
        let id = (index % BY_SOCKET) as u16;
        query[..2].copy_from_slice(&id.to_be_bytes());
        sockets[index / BY_SOCKET].send(&query)?;
    }
    Ok(count as u64)
}

#[derive(Default)]
struct Received {
    latencies: Vec<Duration>,
    wrong: u64,
}

/// Takes the answers to the queries from number `first` on, until they are all there or it is over.
fn receive(
    socket: &UdpSocket,
    first: usize,
    expected: usize,
    queries: &[Vec<u8>],
    due: impl Fn(usize) -> Instant,
    is_over: &AtomicBool,
) -> io::Result<Received> {
    let mut received = Received::default();
    let mut seen = vec![false; BY_SOCKET];
    let mut buffer = [0; 4096];
    while !is_over.load(Ordering::Relaxed) && received.latencies.len() < expected {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let answer = &buffer[..length];
        let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        let number = (first + id) % queries.len();
        let is_new = seen
            .get_mut(id)
            .is_some_and(|seen| !std::mem::replace(seen, true));
        if is_new && is_right(answer, &queries[number], number as u16) {
            received
                .latencies
                .push(now.saturating_duration_since(due(first + id)));
        } else {
            received.wrong += 1;
        }
    }
    Ok(received)
}

/// An answer without an error, to this question, whose only record is the name's address.
fn is_right(answer: &[u8], query: &[u8], number: u16) -> bool {
    let end = query.len();
    if answer.len() < end || answer[2] & 0x80 == 0 || answer[3] & 0xf != 0 {
        return false;
    }
    // The record's name may be written out or point to the question.
    let record = match &answer[end..] {
        [0xc0, 12, record @ ..] => record,
        whole => match whole.strip_prefix(&query[12..end - 4]) {
            Some(record) => record,
            None => return false,
        },
    };
    answer[4..8] == [0, 1, 0, 1]
        && answer[12..end] == query[12..]
        && record.starts_with(&[0, 1, 0, 1])
        && record.get(10..14) == Some(&address(number).octets()[..])
}

fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
