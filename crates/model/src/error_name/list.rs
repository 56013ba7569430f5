//! The list. A new error goes into its group; `UPDATE_DOCS=1 cargo test -p weir documents` then writes
//! docs/errors.md anew.

use super::Explained;

macro_rules! error_names {
    ($($(#[$doc:meta])* $name:ident = $text:literal: $says:literal; $because:literal; $fix:literal;)*) => {
        /// The name of an error.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ErrorName {
            $(#[doc = $says] $name,)*
        }

        impl ErrorName {
            /// Every one there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What can be said of it without having seen it.
            #[must_use]
            pub fn explained(self) -> Explained {
                match self {
                    $(Self::$name => Explained { name: $text, says: $says, because: $because, fix: $fix },)*
                }
            }
        }
    };
}

error_names! {
    // The command line and the machine.
    Usage = "WEIR-USAGE":
        "The command line was not understood.";
        "An argument is unknown, missing, or has a value that it cannot have.";
        "Read the line above the name, and `weir COMMAND --help`.";
    Setting = "WEIR-SETTING":
        "A flag, an environment variable or a field of the configuration has a value that it cannot have.";
        "A port above 65535, a network that is none, a word that is not one of the choices, two settings that exclude each other. All mistakes are told at once, and nothing was changed.";
        "Correct what each line names.";
    Input = "WEIR-INPUT":
        "A file that was named on the command line cannot be read, or is not what it should be.";
        "It is missing, its permissions forbid reading, or it has another format.";
        "Look at the path and at the format that `weir COMMAND --help` asks for.";
    Output = "WEIR-OUTPUT":
        "What was to be printed could not be written.";
        "Standard output is closed or full.";
        "Look at where the output goes: a full disk, a reader that has ended.";
    Privilege = "WEIR-PRIVILEGE":
        "The process lacks a right that this takes.";
        "Changing rules takes CAP_NET_ADMIN (and legacy iptables CAP_NET_RAW) in the network namespace, a transparent listener CAP_NET_ADMIN, entering a namespace CAP_SYS_ADMIN.";
        "Run it as root, or give the container the capability that the message names (securityContext.capabilities.add).";
    Namespace = "WEIR-NAMESPACE":
        "A network namespace could not be entered or made.";
        "The name or path is none, its process has ended, or CAP_SYS_ADMIN is missing.";
        "`ip netns` lists the named ones; /proc/PID/ns/net is that of a process. Run it as root.";
    System = "WEIR-SYSTEM":
        "The operating system refused something that it normally grants.";
        "The message says what, and what the system answered.";
        "Look at what the message names; where it cannot be explained, report it.";
    Threads = "WEIR-THREADS":
        "A thread or its event loop could not be started.";
        "The limit on processes, on descriptors or on memory is reached.";
        "Raise the limits: `ulimit -u`, `ulimit -n`, pids.max of the cgroup, the container's memory.";
    Defect = "WEIR-DEFECT":
        "Weir did something that it should never do.";
        "A mistake in Weir itself.";
        "Please report it, with the message and what came before it.";

    // Capture rules.
    HostNetwork = "WEIR-HOST-NETWORK":
        "The rules would have been put into a machine's own network namespace.";
        "There is a physical network device in it; capturing a machine's traffic can cut you off from it.";
        "Give --netns to name another namespace, or --host where you mean this one.";
    NoProxySign = "WEIR-NO-PROXY-SIGN":
        "Nothing says how the proxy's own traffic is told from the application's.";
        "Without a sign what the proxy sends would be captured too, and come back to it for ever.";
        "Give --proxy-uid, --proxy-gid, --proxy-mark or another sign of it.";
    MarkClash = "WEIR-MARK-CLASH":
        "Two things are told apart by one mark.";
        "The proxy's own mark matches one that TPROXY puts on other packets.";
        "Give another --proxy-mark, or another mark for TPROXY.";
    FamilyHole = "WEIR-FAMILY-HOLE":
        "IPv4 or IPv6 is on in the namespace and cannot be captured.";
        "The kernel or the back-end lacks something for that family; what it carries would escape the proxy, so nothing was changed.";
        "Mend what the message names, switch the family off in the namespace, or leave it open knowingly (--families).";
    Backend = "WEIR-BACKEND":
        "No back-end can write the rules.";
        "Neither nft nor iptables is installed, the one that was asked for is not, or the kernel does not answer it.";
        "Install nftables or iptables, load the modules that the message names, or give another --backend.";
    RulesRefused = "WEIR-RULES-REFUSED":
        "The packet filter refused the rules; nothing was changed.";
        "A kernel module is missing (nf_nat, xt_REDIRECT, nft_redir, xt_TPROXY and the like), or a right.";
        "Load the module that the message names, or try another --backend.";
    RulesNotHeld = "WEIR-RULES-NOT-HELD":
        "The program reported success, but the kernel does not hold the rules.";
        "Another program takes them away at once, or the program and the kernel do not understand each other.";
        "Look at who else writes rules here (a node agent, firewalld); try another --backend.";
    RulesUnreadable = "WEIR-RULES-UNREADABLE":
        "What the kernel holds, as a program printed it, was not understood.";
        "A version of the program that prints in another way, or a file that is no dump.";
        "Please report it with the line that the message names.";
    ProgramHung = "WEIR-PROGRAM-HUNG":
        "A program that reads or writes the rules (nft, iptables, ipset) did not end in time, and was killed.";
        "It waits for a lock that another program holds, for a kernel module, or for a kernel that is stuck; or the machine is overloaded. What had been written before is taken back.";
        "Run the program that the message names by hand and see where it stops (`nft list ruleset`, `iptables-save`); give more time by --wait.";
    RulesBusy = "WEIR-RULES-BUSY":
        "Another process holds the lock on the rules of this namespace.";
        "Another weir, or a program that it started, is changing them; or some process has taken the name of the lock, which any may.";
        "The message names it: wait for it, or end it, and try again (--wait waits longer).";
    RulesHalfDone = "WEIR-RULES-HALF-DONE":
        "A change failed, and taking it back failed as well.";
        "The kernel refused both; the namespace may hold a part of the rules.";
        "`weir init --cleanup`, then look at the first of the two reasons.";
    PassthroughAddress = "WEIR-PASSTHROUGH-ADDRESS":
        "`::6`, from which the proxy calls its application, cannot be put on lo or taken from it.";
        "lo is down, or IPv6 is switched off on lo alone.";
        "Set lo up and net.ipv6.conf.lo.disable_ipv6=0, or switch IPv6 off everywhere.";
    PolicyRoute = "WEIR-POLICY-ROUTE":
        "What TPROXY marks could not be routed to the proxy.";
        "The kernel has no routing by marks (CONFIG_IP_MULTIPLE_TABLES), or lo is down.";
        "Set lo up; use REDIRECT where the kernel lacks it.";
    MarkSwitch = "WEIR-MARK-SWITCH":
        "A switch of the namespace that TPROXY without conntrack takes (net.ipv4.tcp_fwmark_accept, fwmark_reflect) \
         could not be set or put back.";
        "/proc/sys is not writable, as in a container without privilege.";
        "Have the pod set it (securityContext.sysctls), or let conntrack follow: --inbound-tproxy-conntrack on.";
    CaptureBroken = "WEIR-CAPTURE-BROKEN":
        "A probe of `weir verify` did not arrive where it should.";
        "A rule is missing, another one comes before it, a route is gone, or the proxy hangs. Each line that begins with BROKEN says which probe, where it arrived, and the rule.";
        "Do what the line says; `weir init` with the same flags puts every rule of Weir's back.";
    NothingToVerify = "WEIR-NOTHING-TO-VERIFY":
        "`weir verify` does not know what should hold in this namespace.";
        "There is no rule of Weir's in it, or the rules do not keep what they were made from, or the flags ask for no capture.";
        "Install rules (`weir init --sidecar`), or give the flags of `weir init` after `--`.";
    Confirm = "WEIR-CONFIRM":
        "A change of a machine's own namespace waits to be confirmed, or could not be.";
        "With --host a change is undone unless `weir init --confirm` comes in time, from the same user.";
        "Confirm it, or let its time run out, and make the change again.";
    CaptureMode = "WEIR-CAPTURE-MODE":
        "This way of capturing cannot be had here.";
        "It takes something that is not given: a back-end with sets, a program that keeps a set up to date, a place for the proxy.";
        "Do what the message says, or capture in another way.";

    // The proxy.
    PortInUse = "WEIR-PORT-IN-USE":
        "A port that the proxy listens on could not be had.";
        "Mostly another proxy that runs in the same network namespace.";
        "`ss -ltnp` (for DNS `ss -lunp`) says who has it; end it, or start this one elsewhere.";
    AdminSocket = "WEIR-ADMIN-SOCKET":
        "The socket file for `weir pc` could not be made.";
        "The path belongs to another process, another user or another kind of file.";
        "Remove it, or give another path by --admin-socket or XDG_RUNTIME_DIR.";
    AccessLog = "WEIR-ACCESS-LOG":
        "The access log cannot be written.";
        "Its file cannot be opened, its disk is full, or its reader has ended or does not read.";
        "Look at where it goes (--access-log). The traffic goes on; lines are lost, and counted.";
    LogFilter = "WEIR-LOG-FILTER":
        "The filter of the program's log is not one.";
        "A level or module was misspelt.";
        "Write a level (info), or levels by module: info,proxy=debug. The modules are weir, proxy, dns, discovery and runtime.";
    Identity = "WEIR-IDENTITY":
        "The proxy cannot tell which pod it belongs to.";
        "Half of the name is missing, or no manifest describes the pod.";
        "Give --as NAMESPACE/POD, or set POD_NAMESPACE and POD_NAME.";
    Descriptors = "WEIR-DESCRIPTORS":
        "A connection cannot be accepted; the kernel holds new ones back.";
        "The process has no descriptor or no memory left for it.";
        "Raise the descriptor limit (`ulimit -n`), or the limit of the container's memory.";
    ListenerLost = "WEIR-LISTENER-LOST":
        "A listener or a socket of the proxy's can no longer be used.";
        "The system took it away, or the proxy ran out of descriptors when it was set up.";
        "Restart the proxy; report it where it happens again.";
    EndpointEjected = "WEIR-ENDPOINT-EJECTED":
        "An endpoint failed several times in a row and is left out for a while.";
        "It refuses connections, resets them, or answers 5xx; or the way to it is cut.";
        "Look at the endpoint: its log, its readiness. `weir pc endpoints` says for how long.";
    ConntrackFull = "WEIR-CONNTRACK-FULL":
        "The kernel's table of tracked connections is nearly full; when it is, new connections are dropped.";
        "Many short connections at once, or entries that live too long.";
        "Raise net.netfilter.nf_conntrack_max, shorten nf_conntrack_tcp_timeout_time_wait, or capture without tracking.";
    NoServices = "WEIR-NO-SERVICES":
        "No manifest describes a service, so that every connection passes through to where it goes.";
        "The folder is empty, is another one than was meant, or holds other kinds only.";
        "Look at the folder; `weir pc problems` says what was wrong with manifests.";
    Resolvers = "WEIR-RESOLVERS":
        "Queries that are not the mesh's cannot be forwarded as they should.";
        "resolv.conf cannot be read or names no server, or its servers do not answer.";
        "Look at the file (--resolv-conf) and at whether its servers can be reached from here.";
    AliasLoop = "WEIR-ALIAS":
        "The name of an ExternalName service leads nowhere.";
        "Its target does not exist, or leads back to itself.";
        "Look at spec.externalName of the service that the message names.";

    // What weir check finds, beyond kinds that are above.
    ForeignRule = "WEIR-FOREIGN-RULE":
        "A firewall rule of somebody else's decides about traffic that Weir is to capture.";
        "It stands in front of Weir's rule and accepts, drops or redirects the packet, or it drops what was captured on its way to the proxy.";
        "Take the rule out, or narrow it, so that it leaves the traffic to Weir; or exclude that traffic knowingly (-x, -o, -d of weir init).";
    RuleUnknown = "WEIR-RULE-UNKNOWN":
        "A firewall rule of somebody else's may decide about traffic that Weir is to capture, and it cannot be said whether it does.";
        "It matches by something that Weir does not know (a set, a limit, an extension), or two tables have the same priority and the kernel does not tell which comes first.";
        "Look at the rule that is named; once the rules are in, `weir verify` sends packets and sees.";
    RulesHidden = "WEIR-RULES-HIDDEN":
        "There are firewall rules here that no installed program can show.";
        "The kernel holds tables of a back-end whose program is not installed.";
        "Install the program that the message names; Weir cannot see what those rules do.";
    OtherMesh = "WEIR-OTHER-MESH":
        "Another service mesh has rules here, or has left some behind.";
        "The pod was injected by two meshes, or rules stayed when the other one was taken away: a rule set ends with its network namespace, not with its proxy.";
        "Take them out, or make the pod anew without the other mesh.";
    Ebpf = "WEIR-EBPF":
        "An eBPF program is in a place where it can lead connections away, and no firewall rule hears of it.";
        "A network plugin that balances services when a socket connects (Cilium, Calico), another mesh (Merbridge, Kmesh), or a program of the machine's at a cgroup or a device. What it does cannot be read off it.";
        "Do what the message says for its owner; `bpftool prog show id N` tells who loaded it. Once the rules are in, `weir verify` sends connections and sees.";
    ForeignRoute = "WEIR-FOREIGN-ROUTE":
        "Routing rules or routes of somebody else's use a mark or a table that Weir uses for TPROXY.";
        "Another mesh's TPROXY, a VPN, or a policy of the machine's; often a remainder.";
        "Take them out (`ip rule del`, `ip route flush table N`), or give Weir another mark and table: -t and -r of weir init.";
    ProxyId = "WEIR-PROXY-ID":
        "A process that is no proxy runs as the user or group by which the proxy is recognised.";
        "An image whose user happens to be 1337, an application that was made to run as the proxy's user to escape capture, or another mesh's proxy.";
        "Run it as another user, or recognise the proxy by something else: -u, --proxy-mark, --proxy-cgroup.";
    PortRange = "WEIR-PORT-RANGE":
        "The range of ports that outgoing connections get does not suit a proxy.";
        "net.ipv4.ip_local_port_range is narrow, so that ports run out; or it covers the proxy's own ports, so that a connection can hold one when the proxy starts.";
        "Set net.ipv4.ip_local_port_range to 32768 60999 or so, or keep the proxy's ports out of it with net.ipv4.ip_local_reserved_ports.";
    LowPorts = "WEIR-LOW-PORTS":
        "A proxy without privilege may not listen on its ports here.";
        "net.ipv4.ip_unprivileged_port_start is above them.";
        "Set it to 1024, or give the proxy CAP_NET_BIND_SERVICE.";
    Loopback = "WEIR-LOOPBACK":
        "The loopback device does not work in the namespace.";
        "lo is down: a namespace that was made by hand has it so.";
        "`ip link set lo up` in the namespace. Captured connections go to 127.0.0.1 and ::1.";
    HalfFamily = "WEIR-HALF-FAMILY":
        "IPv6 is on in one part of the namespace and off in another.";
        "net.ipv6.conf.*.disable_ipv6 differs from device to device, or was set for devices to come only.";
        "Switch it on or off everywhere: net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6.";
    ResolvConf = "WEIR-RESOLV-CONF":
        "resolv.conf says something that makes names slow, or not found.";
        "No server, more servers than the C library asks, a server on loopback that is another's, a high ndots, a long search list.";
        "Correct what the message names, in the file or in the pod's dnsConfig.";
    DnsBypass = "WEIR-DNS-BYPASS":
        "Names are looked up past the DNS capture.";
        "A caching daemon (nscd) or systemd-resolved is asked over a file's socket, which no firewall rule sees; the daemon then asks from its own namespace.";
        "Stop the daemon, or take `resolve` out of the line hosts: in nsswitch.conf.";
    TproxyPrivilege = "WEIR-TPROXY-PRIVILEGE":
        "With TPROXY the proxy needs CAP_NET_ADMIN.";
        "Transparent sockets and marks take it; REDIRECT does not.";
        "Nothing, if that is meant: give the proxy's container the capability.";
    NoEndpoints = "WEIR-NO-ENDPOINTS":
        "A service has no endpoint at one of its ports.";
        "Its selector selects no pod, its pods are not ready, or ports do not meet.";
        "Look at the selector and at the pods' labels and readiness; a client of it gets 503, or its connection is closed.";
    StrayEndpoint = "WEIR-STRAY-ENDPOINT":
        "An endpoint names a pod that is not there.";
        "The manifest of the pod is missing, or the slice is older than the pods.";
        "Add the pod's manifest, or write the slice anew. Traffic to it goes to whoever has the address now.";
    UnknownProtocol = "WEIR-UNKNOWN-PROTOCOL":
        "What a port says of its protocol is none that Weir knows.";
        "A misspelt appProtocol or port name. The port is treated as undeclared: opaque bytes, with no routes and no retries.";
        "Write one of http, http2, grpc, grpc-web, https, tls, tcp, mongo, mysql, redis, as appProtocol or as the first part of the port's name.";

    // Manifests.
    ManifestFolder = "WEIR-MANIFEST-FOLDER":
        "The folder of manifests cannot be read or watched.";
        "It does not exist, is no folder, its permissions forbid it, or the limit on inotify watches is reached.";
        "Give a folder with *.yaml or *.json files; look at fs.inotify.max_user_instances and max_user_watches.";
    ManifestFile = "WEIR-MANIFEST-FILE":
        "A file of manifests cannot be read.";
        "Its permissions forbid it to the proxy's user (uid 1337 in a pod), it is larger than is read, or it is not UTF-8. What it held before stays in force.";
        "Let that user read it: `chmod a+r FILE`; split a large one; save it as UTF-8.";
    ManifestSyntax = "WEIR-MANIFEST-SYNTAX":
        "A manifest is no YAML, no JSON, or no Kubernetes object.";
        "Indentation, a tab, a missing quote; a document without kind. What the file held before stays in force.";
        "Go to the line that the message names.";
    ManifestField = "WEIR-MANIFEST-FIELD":
        "A field of a manifest is missing or has a value that it cannot have.";
        "A typing error, mostly; Kubernetes would refuse the object too. Its last good state stays in force.";
        "Go to the field that the message names; the message says what can stand there.";
    ManifestUnknown = "WEIR-MANIFEST-UNKNOWN":
        "A setting, field, kind or apiVersion is not known, and is ignored.";
        "It is misspelt, stands in the wrong place, or belongs to another version.";
        "The message says what is near it; docs/settings.md has all settings.";
    ManifestTwice = "WEIR-MANIFEST-TWICE":
        "One object is there twice.";
        "Two files, or two documents of a file, describe it; the first that had it stays in use.";
        "Remove one of the two.";
    ManifestMismatch = "WEIR-MANIFEST-MISMATCH":
        "Two objects do not fit together.";
        "A slice that belongs to no service, endpoints with port names that the service does not have, pods without the port that a service names.";
        "Make names and ports of the two the same; the message names both.";
    AddressTwice = "WEIR-ADDRESS-TWICE":
        "Two services have one address, and a port in common.";
        "A copied manifest, mostly. The older service has the address; where age is not known, the one with the lower name.";
        "Give one of the two another address.";
    NotCaptured = "WEIR-NOT-CAPTURED":
        "A part of an object is not for a proxy of TCP, and is passed over.";
        "UDP and SCTP ports, slices of names or without ports.";
        "Nothing, if that is meant: such traffic goes where it would go without Weir.";

    // Connections and requests, by their flag in the access log.
    Uf = "WEIR-UF":
        "No endpoint accepted a connection.";
        "The endpoints do not listen, are being stopped, or a policy drops the packets to them.";
        "`weir pc endpoints`; then from the proxy's namespace, connect to one by hand.";
    Uc = "WEIR-UC":
        "The endpoint closed or reset the connection before the answer was complete.";
        "The application crashed, was stopped, or closes idle connections sooner than its clients expect.";
        "The application's own log; its keep-alive time-out.";
    Ut = "WEIR-UT":
        "The request's time was up.";
        "The endpoint is slower than the settings timeout or perTryTimeout allow.";
        "The endpoint's latency; the two settings.";
    Uh = "WEIR-UH":
        "The cluster has no usable endpoint.";
        "No pod is ready, none matches the selector, or all were ejected after failures.";
        "Readiness of the pods; `weir pc endpoints` says which there are and why none is used.";
    Urx = "WEIR-URX":
        "Retries were used up.";
        "Each try failed; each endpoint that was tried did.";
        "The flags of the tries, in the journey (--journey).";
    Urb = "WEIR-URB":
        "The retry budget forbade a retry.";
        "So many requests fail at once that retrying them all would make it worse.";
        "Why so many fail; the setting retryBudgetPercent.";
    Dc = "WEIR-DC":
        "The client closed or reset the connection first.";
        "It gave up, was stopped, or needed no more.";
        "The client's time-outs, where it should have waited.";
    Dpe = "WEIR-DPE":
        "The client's message was malformed or ambiguous.";
        "Not HTTP on a port that is declared as HTTP, or framing that two readers could take differently, as request smuggling uses it.";
        "The client; the port's name or appProtocol where it does not speak HTTP.";
    Upe = "WEIR-UPE":
        "The endpoint's message was malformed.";
        "Not HTTP on a port that is declared as HTTP, or an answer that two readers could take differently.";
        "The endpoint; the port's name or appProtocol where it does not speak HTTP.";
    Nr = "WEIR-NR":
        "The address that the client connected to is no HTTP service any more.";
        "The manifests changed while the connection was open.";
        "Nothing, mostly: the client connects anew. `weir pc services` says what there is.";
    Loop = "WEIR-LOOP":
        "The connection was made to the proxy's own port, or is the proxy's own and came back to it.";
        "Somebody connects to 15001 or 15006 directly; or the proxy does not run as the user (or has not the mark, or is not in the cgroup) that the rules let pass, so that they capture what it sends.";
        "Run the proxy as that user: `setpriv --reuid 1337 --regid 1337 --clear-groups weir proxy …`, or tell `weir init` who it is (`-u`, `-g`). `weir verify` shows whether they know each other.";
    Bh = "WEIR-BH":
        "The destination is unknown, and the mesh is registry-only.";
        "No manifest describes a service there, or the service has no such port.";
        "Add the service, or set outboundPolicy to allow-any.";
    Dt = "WEIR-DT":
        "The client took too long to send a request's head.";
        "A slow or hostile client, or a protocol in which the server speaks first on a port that is declared as HTTP.";
        "The setting headerTimeout; the port's name or appProtocol.";
    It = "WEIR-IT":
        "The connection was silent too long.";
        "Neither side sent anything for the time of tcpIdleTimeout or httpIdleTimeout.";
        "The two settings; keep-alives in the application.";
    Dr = "WEIR-DR":
        "The drain's deadline cut the connection off.";
        "The proxy was told to end, and the connection was still open at drainDeadline.";
        "The setting drainDeadline; how long clients keep connections.";
    Ov = "WEIR-OV":
        "The proxy itself lacked what a connection takes; the endpoint is not blamed.";
        "No descriptor, no memory or no free source port was left.";
        "The descriptor limit (`ulimit -n`), net.ipv4.ip_local_port_range, the container's memory.";
    Rt = "WEIR-RT":
        "The request was retried at least once.";
        "The first try failed before any endpoint can have acted on it, or its method may be repeated.";
        "Nothing: it is what retries are for.";
    Cut = "WEIR-CUT":
        "The answer was cut off after its first byte had been passed on.";
        "The endpoint broke off; such an answer is never retried.";
        "The endpoint's log.";

    // weir run, weir demo, weir pc.
    UserNamespace = "WEIR-USER-NAMESPACE":
        "This machine does not allow user namespaces.";
        "A sysctl, AppArmor, or the container's seccomp profile forbids them; without root Weir needs one to make a network of its own.";
        "One of the remedies in the message, or run weir as root.";
    Contain = "WEIR-CONTAIN":
        "The command's network could not be prepared.";
        "A step within the new namespaces was refused; the message says which.";
        "Look at what the message names. Nothing was left behind.";
    Command = "WEIR-COMMAND":
        "The command could not be started.";
        "There is no such program, it may not be executed, or its interpreter is missing.";
        "Try it without `weir run`.";
    Publish = "WEIR-PUBLISH":
        "A port could not be published.";
        "The form of --publish is wrong, or the port is in use on this machine.";
        "Write PORT, PORT:COMMAND_PORT or ADDRESS:PORT:COMMAND_PORT; `ss -ltnp` says who has a port.";
    Demo = "WEIR-DEMO":
        "The demonstration could not be set up or shown.";
        "It needs root, curl, and a kernel with network namespaces.";
        "`make demo` installs what it needs.";
    NoProxy = "WEIR-NO-PROXY":
        "No running proxy was found, or several, or the one that was named does not answer.";
        "It was not started, runs as another user or in another namespace, or several run and none was named.";
        "`weir pc proxies` lists what runs; name one with --proxy PID, SOCKET-FILE or HOST:PORT, or as root a process of its pod with --pid.";
    BadAnswer = "WEIR-BAD-ANSWER":
        "What answered is no proxy of Weir's, or another version.";
        "Another program has the port, or the two versions do not fit.";
        "Look at what listens there; use the weir that the proxy was started from.";
    NotFound = "WEIR-NOT-FOUND":
        "Nothing has the name that was asked for.";
        "It is misspelt, stands in another namespace, or the proxy does not know it (yet).";
        "The message says what is near it; without a name everything is listed.";
}
