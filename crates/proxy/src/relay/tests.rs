//! The relay between real sockets on loopback: every byte, every end, every break.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet};

use super::*;
use crate::life::Lives;

/// Longer than any relay here lives.
const LONG: Duration = Duration::from_secs(3600);

struct Rig {
    client: TcpStream,
    server: TcpStream,
    relay: JoinHandle<(How, Ended)>,
    lives: Rc<Lives>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (near, accepted) = tokio::join!(connect, listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

/// A client and a server with a relay between them.
async fn rig(first: &[u8], idle: Duration) -> Rig {
    let (client, near_client) = pair().await;
    let (near_server, server) = pair().await;
    let lives = Rc::new(Lives::new());
    let life = lives.begin();
    let mut relay = Relay::new(
        Rc::new(Buffers::new()),
        near_client,
        near_server,
        first.into(),
        None,
        idle,
    );
    let relay = tokio::task::spawn_local(async move {
        let how = relay.run(&life).await;
        (how, relay.end(how))
    });
    Rig {
        client,
        server,
        relay,
        lives,
    }
}

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = runtime::random::Random::from_seed(length as u64 + 1);
    (0..length).map(|_| random.bits() as u8).collect()
}

#[test]
fn carries_small_and_bulk_both_ways_exactly() {
    for length in [1, 100, 64 * 1024, 64 * 1024 + 1, 5_000_000] {
        on_one_thread(async {
            let Rig {
                mut client,
                mut server,
                relay,
                ..
            } = rig(b"first", LONG).await;
            let (up, down) = (noise(length), noise(length * 2));
            let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
            let (mut client_in, mut client_out) = client.split();
            let (mut server_in, mut server_out) = server.split();
            tokio::join!(
                async {
                    client_out.write_all(&up).await.unwrap();
                    client_out.shutdown().await.unwrap();
                },
                async {
                    server_out.write_all(&down).await.unwrap();
                    server_out.shutdown().await.unwrap();
                },
                async { server_in.read_to_end(&mut got_up).await.unwrap() },
                async { client_in.read_to_end(&mut got_down).await.unwrap() },
            );
            assert!(got_up == [b"first", &up[..]].concat(), "{length} up");
            assert!(got_down == down, "{length} down");
            let (how, ended) = relay.await.unwrap();
            assert!(matches!(how, How::Clean));
            assert_eq!(
                (ended.received, ended.sent),
                (length as u64 + 5, length as u64 * 2)
            );
        });
    }
}

#[test]
fn turns_bulk_into_chatter_and_back() {
    on_one_thread(async {
        let Rig {
            mut client,
            mut server,
            relay,
            ..
        } = rig(b"", LONG).await;
        for round in 0..40 {
            let length = if round % 10 < 2 { 400_000 } else { 10 };
            let sent = noise(length + round);
            let mut got = vec![0; sent.len()];
            let (wrote, read) = tokio::join!(client.write_all(&sent), server.read_exact(&mut got));
            wrote.unwrap();
            read.unwrap();
            assert!(sent == got, "round {round}");
        }
        drop(client);
        drop(server);
        assert!(matches!(relay.await.unwrap().0, How::Clean));
    });
}

#[test]
fn passes_on_a_half_close_and_keeps_the_other_half() {
    on_one_thread(async {
        let Rig {
            mut client,
            mut server,
            relay,
            ..
        } = rig(b"", LONG).await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"still here");
        assert!(matches!(relay.await.unwrap().0, How::Clean));
    });
}

#[test]
fn passes_on_a_reset_as_a_reset() {
    on_one_thread(async {
        let Rig {
            mut client,
            server,
            relay,
            ..
        } = rig(b"", LONG).await;
        sock::reset_on_close(&server).unwrap();
        drop(server);
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().0, How::UpstreamBroke));

        let Rig {
            client,
            mut server,
            relay,
            ..
        } = rig(b"", LONG).await;
        sock::reset_on_close(&client).unwrap();
        drop(client);
        let error = server.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().0, How::ClientBroke));
    });
}

#[test]
fn reads_no_more_than_a_slow_peer_takes() {
    on_one_thread(async {
        let Rig {
            client,
            server,
            relay,
            ..
        } = rig(b"", LONG).await;
        let mut sent = 0;
        // Until nothing moves for a while, the far end reading nothing.
        let mut calm = 0;
        while calm < 50 {
            match client.try_write(&[7; 65536]) {
                Ok(count) => (sent, calm) = (sent + count, 0),
                Err(_) => {
                    calm += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
        // Socket buffers on both legs and one pipe; without back-pressure it would be without end.
        assert!(sent < 64 << 20, "{sent} bytes were taken in");
        sock::reset_on_close(&client).unwrap();
        drop(client);
        drop(server);
        relay.await.unwrap();
    });
}

#[test]
fn a_silent_connection_ends_when_its_time_is_up_and_a_cut_one_at_once() {
    on_one_thread(async {
        let Rig {
            mut client,
            server: _server,
            relay,
            lives,
            ..
        } = rig(b"", Duration::ZERO).await;
        while !relay.is_finished() {
            lives.sweep();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(matches!(relay.await.unwrap().0, How::Idle));
        assert!(client.read(&mut [0; 8]).await.is_err());

        let Rig {
            mut client,
            server: _server,
            relay,
            lives,
            ..
        } = rig(b"", LONG).await;
        lives.drain();
        tokio::task::yield_now().await;
        lives.cut();
        assert!(matches!(relay.await.unwrap().0, How::Cut));
        assert!(client.read(&mut [0; 8]).await.is_err());
        assert_eq!(lives.count(), 0);
    });
}

/// Sends until nobody takes it any more.
async fn send_on(mut to: impl AsyncWriteExt + Unpin) {
    while to.write_all(&[7; 4096]).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn an_answer_given_before_the_request_was_read_arrives_whole() {
    on_one_thread(async {
        for round in 0..20 {
            let Rig {
                mut client,
                mut server,
                relay,
                ..
            } = rig(b"", LONG).await;
            let answer = noise(1200 + round);
            let (mut client_in, client_out) = client.split();
            let mut got = Vec::new();
            let (_, end, ()) = tokio::join!(send_on(client_out), client_in.read_to_end(&mut got), async {
                server.read_exact(&mut [0; 1024]).await.unwrap();
                server.write_all(&answer).await.unwrap();
                // Over unread bytes: a reset.
                drop(server);
            });
            // Whether the write or the read is told of the reset is chance.
            drop(end);
            assert!(got == answer, "round {round}: {} bytes", got.len());
            assert!(matches!(relay.await.unwrap().0, How::UpstreamBroke));
        }
    });
}

#[test]
fn a_client_that_sends_on_reads_the_clean_end_of_its_answer() {
    on_one_thread(async {
        let Rig {
            mut client,
            mut server,
            relay,
            ..
        } = rig(b"", LONG).await;
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = [0; 6];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        drop(server);
        // Far more than sockets hold: it is taken, and dropped.
        for _ in 0..2000 {
            client.write_all(&[7; 4096]).await.unwrap();
        }
        drop(client);
        assert!(matches!(relay.await.unwrap().0, How::UpstreamBroke));
    });
}

#[test]
fn a_reset_after_a_half_close_is_noticed() {
    on_one_thread(async {
        for is_client in [true, false] {
            let rig = rig(b"", LONG).await;
            let (mut breaks, mut stays) = match is_client {
                true => (rig.client, rig.server),
                false => (rig.server, rig.client),
            };
            breaks.shutdown().await.unwrap();
            assert_eq!(stays.read(&mut [0; 8]).await.unwrap(), 0);
            sock::reset_on_close(&breaks).unwrap();
            drop(breaks);
            while !rig.relay.is_finished() {
                rig.lives.sweep();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let how = rig.relay.await.unwrap().0;
            assert!(
                matches!(
                    (is_client, how),
                    (true, How::ClientBroke) | (false, How::UpstreamBroke)
                ),
                "{how:?}"
            );
            // Neither side has to find out by itself.
            assert!(stays.write_all(&[1; 10]).await.is_err() || stays.read(&mut [0; 8]).await.is_err());
        }
    });
}
