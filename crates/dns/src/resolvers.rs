//! The resolvers of `resolv.conf`, and how they are to be asked. Comes in: the file, read anew where it is
//! older than a second: a laptop changes networks. Goes out: addresses in the order in which they are asked.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use model::ErrorName;

const PORT: u16 = 53;
/// The C library asks no more than that.
const RESOLVERS_MAX: usize = 3;
/// How long one resolver is waited for where the file does not say. The C library waits 5 s, and it is what
/// asks us: the second resolver must have answered before it gives up.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each is asked where the file does not say, as in the C library.
const ATTEMPTS: u32 = 2;
/// How long what was read holds.
const FRESH: Duration = Duration::from_secs(1);

/// What a `resolv.conf` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conf {
    /// The resolvers, in the order in which they are asked.
    pub addresses: Vec<SocketAddr>,
    /// Domains that clients try a short name in.
    pub search: Vec<String>,
    /// Names with so many dots are tried as they are first.
    pub ndots: u32,
    /// How long one resolver is waited for.
    pub(crate) patience: Duration,
    /// How often each resolver is asked.
    pub(crate) attempts: u32,
    /// Whether queries begin with each resolver in turn.
    is_rotating: bool,
}

/// Where the resolvers are written.
#[derive(Debug)]
pub(crate) struct Resolvers {
    file: PathBuf,
    read: RefCell<Option<(Instant, Rc<Conf>)>>,
    turn: Cell<usize>,
    /// Whether it was told that the file cannot be read.
    is_told: Cell<bool>,
}

impl Resolvers {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: RefCell::default(),
            turn: Cell::new(0),
            is_told: Cell::new(false),
        }
    }

    /// As they are now, and which of them is first this time.
    pub(crate) fn now(&self) -> (Rc<Conf>, usize) {
        let fresh = match &*self.read.borrow() {
            Some((at, conf)) if at.elapsed() < FRESH => Some(Rc::clone(conf)),
            _ => None,
        };
        let conf = fresh.unwrap_or_else(|| {
            // A file of a few lines on a local disk: not worth a thread.
            let conf = self.read();
            *self.read.borrow_mut() = Some((Instant::now(), Rc::clone(&conf)));
            conf
        });
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let first = if conf.is_rotating {
            turn % conf.addresses.len()
        } else {
            0
        };
        (conf, first)
    }
}

impl Resolvers {
    /// What the file says. One that has gone is told once, and what it said last holds on: it may be about to be
    /// written anew.
    fn read(&self) -> Rc<Conf> {
        let error = match fs::read_to_string(&self.file) {
            Ok(text) => {
                self.is_told.set(false);
                return Rc::new(parse(&text));
            }
            Err(error) => error,
        };
        let last = self.read.borrow().as_ref().map(|(_, conf)| Rc::clone(conf));
        if !self.is_told.replace(true) {
            let file = self.file.display();
            let holds = last.as_ref().map_or(
                "a resolver on this machine is asked",
                |_| "what it said last holds on",
            );
            tracing::warn!(see = %ErrorName::Resolvers, %file, %error, "the file with the resolvers cannot be read; {holds}");
        }
        last.unwrap_or_else(|| Rc::new(parse("")))
    }
}

/// The resolvers that a file like `/etc/resolv.conf` names. A client sends its queries to them, so it must
/// have a route there even where all its queries are captured. None where there is no such file.
#[must_use]
pub fn nameservers(resolv_conf: &Path) -> Vec<IpAddr> {
    let text = fs::read_to_string(resolv_conf).unwrap_or_default();
    listed(&text).iter().map(SocketAddr::ip).collect()
}

/// What a file like `/etc/resolv.conf` says. Where there is none, what holds without.
#[must_use]
pub fn read_conf(resolv_conf: &Path) -> Conf {
    parse(&fs::read_to_string(resolv_conf).unwrap_or_default())
}

/// Without any resolver it is the one on this machine, as for the C library.
fn parse(text: &str) -> Conf {
    let mut addresses = listed(text);
    addresses.truncate(RESOLVERS_MAX);
    if addresses.is_empty() {
        addresses.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    let mut conf = Conf {
        addresses,
        search: search(text),
        ndots: 1,
        patience: PATIENCE,
        attempts: ATTEMPTS,
        is_rotating: false,
    };
    let options = lines(text, "options").flat_map(str::split_whitespace);
    for option in options {
        // The bounds are those of resolv.conf(5).
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds) = seconds.parse::<u64>() {
                    conf.patience = Duration::from_secs(seconds.clamp(1, 30));
                }
            }
            Some(("attempts", count)) => {
                if let Ok(count) = count.parse::<u32>() {
                    conf.attempts = count.clamp(1, 5);
                }
            }
            Some(("ndots", count)) => {
                if let Ok(count) = count.parse::<u32>() {
                    conf.ndots = count.min(15);
                }
            }
            None if option == "rotate" => conf.is_rotating = true,
            _ => {}
        }
    }
    conf
}

/// What stands behind this keyword, line by line.
fn lines<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(keyword))
        .filter(|rest| rest.starts_with([' ', '\t']))
}

/// Of the lines `search` and `domain` the last counts.
fn search(text: &str) -> Vec<String> {
    let named = |line: &str| {
        ["search", "domain"]
            .iter()
            .any(|word| lines(line, word).next().is_some())
    };
    let last = text.lines().rfind(|line| named(line)).unwrap_or_default();
    let domains = last.split_whitespace().skip(1);
    domains
        .map(|domain| domain.trim_end_matches('.').to_ascii_lowercase())
        .collect()
}

/// The `nameserver` lines.
fn listed(text: &str) -> Vec<SocketAddr> {
    lines(text, "nameserver")
        .filter_map(|rest| address(rest.split_whitespace().next()?))
        .collect()
}

/// An address, with a zone where it is of one link alone: `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let index = zone.parse().ok().or_else(|| netsys::links::index_of(zone).ok())?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn resolvers_are_read_in_order() {
        let text = "# c\nsearch x\nnameserver 10.0.0.1\n nameserver\t::1 # that one\nnameservers 1.1.1.1\n\
                    nameserver fe80::1%lo\nnameserver fe80::1%nosuchlink\n";
        let conf = parse(text);
        assert_eq!(
            conf.addresses,
            sockets(&["10.0.0.1:53", "[::1]:53", "[fe80::1%1]:53"])
        );
        assert_eq!(
            (conf.patience, conf.attempts, conf.is_rotating),
            (PATIENCE, ATTEMPTS, false)
        );
        assert_eq!(parse("").addresses, sockets(&["127.0.0.1:53"]));
        assert_eq!(
            parse("nameserver fe80::1%7").addresses,
            sockets(&["[fe80::1%7]:53"])
        );
    }

    #[test]
    fn options_are_kept_within_bounds() {
        let of = |text| {
            let conf = parse(text);
            (conf.patience.as_secs(), conf.attempts, conf.is_rotating)
        };
        assert_eq!(of("options ndots:5 timeout:1 attempts:3 rotate\n"), (1, 3, true));
        assert_eq!(of("options timeout:99 attempts:99\n"), (30, 5, false));
        assert_eq!(of("options timeout:0 attempts:0\n"), (1, 1, false));
        assert_eq!(of("options timeout:x attempts:\n"), (2, 2, false));
        assert_eq!(of("options timeout:7\noptions attempts:1\n"), (7, 1, false));
    }

    #[test]
    fn the_last_search_list_counts() {
        let of = |text| {
            let conf = parse(text);
            (conf.search.join(" "), conf.ndots)
        };
        let kubernetes = "search mesh.svc.cluster.local svc.cluster.local. Cluster.local\noptions ndots:5\n";
        assert_eq!(
            of(kubernetes),
            (
                "mesh.svc.cluster.local svc.cluster.local cluster.local".to_owned(),
                5
            )
        );
        assert_eq!(of("search a b\ndomain c\n"), ("c".to_owned(), 1));
        assert_eq!(of("searching a\noptions ndots:99\n"), (String::new(), 15));
    }

    #[test]
    fn each_is_first_in_turn_where_the_file_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions rotate\n",
        )
        .unwrap();
        let resolvers = Resolvers::new(file.path().to_owned());
        let firsts: Vec<usize> = (0..4).map(|_| resolvers.now().1).collect();
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn a_file_that_has_gone_holds_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 10.0.0.1\n").unwrap();
        let resolvers = Resolvers::new(file.path().to_owned());
        assert_eq!(resolvers.now().0.addresses, sockets(&["10.0.0.1:53"]));
        file.close().unwrap();
        assert_eq!(resolvers.read().addresses, sockets(&["10.0.0.1:53"]));
        assert!(resolvers.is_told.get());
        let never = Resolvers::new(PathBuf::from("/nope"));
        assert_eq!(never.now().0.addresses, sockets(&["127.0.0.1:53"]));
    }
}
