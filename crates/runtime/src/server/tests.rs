//! Tests of the server over real sockets: who may ask for what.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::LocalSet;

use super::*;

fn admin(changed: Rc<Cell<u32>>) -> Rc<Routes> {
    Rc::new(
        Routes::new("admin")
            .get("/things", "Show things", |request| {
                Reply::text(request.query("q").unwrap_or("all"))
            })
            .post("/things", "Change things", move |request| {
                changed.set(changed.get() + 1);
                Reply::json(request.body.clone())
            })
            .post("/stop", "Stop", |_| Reply::unavailable("no")),
    )
}

/// Sends bytes and returns the whole answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Runs a test against the routes on a TCP address and a socket file.
async fn with_servers<F: Future<Output = ()>>(
    routes: Rc<Routes>,
    test: impl FnOnce(SocketAddr, Box<Path>) -> F,
) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    LocalSet::new()
        .run_until(async {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let unix = Socket::bind(&path).unwrap();
            let pending = std::future::pending::<()>;
            let one = serve(Listener::Tcp(tcp), Rc::clone(&routes), pending());
            let two = serve(Listener::Unix(unix), routes, pending());
            tokio::select! {
                () = one => {}
                () = two => {}
                () = test(address, path.as_path().into()) => {}
            }
        })
        .await;
    assert!(!path.exists());
}

#[tokio::test]
async fn only_a_local_post_that_no_page_sent_changes_anything() {
    let changed = Rc::new(Cell::new(0));
    with_servers(admin(Rc::clone(&changed)), async |tcp, unix| {
        let post = |headers: &str| format!("POST /things HTTP/1.1\r\n{headers}content-length: 2\r\n\r\n{{}}");
        let refused = [
            "host: example.com\r\n",
            "host: 10.0.0.1:15000\r\n",
            "host: localhost.example.com\r\n",
            "host: 127.0.0.1\r\norigin: http://127.0.0.1\r\n",
            "host: localhost\r\nhost: localhost\r\n",
            "host: localhost\r\norigin: null\r\n",
            "",
        ];
        for headers in refused {
            let answer = ask(TcpStream::connect(tcp).await.unwrap(), &post(headers)).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
        }
        let answer = ask(
            UnixStream::connect(&unix).await.unwrap(),
            &post("host: x\r\norigin: x\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert_eq!(changed.get(), 0);
        for host in [
            "localhost",
            "LocalHost:15000",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:15000",
        ] {
            let answer = ask(
                TcpStream::connect(tcp).await.unwrap(),
                &post(&format!("host: {host}\r\n")),
            )
            .await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"),
                "{host}: {answer}"
            );
        }
        ask(
            UnixStream::connect(&unix).await.unwrap(),
            &post("host: whatever\r\n"),
        )
        .await;
        assert_eq!(changed.get(), 6);
    })
    .await;
}

#[tokio::test]
async fn shows_what_is_there_and_says_what_is_not() {
    with_servers(admin(Rc::default()), async |tcp, _| {
        let table = [
            ("GET /things?q=a%20b", "200 OK", "\r\n\r\na b\n"),
            ("HEAD /things", "200 OK", "\r\n\r\n"),
            (
                "GET /",
                "200 OK",
                "GET  /things  Show things\nPOST /things  Change things\n",
            ),
            (
                "GET /nothing",
                "404 Not Found",
                "there is no /nothing here.\n\nweir admin\n",
            ),
            (
                "DELETE /things",
                "405 Method Not Allowed",
                "/things takes GET, POST\n",
            ),
            ("GET /stop", "405 Method Not Allowed", "allow: POST\r\n"),
            ("POST /stop", "503 Service Unavailable", "no\n"),
        ];
        for (line, status, part) in table {
            let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let answer = ask(TcpStream::connect(tcp).await.unwrap(), &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{line}: {answer}"
            );
            assert!(answer.contains(part), "{line}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn loopback_names_only_hides_even_what_is_shown() {
    let routes = Routes::new("admin")
        .loopback_names_only()
        .get("/x", "X", |_| Reply::text("x"));
    with_servers(Rc::new(routes), async |tcp, unix| {
        let get = "GET /x HTTP/1.1\r\nhost: rebound.example\r\n\r\n";
        let answer = ask(TcpStream::connect(tcp).await.unwrap(), get).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let answer = ask(UnixStream::connect(&unix).await.unwrap(), get).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_long_body_is_refused() {
    with_servers(admin(Rc::default()), async |tcp, _| {
        let body = "x".repeat(65 << 10);
        let length = body.len();
        let request =
            format!("POST /things HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = ask(TcpStream::connect(tcp).await.unwrap(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    })
    .await;
}
