//! What takes a kernel in a state that a test cannot bring about, and what a file of rules cannot tell.

use std::io;
use std::net::{IpAddr, SocketAddr};

use model::Direction;
use netsys::conntrack::Usage;
use netsys::route_to::{self, Route};
use netsys::socket_table::Listener;
use rules::evaluate::{AddressKind, Ground};
use rules::ruleset::IpProtocol;
use rules::{Facts, Family, Flags, dumps, plan};

use super::{Client, Explanation, Mesh, Network, Outcome, Question, Rules, Side, explain};

/// A pod with a proxy, and so many connections known.
struct Pod {
    entries: u64,
    listens: Option<&'static str>,
}

impl Ground for Pod {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        AddressKind::everywhere(address).or(Some(AddressKind::Unicast))
    }

    fn device(&self, _: IpAddr) -> Option<String> {
        Some("eth0".to_owned())
    }
}

impl Network for Pod {
    fn route(&self, question: route_to::Question) -> io::Result<Route> {
        match question.to {
            IpAddr::V4(_) => Ok(Route {
                device: "eth0".to_owned(),
                source: "10.1.0.9".parse().ok(),
                gateway: None,
                is_local: false,
                is_broadcast: false,
            }),
            IpAddr::V6(_) => Err(io::ErrorKind::NetworkUnreachable.into()),
        }
    }

    fn listeners(&self, _: IpProtocol) -> Option<Vec<Listener>> {
        let address = self.listens?.parse().ok()?;
        Some(vec![Listener {
            address,
            only_v6: false,
            uid: 1337,
            inode: 1,
        }])
    }

    fn conntrack(&self) -> Option<Usage> {
        Some(Usage {
            entries: self.entries,
            limit: 1000,
        })
    }
}

fn ask(pod: &Pod, to: &str) -> Explanation {
    let flags = Flags {
        sidecar: true,
        ..Flags::default()
    };
    let plan = plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap();
    let text: String = rules::render(&plan).iter().map(ToString::to_string).collect();
    let rules = Rules {
        installed: dumps::read(&text, Family::V4).unwrap(),
        ..Rules::default()
    };
    let to: SocketAddr = to.parse().unwrap();
    let question = Question {
        host: to.ip().to_string(),
        to,
        protocol: IpProtocol::Tcp,
        direction: Direction::Outbound,
        client: Client {
            uid: 1000,
            gid: 1000,
            ..Client::default()
        },
    };
    explain(&question, &rules, pod, &unknown())
}

fn unknown() -> Mesh {
    Mesh::Unknown {
        why: String::from("nobody tells"),
        fix: "ask somebody",
    }
}

#[test]
fn what_the_namespace_is_like_decides_too() {
    let proxy = Some("0.0.0.0:15001");
    let pod = |entries, listens| Pod { entries, listens };
    for (pod, to, outcome, side, says) in [
        (
            pod(989, proxy),
            "10.96.0.1:80",
            Outcome::Unknown,
            Some(Side::Registry),
            "what the proxy then does is not known: nobody tells",
        ),
        (
            pod(1000, proxy),
            "10.96.0.1:80",
            Outcome::Fails,
            Some(Side::Rules),
            "conntrack has 1000 of at most 1000 entries",
        ),
        (
            pod(1, Some("0.0.0.0:80")),
            "10.96.0.1:80",
            Outcome::Fails,
            Some(Side::Proxy),
            "it is dead, or not started",
        ),
        (
            pod(1, None),
            "10.96.0.1:80",
            Outcome::Unknown,
            Some(Side::Registry),
            "what the proxy then does is not known: nobody tells",
        ),
        (
            pod(1, proxy),
            "[fd00::1]:80",
            Outcome::Fails,
            Some(Side::Client),
            "there is no route to fd00::1",
        ),
    ] {
        let told = ask(&pod, to);
        let finding = told.finding.as_ref();
        let said = finding.map_or(told.headline.as_str(), |finding| finding.what.as_str());
        assert_eq!(
            (told.outcome, finding.map(|finding| finding.side)),
            (outcome, side),
            "{said}"
        );
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn what_could_not_be_read_leaves_it_open() {
    let hidden = Rules {
        hidden: vec!["the kernel holds legacy tables, and iptables-legacy is not installed".to_owned()],
        ..Rules::default()
    };
    let pod = Pod {
        entries: 0,
        listens: None,
    };
    let to = "10.96.0.1:80".parse().unwrap();
    let question = Question {
        host: "10.96.0.1".to_owned(),
        to,
        protocol: IpProtocol::Tcp,
        direction: Direction::Outbound,
        client: Client::default(),
    };
    let told = explain(&question, &hidden, &pod, &unknown());
    assert_eq!(told.outcome, Outcome::Unknown);
    assert_eq!(told.remarks[0], hidden.hidden[0]);
}
