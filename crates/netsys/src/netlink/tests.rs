//! Changes as the kernel makes them, and what it refuses.

use std::net::IpAddr;
use std::os::fd::AsFd;

use super::*;
use crate::netns::Netns;

fn inside(changes: &Changes) -> Result<(), Error> {
    Netns::create().unwrap().run(|| changes.commit()).unwrap()
}

#[test]
fn a_pair_with_addresses_and_default_routes_gives_connect_a_source() {
    let (near, far) = (LinkIndex(2), LinkIndex(3));
    let v4: IpAddr = "100.64.0.2".parse().unwrap();
    let v6: IpAddr = "fd00:77::2".parse().unwrap();
    let mut changes = Changes::new();
    changes
        .veth((near, "eth0"), (far, "weir0"))
        .address(near, v4)
        .address(near, v6)
        .route("0.0.0.0/0".parse().unwrap(), near, v4)
        .route("::/0".parse().unwrap(), near, v6);
    let sources = Netns::create()
        .unwrap()
        .run(|| {
            changes.commit().unwrap();
            [("0.0.0.0:0", "192.0.2.9:9"), ("[::]:0", "[2001:db8::9]:9")].map(|(any, to)| {
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.connect(to).unwrap();
                socket.local_addr().unwrap().ip()
            })
        })
        .unwrap();
    assert_eq!(sources, [v4, v6]);
}

#[test]
fn namespaces_on_a_bridge_reach_each_other() {
    let (switch, pods) = (
        Netns::create().unwrap(),
        [Netns::create().unwrap(), Netns::create().unwrap()],
    );
    let bridge = LinkIndex(2);
    let addresses: [IpAddr; 2] = ["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()];
    let mut plug = Changes::new();
    plug.bridge((bridge, "br0"));
    for (port, pod) in [LinkIndex(10), LinkIndex(11)].into_iter().zip(&pods) {
        plug.veth_into(
            (port, &format!("p{}", port.0)),
            (LinkIndex(2), "eth0"),
            pod.as_fd(),
        );
        plug.join(port, bridge);
    }
    switch.run(|| plug.commit().unwrap()).unwrap();
    for (pod, address) in pods.iter().zip(addresses) {
        let mut furnish = Changes::new();
        furnish.up(LinkIndex(2)).address(LinkIndex(2), address);
        furnish.route("0.0.0.0/0".parse().unwrap(), LinkIndex(2), address);
        pod.run(|| furnish.commit().unwrap()).unwrap();
    }
    let listener = pods[1]
        .run(|| std::net::TcpListener::bind((addresses[1], 0)).unwrap())
        .unwrap();
    let to = listener.local_addr().unwrap();
    let stream = pods[0].run(|| std::net::TcpStream::connect(to).unwrap()).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), addresses[0]);
}

#[test]
fn the_refused_change_is_named() {
    let mut changes = Changes::new();
    changes
        .up(LinkIndex::LOOPBACK)
        .address(LinkIndex(77), "10.0.0.1".parse().unwrap());
    let error = inside(&changes).unwrap_err();
    assert_eq!(error.to_string(), "cannot add address 10.0.0.1");
}
