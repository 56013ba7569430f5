//! Where Weir's rules are there already: whether the proxy that they lead to is, whether it answers, and whether
//! they know it when they see it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use model::{ErrorName, Severity, ports};
use netsys::socket_table::{Listener, listeners};
use rules::Family;
use rules::intent::{Proxy, Signs};
use rules::ruleset::IpProtocol;

use super::ground::Ground;
use super::processes::Found;
use super::{Finding, Report};

/// How long a proxy that lives may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much as is read of what it says.
const ANSWER_MAX: u64 = 4096;

pub(super) fn look(ground: &Ground, report: &mut Report) {
    if !ground.has_rules {
        return;
    }
    let Ok(listeners) = listeners(IpProtocol::Tcp) else {
        // Said where the ports are looked at.
        return;
    };
    let wanted = [ground.intent.outbound.to_port, ground.intent.inbound.to_port];
    let missing = missing(&wanted, &ground.families(), &listeners);
    let is_missing = !missing.is_empty();
    report.findings.extend(missing);
    let Proxy::Inside(signs) = &ground.intent.proxy else {
        return;
    };
    report.findings.extend(strangers(signs, &ground.processes.found));
    if is_missing {
        return;
    }
    match health() {
        Health::Ready => report.looked("the proxy", String::from("it says that it is ready")),
        Health::Says(text) => report.findings.push(unready(&text)),
        Health::Silent => report.findings.push(silent()),
        Health::Unknown(error) => report.skipped(
            "the proxy",
            format!("port {} says nothing of its health: {error}", ports::HEALTH),
        ),
    }
}

/// The ports, of each family, on which nobody listens.
fn missing(wanted: &[u16], families: &[Family], listeners: &[Listener]) -> Vec<Finding> {
    let hears = |family: Family, port: u16| {
        listeners.iter().any(|listener| {
            let is_of = Family::of(listener.address.ip()) == family;
            let ip = listener.address.ip();
            let takes_both = ip.is_ipv6() && ip.is_unspecified() && !listener.only_v6;
            listener.address.port() == port && (is_of || takes_both)
        })
    };
    let mut found = vec![];
    for port in wanted {
        let deaf: Vec<_> = families.iter().filter(|family| !hears(**family, *port)).collect();
        if deaf.is_empty() {
            continue;
        }
        let of = match deaf.len() == families.len() {
            true => String::new(),
            false => format!(
                " for {}",
                deaf.iter()
                    .map(|family| family.to_string())
                    .collect::<Vec<_>>()
                    .join(" and ")
            ),
        };
        found.push(Finding {
            severity: Severity::Error,
            name: ErrorName::NoProxy,
            subject: format!("port {port}"),
            found: format!("Weir's rules lead there, and nobody listens{of}"),
            why: String::from("every connection that is captured is refused"),
            fix: String::from(
                "start the proxy (weir proxy), and see in its log why it ended; or take the rules out: weir init --cleanup",
            ),
        });
    }
    found
}

/// Proxies that the rules do not know: their own connections would be captured, and come back to them.
fn strangers(signs: &Signs, found: &[Found]) -> Vec<Finding> {
    let by_ids_alone = signs.marks.is_empty() && signs.class_ids.is_empty() && signs.cgroups.is_empty();
    let knows = |process: &Found| signs.uids.contains(&process.uid) || signs.gids.contains(&process.gid);
    let strangers = found
        .iter()
        .filter(|process| by_ids_alone && process.is_proxy && !knows(process));
    let finding = |process: &Found| Finding {
        severity: Severity::Error,
        name: ErrorName::Loop,
        subject: format!("pid {}", process.pid),
        found: format!(
            "{} runs as user {} and group {}, and the rules know the proxy by {}",
            process.name,
            process.uid,
            process.gid,
            words(signs)
        ),
        why: String::from(
            "what it sends is captured like any other's and comes back to it: no connection gets out",
        ),
        fix: String::from("run it as that user; or give weir init the user that it runs as (-u)"),
    };
    strangers.map(finding).collect()
}

fn words(signs: &Signs) -> String {
    let uids = signs.uids.iter().map(|uid| format!("user {uid}"));
    let gids = signs.gids.iter().map(|gid| format!("group {gid}"));
    uids.chain(gids).collect::<Vec<_>>().join(" or ")
}

/// What the proxy says of itself.
enum Health {
    Ready,
    /// What it lacks.
    Says(String),
    /// It takes the connection, and says nothing.
    Silent,
    Unknown(io::Error),
}

fn health() -> Health {
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => Health::Ready,
        Ok(answer) => {
            let (_, body) = answer.split_once("\r\n\r\n").unwrap_or(("", &answer));
            Health::Says(body.trim().to_owned())
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Health::Silent
        }
        Err(error) => Health::Unknown(error),
    }
}

fn ask() -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::HEALTH));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![];
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn unready(text: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        name: ErrorName::NoProxy,
        subject: String::from("the proxy"),
        found: format!("it says that it is not ready: {text}"),
        why: String::from("it does not serve yet, or not any more"),
        fix: String::from("see its log"),
    }
}

fn silent() -> Finding {
    Finding {
        severity: Severity::Error,
        name: ErrorName::NoProxy,
        subject: String::from("the proxy"),
        found: format!("it listens, and said nothing within {} s", PATIENCE.as_secs()),
        why: String::from(
            "what is captured is accepted by the kernel and then waits: clients hang until they time out",
        ),
        fix: String::from(
            "see whether it is stopped (SIGSTOP, a debugger) or out of processor time; end it and start it anew",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, only_v6: bool) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            only_v6,
            uid: 1337,
            inode: 1,
        }
    }

    #[test]
    fn a_port_is_heard_by_a_listener_of_the_family_or_of_both() {
        let found = |listeners: &[Listener]| {
            let found = missing(&[15001], &Family::ALL, listeners);
            found.into_iter().map(|finding| finding.found).collect::<Vec<_>>()
        };
        let (v4, v6) = (listener("0.0.0.0:15001", false), listener("[::]:15001", true));
        assert!(found(&[v4, v6]).is_empty());
        assert!(found(&[listener("[::]:15001", false)]).is_empty());
        assert!(found(&[v4])[0].ends_with("for IPv6"), "{:?}", found(&[v4]));
        assert!(found(&[v6])[0].ends_with("for IPv4"));
        assert!(found(&[listener("0.0.0.0:15006", false)])[0].ends_with("nobody listens"));
    }

    #[test]
    fn a_proxy_of_another_user_is_none_that_rules_by_users_know() {
        let proxy = Found {
            pid: 7,
            name: "weir".to_owned(),
            uid: 0,
            gid: 0,
            is_proxy: true,
        };
        let signs = Signs {
            uids: vec![1337],
            gids: vec![1337],
            ..Signs::default()
        };
        let found = strangers(&signs, std::slice::from_ref(&proxy));
        assert!(found[0].found.contains("user 0 and group 0"), "{found:?}");
        let known = Found {
            gid: 1337,
            ..proxy.clone()
        };
        assert!(strangers(&signs, &[known]).is_empty());
        let other = Found {
            is_proxy: false,
            ..proxy
        };
        assert!(strangers(&signs, &[other]).is_empty());
    }
}
