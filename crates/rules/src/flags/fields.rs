//! Each flag with a value: what it is called in a file and on the command line, and where it is kept. Asked by who reads a
//! file ([`crate::config`]) and by who reads what rules keep of their flags ([`crate::asked`]).

use super::Flags;
use crate::intent::TRACKING_FLAG;

/// A field: its place in the file, the flag that it stands for, and where that is kept.
pub(crate) struct Field {
    pub(crate) path: &'static str,
    pub(crate) flag: &'static str,
    pub(crate) kept: fn(&mut Flags) -> &mut Option<String>,
}

impl Field {
    /// As it is written on the command line, at its shortest.
    pub(crate) fn word(&self) -> &'static str {
        self.flag.split(' ').next().unwrap_or(self.flag)
    }
}

const fn field(path: &'static str, flag: &'static str, kept: fn(&mut Flags) -> &mut Option<String>) -> Field {
    Field { path, flag, kept }
}

pub(crate) const FIELDS: [Field; 29] = [
    field("families", "--families", |to| &mut to.families),
    field("dropInvalid", "--drop-invalid", |to| &mut to.drop_invalid),
    field("proxy.uids", "-u (--proxy-uid)", |to| &mut to.proxy_uid),
    field("proxy.gids", "-g (--proxy-gid)", |to| &mut to.proxy_gid),
    field("proxy.marks", "--proxy-mark", |to| &mut to.proxy_mark),
    field("proxy.classIds", "--proxy-class-id", |to| &mut to.proxy_class_id),
    field("proxy.cgroups", "--proxy-cgroup", |to| &mut to.proxy_cgroup),
    field("outbound.port", "-p (--envoy-port)", |to| &mut to.outbound_port),
    field("outbound.cidrs", "-i (--istio-service-cidr)", |to| {
        &mut to.outbound_cidrs
    }),
    field(
        "outbound.excludeCidrs",
        "-x (--istio-service-exclude-cidr)",
        |to| &mut to.outbound_exclude_cidrs,
    ),
    field("outbound.ports", "-q (--istio-outbound-ports)", |to| {
        &mut to.outbound_ports
    }),
    field(
        "outbound.excludePorts",
        "-o (--istio-local-outbound-ports-exclude)",
        |to| &mut to.outbound_exclude_ports,
    ),
    field("outbound.groups", "ISTIO_OUTBOUND_OWNER_GROUPS", |to| {
        &mut to.owner_groups
    }),
    field(
        "outbound.excludeGroups",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        |to| &mut to.owner_groups_exclude,
    ),
    field(
        "outbound.loopbackCidr",
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        |to| &mut to.loopback_cidr,
    ),
    field("inbound.mode", "-m (--istio-inbound-interception-mode)", |to| {
        &mut to.mode
    }),
    field("inbound.tproxyMark", "-t (--istio-inbound-tproxy-mark)", |to| {
        &mut to.tproxy_mark
    }),
    field(
        "inbound.tproxyTable",
        "-r (--istio-inbound-tproxy-route-table)",
        |to| &mut to.tproxy_table,
    ),
    field("inbound.tproxyConntrack", TRACKING_FLAG, |to| {
        &mut to.tproxy_conntrack
    }),
    field("inbound.port", "-z (--inbound-capture-port)", |to| {
        &mut to.inbound_port
    }),
    field("inbound.tunnelPort", "-e (--inbound-tunnel-port)", |to| {
        &mut to.tunnel_port
    }),
    field("inbound.ports", "-b (--istio-inbound-ports)", |to| {
        &mut to.inbound_ports
    }),
    field("inbound.excludePorts", "-d (--istio-local-exclude-ports)", |to| {
        &mut to.inbound_exclude_ports
    }),
    field("inbound.excludeSources", "--inbound-exclude-sources", |to| {
        &mut to.exclude_sources
    }),
    field("dns.capture", "--redirect-dns", |to| &mut to.redirect_dns),
    field("dns.allServers", "--capture-all-dns", |to| {
        &mut to.capture_all_dns
    }),
    field("dns.failClosed", "--dns-fail-closed", |to| {
        &mut to.dns_fail_closed
    }),
    field("devices.exclude", "-c (--istio-exclude-interfaces)", |to| {
        &mut to.exclude_interfaces
    }),
    field("devices.virtualMachines", "-k (--kube-virt-interfaces)", |to| {
        &mut to.kube_virt_interfaces
    }),
];
