//! The server between real sockets: names of the mesh by UDP and TCP, all else forwarded to resolvers that
//! do as they are told.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};

use model::event::{Event, LookUp, Step};
use model::settings::Overrides;
use model::{Created, ObjectName, Service, ServiceKind, SessionAffinity, Update};
use registry::{Snapshot, Table};
use runtime::metrics::Metrics;
use runtime::tap::Tap;
use tokio::sync::watch;

use super::*;
use crate::Reports;
use crate::message::encode_name;

const A: u16 = 1;
const AAAA: u16 = 28;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(encode_name(name).unwrap());
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// In the namespace `mesh`: `nginx`; `many`, with a hundred addresses, and `crowd`, with 4,000; aliases.
fn snapshot() -> Arc<Snapshot> {
    let service = |name: &str, kind| {
        Update::Service(Box::new(Service {
            name: ObjectName::new("mesh", name),
            host: format!("{name}.mesh.svc.cluster.local").into(),
            kind,
            ports: Vec::new(),
            affinity: SessionAffinity::None,
            created: Created::Unknown,
            publish_not_ready: false,
            settings: Overrides::default(),
        }))
    };
    let alias = |name, to: &str| service(name, ServiceKind::ExternalName(to.into()));
    let many = (0..100).map(|last| [10, 0, 0, last].into()).collect();
    let crowd = (0..4000_u32)
        .map(|n| Ipv4Addr::from(0x0a01_0000 + n).into())
        .collect();
    let mut table = Table::new(None);
    for update in [
        service("nginx", ServiceKind::ClusterIp(vec![[10, 0, 0, 1].into()])),
        service("many", ServiceKind::ClusterIp(many)),
        service("crowd", ServiceKind::ClusterIp(crowd)),
        alias("inside", "Nginx.mesh"),
        alias("outside", "db.example.com"),
        alias("circle", "circle.mesh"),
        alias("nonsense", "a..b"),
    ] {
        table.apply(update);
    }
    table.snapshot()
}

/// A running server, where it listens, and its metrics.
struct Running {
    _handle: Handle,
    udp: SocketAddr,
    tcp: SocketAddr,
    metrics: Metrics,
    told: mpsc::Receiver<Event>,
    _file: tempfile::NamedTempFile,
}

fn start_server(resolv_conf: &str) -> Running {
    start_watched(resolv_conf, true)
}

fn start_watched(resolv_conf: &str, is_watched: bool) -> Running {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), resolv_conf).unwrap();
    let datagram = StdUdp::bind("127.0.0.1:0").unwrap();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (datagram.local_addr().unwrap(), listener.local_addr().unwrap());
    let sockets = Sockets {
        datagrams: vec![datagram],
        listeners: vec![listener],
    };
    let metrics = Metrics::default();
    let steps = Tap::default();
    let (told, _) = steps.listen(1000).unwrap();
    let config = Config {
        // The sender is gone: it stays as it is.
        snapshots: watch::channel(snapshot()).1,
        resolv_conf: file.path().to_owned(),
        ttl: None,
        mark: None,
        gives_signs: false,
        places: Places::within(usize::MAX),
        reports: Reports::new(&metrics, if is_watched { steps } else { Tap::default() }),
    };
    Running {
        _handle: start(sockets, config).unwrap(),
        udp,
        tcp,
        metrics,
        told,
        _file: file,
    }
}

fn ask(to: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.connect(to).unwrap();
    socket.send(query).unwrap();
    let mut answer = vec![0; 5000];
    let length = socket.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&(query.len() as u16).to_be_bytes(), query].concat()
}

fn read_one(stream: &mut StdStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0xf
}

#[test]
fn names_of_the_mesh_are_answered() {
    let server = start_server("");
    let answer = ask(server.udp, &query("nGinX", A));
    assert_eq!(
        answer[12..23],
        query("nGinX", A)[12..23],
        "in the case that was asked"
    );
    assert_eq!(
        answer[answer.len() - 10..],
        [0, 0, 0, 5, 0, 4, 10, 0, 0, 1],
        "for 5 s, as the settings say"
    );
    let nothing = ask(server.udp, &query("nginx", AAAA));
    assert_eq!(
        (code(&nothing), nothing[7]),
        (0, 0),
        "the name is there, without such a record"
    );
    assert_eq!(nothing[9], 1, "and for how long");
    assert!(nothing.ends_with(&[0, 0, 0, 5]));
    assert_eq!(
        code(&ask(
            server.udp,
            &query("_gone._tcp.nginx.mesh.svc.cluster.local", A)
        )),
        3
    );
    let any = ask(server.udp, &query("nginx", 255));
    assert_eq!((any[7], &any[any.len() - 4..]), (1, &[10, 0, 0, 1][..]));

    let text = server.metrics.encode();
    for line in [
        r#"weir_dns_queries_total{type="A",result="answered"} 1"#,
        r#"weir_dns_queries_total{type="A",result="missing"} 1"#,
        r#"weir_dns_queries_total{type="AAAA",result="answered"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn aliases_inside_are_followed_and_circles_end() {
    let server = start_server("");
    let answer = ask(server.udp, &query("inside", A));
    assert_eq!((code(&answer), answer[7]), (0, 2), "an alias and an address");
    assert_eq!(answer[answer.len() - 4..], [10, 0, 0, 1]);
    let alone = ask(server.udp, &query("inside", 5));
    assert_eq!(alone[7], 1);
    assert!(alone.ends_with(&encode_name("Nginx.mesh").unwrap()));
    for name in ["circle", "nonsense"] {
        assert_eq!(code(&ask(server.udp, &query(name, A))), 2, "{name}");
    }
}

#[test]
fn what_is_too_much_for_a_datagram_comes_by_tcp() {
    let server = start_server("");
    let answer = ask(server.udp, &query("many", A));
    assert!(answer.len() <= 512 && answer[2] & 2 != 0);
    let mut stream = StdStream::connect(server.tcp).unwrap();
    stream.write_all(&framed(&query("many", A))).unwrap();
    let answer = read_one(&mut stream);
    assert_eq!((answer[2] & 2, answer[7]), (0, 100));
}

#[test]
fn each_of_many_addresses_comes_first_in_turn() {
    let server = start_server("");
    let first = || {
        let query = query("many", A);
        ask(server.udp, &query)[query.len() + 12..][..4].to_vec()
    };
    let mut firsts: Vec<_> = (0..100).map(|_| first()).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 100);
}

#[test]
fn queries_of_one_stream_may_come_all_at_once() {
    let server = start_server("");
    let mut stream = StdStream::connect(server.tcp).unwrap();
    let all: Vec<u8> = (0..200_u8)
        .flat_map(|id| {
            let mut query = query("nginx", A);
            query[0] = id;
            framed(&query)
        })
        .collect();
    // Also when the client will send no more.
    stream.write_all(&all).unwrap();
    stream.shutdown(net::Shutdown::Write).unwrap();
    let mut ids: Vec<u8> = (0..200).map(|_| read_one(&mut stream)[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<u8>>());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "then it ends");
}

#[test]
fn clients_that_do_not_read_cost_others_nothing() {
    let server = start_watched("nameserver 127.77.77.77\n", false);
    let all = framed(&query("crowd", A)).repeat(200);
    let mut streams: Vec<StdStream> = (0..34).map(|_| StdStream::connect(server.tcp).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(&all).unwrap();
    }
    // What the kernel keeps for them is full when the first answers have long been sent.
    let answered = || {
        let text = server.metrics.encode();
        let line = r#"weir_dns_queries_total{type="A",result="answered"} "#;
        let count = text.lines().find_map(|metric| metric.strip_prefix(line));
        count.map_or(0, |count| count.parse::<usize>().unwrap())
    };
    while answered() < 34 * 2 {
        ask(server.udp, &query("nginx", AAAA));
    }
    for _ in 0..50 {
        assert_eq!(code(&ask(server.udp, &query("example.org", A))), 2);
    }
    // Nothing is read of them beyond what they take: 200 answers of 64 kB are more than the kernel keeps.
    assert!(answered() < 34 * 200, "all were answered into our memory");
}

#[test]
fn silent_streams_make_room_for_others() {
    let server = start_server("");
    let silent: Vec<StdStream> = (0..STREAMS_MAX)
        .map(|_| StdStream::connect(server.tcp).unwrap())
        .collect();
    let mut stream = StdStream::connect(server.tcp).unwrap();
    // Sooner than they would be closed without it.
    stream.set_read_timeout(Some(STREAM_IDLE / 2)).unwrap();
    stream.write_all(&framed(&query("nginx", A))).unwrap();
    assert_eq!(read_one(&mut stream)[7], 1);
    drop(silent);
}

#[test]
fn a_zone_is_not_transferred() {
    let server = start_server("nameserver 127.77.77.77\n");
    let mut stream = StdStream::connect(server.tcp).unwrap();
    for kind in [251, 252] {
        for name in ["example.org", "nginx"] {
            stream.write_all(&framed(&query(name, kind))).unwrap();
            assert_eq!(code(&read_one(&mut stream)), 5, "{name} {kind}");
        }
    }
}

#[test]
fn queries_that_come_all_at_once_are_all_answered() {
    const COUNT: u16 = 700;
    let server = start_watched("", false);
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.connect(server.udp).unwrap();
    netsys::sock::queue_up_to(&socket, QUEUE).unwrap();
    // It serves, and has the longer queue.
    ask(server.udp, &query("nginx", A));
    let mut ids = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut answer = [0; 512];
            let ids = (0..COUNT).map_while(|_| {
                socket.recv(&mut answer).ok()?;
                Some(u16::from_be_bytes([answer[0], answer[1]]))
            });
            ids.collect::<Vec<_>>()
        });
        let mut query = query("nginx", A);
        for id in 0..COUNT {
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query).unwrap();
        }
        reading.join().unwrap()
    });
    ids.sort_unstable();
    assert_eq!(ids, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn few_descriptors_are_not_all_for_look_ups() {
    let many = Places::within(1 << 20);
    assert_eq!((many.queries, many.streams, many.are_few()), (1000, 200, false));
    let few = Places::within(1024);
    assert!(
        few.are_few() && few.queries >= 100 && few.streams >= 25,
        "{few:?}"
    );
    assert!(few.descriptors() < 1024 * 2 / 5, "{few:?}");
    assert_eq!(
        Places::within(0),
        Places {
            queries: 1,
            streams: 1
        }
    );
}

#[test]
fn nobody_to_ask_is_a_server_failure() {
    // Port 53 of an address that this machine has and nobody serves: refused at once.
    let server = start_server("nameserver 127.77.77.77\n");
    for name in ["example.org", "outside"] {
        assert_eq!(code(&ask(server.udp, &query(name, A))), 2, "{name}");
    }
    let mut stream = StdStream::connect(server.tcp).unwrap();
    stream.write_all(&framed(&query("example.org", A))).unwrap();
    assert_eq!(code(&read_one(&mut stream)), 2);
    let counted = r#"weir_dns_upstream_failures_total{why="unreachable"} 3"#;
    let text = server.metrics.encode();
    assert!(text.contains(counted), "{text}");
}

#[test]
fn hostile_bytes_get_an_error_or_nothing_and_the_next_query_its_answer() {
    let server = start_server("nameserver 127.77.77.77\n");
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.connect(server.udp).unwrap();
    let good = query("nginx", A);
    let mut noise = good.clone();
    noise[2] |= 0x80;
    for bytes in [&good[..3], &noise[..]] {
        socket.send(bytes).unwrap();
    }
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(code(&ask(server.udp, &two)), 1);
    assert_eq!(code(&ask(server.udp, &good[..20])), 1);
    socket.send(&good).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(
        answer[length - 4..length],
        [10, 0, 0, 1],
        "the first that comes back is this"
    );
}

#[test]
fn whoever_watches_is_told_of_each_look_up() {
    let mut server = start_server("nameserver 127.77.77.77\n");
    for (name, kind) in [("nGinx", A), ("many", A), ("example.org", AAAA)] {
        ask(server.udp, &query(name, kind));
    }
    let told: Vec<LookUp> = (0..3)
        .map(|_| match server.told.blocking_recv() {
            Some(Event {
                connection: 0,
                step: Step::LookedUp(look_up),
                ..
            }) => *look_up,
            other => panic!("{other:?}"),
        })
        .collect();
    let [nginx, many, outside] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (&*nginx.name, &*nginx.kind, &*nginx.code),
        ("nginx", "A", "NOERROR")
    );
    assert_eq!(nginx.service, Some(ObjectName::new("mesh", "nginx")));
    assert_eq!(nginx.addresses, [net::IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(nginx.records, ["10.0.0.1".into()]);
    assert!(many.is_truncated && many.records_count > many.records.len());
    assert_eq!(
        (&*outside.code, &*outside.kind, &outside.service, outside.resolver),
        ("SERVFAIL", "AAAA", &None, None)
    );
}
