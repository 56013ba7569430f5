//! Detection without a time-out: on a port that declares nothing, whichever side speaks first decides.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use model::{Protocol, Settings};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::life::{Life, Signal};
use crate::sni::{self, Hello};

/// A request line longer than this is no request line; the bytes are carried as they are.
const LONGEST_LINE: usize = 16 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The methods of RFC 9110 section 9 and RFC 5789. A line that starts otherwise may be anybody's protocol.
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Who spoke first, and what.
#[derive(Debug)]
pub(crate) struct First {
    /// What is spoken; [`Protocol::Tcp`] where it is nothing known.
    pub(crate) protocol: Protocol,
    /// What the client said so far.
    pub(crate) bytes: Box<[u8]>,
    /// Whether the server spoke first.
    pub(crate) server_first: bool,
}

/// Why nobody knows what would have been spoken.
#[derive(Debug)]
pub(crate) enum Unsaid {
    /// The client's connection broke. Of the server's, the relay finds out.
    ClientBroke,
    /// Nobody said anything for too long.
    Idle,
    /// The drain's deadline passed.
    Cut,
}

/// Waits until either side speaks, ends, or breaks. Bytes of the server are left unread. A client that stops
/// within what might become an HTTP request may wait for the server: after `headerTimeout` its bytes are
/// carried as they are.
///
/// # Errors
/// Where neither will.
pub(crate) async fn detect(
    client: &mut TcpStream,
    upstream: &TcpStream,
    life: &Life,
    settings: &Settings,
) -> Result<First, Unsaid> {
    let mut bytes = Vec::new();
    let mut is_first = true;
    life.expire_in(settings.tcp_idle_timeout);
    loop {
        let client_ended = match poll_fn(|cx| {
            while let Poll::Ready(signal) = life.poll_signal(cx) {
                match signal {
                    Signal::Expired => return Poll::Ready(Spoke::Nobody),
                    Signal::Cut => return Poll::Ready(Spoke::Cut),
                    Signal::Draining | Signal::Settled => {}
                }
            }
            if let Poll::Ready(result) = poll_more(client, cx, &mut bytes) {
                return Poll::Ready(Spoke::Client(result));
            }
            // Ended or broken counts as spoken too: the relay passes it on.
            upstream.poll_read_ready(cx).map(|_| Spoke::Server)
        })
        .await
        {
            Spoke::Server => {
                return Ok(First {
                    protocol: Protocol::Tcp,
                    bytes: bytes.into(),
                    server_first: true,
                });
            }
            Spoke::Cut => return Err(Unsaid::Cut),
            Spoke::Nobody if bytes.is_empty() => return Err(Unsaid::Idle),
            Spoke::Nobody => {
                return Ok(First {
                    protocol: Protocol::Tcp,
                    bytes: bytes.into(),
                    server_first: false,
                });
            }
            Spoke::Client(read) => read.map_err(|_| Unsaid::ClientBroke)? == 0,
        };
        match classify(&bytes) {
            None if !client_ended => {
                if is_first {
                    life.expire_in(settings.header_timeout);
                    is_first = false;
                }
            }
            found => {
                let protocol = found.unwrap_or(Protocol::Tcp);
                return Ok(First {
                    protocol,
                    bytes: bytes.into(),
                    server_first: false,
                });
            }
        }
    }
}

enum Spoke {
    Client(io::Result<usize>),
    Server,
    /// In time.
    Nobody,
    Cut,
}

fn poll_more(
    client: &mut TcpStream,
    cx: &mut std::task::Context<'_>,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut block = [0; 4096];
    let mut buffer = ReadBuf::new(&mut block);
    Pin::new(client).poll_read(cx, &mut buffer).map_ok(|()| {
        bytes.extend_from_slice(buffer.filled());
        buffer.filled().len()
    })
}

/// What a client's first bytes are; `None` while more are needed.
pub(crate) fn classify(bytes: &[u8]) -> Option<Protocol> {
    if *bytes.first()? == 0x16 {
        return match (bytes.get(1), sni::server_name(bytes)) {
            (None, _) => None,
            (Some(3), Hello::Partial | Hello::Name(_)) => Some(Protocol::Tls),
            (Some(3), Hello::None) if bytes.len() < 6 || bytes[5] == 1 => Some(Protocol::Tls),
            _ => Some(Protocol::Tcp),
        };
    }
    if is_prefix_of(bytes, PREFACE) {
        return (bytes.len() >= PREFACE.len()).then_some(Protocol::Http2);
    }
    classify_line(bytes)
}

fn is_prefix_of(bytes: &[u8], whole: &[u8]) -> bool {
    let length = bytes.len().min(whole.len());
    bytes[..length] == whole[..length]
}

/// HTTP/1 is only what has a whole request line: `METHOD SP target SP HTTP/1.x`. Other protocols use
/// words like CONNECT and PUT too.
fn classify_line(bytes: &[u8]) -> Option<Protocol> {
    let is_method = METHODS
        .iter()
        .any(|method| is_prefix_of(bytes, method) && matches!(bytes.get(method.len()), None | Some(b' ')));
    if !is_method {
        return Some(Protocol::Tcp);
    }
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return (bytes.len() > LONGEST_LINE).then_some(Protocol::Tcp);
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.rsplitn(2, |&byte| byte == b' ');
    let version = words.next().unwrap_or_default();
    let has_target = words.next().is_some_and(|rest| rest.contains(&b' '));
    let is_http = has_target && version.len() == 8 && version.starts_with(b"HTTP/1.");
    Some(if is_http { Protocol::Http } else { Protocol::Tcp })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::life::Lives;

    #[test]
    fn first_bytes_say_what_is_spoken() {
        let table: [(&[u8], Option<Protocol>); 20] = [
            (b"", None),
            (b"G", None),
            (b"GET /index.html HTT", None),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"GET / HTTP/1.0\n", Some(Protocol::Http)),
            (b"GET /\r\n", Some(Protocol::Tcp)),
            (b"GET / HTTP/2.0\r\n", Some(Protocol::Tcp)),
            (b"GETX", Some(Protocol::Tcp)),
            (b"CONNECT {\"verbose\":false}\r\n", Some(Protocol::Tcp)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Tcp)),
            (b"PING\r\n", Some(Protocol::Tcp)),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\n", None),
            (PREFACE, Some(Protocol::Http2)),
            (&[0x16], None),
            (&[0x16, 3], Some(Protocol::Tls)),
            (&[0x16, 0], Some(Protocol::Tcp)),
            (&[0, 0, 0, 8], Some(Protocol::Tcp)),
        ];
        for (bytes, protocol) in table {
            assert_eq!(classify(bytes), protocol, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    /// Detection between a client that says this and a server that says nothing, and what it comes to.
    async fn detected(said: &[u8], settings: Settings, cut: bool) -> Result<First, Unsaid> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let (mut client, _) = listener.accept().await.unwrap();
        let upstream = TcpStream::connect(to).await.unwrap();
        let _server = listener.accept().await.unwrap();
        far.write_all(said).await.unwrap();
        let lives = Rc::new(Lives::new());
        let life = lives.begin();
        let sweeps = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if cut {
                    lives.cut();
                }
                lives.sweep();
            }
        };
        tokio::select! {
            found = detect(&mut client, &upstream, &life, &settings) => found,
            () = sweeps => unreachable!("it sweeps for ever"),
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_without_end() {
        let quick = Settings {
            tcp_idle_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            ..Settings::default()
        };
        assert!(matches!(
            detected(b"", quick.clone(), false).await,
            Err(Unsaid::Idle)
        ));
        let first = detected(b"G", quick, false).await.unwrap();
        assert_eq!((first.protocol, &*first.bytes), (Protocol::Tcp, &b"G"[..]));
        for said in [&b""[..], b"G"] {
            let ended = detected(said, Settings::default(), true).await;
            assert!(matches!(ended, Err(Unsaid::Cut)), "{ended:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_awaited_forever() {
        let mut line = b"GET /".to_vec();
        line.resize(LONGEST_LINE + 1, b'a');
        assert_eq!(classify(&line), Some(Protocol::Tcp));
    }
}
