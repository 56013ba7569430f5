//! What clients do wrong, on purpose or not.

use std::time::Duration;

use model::Settings;
use model::settings::Overrides;

use super::stage::{Act, GET, OK, Server, Stage, answer, on_stage, send, settle};

#[test]
fn what_is_ambiguous_is_refused_and_nothing_of_it_is_forwarded() {
    on_stage(async {
        let table = [
            (
                "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "400",
            ),
            (
                "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "501",
            ),
            (
                "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
            ("GET / HTTP/1.1\nHost: a\n\n", "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "400"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
            ("garbage\r\n\r\n", "400"),
        ];
        for (input, status) in table {
            let server = Server::start(vec![]).await;
            let stage = Stage::new(&[server.address]);
            let mut client = stage.client().await;
            client.send(format!("{input}{GET}")).await;
            let got = client.rest().await;
            assert!(
                got.starts_with(&format!("HTTP/1.1 {status} ")),
                "{input:?} {got:?}"
            );
            assert!(got.contains("\r\nconnection: close\r\n"), "{got:?}");
            assert_eq!(
                got.matches("HTTP/1.1").count(),
                1,
                "what follows is not read: {got:?}"
            );
            let record = stage.record().await;
            assert_eq!(
                (
                    record.flags.to_string().as_str(),
                    record.http.expect("http").status.to_string().as_str()
                ),
                ("DPE", status)
            );
            assert_eq!(server.connections(), 0, "{input:?}");
        }
    });
}

#[test]
fn a_head_over_the_limit_is_refused_and_one_under_it_passes() {
    on_stage(async {
        let server = Server::start(vec![answer(OK)]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let request = |length| format!("GET / HTTP/1.1\r\nHost: web\r\nX: {}\r\n\r\n", "x".repeat(length));
        assert_eq!(client.ask(&request(60_000), "ok").await, OK);
        client.send(request(70_000)).await;
        assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    });
}

#[test]
fn a_body_found_malformed_on_its_way_is_never_completed() {
    on_stage(async {
        let server = Server::start(vec![vec![Act::ReadAll]]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        settle().await;
        client.send("0\r\nContent-Length: 5\r\n\r\n").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
        assert_eq!(stage.flags().await, "DPE");
        settle().await;
        assert!(
            server.read()[0].ends_with("3\r\nabc\r\n0\r\n") || server.read()[0].ends_with("3\r\nabc\r\n")
        );
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    on_stage(async {
        let server = Server::start(vec![vec![Act::ReadAll]]).await;
        let stage = Stage::new(&[server.address]);
        // Within a head: nothing is asked.
        let mut client = stage.client().await;
        client.send("GET / HTTP/1.1\r\nHo").await;
        drop(client);
        assert_eq!(stage.flags().await, "DC");
        // Within a body: the endpoint is not left waiting for the rest.
        let mut client = stage.client().await;
        client
            .send("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc")
            .await;
        settle().await;
        drop(client);
        assert_eq!(stage.flags().await, "DC");
        while server.read().is_empty() {
            settle().await;
        }
        assert!(server.read()[0].ends_with("abc"));
        // While the endpoint thinks, by a reset.
        let server = Server::start(vec![vec![Act::ReadAll]]).await;
        stage.set_endpoints(&[server.address]);
        let mut client = stage.client().await;
        client.send(GET).await;
        settle().await;
        client.reset();
        assert_eq!(stage.flags().await, "DC");
        while server.read().is_empty() {
            settle().await;
        }
    });
}

#[test]
fn a_client_that_goes_away_within_an_answer_frees_the_endpoint() {
    on_stage(async {
        let endless = vec![
            Act::Read("\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
            Act::Wait,
            Act::Send(vec![0; 8_000_000]),
        ];
        let server = Server::start(vec![endless]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.ask(GET, "\r\n\r\n").await;
        client.reset();
        server.go_on();
        assert_eq!(stage.flags().await, "DC");
        assert_eq!(stage.worker.pool.len(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_holds_the_endpoint_back_and_not_memory() {
    on_stage(async {
        let length = 50_000_000;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let script = vec![
            Act::Read("\r\n\r\n"),
            send(&head),
            Act::Send(vec![b'x'; length]),
            Act::Read("never"),
        ];
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.send(GET).await;
        settle().await;
        settle().await;
        // The server could not send it all: what is not taken is held in the kernel and one buffer.
        let mut got = vec![0; head.len() + length];
        tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut got)
            .await
            .expect("all of it");
        assert!(got.ends_with(b"xxx"));
        assert_eq!(stage.record().await.bytes_sent, length as u64);
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    on_stage(async {
        let no = "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno";
        let server = Server::start(vec![answer(no)]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 99999999\r\n\r\n")
            .await;
        let got = client.until("no").await;
        assert_eq!(
            got,
            "HTTP/1.1 413 No\r\nconnection: close\r\nContent-Length: 2\r\n\r\nno"
        );
        client.send(vec![b'x'; 100_000]).await;
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn slow_heads_and_idle_connections_are_closed() {
    on_stage(async {
        let server = Server::start(vec![answer(OK)]).await;
        let settings = Settings {
            header_timeout: Duration::ZERO,
            http_idle_timeout: Duration::ZERO,
            ..Settings::default()
        };
        let stage = Stage::with(&[server.address], Overrides::default(), settings);
        let mut slow = stage.client().await;
        slow.send("GET / HT").await;
        let silent = stage.client().await;
        settle().await;
        // Deadlines are whole seconds, never early.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        stage.worker.lives.sweep();
        assert!(slow.rest().await.starts_with("HTTP/1.1 408 "));
        let mut silent = silent;
        assert_eq!(silent.rest().await, "");
        assert_eq!(stage.flags().await, "DT");
    });
}
