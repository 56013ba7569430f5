//! What goes right: every kind of message, on kept connections.

use super::stage::{Act, GET, OK, Server, Stage, answer, on_stage, send, settle};
use crate::dial::Dialed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[test]
fn requests_share_one_kept_connection_and_are_passed_on_as_they_came() {
    on_stage(async {
        let script = [answer(OK), answer(OK), answer(OK), vec![Act::Wait]].concat();
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        for _ in 0..3 {
            let request = "GET /a?b HTTP/1.1\r\nhOsT: web\r\nX-Request-Id: 7\r\nKeep-Alive: 5\r\nConnection: keep-alive\r\n\r\n";
            let got = client.ask(request, "ok").await;
            assert_eq!(got, OK);
            let record = stage.record().await;
            let http = record.http.expect("parsed");
            assert_eq!(
                (http.status, http.tries, &*http.path, &*http.request_id),
                (200, 1, "/a?b", "7")
            );
            assert!(record.flags.is_empty());
            assert_eq!(record.bytes_sent, 2);
        }
        assert_eq!(server.connections(), 1);
        assert_eq!(
            server.read()[2],
            "GET /a?b HTTP/1.1\r\nhOsT: web\r\nX-Request-Id: 7\r\n\r\n"
        );
    });
}

#[test]
fn a_request_without_an_id_is_given_one() {
    on_stage(async {
        let server = Server::start(vec![[answer(OK), answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.ask(GET, "ok").await;
        let id = stage.record().await.http.expect("parsed").request_id;
        client.ask(GET, "ok").await;
        let expected = format!("GET / HTTP/1.1\r\nx-request-id: {id}\r\nHost: web\r\n\r\n");
        assert_eq!(server.read()[0], expected);
        assert_ne!(server.read()[1], expected);
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert!(
            id.bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        );
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_stage(async {
        let body = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}");
        let script = [
            answer(&body("1")),
            vec![Act::Read("abc"), send(&body("2"))],
            answer(&body("3")),
        ]
        .concat();
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let put = "PUT /2 HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
        client.send(format!("{GET}{put}{GET}")).await;
        assert_eq!(
            client.until("3").await,
            [body("1"), body("2"), body("3")].concat()
        );
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn chunks_and_trailers_pass_both_ways_as_they_are() {
    on_stage(async {
        let chunks = "4;x=y\r\nabcd\r\n0\r\nX-Sum: 1\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let script = vec![Act::Read("X-Sum: 1\r\n\r\n"), send(head), Act::Wait, send(chunks)];
        let server = Server::start(vec![[script, answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let post = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 1\r\n\r\n";
        client.send(post).await;
        for byte in chunks.bytes() {
            client.send([byte]).await;
            settle().await;
        }
        assert_eq!(client.until("\r\n\r\n").await, head);
        server.go_on();
        assert_eq!(client.until("X-Sum: 1\r\n\r\n").await, chunks);
        assert_eq!(server.read()[0], format!("{post}{chunks}"));
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    on_stage(async {
        let body = "0123456789abcdef".repeat(200_000);
        let end = "the end";
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len() + end.len()
        );
        let script = vec![Act::Read("the end"), send(&head), send(&body), send(end)];
        let server = Server::start(vec![[script, answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let post = format!(
            "PUT / HTTP/1.1\r\nHost: web\r\nX-Request-Id: 1\r\nContent-Length: {}\r\n\r\n",
            body.len() + end.len()
        );
        let (mut reader, mut writer) = client.0.split();
        let sent = async {
            writer.write_all(post.as_bytes()).await.expect("sent");
            writer.write_all(body.as_bytes()).await.expect("sent");
            writer.write_all(end.as_bytes()).await.expect("sent");
        };
        let mut got = vec![0; head.len() + body.len() + end.len()];
        let (_, read) = tokio::join!(sent, tokio::io::AsyncReadExt::read_exact(&mut reader, &mut got));
        read.expect("the whole answer");
        assert!(got == [head, body.clone(), end.to_owned()].concat().into_bytes());
        assert!(server.read()[0] == [post, body, end.to_owned()].concat());
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_client_that_expects_continue_is_told_by_the_endpoint() {
    on_stage(async {
        let go = "HTTP/1.1 100 Continue\r\n\r\n";
        let script = [
            answer(go),
            vec![Act::Read("abc"), send(OK)],
            answer("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
        ];
        let server = Server::start(vec![script.concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let put = "PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(client.ask(put, "\r\n\r\n").await, go);
        assert_eq!(client.ask("abc", "ok").await, OK);
        // Refused: the body never comes, so that the connection has to end.
        let got = client.ask(put, "\r\n\r\n").await;
        assert_eq!(
            got,
            "HTTP/1.1 417 No\r\nconnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn interim_responses_pass_but_not_to_http_1_0() {
    on_stage(async {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let script = [
            answer(&format!("{hints}{hints}{OK}")),
            answer(&format!("{hints}{OK}")),
        ];
        let server = Server::start(vec![script.concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        assert_eq!(client.ask(GET, "ok").await, format!("{hints}{hints}{OK}"));
        let mut old = stage.client().await;
        assert!(
            old.ask("GET / HTTP/1.0\r\n\r\n", "ok")
                .await
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
    });
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    on_stage(async {
        let script = [
            answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            answer("HTTP/1.1 204 No Content\r\n\r\n"),
            answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            answer(OK),
        ];
        let server = Server::start(vec![script.concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client
            .ask("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n", "Length: 5\r\n\r\n")
            .await;
        client.ask(GET, "No Content\r\n\r\n").await;
        client.ask(GET, "Length: 5\r\n\r\n").await;
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn an_old_server_is_heard_out_and_the_client_told_to_close() {
    on_stage(async {
        let server = Server::start(vec![answer("HTTP/1.0 200 OK\r\n\r\nuntil the end")]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.send(GET).await;
        assert_eq!(
            client.rest().await,
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end"
        );
        assert_eq!(stage.flags().await, "-");
    });
}

#[test]
fn old_clients_are_closed_after_or_kept_as_they_ask() {
    on_stage(async {
        let kept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";
        let server = Server::start(vec![[answer(kept), answer(kept), answer(kept)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\nX-Request-Id: 1\r\n\r\n";
        for _ in 0..2 {
            assert_eq!(
                client.ask(keep, "ok").await,
                "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
            );
        }
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(
            client.rest().await,
            "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\n\r\nok"
        );
        assert_eq!(server.connections(), 1);
        assert!(server.read()[0].contains("Connection: keep-alive\r\n"));
    });
}

#[test]
fn a_client_that_asks_to_close_is_closed_and_the_endpoint_kept() {
    on_stage(async {
        let server = Server::start(vec![[answer(OK), answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        for _ in 0..2 {
            let mut client = stage.client().await;
            client
                .send("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
                .await;
            assert_eq!(
                client.rest().await,
                "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\n\r\nok"
            );
        }
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn requests_of_one_connection_are_balanced_one_by_one() {
    on_stage(async {
        let script = || vec![[answer(OK), answer(OK), answer(OK)].concat()];
        let (one, two) = (Server::start(script()).await, Server::start(script()).await);
        let stage = Stage::new(&[one.address, two.address]);
        let mut client = stage.client().await;
        for _ in 0..6 {
            client.ask(GET, "ok").await;
        }
        assert_eq!((one.read().len(), two.read().len()), (3, 3));
        assert_eq!((one.connections(), two.connections()), (1, 1));
    });
}

#[test]
fn what_was_dialled_before_the_client_spoke_serves_its_first_request() {
    on_stage(async {
        let server = Server::start(vec![[answer(OK), answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let snapshot = stage.worker.snapshot();
        let (_, target) = snapshot.by_endpoint.get(&server.address).expect("registered");
        let dialed = Dialed {
            stream: TcpStream::connect(server.address).await.expect("listening"),
            endpoint: server.address,
            took: std::time::Duration::from_millis(3),
            lease: Some(registry::Lease::new(target.clone())),
        };
        let mut client = stage.client_with(&GET.as_bytes()[..10], Some(dialed)).await;
        assert_eq!(client.ask(&GET[10..], "ok").await, OK);
        assert_eq!(
            stage.record().await.connect,
            Some(std::time::Duration::from_millis(3))
        );
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(stage.record().await.connect, None);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_client_that_ended_its_own_direction_still_gets_its_answer() {
    on_stage(async {
        let script = vec![Act::Read("\r\n\r\n"), Act::Wait, send(OK)];
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.send(GET).await;
        client.0.shutdown().await.expect("open");
        settle().await;
        server.go_on();
        assert_eq!(client.rest().await, OK);
    });
}

#[test]
fn a_drain_tells_clients_to_close_and_ends_with_those_that_say_nothing() {
    on_stage(async {
        let script = vec![Act::Read("\r\n\r\n"), Act::Wait, send(OK)];
        let server = Server::start(vec![answer(OK), answer(OK), script, answer(OK), answer(OK)]).await;
        let stage = Stage::new(&[server.address]);
        let mut silent = stage.client().await;
        silent.ask(GET, "ok").await;
        let mut idle = stage.client().await;
        idle.ask(GET, "ok").await;
        let mut busy = stage.client().await;
        busy.send(GET).await;
        // The first connection is kept, and taken for this request; it closes, and the next is dialled.
        while server.read().len() < 3 {
            settle().await;
        }
        stage.worker.lives.drain();
        settle().await;
        // Only the one that has a request under way puts off the end.
        assert_eq!(stage.worker.lives.busy(), 1);
        let begun = stage.worker.lives.begun();
        server.go_on();
        let closing = OK.replace("\r\nContent", "\r\nconnection: close\r\nContent");
        assert_eq!(busy.rest().await, closing);
        // One that was about to speak has not lost its request.
        idle.send(GET).await;
        assert_eq!(idle.rest().await, closing);
        assert!(stage.worker.lives.begun() > begun);
        // What is captured only now has nowhere else to go.
        let mut late = stage.client().await;
        late.send(GET).await;
        assert_eq!(late.rest().await, closing);
        stage.worker.lives.cut();
        assert_eq!(silent.rest().await, "");
    });
}

#[test]
fn a_drain_that_begins_within_an_answer_closes_behind_the_next_one() {
    on_stage(async {
        let (head, rest) = OK.split_at(OK.len() - 1);
        let server = Server::start(vec![vec![
            Act::Read("\r\n\r\n"),
            send(head),
            Act::Wait,
            send(rest),
            Act::Read("\r\n\r\n"),
            send(OK),
        ]])
        .await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        assert_eq!(client.ask(GET, "\r\n\r\no").await, head);
        stage.worker.lives.drain();
        settle().await;
        server.go_on();
        assert_eq!(client.until(rest).await, rest);
        assert_eq!(stage.flags().await, "-");
        // It was not told to close, so that it may have sent the next request by now.
        client.send(GET).await;
        let closing = OK.replace("\r\nContent", "\r\nconnection: close\r\nContent");
        assert_eq!(client.rest().await, closing);
    });
}
