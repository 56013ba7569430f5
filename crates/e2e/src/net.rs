//! The topology: a switch namespace with a bridge, and pods hanging on it, each with `eth0`, an IPv4 and
//! an IPv6 address and default routes, so that service addresses leave by `eth0` as they do in Kubernetes.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process;

use anyhow::{Context, Result, bail, ensure};
use netsys::netns::Netns;

use crate::program::{Finished, Program, RunAs, command, command_in};
use crate::wait::eventually;

const SWITCH_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);
const SWITCH_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0xff, 0xfe);
/// More pods than any test needs, and still one octet.
const PODS_MAX: u8 = 250;

/// One virtual network. Pods made on it reach each other and nothing else.
#[derive(Debug)]
pub struct Net {
    switch: Pod,
    pods: Cell<u8>,
}

impl Net {
    /// A network without pods. `10.77.0.0/16` and `fd00:77::/64` are its addresses; what goes elsewhere
    /// and is not captured ends at the switch with "no route to host".
    ///
    /// # Errors
    /// Without root, or where `ip` is missing.
    pub fn create() -> Result<Self> {
        let switch = Pod::bare("switch", SWITCH_V4, SWITCH_V6)?;
        switch.ip("link add br0 type bridge forward_delay 0")?;
        switch.ip("link set br0 up")?;
        switch.ip(&format!("addr add {SWITCH_V4}/16 dev br0"))?;
        switch.ip(&format!("addr add {SWITCH_V6}/64 dev br0 nodad"))?;
        // A router answers for what it cannot deliver; a plain host drops it in silence.
        switch.sysctl("net/ipv4/ip_forward", "1")?;
        switch.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self {
            switch,
            pods: Cell::new(0),
        })
    }

    /// A new pod: `10.77.0.N` and `fd00:77::N`, N counting from 1.
    ///
    /// # Errors
    /// Without root, or with too many pods.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let number = self.pods.get() + 1;
        ensure!(number <= PODS_MAX, "a network has at most {PODS_MAX} pods");
        self.pods.set(number);
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number.into());
        let mut pod = Pod::bare(name, v4, v6)?;
        let port = format!("p{number}");
        connect((&self.switch, &port), (&pod, "eth0"))?;
        self.switch.ip(&format!("link set {port} master br0"))?;
        pod.port = Some(port);
        pod.ip(&format!("addr add {v4}/16 dev eth0"))?;
        pod.ip(&format!("addr add {v6}/64 dev eth0 nodad"))?;
        pod.ip(&format!("route add default via {SWITCH_V4}"))?;
        pod.ip(&format!("-6 route add default via {SWITCH_V6}"))?;
        Ok(pod)
    }

    /// Cuts the pod's link as a pulled cable does: packets vanish, nobody is told.
    ///
    /// # Errors
    /// For a pod of another network.
    pub fn cut(&self, pod: &Pod) -> Result<()> {
        let Some(port) = &pod.port else {
            bail!("pod {} hangs on no switch", pod.name)
        };
        self.switch.ip(&format!("link set {port} nomaster"))
    }

    /// Mends what [`Net::cut`] cut.
    ///
    /// # Errors
    /// For a pod of another network.
    pub fn mend(&self, pod: &Pod) -> Result<()> {
        let Some(port) = &pod.port else {
            bail!("pod {} hangs on no switch", pod.name)
        };
        self.switch.ip(&format!("link set {port} master br0"))
    }
}

/// A network namespace that plays a pod, or any other machine. It goes with its last descriptor and process.
#[derive(Debug)]
pub struct Pod {
    /// What messages call it; also the Pod's name in manifests.
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    netns: Netns,
    port: Option<String>,
}

impl Pod {
    /// A namespace with loopback alone; the addresses are only noted. See [`connect`].
    ///
    /// # Errors
    /// Without root.
    pub fn bare(name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "this needs network namespaces of its own: run it as root"
        );
        let netns = Netns::create().context("making a network namespace")?;
        ensure!(
            netns.id()? != Netns::current()?.id()?,
            "the kernel gave us our own namespace back: rules here would reach the machine"
        );
        Ok(Self {
            name: name.to_owned(),
            v4,
            v6,
            netns,
            port: None,
        })
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Both addresses with a port, IPv4 first.
    #[must_use]
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.addresses().map(|ip| SocketAddr::new(ip, port))
    }

    /// The namespace itself.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A path that any root process can open the namespace by, as long as this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        let fd = self.netns.as_fd().as_raw_fd();
        format!("/proc/{}/fd/{fd}", process::id())
    }

    /// Runs `f` inside, on a thread of its own. Sockets made there stay there.
    ///
    /// # Errors
    /// Where entering fails.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns
            .run(f)
            .with_context(|| format!("entering pod {}", self.name))
    }

    /// A connection from inside the pod, made by root and so captured as an application's.
    ///
    /// # Errors
    /// As connect(2).
    pub fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.netns.run(|| TcpStream::connect(to))?
    }

    /// Runs a program inside as root to its end and gives back what it said.
    ///
    /// # Errors
    /// Where it cannot start or exits with anything but success; the error holds what it said.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Finished> {
        self.run_as(RunAs::Root, program, arguments)
    }

    /// Runs a program inside as some user to its end; as [`Pod::run`].
    ///
    /// # Errors
    /// As [`Pod::run`].
    pub fn run_as<A: AsRef<OsStr>>(
        &self,
        who: RunAs,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Finished> {
        let finished = self.try_run(who, program, arguments)?;
        ensure!(
            finished.status.success(),
            "{program} in pod {}: {}\n{}{}",
            self.name,
            finished.status,
            finished.text(),
            finished.errors()
        );
        Ok(finished)
    }

    /// Runs a program inside to its end, whatever its exit status.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn try_run<A: AsRef<OsStr>>(
        &self,
        who: RunAs,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Finished> {
        let mut command = command(&self.netns, who, program);
        command.args(arguments);
        Finished::of(command).with_context(|| format!("{program} in pod {}", self.name))
    }

    /// Starts a program inside that runs until it is dropped.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        who: RunAs,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Program> {
        let mut command = command(&self.netns, who, program);
        command.args(arguments);
        Program::start(&mut command, &format!("{program} in pod {}", self.name))
    }

    /// As [`Pod::start`], for a program that `who` may not be able to reach by its path, such as one that
    /// was built under `/root`: we open it. Variables are `(NAME, VALUE)`.
    ///
    /// # Errors
    /// Where it cannot be opened or cannot start.
    pub fn start_file<A: AsRef<OsStr>>(
        &self,
        who: RunAs,
        path: &Path,
        variables: &[(&str, &str)],
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Program> {
        self.start_file_in(None, who, path, variables, arguments)
    }

    /// As [`Pod::start_file`], in a cgroup.
    ///
    /// # Errors
    /// As [`Pod::start_file`].
    pub fn start_file_in<A: AsRef<OsStr>>(
        &self,
        entering: Option<&str>,
        who: RunAs,
        path: &Path,
        variables: &[(&str, &str)],
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Program> {
        let name = format!("{} in pod {}", path.display(), self.name);
        let file = File::open(path).with_context(|| name.clone())?;
        let mut command = command_in(entering, &self.netns, who, "/proc/self/fd/0");
        command.args(arguments).envs(variables.iter().copied());
        Program::start(command.stdin(file), &name)
    }

    /// `ip ARGUMENTS` inside, the arguments as one line.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.run("ip", arguments.split_whitespace()).map(drop)
    }

    /// Sets a value under `/proc/sys` of the namespace, such as `net/ipv4/tcp_tw_reuse`.
    ///
    /// # Errors
    /// Where there is no such setting.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.within(|| fs::write(format!("/proc/sys/{name}"), value))?
            .with_context(|| format!("setting {name} in pod {}", self.name))
    }

    /// Room for tens of thousands of connections a test: a wide port range, quick reuse, long queues.
    ///
    /// # Errors
    /// Where a setting is missing.
    pub fn widen(&self) -> Result<()> {
        for (name, value) in [
            ("net/ipv4/ip_local_port_range", "16000 65000"),
            ("net/ipv4/tcp_tw_reuse", "1"),
            ("net/core/somaxconn", "65535"),
            ("net/ipv4/tcp_max_syn_backlog", "65535"),
        ] {
            self.sysctl(name, value)?;
        }
        Ok(())
    }

    /// Waits until something listens on a TCP port inside. It reads the socket table and connects to
    /// nothing, so that no rule and no accept sees it.
    ///
    /// # Errors
    /// After 30 s.
    pub fn wait_listening(&self, port: u16) -> Result<()> {
        let what = format!("a listener on port {port} in pod {}", self.name);
        eventually(&what, || self.within(|| is_listening(port)).ok()?.then_some(()))
    }
}

/// Joins two namespaces by a pair of devices, both up.
///
/// # Errors
/// With what `ip` said, such as that a name is taken.
pub fn connect((one, its): (&Pod, &str), (other, others): (&Pod, &str)) -> Result<()> {
    let path = other.path();
    one.ip(&format!(
        "link add {its} type veth peer name {others} netns {path}"
    ))?;
    one.ip(&format!("link set {its} up"))?;
    other.ip(&format!("link set {others} up"))
}

/// Whether the calling thread's namespace has a TCP listener on `port`, by the kernel's socket table.
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let path = format!("/proc/thread-self/net/{table}");
        fs::read_to_string(path).is_ok_and(|text| {
            text.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                local.ends_with(&suffix) && fields.nth(1) == Some(LISTEN)
            })
        })
    })
}
