//! The flags of `weir init`, as text, to an [`Intent`]: names, defaults and meanings of istio-iptables.
//! Every mistake is reported at once, each with the flag that it is in.

mod collisions;
mod dns;
mod fields;
mod reader;

use std::net::IpAddr;

use model::ports;

pub(crate) use self::fields::{FIELDS, Field};
use self::reader::{Reader, device, id};
use crate::cgroup::{self, BadClassId, BadPath, Cgroup};
use crate::intent::{
    BadMark, Devices, Inbound, InboundMode, Intent, Outbound, Place, Proxy, Selection, Signs, SocketMark,
    Tproxy, Uncarried,
};
use crate::mistake::Mistake;

/// What was given, on the command line or in the environment. Empty text counts as not given.
#[derive(Clone, Default, Debug)]
pub struct Flags {
    /// `--sidecar`.
    pub sidecar: bool,
    /// `--host`.
    pub host: bool,
    /// `-p`.
    pub outbound_port: Option<String>,
    /// `-z`.
    pub inbound_port: Option<String>,
    /// `-e`.
    pub tunnel_port: Option<String>,
    /// `-u`.
    pub proxy_uid: Option<String>,
    /// `-g`.
    pub proxy_gid: Option<String>,
    /// `--proxy-mark`.
    pub proxy_mark: Option<String>,
    /// `--proxy-class-id`.
    pub proxy_class_id: Option<String>,
    /// `--proxy-cgroup`.
    pub proxy_cgroup: Option<String>,
    /// `-m`.
    pub mode: Option<String>,
    /// `-t`.
    pub tproxy_mark: Option<String>,
    /// `-r`.
    pub tproxy_table: Option<String>,
    /// `--inbound-tproxy-conntrack`.
    pub tproxy_conntrack: Option<String>,
    /// `-b`.
    pub inbound_ports: Option<String>,
    /// `-d`.
    pub inbound_exclude_ports: Option<String>,
    /// `-i`.
    pub outbound_cidrs: Option<String>,
    /// `-x`.
    pub outbound_exclude_cidrs: Option<String>,
    /// `-q`.
    pub outbound_ports: Option<String>,
    /// `-o`.
    pub outbound_exclude_ports: Option<String>,
    /// `-c`.
    pub exclude_interfaces: Option<String>,
    /// `-k`.
    pub kube_virt_interfaces: Option<String>,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS`; all without it, and none where it is empty.
    pub owner_groups: Option<String>,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`.
    pub owner_groups_exclude: Option<String>,
    /// The groups that the machine knows, by name.
    pub groups: Vec<(String, u32)>,
    /// `--drop-invalid`.
    pub drop_invalid: Option<String>,
    /// `--redirect-dns`.
    pub redirect_dns: Option<String>,
    /// `--capture-all-dns`.
    pub capture_all_dns: Option<String>,
    /// `--dns-fail-closed`.
    pub dns_fail_closed: Option<String>,
    /// The DNS servers of this machine.
    pub dns_servers: Vec<IpAddr>,
    /// The file that names them.
    pub resolv_conf: String,
    /// `--inbound-exclude-sources`.
    pub exclude_sources: Option<String>,
    /// `--families`.
    pub families: Option<String>,
    /// `ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`.
    pub loopback_cidr: Option<String>,
    /// The id of the user that `ENVOY_USER` names, where there is one.
    pub envoy_user: Option<u32>,
    /// Flags whose values are a file's: the name of each, and the field that it is there.
    pub named: Vec<(&'static str, &'static str)>,
}

/// `-d` of the preset `--sidecar`: the ports at which the proxy itself answers.
pub const SIDECAR_EXCLUDE_PORTS: [u16; 3] = [ports::METRICS, ports::HEALTH, ports::ENVOY_METRICS];

impl Flags {
    /// What they ask for.
    ///
    /// # Errors
    /// All mistakes, in the order of the flags.
    pub fn intent(&self) -> Result<Intent, Vec<Mistake>> {
        let mut read = Reader::default();
        let intent = Intent {
            proxy: Proxy::Inside(self.signs(&mut read)),
            outbound: self.outbound(&mut read),
            inbound: self.inbound(&mut read),
            dns: self.dns(&mut read),
            uncarried: Uncarried::Pass,
            place: if self.host { Place::Host } else { Place::Container },
            devices: Devices {
                excluded: read.items(
                    "-c (--istio-exclude-interfaces)",
                    self.exclude_interfaces.as_deref(),
                    device,
                ),
                virtual_machines: read.items(
                    "-k (--kube-virt-interfaces)",
                    self.kube_virt_interfaces.as_deref(),
                    device,
                ),
            },
            families: read.families(self.families.as_deref()),
            drop_invalid: read.boolean("--drop-invalid", self.drop_invalid.as_deref()),
        };
        read.distinct_ports(&intent);
        for mistake in &mut read.mistakes {
            if let Some((_, field)) = self.named.iter().find(|(flag, _)| *flag == mistake.flag) {
                (*field).clone_into(&mut mistake.flag);
            }
        }
        if read.mistakes.is_empty() {
            Ok(intent)
        } else {
            Err(read.mistakes)
        }
    }

    /// What is given stands alone; without anything the proxy is the user of istio-iptables.
    fn signs(&self, read: &mut Reader) -> Signs {
        let class_ids = read.items(cgroup::CLASS_FLAG, self.proxy_class_id.as_deref(), |item| {
            item.parse().map_err(|error: BadClassId| error.to_string())
        });
        let cgroups = read.items(cgroup::PATH_FLAG, self.proxy_cgroup.as_deref(), |item| {
            let path = item.parse().map_err(|error: BadPath| error.to_string())?;
            Ok(Cgroup { path, id: None })
        });
        let marks = read.items("--proxy-mark", self.proxy_mark.as_deref(), |item| {
            item.parse().map_err(|error: BadMark| error.to_string())
        });
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let others = [&self.proxy_mark, &self.proxy_class_id, &self.proxy_cgroup];
        if others.into_iter().any(given) && !given(&self.proxy_uid) && !given(&self.proxy_gid) {
            return Signs {
                marks,
                class_ids,
                cgroups,
                ..Signs::default()
            };
        }
        let default = self.envoy_user.unwrap_or(ports::PROXY_ID);
        let uids = match given(&self.proxy_uid) {
            true => read.items("-u (--proxy-uid)", self.proxy_uid.as_deref(), id),
            false => vec![default],
        };
        let gids = match given(&self.proxy_gid) {
            true => read.items("-g (--proxy-gid)", self.proxy_gid.as_deref(), id),
            false => uids.clone(),
        };
        Signs {
            uids,
            gids,
            marks,
            class_ids,
            cgroups,
        }
    }

    fn outbound(&self, read: &mut Reader) -> Outbound {
        let cidrs = match preset(self.outbound_cidrs.as_deref(), self.sidecar) {
            Some("*") => Selection::All,
            text => Selection::Only(read.networks("-i (--istio-service-cidr)", text)),
        };
        const EXCLUDE_CIDRS: &str = "-x (--istio-service-exclude-cidr)";
        let exclude_cidrs = match self.outbound_exclude_cidrs.as_deref() {
            Some("*") => {
                read.wrong(
                    EXCLUDE_CIDRS,
                    "`*` would exclude everything; to capture nothing outbound, leave -i empty",
                );
                vec![]
            }
            text => read.networks(EXCLUDE_CIDRS, text),
        };
        Outbound {
            lent: vec![],
            services: None,
            to_port: read.port(
                "-p (--envoy-port)",
                self.outbound_port.as_deref(),
                ports::OUTBOUND,
            ),
            cidrs,
            exclude_cidrs,
            ports: read.ports("-q (--istio-outbound-ports)", self.outbound_ports.as_deref()),
            exclude_ports: read.ports(
                "-o (--istio-local-outbound-ports-exclude)",
                self.outbound_exclude_ports.as_deref(),
            ),
            loopback_v4: read.loopback(self.loopback_cidr.as_deref()),
            groups: self.owner_groups(read),
            exclude_groups: read.items(
                "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
                self.owner_groups_exclude.as_deref(),
                |item| self.group(item),
            ),
        }
    }

    fn owner_groups(&self, read: &mut Reader) -> Selection<u32> {
        const NAME: &str = "ISTIO_OUTBOUND_OWNER_GROUPS";
        let text = match self.owner_groups.as_deref() {
            None | Some("*") => return Selection::All,
            text => text,
        };
        let groups = read.items(NAME, text, |item| self.group(item));
        if groups.len() > MOST_GROUPS {
            read.wrong(
                NAME,
                format!("names more than {MOST_GROUPS} groups; capture all and exclude the others"),
            );
        }
        Selection::Only(groups)
    }

    /// By name, as istio-iptables has it, or by number.
    fn group(&self, text: &str) -> Result<u32, String> {
        let by_name = self.groups.iter().find(|(name, _)| name == text);
        match (text.parse(), by_name) {
            (Ok(id), _) => Ok(id),
            (_, Some((_, id))) => Ok(*id),
            _ => Err(format!(
                "`{text}` is no numeric group id, and no group of this machine has that name"
            )),
        }
    }

    fn mode(&self, read: &mut Reader) -> InboundMode {
        const FLAG: &str = "-m (--istio-inbound-interception-mode)";
        let usual = Tproxy::USUAL;
        let mark = read.number(
            "-t (--istio-inbound-tproxy-mark)",
            self.tproxy_mark.as_deref(),
            usual.mark.value,
        );
        let table = read.number(
            "-r (--istio-inbound-tproxy-route-table)",
            self.tproxy_table.as_deref(),
            usual.table,
        );
        let tracking = read.tracking(self.tproxy_conntrack.as_deref());
        match self.mode.as_deref().unwrap_or_default() {
            "" | "REDIRECT" => return InboundMode::Redirect,
            "TPROXY" => {}
            other => {
                read.wrong(FLAG, format!("`{other}` is no mode; use REDIRECT or TPROXY"));
                return InboundMode::Redirect;
            }
        }
        let taken = match mark {
            _ if mark == Tproxy::SELF_CALL.value => Some("the proxy's calls to itself"),
            _ if mark == Tproxy::CLIENT.value => Some("clients' connections"),
            _ => None,
        };
        if let Some(of) = taken {
            let problem = format!("{mark} is the mark of {of}; give another one");
            read.wrong("-t (--istio-inbound-tproxy-mark)", problem);
        }
        if RESERVED_TABLES.contains(&table) {
            let problem = format!("{table} is one of the system's own tables; give another one");
            read.wrong("-r (--istio-inbound-tproxy-route-table)", problem);
        }
        InboundMode::Tproxy(Tproxy {
            mark: SocketMark::exact(mark),
            table,
            tracking,
        })
    }

    fn inbound(&self, read: &mut Reader) -> Inbound {
        let ports = match preset(self.inbound_ports.as_deref(), self.sidecar) {
            Some("*") => Selection::All,
            text => Selection::Only(read.ports("-b (--istio-inbound-ports)", text)),
        };
        let exclude_ports = match &self.inbound_exclude_ports {
            None if self.sidecar => SIDECAR_EXCLUDE_PORTS.to_vec(),
            text => read.ports("-d (--istio-local-exclude-ports)", text.as_deref()),
        };
        Inbound {
            mode: self.mode(read),
            to_port: read.port(
                "-z (--inbound-capture-port)",
                self.inbound_port.as_deref(),
                ports::INBOUND,
            ),
            tunnel_port: read.port(
                "-e (--inbound-tunnel-port)",
                self.tunnel_port.as_deref(),
                ports::HBONE,
            ),
            ports,
            exclude_ports,
            exclude_sources: read.networks("--inbound-exclude-sources", self.exclude_sources.as_deref()),
        }
    }
}

/// Default, main and local.
const RESERVED_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

/// As many as one rule of iptables has room for.
const MOST_GROUPS: usize = 64;

/// A flag that is given replaces the preset's value.
fn preset(given: Option<&str>, sidecar: bool) -> Option<&str> {
    given.or(sidecar.then_some("*"))
}
