//! A change that is taken back unless somebody confirms it in time. A process of its own waits, so that it
//! outlives the shell, and the connection, from which the change was made; it is told what was there before
//! as text, and is spoken to by an abstract unix socket of the namespace.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rules::plan::PolicyRoute;
use rules::{Family, Ruleset, ipset, nft};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Backend, Error, Own, Session};

const NAME: &[u8] = b"weir-undo";
const CONFIRM: &[u8] = b"keep";
/// How long a peer may take to say or read one word.
const WORD: Duration = Duration::from_secs(5);

/// What went wrong with a confirmation.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// One is enough.
    #[error(
        "an earlier change of this namespace still waits to be confirmed: confirm it (weir init --confirm) or let its time run out"
    )]
    Waiting,
    /// There is nothing to confirm.
    #[error(
        "no change of this namespace waits to be confirmed: it has been confirmed, or undone, or none was made with --host"
    )]
    Nothing,
    /// The waiting process did not take it.
    #[error(
        "the waiting process did not take the confirmation; it takes it from the user who made the change only"
    )]
    Refused,
    /// The socket failed.
    #[error("cannot speak to the process that waits for confirmation")]
    Socket(#[from] io::Error),
    /// What was there before could not be read.
    #[error("what was there before is not readable")]
    State,
}

/// How the waiting ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The change stays.
    Confirmed,
    /// The time ran out; what was there before is there again.
    Undone,
}

/// A change that waits. See [`Pending::arm`].
#[derive(Debug)]
pub struct Pending {
    listener: UnixListener,
    before: Own,
}

impl Pending {
    /// Makes ready to wait in this process, which should be a new one: it leaves the terminal's session.
    /// `before` is what [`encode`] made of the rules before the change.
    ///
    /// # Errors
    /// [`UndoError::Waiting`] where another change waits in this namespace.
    pub fn arm(before: &str) -> Result<Self, UndoError> {
        let before = decode(before).ok_or(UndoError::State)?;
        match rustix::process::setsid() {
            // It leads a session already.
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let listener = UnixListener::bind_addr(&address()?).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => UndoError::Waiting,
            _ => error.into(),
        })?;
        Ok(Self { listener, before })
    }

    /// Waits for [`confirm`], and without it puts back what was there before.
    ///
    /// # Errors
    /// Where putting back fails.
    pub fn wait(self, within: Duration) -> Result<Ended, Error> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(mut peer) = self.confirmed_by(left) {
                // In this order: whoever confirms once more then hears that nothing waits.
                drop(self.listener);
                // A peer that is gone has confirmed all the same.
                let _ = peer.write_all(CONFIRM);
                return Ok(Ended::Confirmed);
            }
            if left.is_zero() {
                Session::open(None)?.put_back(&self.before)?;
                return Ok(Ended::Undone);
            }
        }
    }

    /// Waits for one peer; only the user who made the change, and root, is listened to.
    fn confirmed_by(&self, at_most: Duration) -> Option<UnixStream> {
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        let mut ready = [PollFd::new(&self.listener, PollFlags::IN)];
        if !matches!(poll(&mut ready, Some(&timeout)), Ok(1)) {
            return None;
        }
        let (mut peer, _) = self.listener.accept().ok()?;
        let is_trusted = rustix::net::sockopt::socket_peercred(&peer)
            .is_ok_and(|who| who.uid.is_root() || who.uid == rustix::process::geteuid());
        let mut word = [0; CONFIRM.len()];
        let said = peer
            .set_read_timeout(Some(WORD))
            .and_then(|()| peer.read_exact(&mut word));
        (is_trusted && said.is_ok() && word == CONFIRM).then_some(peer)
    }
}

/// Keeps the change that waits in the calling thread's namespace.
///
/// # Errors
/// [`UndoError::Nothing`] where none waits.
pub fn confirm() -> Result<(), UndoError> {
    let mut stream = UnixStream::connect_addr(&address()?).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => UndoError::Nothing,
        _ => error.into(),
    })?;
    stream.set_read_timeout(Some(WORD))?;
    stream.write_all(CONFIRM)?;
    let mut word = [0; CONFIRM.len()];
    stream.read_exact(&mut word).map_err(|_| UndoError::Refused)
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// Rules as text, for the process that waits.
#[must_use]
pub fn encode(own: &Own) -> String {
    let mut text = String::new();
    if own.passthrough_v6 {
        text.push_str(PASSTHROUGH);
        text.push('\0');
    }
    for PolicyRoute { family, mark, table } in &own.policy_routes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{ROUTE} {family}\n{mark} {table}\0");
    }
    for (backend, ruleset) in &own.rules {
        let rules = match backend {
            Backend::Nft => nft::transaction(&[], std::slice::from_ref(ruleset), false),
            _ => with_services(ruleset),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{backend} {}\n{rules}\0", ruleset.family);
    }
    text
}

/// The text of iptables names a set: what that holds follows, as comments.
fn with_services(ruleset: &Ruleset) -> String {
    let mut text = ruleset.to_string();
    for service in ipset::wanted(ruleset).unwrap_or_default() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{SERVICE}{service}");
    }
    text
}

fn from_text(family: Family, text: &str) -> Option<Ruleset> {
    let mut ruleset = rules::parse(family, text).ok()?;
    let services = text.lines().filter_map(|line| line.strip_prefix(SERVICE));
    let services: Vec<_> = services.map(|one| one.parse().ok()).collect::<Option<_>>()?;
    ipset::resolve(&mut ruleset, &services);
    Some(ruleset)
}

const SERVICE: &str = "# service ";

/// What stands for a back-end where a part is no rules.
const ROUTE: &str = "route";
/// The part that says that `::6` was on loopback.
const PASSTHROUGH: &str = "passthrough";

fn decode(text: &str) -> Option<Own> {
    let mut own = Own::default();
    for part in text.split('\0').filter(|part| !part.is_empty()) {
        if part == PASSTHROUGH {
            own.passthrough_v6 = true;
            continue;
        }
        let (head, rules) = part.split_once('\n')?;
        let (backend, family) = head.split_once(' ')?;
        let family = Family::ALL
            .into_iter()
            .find(|known| known.to_string() == family)?;
        if backend == ROUTE {
            let (mark, table) = rules.split_once(' ')?;
            own.policy_routes.push(PolicyRoute {
                family,
                mark: mark.parse().ok()?,
                table: table.parse().ok()?,
            });
            continue;
        }
        let backend = Backend::ALL.into_iter().find(|known| known.as_str() == backend)?;
        let ruleset = match backend {
            Backend::Nft => nft::parse(rules).pop()?,
            _ => from_text(family, rules)?,
        };
        own.rules.push((backend, ruleset));
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_text() {
        let plan = rules::plan(
            &rules::Intent::contained(vec![], None),
            &rules::Facts::fresh(&Family::ALL),
        );
        let plan = plan.unwrap();
        let of = |backend, rulesets: Vec<Ruleset>| rulesets.into_iter().map(move |one| (backend, one));
        let own: Vec<_> = of(Backend::IptablesNft, rules::render(&plan))
            .chain(of(Backend::Nft, nft::render(&plan)))
            .collect();
        assert_eq!(own.len(), 4);
        let own = Own {
            rules: own,
            policy_routes: Family::ALL
                .map(|family| PolicyRoute {
                    family,
                    mark: 1337,
                    table: 133,
                })
                .to_vec(),
            passthrough_v6: true,
        };
        assert_eq!(decode(&encode(&own)), Some(own));
        assert_eq!(decode(""), Some(Own::default()));
        assert_eq!(decode("nonsense"), None);
    }
}
