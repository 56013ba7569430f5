//! Connections that leave HTTP: WebSocket and CONNECT.

use super::stage::{Act, GET, OK, Server, Stage, answer, on_stage, send};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn an_upgrade_becomes_a_tunnel_with_what_was_read_already() {
    on_stage(async {
        let script = vec![
            Act::Read("\r\n\r\n"),
            send(&format!("{SWITCHED}hello")),
            Act::Read("earlyping"),
            send("pong"),
        ];
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        // What follows the request before the switch is held back until then.
        client.send(format!("{UPGRADE}early")).await;
        let got = client.until("hello").await;
        assert_eq!(got, format!("{SWITCHED}hello"));
        assert_eq!(client.ask("ping", "pong").await, "pong");
        drop(client);
        let record = stage.record().await;
        assert_eq!(record.http.expect("parsed").status, 101);
    });
}

#[test]
fn an_upgrade_that_is_declined_is_a_request_like_any() {
    on_stage(async {
        let server = Server::start(vec![[answer(OK), answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        assert_eq!(client.ask(UPGRADE, "ok").await, OK);
        assert_eq!(client.ask(GET, "ok").await, OK);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn connect_becomes_a_tunnel_to_the_chosen_endpoint() {
    on_stage(async {
        let script = vec![
            Act::Read("\r\n\r\n"),
            send("HTTP/1.1 200 Yes\r\n\r\n"),
            Act::Read("ping"),
            send("pong"),
            Act::ReadAll,
        ];
        let server = Server::start(vec![script]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        let connect = "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\nX-Request-Id: 1\r\n\r\n";
        assert_eq!(client.ask(connect, "\r\n\r\n").await, "HTTP/1.1 200 Yes\r\n\r\n");
        assert_eq!(client.ask("ping", "pong").await, "pong");
        assert_eq!(server.read()[0], connect);
        drop(client);
        let record = stage.record().await;
        let http = record.http.expect("parsed");
        assert_eq!(
            (&*http.method, http.status, &*http.authority),
            ("CONNECT", 200, "web:443")
        );
        assert_eq!((record.bytes_received, record.bytes_sent), (4, 4));
    });
}

#[test]
fn connect_that_is_refused_leaves_the_connection_http() {
    on_stage(async {
        let no = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
        let server = Server::start(vec![[answer(no), answer(OK)].concat()]).await;
        let stage = Stage::new(&[server.address]);
        let mut client = stage.client().await;
        assert_eq!(
            client
                .ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "\r\n\r\n")
                .await,
            no
        );
        assert_eq!(client.ask(GET, "ok").await, OK);
    });
}
