//! The flags of `weir init` as clap reads them: Weir's own, those of istio-iptables with their variables,
//! and the ones that are refused by name.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::Result;
use clap::builder::FalseyValueParser;
use model::ErrorName;
use netsys::rules::Backend;
use rules::{Flags, Intent};

use super::all;
use crate::errors::{OrNamed, fail};

/// Capture the traffic of a network namespace: the rules that lead it to the proxy
///
/// Connections made in the namespace go to port 15001, connections coming in to port 15006, where
/// `weir proxy` listens; the proxy's own traffic is left alone. What most people want is
///
///     weir init --sidecar
///
/// which captures everything but the proxy's own ports. Without it, exactly what -i, -q and -b say is
/// captured: an empty list is nothing, '*' is everything, and nothing is exempt unless a flag says so.
/// The flags and environment variables are those of istio-iptables and mean the same for every packet.
///
/// Running it twice changes nothing; running it with other flags replaces the rules without a gap;
/// --cleanup leaves nothing behind. Rules of others are never touched. IPv4 and IPv6 are both captured
/// where the namespace speaks them. Needs CAP_NET_ADMIN there.
#[derive(clap::Args)]
#[command(args_override_self = true)]
#[command(after_long_help = "EXIT STATUS:\n  \
    0    the rules are as asked\n  \
    2    they are not: what was asked for cannot be done, or the arguments say nothing;\n  \
    \u{20}    or they are, and --run-validation could not look at them\n  \
    126  they are there, and --run-validation found them not to do what was asked\n\n\
EXAMPLES:\n  \
    weir init --sidecar                                capture everything of this namespace\n  \
    weir init --sidecar -x 10.0.0.0/8 -o 22            … but what goes to 10.0.0.0/8 or to port 22\n  \
    weir init --netns pod1 -i 10.96.0.0/12 -b 8080     services out, one port in\n  \
    weir init --sidecar --dry-run                      show the rules\n  \
    weir init --cleanup                                take them out")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) what: What,
    #[command(flatten)]
    dns: Dns,
    #[command(flatten)]
    exempt: Exempt,
    #[command(flatten)]
    proxy: Proxy,
    #[command(flatten)]
    pub(super) action: Action,
    #[command(flatten)]
    compatible: Compatible,
}

#[derive(clap::Args)]
#[command(next_help_heading = "What is captured")]
pub(super) struct What {
    /// Everything, both ways: -i '*' -b '*' -d 15020,15021,15090. A flag that is given as well replaces
    /// its part
    #[arg(long)]
    sidecar: bool,
    /// A YAML file that says it (docs/capture.md); a flag that is given as well replaces its part
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Outbound, capture exactly what the services of these Kubernetes manifests have: their addresses, at their
    /// ports. Takes --watch, and with iptables the program ipset
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["istio_service_cidr", "istio_outbound_ports"])]
    pub(super) services: Option<PathBuf>,
    /// Stay, and keep the rules up to date with --services. Ctrl-C takes them out; SIGTERM leaves them to the next run
    #[arg(long, requires = "services", conflicts_with_all = ["host", "dry_run", "cleanup"])]
    pub(super) watch: bool,
    /// Outbound destinations: networks, or '*' for all
    #[arg(short = 'i', long, value_name = "CIDRS", env, hide_env_values = true)]
    istio_service_cidr: Option<String>,
    /// Outbound ports, whatever the address
    #[arg(short = 'q', long, value_name = "PORTS", env, hide_env_values = true)]
    istio_outbound_ports: Option<String>,
    /// Inbound ports, or '*' for all
    #[arg(short = 'b', long, value_name = "PORTS", env, hide_env_values = true)]
    istio_inbound_ports: Option<String>,
    /// Devices of virtual machines: what comes in by them is captured as if it were made here
    #[arg(short = 'k', long, value_name = "DEVICES", env, hide_env_values = true)]
    kube_virt_interfaces: Option<String>,
    /// Families: ipv4, ipv6 or both [default: each that the namespace speaks]
    #[arg(long, value_name = "FAMILIES")]
    families: Option<String>,
    /// Also drop what comes in and belongs to no connection
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    drop_invalid: Option<String>,
    /// How inbound connections are captured: REDIRECT, or TPROXY, by which the application sees its clients'
    /// addresses and the proxy needs CAP_NET_ADMIN
    #[arg(short = 'm', long, value_name = "MODE", env, hide_env_values = true)]
    istio_inbound_interception_mode: Option<String>,
    /// TPROXY: mark on what the proxy sends to its application [default: 1337]
    #[arg(short = 't', long, value_name = "MARK", env, hide_env_values = true)]
    istio_inbound_tproxy_mark: Option<String>,
    /// TPROXY: routing table that leads what is marked to the proxy [default: 133]
    #[arg(short = 'r', long, value_name = "TABLE", env, hide_env_values = true)]
    istio_inbound_tproxy_route_table: Option<String>,
    /// TPROXY: whether conntrack follows what is captured. off: it has no entry for it, and switches of the
    /// namespace (net.ipv4.tcp_fwmark_accept, fwmark_reflect) are set; auto: off where that is possible
    /// [default: on]
    #[arg(long, value_name = "on|off|auto", env, hide_env_values = true)]
    inbound_tproxy_conntrack: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "DNS")]
struct Dns {
    /// Capture look-ups too: what goes to port 53 of the servers in `/etc/resolv.conf`, by UDP and TCP, is led to
    /// port 15053, where `weir proxy --dns` answers; while it does not, look-ups go direct
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    redirect_dns: Option<String>,
    /// With --redirect-dns: what goes to port 53 of any server
    #[arg(long, env, hide_env_values = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    capture_all_dns: Option<String>,
    /// With --redirect-dns: look-ups fail while no DNS proxy answers. For a proxy on port 15053 that is not
    /// Weir's, and gives no sign of life
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    dns_fail_closed: Option<String>,
    /// With --redirect-dns: the file that names the servers, read once
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
}

#[derive(clap::Args)]
#[command(next_help_heading = "What is left alone")]
struct Exempt {
    /// Outbound destinations
    #[arg(short = 'x', long, value_name = "CIDRS", env, hide_env_values = true)]
    istio_service_exclude_cidr: Option<String>,
    /// Outbound ports
    #[arg(short = 'o', long, value_name = "PORTS", env, hide_env_values = true)]
    istio_local_outbound_ports_exclude: Option<String>,
    /// Inbound ports, where -b is '*'
    #[arg(short = 'd', long, value_name = "PORTS", env, hide_env_values = true)]
    istio_local_exclude_ports: Option<String>,
    /// Inbound connections from these networks: who probes the application's health
    #[arg(long, value_name = "CIDRS")]
    inbound_exclude_sources: Option<String>,
    /// Devices, both ways; a trailing + stands for any ending
    #[arg(short = 'c', long, value_name = "DEVICES", env, hide_env_values = true)]
    istio_exclude_interfaces: Option<String>,
    /// Inbound port of the HBONE tunnel [default: 15008]
    #[arg(short = 'e', long, value_name = "PORT", env, hide_env_values = true)]
    inbound_tunnel_port: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "The proxy")]
struct Proxy {
    /// User ids that the proxy runs as [default: 1337]
    #[arg(short = 'u', long, value_name = "UIDS", env, hide_env_values = true)]
    proxy_uid: Option<String>,
    /// Group ids that the proxy runs as [default: those of -u]
    #[arg(short = 'g', long, value_name = "GIDS", env, hide_env_values = true)]
    proxy_gid: Option<String>,
    /// Marks (SO_MARK) on the proxy's sockets, VALUE or VALUE/MASK. Where a mark, a class id or a cgroup is given
    /// and neither -u nor -g, ids count for nothing
    #[arg(long, value_name = "MARKS", env, hide_env_values = true)]
    proxy_mark: Option<String>,
    /// Class ids (net_cls.classid, cgroup v1) that the proxy runs under: 0x100001, or 10:1
    #[arg(long, value_name = "IDS", env, hide_env_values = true)]
    proxy_class_id: Option<String>,
    /// Paths of cgroups (v2) that the proxy runs in, or below, as /proc/PID/cgroup has them. Run init again when
    /// one was made anew
    #[arg(long, value_name = "PATHS", env, hide_env_values = true)]
    proxy_cgroup: Option<String>,
    /// Port that outbound connections go to [default: 15001]
    #[arg(short = 'p', long, value_name = "PORT")]
    envoy_port: Option<String>,
    /// Port that inbound connections go to [default: 15006]
    #[arg(short = 'z', long, value_name = "PORT", env, hide_env_values = true)]
    inbound_capture_port: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Where and how")]
pub(super) struct Action {
    /// The namespace, by its path or its name under /run/netns [default: the one this runs in]
    #[arg(
        long,
        value_name = "PATH|NAME",
        alias = "network-namespace",
        env = "NETWORK_NAMESPACE"
    )]
    pub(super) netns: Option<String>,
    /// Print the rules, as nft or iptables-restore reads them, and write nothing
    #[arg(short = 'n', long, env, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = FalseyValueParser::new(), default_value = "false", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    pub(super) dry_run: bool,
    /// Take out every rule of Weir's, the routes of TPROXY, and the address ::6 if Weir put it on lo
    #[arg(long, alias = "cleanup-only", env = "CLEANUP_ONLY", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = FalseyValueParser::new(), default_value = "false",
          hide_default_value = true, hide_possible_values = true, value_name = "BOOL",
          conflicts_with_all = ["sidecar", "confirm"])]
    pub(super) cleanup: bool,
    /// Go on even if this is a machine's own network (it holds a physical device). The change is then taken
    /// back by itself unless it is confirmed in time
    #[arg(long)]
    pub(super) host: bool,
    /// Keep a change that was made with --host
    #[arg(long, conflicts_with_all = ["sidecar", "host"])]
    pub(super) confirm: bool,
    /// How long --host waits for --confirm
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "host",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) confirm_within: u64,
    /// What writes the rules, instead of what fits: nft (native nftables), iptables-nft, iptables-legacy, or
    /// iptables (whichever of the two is there)
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// As --backend iptables-nft and --backend iptables-legacy
    #[arg(long, value_name = "nft|legacy", env, hide_env_values = true)]
    force_iptables_binary: Option<String>,
    /// As --backend nft
    #[arg(long, env, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = FalseyValueParser::new(), default_value = "false", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    native_nftables: bool,
    /// How long to wait for another run that is changing rules, or for the lock of iptables-legacy; a program that
    /// does not end is killed after twice that time
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) wait: u64,
    /// Afterwards, verify that it is captured (weir verify), and exit with 126 where it is not
    #[arg(long, env, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = FalseyValueParser::new(), default_value = "false", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    run_validation: bool,
    /// Write no rule: with --run-validation, only verify
    #[arg(long, env, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = FalseyValueParser::new(), default_value = "false", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    skip_rule_apply: bool,
    /// The process that waits for a confirmation: rules to put back on standard input
    #[arg(long, hide = true, value_name = "SECONDS")]
    pub(super) undo_after: Option<u64>,
}

/// Flags of istio-iptables that change nothing here, or that Weir does not have: accepted and refused, never
/// ignored silently (docs/istio-iptables.md says which is which).
#[derive(clap::Args)]
struct Compatible {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    reconcile: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_apply: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dual_stack: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cni_mode: Option<String>,
    #[arg(long, hide = true)]
    iptables_probe_port: Option<String>,
    #[arg(long, hide = true)]
    probe_timeout: Option<String>,
    #[arg(long = "log_output_level", hide = true)]
    log_output_level: Option<String>,
}

impl Action {
    /// The one that is asked for; `--backend` before the others.
    pub(super) fn backend(&self) -> Result<Option<Backend>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(name) = given(&self.backend) {
            let known = Backend::ALL.into_iter().find(|known| known.as_str() == name);
            return match known {
                Some(backend) => Ok(Some(backend)),
                None => fail!(
                    Setting,
                    "--backend: `{name}` is no back-end; write nft, iptables-nft, iptables-legacy or iptables"
                ),
            };
        }
        if self.native_nftables {
            return Ok(Some(Backend::Nft));
        }
        Ok(match given(&self.force_iptables_binary).as_deref() {
            None => None,
            Some("nft") => Some(Backend::IptablesNft),
            Some("legacy") => Some(Backend::IptablesLegacy),
            Some(other) => fail!(
                Setting,
                "--force-iptables-binary: `{other}` is no variant; write nft or legacy"
            ),
        })
    }
}

impl Args {
    /// Another namespace than the one that this runs in.
    pub(super) fn netns(&self) -> Option<&str> {
        self.action.netns.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether what is asked for is to be verified.
    pub(super) fn validates(&self) -> bool {
        let Action {
            run_validation,
            dry_run,
            cleanup,
            confirm,
            undo_after,
            ..
        } = &self.action;
        *run_validation && !dry_run && !cleanup && !confirm && undo_after.is_none()
    }

    /// The file that says which DNS servers applications ask.
    pub(super) fn resolv_conf(&self) -> &Path {
        &self.dns.resolv_conf
    }

    /// Whether no rule is to be written.
    pub(super) fn skips_rules(&self) -> bool {
        self.action.skip_rule_apply
    }

    /// What they ask for, with what the file says.
    pub(super) fn intent(&self) -> Result<Intent> {
        let mut flags = self.flags();
        if let Some(file) = &self.what.config {
            let text = fs::read_to_string(file).or_named_with(ErrorName::Input, || {
                format!("--config: cannot read {}", file.display())
            })?;
            let document: serde_json::Value = serde_saphyr::from_str(&text)
                .or_named_with(ErrorName::Input, || {
                    format!("--config: {} is no YAML", file.display())
                })?;
            rules::config::read(&document, &mut flags)
                .map_err(|mistakes| all(&mistakes).context(format!("in {}", file.display())))?;
            // The flags for these are refused beside --services; so is the file's word for them.
            if self.what.services.is_some()
                && (flags.outbound_cidrs.is_some() || flags.outbound_ports.is_some())
            {
                fail!(
                    Usage,
                    "in {}: outbound.cidrs and outbound.ports cannot be used with --services, which alone says what \
                     is captured; take them out of the file, or leave --services out",
                    file.display()
                );
            }
        }
        flags.intent().map_err(|mistakes| match &self.what.config {
            Some(file) if !flags.named.is_empty() => {
                all(&mistakes).context(format!("in {} or the flags", file.display()))
            }
            _ => all(&mistakes),
        })
    }

    fn flags(&self) -> Flags {
        Flags {
            named: vec![],
            sidecar: self.what.sidecar,
            host: self.action.host,
            outbound_port: self.proxy.envoy_port.clone(),
            inbound_port: self.proxy.inbound_capture_port.clone(),
            tunnel_port: self.exempt.inbound_tunnel_port.clone(),
            proxy_uid: self.proxy.proxy_uid.clone(),
            proxy_gid: self.proxy.proxy_gid.clone(),
            proxy_mark: self.proxy.proxy_mark.clone(),
            proxy_class_id: self.proxy.proxy_class_id.clone(),
            proxy_cgroup: self.proxy.proxy_cgroup.clone(),
            mode: self.what.istio_inbound_interception_mode.clone(),
            tproxy_mark: self.what.istio_inbound_tproxy_mark.clone(),
            tproxy_table: self.what.istio_inbound_tproxy_route_table.clone(),
            tproxy_conntrack: self.what.inbound_tproxy_conntrack.clone(),
            inbound_ports: self.what.istio_inbound_ports.clone(),
            inbound_exclude_ports: self.exempt.istio_local_exclude_ports.clone(),
            outbound_cidrs: self.what.istio_service_cidr.clone(),
            outbound_exclude_cidrs: self.exempt.istio_service_exclude_cidr.clone(),
            outbound_ports: self.what.istio_outbound_ports.clone(),
            outbound_exclude_ports: self.exempt.istio_local_outbound_ports_exclude.clone(),
            exclude_interfaces: self.exempt.istio_exclude_interfaces.clone(),
            kube_virt_interfaces: self.what.kube_virt_interfaces.clone(),
            owner_groups: env::var("ISTIO_OUTBOUND_OWNER_GROUPS").ok(),
            owner_groups_exclude: env::var("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE").ok(),
            groups: groups(),
            // Either name of the variable will do, as with istio-iptables.
            drop_invalid: first([
                self.what.drop_invalid.clone(),
                env::var("INVALID_DROP").ok(),
                env::var("DROP_INVALID").ok(),
            ]),
            redirect_dns: first([
                self.dns.redirect_dns.clone(),
                env::var("ISTIO_META_DNS_CAPTURE").ok(),
                env::var("REDIRECT_DNS").ok(),
            ]),
            capture_all_dns: self.dns.capture_all_dns.clone(),
            dns_fail_closed: self.dns.dns_fail_closed.clone(),
            dns_servers: dns::nameservers(&self.dns.resolv_conf),
            resolv_conf: self.dns.resolv_conf.display().to_string(),
            exclude_sources: self.exempt.inbound_exclude_sources.clone(),
            families: self.what.families.clone(),
            loopback_cidr: env::var("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR").ok(),
            envoy_user: envoy_user(),
            // There is none left.
        }
    }
}

/// The first that says anything.
fn first(given: [Option<String>; 3]) -> Option<String> {
    given.into_iter().flatten().find(|value| !value.is_empty())
}

/// The id of the user that `ENVOY_USER` names (istio-proxy without it), where this machine knows one.
fn envoy_user() -> Option<u32> {
    let name = env::var("ENVOY_USER").unwrap_or_else(|_| "istio-proxy".to_owned());
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users
        .lines()
        .map(|line| line.split(':'))
        .find(|fields| fields.clone().next() == Some(name.as_str()))?;
    fields.nth(2)?.parse().ok()
}

/// The groups of this machine, by name.
fn groups() -> Vec<(String, u32)> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(named).collect()
}
