//! What goes wrong on the endpoint's side, and what is tried again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::settings::{Overrides, Policy};
use model::{Direction, Settings};

use super::stage::{Act, GET, OK, Server, Stage, answer, on_stage, send, settle};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi";

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

/// Sends a request and reads to the end of the proxy's own answer, whose text ends in a line feed.
async fn ask(stage: &Stage, request: &str) -> String {
    let mut client = stage.client().await;
    client.send(request).await;
    client.until("]\n").await
}

#[test]
fn refused_connections_are_tried_elsewhere_and_eject_the_endpoint() {
    on_stage(async {
        let nobody = Server::nobody().await;
        let server = Server::start(vec![(0..20).flat_map(|_| answer(OK)).collect()]).await;
        let stage = Stage::new(&[nobody, server.address]);
        let mut client = stage.client().await;
        let mut retried = 0;
        for _ in 0..20 {
            assert_eq!(client.ask(GET, "ok").await, OK);
            retried += usize::from(stage.flags().await == "RT");
        }
        assert_eq!(retried, 3, "three refusals in a row eject");
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_refused_connection_is_safe_to_retry_whatever_the_method() {
    on_stage(async {
        let nobody = Server::nobody().await;
        let script = || vec![Act::Read("hi"), send(OK)];
        let server = Server::start(vec![[script(), script()].concat()]).await;
        let stage = Stage::new(&[nobody, server.address]);
        let mut client = stage.client().await;
        for _ in 0..2 {
            assert_eq!(client.ask(POST, "ok").await, OK);
        }
        assert!(server.read()[0].ends_with("\r\n\r\nhi"));
    });
}

#[test]
fn where_nobody_listens_the_answer_is_503() {
    on_stage(async {
        let stage = Stage::new(&[Server::nobody().await, Server::nobody().await]);
        let mut client = stage.client().await;
        client.send(GET).await;
        let got = client.until("]\n").await;
        assert_eq!(status(&got), "503", "{got}");
        assert!(!got.to_ascii_lowercase().contains("\r\nserver:"));
        let record = stage.record().await;
        assert_eq!(record.flags.to_string(), "UF,RT");
        assert_eq!(record.http.expect("parsed").tries, 2);
        // The connection stays, and there is no endpoint at all now.
        stage.set_endpoints(&[]);
        client.send(GET).await;
        assert_eq!(status(&client.until("]\n").await), "503");
        assert_eq!(stage.flags().await, "UH");
        // HEAD has no body.
        client.send("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let got = client.until("\r\n\r\n").await;
        assert_eq!(status(&got), "503");
        client.send(GET).await;
        assert_eq!(status(&client.until("]\n").await), "503");
    });
}

#[test]
fn a_connection_lost_before_the_answer_is_retried_only_where_that_is_safe() {
    on_stage(async {
        for end in [
            vec![Act::Read("\r\n\r\n"), Act::Reset],
            vec![Act::Read("\r\n\r\n")],
        ] {
            let one = Server::start(vec![end.clone()]).await;
            let two = Server::start(vec![end]).await;
            let stage = Stage::new(&[one.address, two.address]);
            // Both lose it, and the third try is one too many for them: they close at once now.
            let got = ask(&stage, GET).await;
            assert_eq!(status(&got), "503", "{got}");
            let record = stage.record().await;
            assert_eq!(record.flags.to_string(), "UC,URX,RT");
            assert_eq!(record.http.expect("parsed").tries, 3);
        }
        for (request, expected) in [(GET, "200"), (PUT, "200"), (POST, "503")] {
            let lose = || vec![Act::Read("\r\n\r\n"), Act::Reset];
            let win = || {
                vec![
                    Act::Read("\r\n\r\n"),
                    Act::Read(if request == GET { "" } else { "hi" }),
                    send(OK),
                ]
            };
            let one = Server::start(vec![lose(), win()]).await;
            let stage = Stage::new(&[one.address]);
            let mut client = stage.client().await;
            client.send(request).await;
            let got = client.until(if expected == "200" { "ok" } else { "]\n" }).await;
            assert_eq!(status(&got), expected, "{request} {got}");
        }
    });
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_nobody_a_failure() {
    on_stage(async {
        // The first closes after its answer; the second resets when it is asked again.
        for request in [GET, POST] {
            let end = if request == GET { "\r\n\r\n" } else { "hi" };
            let ok = || vec![Act::Read(end), send(OK)];
            let server = Server::start(vec![ok(), ok(), ok()]).await;
            let stage = Stage::new(&[server.address]);
            let mut client = stage.client().await;
            for _ in 0..3 {
                assert_eq!(client.ask(request, "ok").await, OK);
                assert_eq!(stage.flags().await, "-");
                settle().await;
            }
            assert_eq!(server.connections(), 3);
        }
        let server = Server::start(vec![
            [answer(OK), vec![Act::Read("\r\n\r\n"), Act::Reset]].concat(),
            answer(OK),
        ])
        .await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        for _ in 0..2 {
            assert_eq!(client.ask(GET, "ok").await, OK);
        }
        assert_eq!(stage.worker.pool.len(), 1);
    });
}

#[test]
fn a_503_is_tried_elsewhere_for_idempotent_requests_and_else_passed_on() {
    on_stage(async {
        let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
        let one = Server::start(vec![answer(busy)]).await;
        let two = Server::start(vec![answer(OK)]).await;
        let stage = Stage::new(&[one.address, two.address]);
        let mut client = stage.client().await;
        assert_eq!(client.ask(GET, "ok").await, OK);

        let one = Server::start(vec![vec![Act::Read("hi"), send(busy)]]).await;
        let stage = Stage::new(&[one.address]);
        assert_eq!(stage.client().await.ask(POST, "busy").await, busy);
        let one = Server::start(vec![answer(busy), answer(busy), answer(busy)]).await;
        let stage = Stage::new(&[one.address]);
        assert_eq!(stage.client().await.ask(GET, "busy").await, busy);
        assert_eq!(stage.record().await.http.expect("parsed").tries, 3);
    });
}

#[test]
fn a_body_is_kept_for_a_retry_up_to_its_limit() {
    on_stage(async {
        for (length, expected) in [(60_000, "200"), (200_000, "503")] {
            let body = "x".repeat(length - 3);
            let request = format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n{body}end");
            let lose = vec![Act::Read("end"), Act::Reset];
            let win = vec![Act::Read("end"), send(OK)];
            let server = Server::start(vec![lose, win]).await;
            let stage = Stage::new(&[server.address]);
            let mut client = stage.client().await;
            client.send(request).await;
            let got = client.until(if expected == "200" { "ok" } else { "]\n" }).await;
            assert_eq!(status(&got), expected);
        }
    });
}

#[test]
fn without_retries_the_first_failure_is_told() {
    on_stage(async {
        let overrides = Overrides {
            retries: Some(0),
            ..Overrides::default()
        };
        let server = Server::start(vec![vec![Act::Read("\r\n\r\n"), Act::Reset], answer(OK)]).await;
        let stage = Stage::with(&[server.address], overrides, Settings::default());
        assert_eq!(status(&ask(&stage, GET).await), "503");
        assert_eq!(stage.flags().await, "UC");
    });
}

#[test]
fn the_budget_holds_retries_back() {
    on_stage(async {
        let server = Server::start(vec![vec![Act::Read("\r\n\r\n"), Act::Reset], answer(OK)]).await;
        let stage = Stage::new(&[server.address]);
        let snapshot = stage.worker.snapshot();
        let (cluster, _) = snapshot.by_endpoint.get(&server.address).expect("registered");
        let _all: Vec<_> = std::iter::from_fn(|| registry::Retry::new(&cluster.state, 20)).collect();
        assert_eq!(status(&ask(&stage, GET).await), "503");
        assert_eq!(stage.flags().await, "UC,URB");
    });
}

#[test]
fn malformed_answers_become_502_and_close_the_endpoint() {
    on_stage(async {
        for malformed in [
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
        ] {
            let server = Server::start(vec![[answer(malformed), vec![Act::Wait]].concat()]).await;
            let stage = Stage::new(&[server.address]);
            let got = ask(&stage, GET).await;
            assert_eq!(status(&got), "502", "{malformed:?}");
            assert_eq!(stage.flags().await, "UPE", "{malformed:?}");
            assert_eq!(stage.worker.pool.len(), 0);
        }
        let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        let server = Server::start(vec![answer(&endless)]).await;
        let stage = Stage::new(&[server.address]);
        assert!(ask(&stage, GET).await.contains("HTTP/1.1 502 "));
    });
}

#[test]
fn half_a_head_is_502_and_never_retried() {
    on_stage(async {
        for end in [Act::Reset, Act::Shut] {
            let server = Server::start(vec![
                [answer("HTTP/1.1 200 OK\r\nConte"), vec![end]].concat(),
                answer(OK),
            ])
            .await;
            let stage = Stage::new(&[server.address]);
            let got = ask(&stage, GET).await;
            // A reset may overtake the half head, which is then as good as no answer.
            let record = stage.record().await;
            let tries = record.http.expect("parsed").tries;
            assert_eq!((status(&got), tries), ("502", 1), "{got}");
        }
    });
}

#[test]
fn an_answer_that_breaks_off_resets_the_client_and_is_counted_apart() {
    on_stage(async {
        let table = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
                vec![],
                "UC,CUT",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
                vec![Act::Wait, Act::Reset],
                "UC,CUT",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
                vec![],
                "UC,CUT",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                vec![],
                "UC,CUT",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                vec![Act::Wait, send("zz\r\n"), Act::Wait],
                "UPE,CUT",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                vec![Act::Wait, send("Content-Length: 5\r\n\r\n"), Act::Wait],
                "UPE,CUT",
            ),
            (
                "HTTP/1.0 200 OK\r\n\r\nabc",
                vec![Act::Wait, Act::Reset],
                "UC,CUT",
            ),
        ];
        for (sent, then, flags) in table {
            let server = Server::start(vec![[answer(sent), then].concat()]).await;
            let stage = Stage::new(&[server.address]);
            let mut client = stage.client().await;
            client.send(GET).await;
            client.until(&sent[sent.len() - 3..]).await;
            server.go_on();
            assert_eq!(client.rest_then_reset().await, "", "{sent:?}");
            let record = stage.record().await;
            assert_eq!(record.flags.to_string(), flags, "{sent:?}");
            assert_eq!(record.http.expect("parsed").tries, 1);
        }
    });
}

#[test]
fn bytes_behind_an_answer_are_never_taken_for_another() {
    on_stage(async {
        let server = Server::start(vec![
            [answer(&format!("{OK}{OK}")), vec![Act::Wait]].concat(),
            answer(OK),
        ])
        .await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(stage.worker.pool.len(), 0);
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 2);
        // The same where they come only later.
        let late = [answer(OK), vec![Act::Wait, send(OK), Act::Wait]].concat();
        let server = Server::start(vec![late, answer(OK)]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        client.ask(GET, "ok").await;
        assert_eq!(stage.worker.pool.len(), 1);
        server.go_on();
        settle().await;
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn the_sweep_closes_what_ended_and_what_left() {
    on_stage(async {
        let one = Server::start(vec![answer(OK)]).await;
        let two = Server::start(vec![[answer(OK), vec![Act::Wait]].concat()]).await;
        let stage = Stage::new(&[one.address, two.address]);
        let mut client = stage.client().await;
        client.ask(GET, "ok").await;
        client.ask(GET, "ok").await;
        settle().await;
        let sweep = || {
            stage
                .worker
                .with_snapshot(|snapshot| stage.worker.pool.sweep(snapshot, 0));
        };
        assert_eq!(stage.worker.pool.len(), 2);
        sweep();
        assert_eq!(stage.worker.pool.len(), 1, "the first has closed");
        stage.set_endpoints(&[one.address]);
        sweep();
        assert_eq!(stage.worker.pool.len(), 0, "the second has left the registry");

        let settings = Settings {
            pool_idle_timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        let server = Server::start(vec![[answer(OK), vec![Act::Wait]].concat()]).await;
        let stage = Stage::with(&[server.address], Overrides::default(), settings);
        stage.client().await.ask(GET, "ok").await;
        settle().await;
        let sweep = || {
            stage
                .worker
                .with_snapshot(|snapshot| stage.worker.pool.sweep(snapshot, 0));
        };
        for expected in [1, 1, 0] {
            sweep();
            assert_eq!(stage.worker.pool.len(), expected);
        }
    });
}

#[test]
fn time_limits_for_a_try_and_for_the_request() {
    on_stage(async {
        let slow = || vec![Act::Read("\r\n\r\n"), Act::Wait];
        let limit = |per_try, whole| Settings {
            policy: Policy {
                per_try_timeout: per_try,
                timeout: whole,
                ..Policy::default()
            },
            ..Settings::default()
        };
        let short = Some(Duration::from_millis(50));
        // One try is too slow, the next is not.
        let server = Server::start(vec![slow(), answer(OK)]).await;
        let stage = Stage::with(&[server.address], Overrides::default(), limit(short, None));
        assert_eq!(stage.client().await.ask(GET, "ok").await, OK);
        assert_eq!(stage.flags().await, "RT");
        // What must not be done twice is not.
        let server = Server::start(vec![slow(), answer(OK)]).await;
        let stage = Stage::with(&[server.address], Overrides::default(), limit(short, None));
        assert_eq!(status(&ask(&stage, POST).await), "504");
        assert_eq!(stage.flags().await, "UT");
        // The whole request is too slow.
        let server = Server::start(vec![slow(), slow()]).await;
        let stage = Stage::with(&[server.address], Overrides::default(), limit(None, short));
        assert_eq!(status(&ask(&stage, GET).await), "504");
        assert_eq!(stage.flags().await, "UT");
        // Its answer began in time, and did not end in time.
        let half = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
        let server = Server::start(vec![[half, vec![Act::Wait]].concat()]).await;
        let stage = Stage::with(&[server.address], Overrides::default(), limit(None, short));
        let mut client = stage.client().await;
        client.send(GET).await;
        assert!(client.rest_then_reset().await.ends_with("abc"));
        assert_eq!(stage.flags().await, "UT,CUT");
    });
}

#[test]
fn a_reload_keeps_pools_and_moves_requests_to_the_new_endpoints() {
    on_stage(async {
        let many = || vec![(0..10).flat_map(|_| answer(OK)).collect::<Vec<_>>()];
        let (one, two) = (Server::start(many()).await, Server::start(many()).await);
        let stage = Stage::new(&[one.address]);
        let mut client = stage.client().await;
        for _ in 0..3 {
            client.ask(GET, "ok").await;
            stage.set_endpoints(&[one.address]);
        }
        assert_eq!(one.connections(), 1);
        stage.set_endpoints(&[two.address]);
        for _ in 0..3 {
            client.ask(GET, "ok").await;
        }
        assert_eq!((one.read().len(), two.read().len()), (3, 3));
    });
}

#[test]
fn an_endpoint_that_vanished_is_found_out_and_idempotent_requests_go_elsewhere() {
    on_stage(async {
        let overrides = || Overrides {
            connect_timeout: Some(Duration::from_secs(1)),
            ..Overrides::default()
        };
        for (request, end, flags) in [(GET, "\r\n\r\n", "RT"), (POST, "hi", "UC")] {
            let ok = || vec![Act::Read(end), send(OK)];
            let cut = Server::start(vec![[ok(), vec![Act::Deaf, Act::Wait]].concat()]).await;
            let other = Server::start(vec![[ok(), ok(), ok()].concat()]).await;
            let stage = Stage::with(&[cut.address, other.address], overrides(), Settings::default());
            stage.sweep_often();
            let mut client = stage.client().await;
            for _ in 0..2 {
                client.ask(request, "ok").await;
                assert_eq!(stage.flags().await, "-");
            }
            settle().await;
            // Both connections are kept. On one nothing refuses, nothing answers, nothing acknowledges.
            let lost = if flags == "RT" { "200" } else { "503" };
            let mut found_out = 0;
            for _ in 0..2 {
                let mut client = stage.client().await;
                client
                    .send(request.replace("\r\nHost", "\r\nConnection: close\r\nHost"))
                    .await;
                let got = client.rest().await;
                match stage.flags().await.as_str() {
                    "-" => assert_eq!(status(&got), "200"),
                    seen => {
                        assert_eq!((seen, status(&got)), (flags, lost));
                        found_out += 1;
                    }
                }
            }
            assert!(found_out > 0, "one of two turns is the cut one's");
        }
    });
}

#[test]
fn an_endpoint_that_is_only_slow_is_waited_for() {
    on_stage(async {
        let overrides = Overrides {
            connect_timeout: Some(Duration::from_millis(10)),
            ..Overrides::default()
        };
        let server = Server::start(vec![vec![Act::Read("\r\n\r\n"), Act::Wait, send(OK)]]).await;
        let stage = Stage::with(&[server.address], overrides, Settings::default());
        stage.sweep_often();
        let mut client = stage.client().await;
        client.send(GET).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        server.go_on();
        assert_eq!(client.until("ok").await, OK);
        assert_eq!(stage.flags().await, "-");
    });
}

#[test]
fn a_service_that_took_over_the_address_answers_the_next_request() {
    on_stage(async {
        let old = Server::start(vec![[answer(OK), answer(OK), vec![Act::Wait]].concat()]).await;
        let new = Server::start(vec![answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")]).await;
        let stage = Stage::new(&[old.address]);
        let mut client = stage.client().await;
        client.ask(GET, "ok").await;
        stage.replace_service(&[new.address]);
        client.send(GET).await;
        let answer = client.rest().await;
        assert!(
            answer.contains("connection: close") && answer.ends_with("new"),
            "{answer}"
        );
        assert_eq!(old.read().len(), 1);

        // None took over.
        let mut client = stage.client().await;
        client.send("GET ").await;
        stage.remove_service();
        client.send("/ HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!(
            (stage.flags().await, stage.flags().await),
            ("-".into(), "-".into())
        );
        assert_eq!(stage.flags().await, "NR");
    });
}

/// Sockets of a proxy that lacks what it takes to make one: the error number.
struct NoneLeft(i32);

impl crate::config::Sockets for NoneLeft {
    fn towards(&self, _: Direction, _: SocketAddr, _: IpAddr) -> std::io::Result<socket2::Socket> {
        Err(std::io::Error::from_raw_os_error(self.0))
    }
}

#[test]
fn what_the_proxy_lacks_is_no_fault_of_the_endpoint() {
    // Descriptors; ports of a client's address, and towards one endpoint.
    for lack in [libc::EMFILE, libc::EADDRINUSE, libc::EADDRNOTAVAIL] {
        on_stage(async move {
            let server = Server::start(vec![]).await;
            let mut stage = Stage::new(&[server.address]);
            std::rc::Rc::get_mut(&mut stage.worker)
                .expect("nobody else has it")
                .sockets = std::sync::Arc::new(NoneLeft(lack));
            for _ in 0..5 {
                let answer = ask(&stage, GET).await;
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                let record = stage.record().await;
                assert_eq!(
                    (record.flags.to_string(), record.http.expect("parsed").tries),
                    ("OV".to_owned(), 1),
                    "error {lack}"
                );
            }
            let ejected = stage.worker.with_snapshot(|snapshot| {
                let (_, target) = snapshot.by_endpoint.get(&server.address).expect("it is there");
                target.state.is_ejected(stage.worker.now())
            });
            assert!(!ejected, "error {lack}");
        });
    }
}
