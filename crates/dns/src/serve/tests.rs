//! The server between real sockets: names of the mesh by UDP and TCP, all else forwarded.

use std::fs;
use std::net::UdpSocket as StdUdp;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};

use super::*;

fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn names() -> Names {
    Box::new(|name| match name {
        "nginx" => Some(Named::Addresses(vec!["10.0.0.1".parse().unwrap()])),
        "alias" => Some(Named::Alias("localhost".to_owned())),
        _ => None,
    })
}

/// A server, where it listens (UDP and TCP), and its `resolv.conf`.
fn server(resolv_conf: &str) -> (Handle, SocketAddr, SocketAddr, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), resolv_conf).unwrap();
    let datagram = StdUdp::bind("127.0.0.1:0").unwrap();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (datagram.local_addr().unwrap(), listener.local_addr().unwrap());
    let sockets = Sockets {
        datagrams: vec![datagram],
        listeners: vec![listener],
    };
    let handle = start(sockets, names(), file.path().to_owned()).unwrap();
    (handle, udp, tcp, file)
}

fn ask(to: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.connect(to).unwrap();
    socket.send(query).unwrap();
    let mut answer = vec![0; 1000];
    let length = socket.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

#[test]
fn names_of_the_mesh_are_answered() {
    let (_handle, udp, tcp, _file) = server("");
    let answer = ask(udp, &query("nginx"));
    assert_eq!(&answer[answer.len() - 4..], [10, 0, 0, 1]);
    let answer = ask(udp, &query("alias"));
    assert_eq!(&answer[answer.len() - 4..], [127, 0, 0, 1]);

    use std::io::{Read, Write};
    let mut stream = StdStream::connect(tcp).unwrap();
    for _ in 0..2 {
        let query = query("nginx");
        stream.write_all(&(query.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&query).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[answer.len() - 4..], [10, 0, 0, 1]);
    }
}

#[test]
fn nobody_to_ask_is_a_server_failure() {
    // Port 53 of an address that this machine has and nobody serves: refused at once.
    let (_handle, udp, _tcp, _file) = server("nameserver 127.77.77.77\n");
    let answer = ask(udp, &query("example.org"));
    assert_eq!(answer[3] & 0xf, 2);
}
