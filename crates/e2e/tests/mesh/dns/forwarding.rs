//! What is not ours goes through unchanged, to whichever resolver answers, and only its answer comes back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::Pod;

use super::{Town, queries};

/// Ends a test that has failed already.
const LIMIT: Duration = Duration::from_secs(30);
const BY_DATAGRAM: usize = 3_000;
const BY_STREAM: usize = 600;

fn proxy() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 15053).into()
}

fn ask(to: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(to)?;
    socket.send(query)?;
    let mut answer = vec![0; 65_536];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn ask_by(stream: &mut TcpStream, query: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn thousands_of_queries_are_answered_as_by_the_resolver_itself() -> Result<()> {
    let town = Town::create()?;
    let resolver = SocketAddr::new(town.resolver.v4.into(), 53);
    let check = || -> Result<[usize; 3]> {
        let (mut truncated, mut with_records, mut missing) = (0, 0, 0);
        for number in 0..BY_DATAGRAM {
            let query = queries::query(number);
            let direct =
                ask(resolver, &query).with_context(|| format!("unbound, query {number}: {query:?}"))?;
            let through = ask(proxy(), &query).with_context(|| format!("weir, query {number}: {query:?}"))?;
            assert_eq!(through, direct, "query {number}: {query:?}");
            truncated += usize::from(direct[2] & 2 != 0);
            with_records += usize::from(direct[7] > 0);
            missing += usize::from(direct[3] & 0xf == 3);
        }
        for number in BY_DATAGRAM..BY_DATAGRAM + BY_STREAM {
            let query = queries::query(number);
            let direct = ask_by(&mut connect(resolver)?, &query)?;
            let through = ask_by(&mut connect(proxy())?, &query)?;
            assert_eq!(through, direct, "by TCP, query {number}: {query:?}");
        }
        Ok([truncated, with_records, missing])
    };
    let seen = town.client.within(check)??;
    assert!(
        seen.iter().all(|&count| count > 10),
        "of every sort there were some: {seen:?}"
    );
    println!("truncated, with records, no such name: {seen:?}");
    Ok(())
}

#[test]
fn another_resolver_is_asked_where_one_is_silent_fails_or_is_not_there() -> Result<()> {
    let town = Town::create()?;
    let query = queries::query(1);
    let resolver = SocketAddr::new(town.resolver.v4.into(), 53);
    let direct = town.client.within(|| ask(resolver, &query))??;
    let nobody = town.mesh.net.pod("nobody")?;
    let failing = Fake::start(&town, "failing", |query, answers| {
        let mut answer = answer_to(query);
        answer[3] = 2;
        answers.push(answer);
    })?;
    let silent = Fake::start(&town, "silent", |_, _| {})?;
    let text = format!(
        "options timeout:5 attempts:1\nnameserver {}\nnameserver {}\nnameserver {}\n",
        failing.pod.v4, silent.pod.v4, town.resolver.v4
    );
    fs::write(&town.resolv_conf, text)?;
    // The file is read again within a second or so.
    e2e::eventually("the new resolvers", || {
        let through = town.client.within(|| ask(proxy(), &query)).ok()?.ok()?;
        assert_eq!(through, direct);
        (silent.asked() > 0).then_some(())
    })?;
    assert!(failing.asked() > 0);

    let text = format!("nameserver {}\nnameserver {}\n", nobody.v4, failing.pod.v4);
    fs::write(&town.resolv_conf, text)?;
    e2e::eventually("the failing resolver alone", || {
        let through = town.client.within(|| ask(proxy(), &query)).ok()?.ok()?;
        (through[3] & 0xf == 2).then_some(())
    })
}

#[test]
fn names_of_the_mesh_do_not_wait_for_a_silent_resolver() -> Result<()> {
    let town = Town::create()?;
    let silent = Fake::start(&town, "silent", |_, _| {})?;
    fs::write(
        &town.resolv_conf,
        format!("options timeout:30\nnameserver {}\n", silent.pod.v4),
    )?;
    let of_name = |name: &[u8]| [b"\x07\x09\x01\0\0\x01\0\0\0\0\0\0", name, b"\0\0\x01\0\x01"].concat();
    let (ours, others) = (of_name(b"\x03web\x04mesh"), of_name(b"\x05other\x07example"));
    let socket = || -> Result<UdpSocket> {
        let socket = town.client.within(|| UdpSocket::bind("127.0.0.1:0"))??;
        socket.connect(proxy())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let first = socket()?;
    e2e::eventually("the silent resolver", || {
        first.send(&others).ok()?;
        (silent.asked() > 0).then_some(())
    })?;
    let outside = socket()?;
    // More than there are places for; those that are lost on the way are made up for.
    e2e::eventually("queries under way", || {
        for _ in 0..100 {
            outside.send(&others).ok()?;
        }
        let metrics = town
            .client
            .run("curl", ["-sf", "http://127.0.0.1:15020/metrics"])
            .ok()?;
        metrics.text().contains(r#"result="dropped"}"#).then_some(())
    })?;
    let answer = town.client.within(|| ask_by(&mut connect(proxy())?, &ours))??;
    assert_eq!(answer[answer.len() - 4..], [10, 96, 0, 1]);
    let mut answer = town.client.within(|| ask(proxy(), &ours))??;
    assert_eq!(answer.split_off(answer.len() - 4), [10, 96, 0, 1]);
    let unanswered = outside.recv(&mut [0; 512]).map_err(|error| error.kind());
    assert_eq!(
        unanswered,
        Err(std::io::ErrorKind::WouldBlock),
        "the test was too slow"
    );
    Ok(())
}

#[test]
fn only_an_answer_to_its_own_question_comes_back_and_ids_are_not_to_be_guessed() -> Result<()> {
    let town = Town::create()?;
    let forging = Fake::start(&town, "forging", |query, answers| {
        let good = answer_to(query);
        let forged = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            bytes[3] = 5;
            change(&mut bytes);
            bytes
        };
        answers.extend([
            forged(|bytes| bytes[0] ^= 0x55),
            forged(|bytes| bytes[13] ^= 1),
            forged(|bytes| bytes[2] &= 0x7f),
            forged(|bytes| bytes.truncate(7)),
            Vec::new(),
        ]);
        answers.push(good);
    })?;
    fs::write(
        &town.resolv_conf,
        format!("options timeout:30\nnameserver {}\n", forging.pod.v4),
    )?;
    let mut query = queries::query(1);
    query.truncate(12);
    query[11] = 0;
    query.extend(b"\x05other\x07example\0\0\x01\0\x01");
    e2e::eventually("the forging resolver", || {
        town.client.within(|| ask(proxy(), &query)).ok()?.ok()?;
        (forging.asked() > 0).then_some(())
    })?;
    for _ in 0..60 {
        let answer = town.client.within(|| ask(proxy(), &query))??;
        assert_eq!((answer[3] & 0xf, &answer[..2]), (0, &query[..2]), "{answer:?}");
    }
    let (ids, ports) = forging.end();
    assert!(ids.len() > 50 && ports.len() > 50, "{ids:?} {ports:?}");
    let steps: BTreeSet<u16> = ids.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 40, "ids follow a pattern: {ids:?}");
    Ok(())
}

fn answer_to(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0;
    answer
}

/// A resolver that answers as it is told, and notes who asked by which id.
struct Fake {
    pod: Pod,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: thread::JoinHandle<(Vec<u16>, BTreeSet<u16>)>,
}

impl Fake {
    fn start(town: &Town, name: &str, answer: fn(&[u8], &mut Vec<Vec<u8>>)) -> Result<Self> {
        let pod = town.mesh.net.pod(name)?;
        let socket = pod.within(|| UdpSocket::bind("0.0.0.0:53"))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let (mut ids, mut ports, mut buffer) = (Vec::new(), BTreeSet::new(), [0; 2000]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                ids.push(u16::from_be_bytes([buffer[0], buffer[1]]));
                ports.insert(client.port());
                let mut answers = Vec::new();
                answer(&buffer[..length], &mut answers);
                for answer in answers {
                    let _ = socket.send_to(&answer, client);
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            (ids, ports)
        });
        Ok(Self {
            pod,
            stop,
            count,
            thread,
        })
    }

    fn asked(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn end(self) -> (Vec<u16>, BTreeSet<u16>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
