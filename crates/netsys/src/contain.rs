//! A command in a network namespace of its own, without root. [`start`] forks the process that makes the
//! namespaces; [`Started::furnish`] gives them their network and sockets, which it passes out;
//! [`Contained::installed`] waits for the rules, [`Installed::release`] runs the command; [`Running::follow`] lives its life (signals, stops, exit).
//!
//! Four processes: the caller, the *keeper* (its child, which made the namespaces and reaps everything
//! in them), the *porter* (the keeper's child, which makes sockets in them for the caller) and the command.
//! The command has the caller's uid and no privilege. When the caller goes, by whatever signal, the keeper
//! ends every process that the command left behind, and the namespaces go too.

mod inside;
mod keep;
mod porter;
mod signals;
mod wiring;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use rustix::process::{Pid, WaitOptions};

use crate::fdpass::{self, Channel};
use crate::sys;

pub use keep::Ended;
pub use porter::Porter;
pub use signals::Signals;

/// What is to be prepared.
pub struct Plan<'a> {
    /// Program and arguments. A program without a slash is looked for in `PATH`.
    pub command: Vec<OsString>,
    /// Sockets to be made inside. IPv6 ones are left out where the kernel has no IPv6.
    pub sockets: Vec<Wanted>,
    /// Files put over others in the command's view: (what, over what). One whose place does not exist is left out.
    pub over: Vec<(PathBuf, PathBuf)>,
    /// Runs inside, with the right to change the namespace's network, also for programs it starts.
    /// Its answer comes out of [`Contained::installed`], its error as [`Error::Step`].
    pub install: &'a Install<'a>,
    /// A file to be removed where the caller goes without having done so itself.
    pub litter: Option<PathBuf>,
}

/// Those of nscd, and of systemd-resolved, which nss-resolve asks.
const NAME_SERVICES: [&str; 3] = [
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
];

/// Installs the rules of a namespace that has its addresses.
pub type Install<'a> = dyn Fn(&Network, Families) -> Result<String, String> + 'a;

/// The address families that the kernel speaks inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// Both.
    Both,
}

/// A socket to be made inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A TCP listener.
    Listener(SocketAddr),
    /// A UDP socket.
    Datagram(SocketAddr),
}

/// Why there is no contained command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, or a policy on it, refuses user namespaces.
    #[error(
        "this machine does not allow a user namespace ({0})\n  \
         Weir needs one to make networks of its own without root. Any one of these helps:\n  \
         - Ubuntu 23.10 and later: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0\n  \
         - Debian 10 and earlier: sudo sysctl kernel.unprivileged_userns_clone=1\n  \
         - user.max_user_namespaces is 0: sudo sysctl user.max_user_namespaces=10000\n  \
         - in a container: start it with --security-opt seccomp=unconfined, or with --privileged\n  \
         - or run weir as root"
    )]
    UserNamespace(String),
    /// A step of the preparation failed inside.
    #[error("cannot prepare the command's network: {0}")]
    Step(String),
    /// The process that prepares went away.
    #[error("the process that prepares the command's network ended without a word")]
    Gone,
    /// Forking or talking to the child failed.
    #[error("cannot start the process that prepares the command's network")]
    Io(#[from] io::Error),
}

/// The namespaces are being made. Dropped, they go.
#[derive(Debug)]
pub struct Started {
    // In this order: the keeper goes when the channel closes, and is waited for then.
    channel: Channel,
    porter: Porter,
    keeper: Keeper,
}

/// Complete, and waiting. Dropped, it goes without having run the command.
#[derive(Debug)]
pub struct Installed {
    // In this order: see [`Started`].
    channel: Channel,
    keeper: Keeper,
}

/// Furnished, its rules being installed. Dropped, it goes without having run the command.
#[derive(Debug)]
pub struct Contained {
    // In this order: see [`Started`].
    channel: Channel,
    keeper: Keeper,
    /// The listeners that were asked for, in order.
    pub listeners: Vec<TcpListener>,
    /// The UDP sockets that were asked for, in order.
    pub datagrams: Vec<UdpSocket>,
    /// Makes sockets inside for as long as the command runs.
    pub porter: Arc<Porter>,
}

/// The network that the command sees on its one link, `eth0`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Network {
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// What it can connect to; a route of a family that has no address is left out.
    pub routes: Vec<IpNet>,
    /// Addresses that it may be given later, with routes ([`Porter::extend`]); rules can count on them.
    pub later: Vec<IpAddr>,
}

/// The command runs.
#[derive(Debug)]
pub struct Running(Keeper);

/// Child process that is waited for when dropped.
#[derive(Debug)]
struct Keeper(Option<Pid>);

/// Forks the keeper, which makes the namespaces meanwhile. To be called from the main thread while it is
/// the only one: the kernel ends the keeper when the thread that forked it goes.
///
/// # Errors
/// Where the process has more threads, or cannot fork.
pub fn start(plan: &Plan<'_>) -> Result<Started, Error> {
    let ((here, there), (door_here, door_there)) = (fdpass::pair()?, fdpass::pair()?);
    let parent = rustix::process::getpid();
    let (mut ours, mut theirs) = (Some((here, door_here)), Some((there, door_there)));
    let pid = sys::process::fork(|| {
        // The caller's ends must not live on in the child, or neither would see the other go.
        drop(ours.take());
        theirs
            .take()
            .map_or(1, |(channel, door)| inside::run(plan, channel, door, parent))
    })?;
    drop(theirs.take());
    let (channel, door) = ours.take().ok_or(Error::Gone)?;
    Ok(Started {
        keeper: Keeper(Some(pid)),
        porter: Porter::new(door)?,
        channel,
    })
}

/// Moves this process, which must have one thread, into namespaces of its own: user (unless root), network,
/// mounts. `/tmp` is an empty directory there that goes with the process. Programs that it starts may
/// change the networks in it. Caller: `weir demo`.
///
/// # Errors
/// As [`Started::furnish`].
pub fn enter_alone() -> Result<(), Error> {
    inside::alone().map_err(|(kind, text)| refusal(kind, text))
}

/// Puts files over others in this process's view, after [`enter_alone`]: (what, over what). One whose place does not
/// exist is left out.
///
/// # Errors
/// As [`Started::furnish`].
pub fn put_over(files: &[(PathBuf, PathBuf)]) -> Result<(), Error> {
    inside::put_over(files).map_err(|(kind, text)| refusal(kind, text))
}

/// What is to be put over the sockets by which the C library resolves names past DNS: it finds nobody there, and
/// asks DNS.
#[must_use]
pub fn no_name_services() -> Vec<(PathBuf, PathBuf)> {
    let over = |place: &&str| (PathBuf::from("/dev/null"), PathBuf::from(place));
    NAME_SERVICES.iter().map(over).collect()
}

/// Whether [`start`] could make its namespaces: a child makes them, and goes with them at once. To be called while
/// the process has one thread.
///
/// # Errors
/// As [`Started::furnish`].
pub fn could_start() -> Result<(), Error> {
    let (mut answer, word) = io::pipe()?;
    let mut ends = (answer.try_clone()?, Some(word));
    let child = sys::process::fork(|| match inside::namespaces() {
        Ok(()) => 0,
        Err((kind, text)) => {
            // The caller reads until the end; one that has gone needs no answer.
            let _ = ends
                .1
                .take()
                .map(|mut word| io::Write::write_all(&mut word, text.as_bytes()));
            kind
        }
    })?;
    drop(ends);
    let mut text = String::new();
    io::Read::read_to_string(&mut answer, &mut text)?;
    let ended = rustix::process::waitpid(Some(child), WaitOptions::empty()).map_err(io::Error::from)?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(kind) => Err(u8::try_from(kind).map_or(Error::Gone, |kind| refusal(kind, text))),
        None => Err(Error::Gone),
    }
}

/// Gives up every right that [`enter_alone`] gave, for this process and what it starts.
///
/// # Errors
/// None in practice.
pub fn give_up_rights() -> io::Result<()> {
    inside::give_up_rights()
}

impl Started {
    /// Gives the namespace its network and sockets; the rules follow.
    ///
    /// # Errors
    /// Says what to do where user namespaces are refused, and which step failed otherwise.
    pub fn furnish(self, network: &Network) -> Result<Contained, Error> {
        // Where the keeper has failed and gone already, it has left word why.
        let _ = self.channel.send(&wiring::encode(network), &[]);
        let (_, sockets) = answer(&self.channel)?;
        let (listeners, datagrams) = sort(sockets)?;
        let Self {
            channel,
            porter,
            keeper,
        } = self;
        Ok(Contained {
            channel,
            keeper,
            listeners,
            datagrams,
            porter: Arc::new(porter),
        })
    }
}

impl Contained {
    /// Waits for the rules; answers also what [`Plan::install`] did.
    ///
    /// # Errors
    /// Which step failed.
    pub fn installed(self) -> Result<(Installed, String), Error> {
        let (note, _) = answer(&self.channel)?;
        let Self { channel, keeper, .. } = self;
        Ok((Installed { channel, keeper }, note))
    }
}

impl Installed {
    /// Runs the command. One that cannot be run is no error here: it ends with 127 (missing) or 126 (not
    /// executable) and a line on standard error, as under a shell.
    ///
    /// # Errors
    /// Where the keeper is gone or cannot give up its rights.
    pub fn release(self) -> Result<Running, Error> {
        self.channel.send(inside::GO, &[]).map_err(|_| Error::Gone)?;
        answer(&self.channel)?;
        Ok(Running(self.keeper))
    }
}

impl Running {
    /// Lives the command's life until it ends: passes signals on, stops when it stops.
    ///
    /// # Errors
    /// Where waiting fails, which is no ordinary thing.
    pub fn follow(mut self, signals: &Signals) -> io::Result<Ended> {
        let Some(keeper) = self.0.0 else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let ended = keep::follow(keeper, signals)?;
        self.0.0 = None;
        Ok(ended)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            // The closed channel tells it to go; this is for a keeper that runs a command.
            let _ = rustix::process::kill_process(pid, signals::ABANDON);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// The child's next word.
fn answer(channel: &Channel) -> Result<(String, Vec<OwnedFd>), Error> {
    let (bytes, descriptors) = channel.receive()?.ok_or(Error::Gone)?;
    let (kind, text) = bytes.split_first().ok_or(Error::Gone)?;
    let text = String::from_utf8_lossy(text).into_owned();
    match *kind {
        inside::DONE => Ok((text, descriptors)),
        kind => Err(refusal(kind, text)),
    }
}

fn refusal(kind: u8, text: String) -> Error {
    match kind {
        inside::NO_USER_NAMESPACE => Error::UserNamespace(text),
        _ => Error::Step(text),
    }
}

fn sort(sockets: Vec<OwnedFd>) -> io::Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for socket in sockets {
        if rustix::net::sockopt::socket_type(socket.as_fd())? == rustix::net::SocketType::STREAM {
            listeners.push(socket.into());
        } else {
            datagrams.push(socket.into());
        }
    }
    Ok((listeners, datagrams))
}
