//! Rule sets in the kernel, by the programs of iptables or by `nft`: dumped, brought to what is wanted, removed.
//! Everything acts on the network namespace of the calling thread (see [`crate::netns::Netns::run`]).

mod choice;
mod ipset;
mod lock;
mod look;
mod native;
mod nf_tables;
mod patience;
mod pieces;
mod policy;
mod program;
mod sent;
mod session;
mod step;
mod support;
mod switches;
mod table;
mod tproxy;
mod trace;
pub mod undo;

use rules::diff::{Changes, changes};
use rules::{Plan, Ruleset};

pub use self::choice::Choice;
pub use self::lock::Lock;
pub use self::look::{Seen, look};
pub use self::patience::wait_at_most;
pub use self::pieces::{Lack, Missing, lacking};
pub(crate) use self::policy::OURS as OUR_ROUTES;
pub use self::program::{Backend, Programs};
pub use self::sent::{Sent, knock};
pub use self::session::{Done, Own, Session};
pub use self::trace::{Met, Traced, trace};

/// What went wrong with the packet filter's programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not one of them could be used.
    #[error("{0}")]
    Unusable(String),
    /// A program was not there or could not be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program said no.
    #[error("{program} failed: {said}{}", advice(said))]
    Failed {
        /// Its name.
        program: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A program did not end.
    #[error(
        "{program} did not end within {seconds} s and was killed; what had been written before is taken back. Run it \
         by hand to see what it waits for, or give it more time (--wait)"
    )]
    Hung {
        /// Its name.
        program: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The dump of what is there was not understood.
    #[error(transparent)]
    Dump(#[from] rules::parse::BadDump),
    /// The program reported success, and the kernel does not hold what was written.
    #[error(
        "{program} reported success, but the kernel does not hold the rules; still to do would be:\n{missing}"
    )]
    NotHeld {
        /// Its name.
        program: String,
        /// The edits that are still needed.
        missing: String,
    },
    /// Something of ours may be there, and nothing installed shows it.
    #[error(
        "the kernel holds {what} for {family}, and {program}, which shows them, cannot be used: nothing was changed; \
         install the package iptables and try again"
    )]
    Hidden {
        /// Whose packets.
        family: rules::Family,
        /// What there is.
        what: &'static str,
        /// The program.
        program: &'static str,
    },
    /// Another process keeps changing the rules, or the lock from those who would.
    #[error(
        "another process has held the lock on the rules of this namespace (the socket @{}) for {seconds} s: {holders}; \
         wait for it, or end it, and try again",
        lock::NAME
    )]
    Busy {
        /// How long was waited.
        seconds: u64,
        /// Which, for people.
        holders: String,
    },
    /// The namespace's state could not be read.
    #[error("cannot read what the network namespace is like")]
    Facts(#[source] std::io::Error),
    /// The loopback device would not take or give `::6`.
    #[error(
        "the proxy needs ::6 on lo (set lo up, and net.ipv6.conf.lo.disable_ipv6=0, or switch IPv6 off everywhere)"
    )]
    Address(#[source] crate::netlink::Error),
    /// What is marked could not be routed to the proxy.
    #[error("TPROXY needs routes by marks (CONFIG_IP_MULTIPLE_TABLES and its like for IPv6), and lo up")]
    Policy(#[source] crate::netlink::Error),
    /// A switch of the kernel's would not be set, or put back.
    #[error("cannot set {name}={value} in this namespace: TPROXY without conntrack needs it to be writable")]
    Switch {
        /// As sysctl(8) calls it.
        name: &'static str,
        /// What it was to be.
        value: u8,
        /// Why not.
        source: std::io::Error,
    },
    /// A table that is no longer used would not go.
    #[error("cannot take away a table that Weir had made and that is empty now")]
    Table(#[source] std::io::Error),
    /// The tree of cgroups could not be shown to nft.
    #[error(
        "nft looks for cgroups of version 2 at /sys/fs/cgroup; this machine has them elsewhere, and to show them there \
         to nft alone takes CAP_SYS_ADMIN: run as root, or use --backend iptables"
    )]
    Cgroups(#[source] std::io::Error),
    /// A change failed, and so did taking it back.
    #[error("{error}; taking back what had been written failed as well ({also}): run `weir init --cleanup`")]
    HalfDone {
        /// What failed first.
        error: Box<Error>,
        /// What failed then.
        also: Box<Error>,
    },
    /// A connection that is to be traced could not be made, or the kernel not be asked of it.
    #[error("cannot trace a connection")]
    Trace(#[source] std::io::Error),
    /// The lock could not be made.
    #[error("cannot take the lock of this namespace")]
    Lock(#[source] std::io::Error),
}

/// What to do about the commonest refusals.
fn advice(said: &str) -> &'static str {
    if said.contains("ermission denied") || said.contains("not permitted") {
        "\nIt needs CAP_NET_ADMIN in the namespace (and CAP_NET_RAW for legacy iptables): run as root, \
         or give the init container these capabilities"
    } else if said.contains("does not exist") || said.contains("No chain/target/match") {
        "\nThe kernel lacks a module for it: load nf_nat, xt_REDIRECT, xt_owner, xt_comment, and for TPROXY \
         xt_TPROXY, xt_connmark, xt_mark, xt_socket, xt_CT, for cgroups xt_cgroup, for --services xt_set, \
         for DNS xt_CT, xt_mark and xt_recent (without xt_recent, --dns-fail-closed does) (modprobe), \
         or try another back-end with --backend"
    } else if said.contains("Cannot open session to kernel") || said.contains("Kernel error received") {
        "\nThe kernel lacks something of ipset: load ip_set and ip_set_hash_ipport (modprobe), or use --backend nft"
    } else if said.contains("Could not process rule") {
        "\nThe kernel lacks something of nf_tables for it: load nft_chain_nat, nft_redir, nft_reject_inet, and for TPROXY nft_tproxy, nft_socket and nft_ct, \
         for cgroups nft_socket (Linux 5.13), for DNS nft_ct and CONFIG_NF_CONNTRACK_ZONES (modprobe), or try another back-end with --backend"
    } else {
        ""
    }
}

/// Whether this process may read the rules of its namespace at all; what the programs say without that right is
/// no news of the namespace.
///
/// # Errors
/// [`Error::Facts`] without `CAP_NET_ADMIN` over it.
pub fn may_read() -> Result<(), Error> {
    match native::tables() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::Facts(error)),
        // A kernel without nf_tables has other means.
        _ => Ok(()),
    }
}

/// Writes a plan's rules into a namespace that was made just now and so has none: one program a family,
/// nothing read before or after, since nobody else is there. Answers the programs that did it,
/// IPv4 first.
///
/// # Errors
/// Where no back-end of a family is installed, or the last one that is refuses.
pub fn install_fresh(plan: &Plan) -> Result<Vec<Programs>, Error> {
    let mut refused = Error::Unusable(String::from(
        "no iptables is installed; install the package iptables",
    ));
    let mut left = rules::render(plan);
    let mut done = vec![];
    // The newer back-end first: what else a kernel has rules of does not matter in a fresh namespace.
    for backend in [Backend::IptablesNft, Backend::Iptables, Backend::IptablesLegacy] {
        // The families side by side: most of the time goes into starting the programs.
        let started: Vec<_> = std::mem::take(&mut left)
            .into_iter()
            .map(|wanted| (Programs::find(wanted.family, backend), wanted))
            .map(|(programs, wanted)| {
                let text = changes(&Ruleset::empty(wanted.family), &wanted).to_string();
                let restoring = programs.map(|programs| (programs.start_restore(&text), programs));
                (restoring, wanted)
            })
            .collect();
        for (restoring, wanted) in started {
            let Some((restoring, programs)) = restoring else {
                left.push(wanted);
                continue;
            };
            match restoring.and_then(program::Started::finish) {
                Ok(_) => done.push(programs),
                Err(error) => {
                    refused = error;
                    left.push(wanted);
                }
            }
        }
    }
    done.sort_by_key(|programs| programs.family);
    if left.is_empty() { Ok(done) } else { Err(refused) }
}

/// Makes the rules of ours in one family exactly `wanted`, in one commit a table, and looks whether they
/// are. `current` is what a dump said just now. Answers what was done.
///
/// # Errors
/// Where a program refuses (nothing has changed then), or the result is not what was written.
pub fn apply(programs: &Programs, current: &Ruleset, wanted: &Ruleset) -> Result<Changes, Error> {
    let edits = changes(current, wanted);
    if !edits.is_empty() {
        programs.restore(&edits.to_string())?;
        let missing = changes(&dump(programs)?, wanted);
        if !missing.is_empty() {
            return Err(Error::NotHeld {
                program: programs.restore_name(),
                missing: missing.to_string(),
            });
        }
    }
    Ok(edits)
}

/// Everything that the kernel holds of one family, as one back-end sees it.
///
/// # Errors
/// Where the program cannot be run, or its output is no dump.
pub fn dump(programs: &Programs) -> Result<Ruleset, Error> {
    if programs.holds_nothing() {
        return Ok(Ruleset::empty(programs.family));
    }
    let mut dump = rules::parse(programs.family, &programs.save()?)?;
    ipset::resolve(&mut dump)?;
    Ok(dump)
}
