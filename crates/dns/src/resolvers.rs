//! The resolvers of `resolv.conf`, and how they are to be asked. Comes in: the file, read anew where it is
//! older than a second: a laptop changes networks. Goes out: addresses in the order in which they are asked.

mod silence;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fs, io};

use model::ErrorName;

use self::silence::Silence;

const PORT: u16 = 53;
/// The C library asks no more than that.
pub(crate) const RESOLVERS_MAX: usize = 3;
/// How long clients wait for an answer where the file does not say, as in the C library.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a resolver is asked in that time where the file does not say.
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
    /// How long clients, which read the same file, wait for an answer.
    pub(crate) patience: Duration,
    /// How often a resolver is asked in that time.
    pub(crate) attempts: u32,
    /// Whether queries begin with each resolver in turn.
    is_rotating: bool,
}

/// Where the resolvers are written, and which of them are silent.
#[derive(Debug)]
pub(crate) struct Resolvers {
    file: PathBuf,
    /// When the file was looked at, and what it said last that can be used.
    read: RefCell<Option<(Instant, Option<Rc<Conf>>)>>,
    rotation: Cell<usize>,
    silence: Silence,
    /// Whether it was told that the file cannot be read.
    is_told: Cell<bool>,
}

/// Whom one query asks, and how.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The resolvers, in the order in which they are asked.
    pub(crate) order: Vec<SocketAddr>,
    /// How long its client waits.
    pub(crate) patience: Duration,
    /// How often a resolver is asked in that time.
    pub(crate) attempts: u32,
}

impl Resolvers {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: RefCell::default(),
            rotation: Cell::new(0),
            silence: Silence::default(),
            is_told: Cell::new(false),
        }
    }

    /// Those, whatever is written anywhere.
    #[cfg(test)]
    pub(crate) fn of(addresses: Vec<SocketAddr>) -> Self {
        let resolvers = Self::new(PathBuf::new());
        let conf = Conf {
            addresses,
            ..parse("")
        };
        let never = Instant::now() + Duration::from_hours(1);
        resolvers.read.replace(Some((never, Some(Rc::new(conf)))));
        resolvers
    }

    /// As they are now; none where nothing could be read yet.
    pub(crate) fn now(&self) -> Option<Turn> {
        let conf = self.conf()?;
        let mut order = conf.addresses.clone();
        if conf.is_rotating {
            let turn = self.rotation.get();
            self.rotation.set(turn.wrapping_add(1));
            order.rotate_left(turn % conf.addresses.len());
        }
        self.silence.sort(&mut order);
        Some(Turn {
            order,
            patience: conf.patience,
            attempts: conf.attempts,
        })
    }

    /// A resolver has answered.
    pub(crate) fn heard(&self, resolver: SocketAddr) {
        self.silence.heard(resolver);
    }

    /// A resolver that was asked then has not answered in the time that it should.
    pub(crate) fn silent(&self, resolver: SocketAddr, since: tokio::time::Instant) {
        self.silence.silent(resolver, since);
    }

    fn conf(&self) -> Option<Rc<Conf>> {
        let mut read = self.read.borrow_mut();
        let before = match read.take() {
            Some((at, conf)) if at.elapsed() < FRESH => {
                return read.insert((at, conf)).1.clone();
            }
            before => before.and_then(|(_, conf)| conf),
        };
        let conf = self.read_again(before);
        read.insert((Instant::now(), conf)).1.clone()
    }

    /// A file that is being written is empty or missing for a moment: what it said last holds on. One that cannot be
    /// read is told once.
    fn read_again(&self, before: Option<Rc<Conf>>) -> Option<Rc<Conf>> {
        // A file of a few lines on a local disk: not worth a thread.
        let error = match fs::read(&self.file) {
            Ok(bytes) => {
                self.is_told.set(false);
                let text = String::from_utf8_lossy(&bytes);
                return match before {
                    Some(_) if listed(&text).is_empty() => before,
                    _ => Some(Rc::new(parse(&text))),
                };
            }
            Err(error) => error,
        };
        // As for the C library.
        let without = (error.kind() == io::ErrorKind::NotFound).then(|| Rc::new(parse("")));
        if !self.is_told.replace(true) {
            let file = self.file.display();
            let holds = match (&before, &without) {
                (Some(_), _) => "what it said last holds on",
                (None, Some(_)) => "a resolver on this machine is asked",
                (None, None) => "no name outside the mesh is found, and captured look-ups go direct",
            };
            tracing::warn!(see = %ErrorName::Resolvers, %file, %error, "the file with the resolvers cannot be read; {holds}");
        }
        before.or(without)
    }
}

/// A file that is not there says nothing, as for the C library.
fn read_text(file: &Path) -> io::Result<String> {
    match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// The resolvers that a file like `/etc/resolv.conf` names. A client sends its queries to them, so it must
/// have a route there even where all its queries are captured. None where there is no such file.
#[must_use]
pub fn nameservers(resolv_conf: &Path) -> Vec<IpAddr> {
    let text = read_text(resolv_conf).unwrap_or_default();
    listed(&text).iter().map(SocketAddr::ip).collect()
}

/// What a file like `/etc/resolv.conf` says. Where there is none, what holds without.
#[must_use]
pub fn read_conf(resolv_conf: &Path) -> Conf {
    parse(&read_text(resolv_conf).unwrap_or_default())
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
        assert_eq!(of("options timeout:x attempts:\n"), (5, 2, false));
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
        let firsts: Vec<_> = (0..4).map(|_| resolvers.now().unwrap().order[0]).collect();
        let [one, two] = sockets(&["10.0.0.1:53", "10.0.0.2:53"])[..] else {
            panic!()
        };
        assert_eq!(firsts, [one, two, one, two]);
    }

    #[test]
    fn a_file_that_is_being_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let resolvers = Resolvers::new(file.clone());
        let order_now = || {
            // As if the time had passed.
            if let Some((at, _)) = &mut *resolvers.read.borrow_mut() {
                *at -= FRESH;
            }
            resolvers.now().map(|turn| turn.order)
        };
        fs::create_dir(&file).unwrap();
        assert_eq!(order_now(), None, "it cannot be read");
        fs::remove_dir(&file).unwrap();
        assert_eq!(order_now(), Some(sockets(&["127.0.0.1:53"])));
        fs::write(&file, "nameserver 10.0.0.1\n").unwrap();
        let known = Some(sockets(&["10.0.0.1:53"]));
        assert_eq!(order_now(), known);
        fs::write(&file, "search x\n").unwrap();
        assert_eq!(order_now(), known);
        fs::remove_file(&file).unwrap();
        assert_eq!(order_now(), known);
        fs::create_dir(&file).unwrap();
        assert_eq!(order_now(), known);
        fs::remove_dir(&file).unwrap();
        fs::write(&file, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(order_now(), Some(sockets(&["10.0.0.2:53"])));
    }
}
