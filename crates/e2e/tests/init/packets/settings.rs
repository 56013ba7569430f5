//! The configurations of the suite, as the flags that a person would write.

use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rules::Flags;

use super::world::World;

/// One configuration.
pub(crate) struct Setting {
    /// As it is written: `-i * -b 80`.
    pub(crate) name: String,
    pub(crate) flags: Flags,
    /// Captured alone: addresses with a port.
    pub(crate) services: Option<Vec<SocketAddr>>,
    /// Of how many packets one is sent.
    pub(crate) every: usize,
}

/// Each says something that the others do not.
const WRITTEN: [&str; 49] = [
    "--sidecar",
    "-i *",
    "-b *",
    "-b 80,8080",
    "-b 80,15008 -i 10.96.0.0/12",
    "-b * -d 22,80",
    "-i * -x 192.0.2.0/24,2001:db8::/32",
    "-i * -o 22,15020",
    "-i 10.96.0.0/12,fd00:96::/32",
    "-i 10.0.0.0/8 -x 10.96.0.0/16",
    "-q 80",
    "-q 80,8080 -x 192.0.2.7/32,fd00:96::/32",
    "-q 80 -o 80 -i 10.96.0.0/12",
    "-i 127.0.0.0/8,10.96.0.0/12",
    "-i 0.0.0.0/0,::/0 -b *",
    "-i * -b * -u 1337,1338 -g 1337",
    "-i * -b * -u 1338 -g 1338",
    "-i * -b * --proxy-mark 0x539",
    "-i * -b * --proxy-mark 0x539/0xfff -u 1337",
    "-i * -b * --proxy-class-id CLASS",
    "-i * -b * --proxy-cgroup CGROUP",
    "--sidecar --proxy-class-id 7,CLASS --proxy-cgroup CGROUP -x 192.0.2.0/24",
    "-i * -b 80 --proxy-cgroup CGROUP --proxy-mark 0x539 -o 22",
    "-i 127.0.0.0/8,10.96.0.0/12 -b * -u 1338 -g 1337 --proxy-cgroup CGROUP --proxy-class-id CLASS",
    "-i * -b * -e 8080",
    "--sidecar -c eth1",
    "--sidecar -c eth+",
    "--sidecar -c lo",
    "--sidecar -k eth1",
    "-i 10.79.0.0/24,fd00:96::/32 -b * -k eth1",
    "-i * --groups 1000",
    "-i * --exclude-groups 1000,1337",
    "--sidecar --sources 10.77.0.2,fd00:79::/64",
    "--sidecar --drop-invalid true",
    "--services 10.96.0.10:80,192.0.2.7:8080,[fd00:96::10]:80 -b 80",
    "--services 10.77.0.1:80,10.79.0.2:22,[2001:db8::7]:8080 -x 10.79.0.0/24 -o 8080",
    // No sender of the table has the mark that the answers are routed by.
    "--sidecar -m TPROXY -t 7",
    "-b 80,8080 -m TPROXY -t 7",
    "--sidecar -m TPROXY -t 7 -k eth1 -d 80",
    "--sidecar -m TPROXY -t 7 -c eth1 -o 22",
    "-i 127.0.0.0/8,10.96.0.0/12 -b * -e 8080 -u 1338 -g 1337 -m TPROXY -t 7 -r 77",
    "--sidecar -m TPROXY -t 7 --proxy-class-id CLASS",
    "--sidecar -m TPROXY -t 7 --proxy-cgroup CGROUP -o 22",
    "-b * -d 22,80 --sources 10.77.0.2,fd00:79::/64 --drop-invalid true -m TPROXY -t 7",
    // Without conntrack.
    "--sidecar -m TPROXY -t 7 --conntrack off",
    "-b 80,8080 -i 10.96.0.0/12 -m TPROXY -t 7 --conntrack off",
    "--sidecar -k eth1 -d 80 -m TPROXY -t 7 --conntrack off",
    "--sidecar -c eth1 -o 22 --proxy-cgroup CGROUP -m TPROXY -t 7 --conntrack off",
    "-b * -d 22,80 --sources 10.77.0.2,fd00:79::/64 --drop-invalid true -m TPROXY -t 7 -r 77 --conntrack off",
];
/// So many more are made up, the same ones in each run.
const MADE_UP: usize = 36;

/// All of them.
pub(crate) fn all(world: &World) -> Result<Vec<Setting>> {
    let mut all: Vec<_> = WRITTEN.iter().map(|name| setting(world.named(name), 3)).collect();
    let mut random = TestRunner::deterministic();
    while all.len() < WRITTEN.len() + MADE_UP {
        let made = made_up().new_tree(&mut random).map_err(|why| anyhow!("{why}"))?;
        let made = setting(world.named(&made.current()), 8);
        let captures = made.flags.intent().is_ok_and(|intent| !intent.captures_nothing());
        if captures && !all.iter().any(|known| known.name == made.name) {
            all.push(made);
        }
    }
    Ok(all)
}

pub(crate) fn setting(name: String, every: usize) -> Setting {
    let (mut flags, mut services) = (Flags::default(), None);
    let mut words = name.split(' ');
    while let Some(flag) = words.next() {
        if flag == "--sidecar" {
            flags.sidecar = true;
            continue;
        }
        if flag == "--services" {
            let list = words.next().unwrap_or_default().split(',');
            services = list.map(|service| service.parse().ok()).collect();
            continue;
        }
        let value = words.next().map(str::to_owned);
        *match flag {
            "-u" => &mut flags.proxy_uid,
            "-g" => &mut flags.proxy_gid,
            "--proxy-mark" => &mut flags.proxy_mark,
            "--proxy-class-id" => &mut flags.proxy_class_id,
            "--proxy-cgroup" => &mut flags.proxy_cgroup,
            "-i" => &mut flags.outbound_cidrs,
            "-x" => &mut flags.outbound_exclude_cidrs,
            "-q" => &mut flags.outbound_ports,
            "-o" => &mut flags.outbound_exclude_ports,
            "-b" => &mut flags.inbound_ports,
            "-d" => &mut flags.inbound_exclude_ports,
            "-e" => &mut flags.tunnel_port,
            "-c" => &mut flags.exclude_interfaces,
            "-k" => &mut flags.kube_virt_interfaces,
            "--groups" => &mut flags.owner_groups,
            "--exclude-groups" => &mut flags.owner_groups_exclude,
            "-m" => &mut flags.mode,
            "-t" => &mut flags.tproxy_mark,
            "-r" => &mut flags.tproxy_table,
            "--conntrack" => &mut flags.tproxy_conntrack,
            "--sources" => &mut flags.exclude_sources,
            "--drop-invalid" => &mut flags.drop_invalid,
            _ => panic!("{flag} is no flag of this table"),
        } = value;
    }
    Setting {
        name,
        flags,
        services,
        every,
    }
}

/// Each flag with some of these values, or not at all.
const CHOICES: [(&str, &[&str]); 16] = [
    ("-u", &["1337", "1338", "0"]),
    ("-g", &["1337", "1338", "1000"]),
    ("--proxy-mark", &["0x539", "0x1/0xff"]),
    ("--proxy-class-id", &["CLASS", "7"]),
    ("--proxy-cgroup", &["CGROUP"]),
    (
        "-i",
        &[
            "10.96.0.0/12",
            "10.0.0.0/8",
            "fd00::/8",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "192.0.2.7",
        ],
    ),
    (
        "-x",
        &["10.96.0.0/16", "fd00:96::10", "192.0.2.0/24", "10.79.0.0/24"],
    ),
    ("-q", &["22", "80", "15020"]),
    ("-o", &["22", "8080", "15008"]),
    ("-b", &["22", "80", "8080", "15008"]),
    ("-d", &["22", "15020"]),
    ("-m", &["TPROXY -t 7"]),
    ("-c", &["eth1", "lo"]),
    ("-k", &["eth1"]),
    ("--exclude-groups", &["1000", "1337"]),
    ("--sources", &["10.77.0.2", "fd00:79::/64"]),
];

fn made_up() -> impl Strategy<Value = String> {
    let one = |(flag, values): (&'static str, &'static [&'static str])| {
        let some = prop::sample::subsequence(values, 1..=values.len()).prop_map(|some| some.join(","));
        let value = match flag {
            "-i" | "-b" => prop_oneof![Just("*".to_owned()), some].boxed(),
            _ => some.boxed(),
        };
        prop::option::of(value.prop_map(move |value| format!("{flag} {value}")))
    };
    let each: Vec<_> = CHOICES.into_iter().map(one).collect();
    each.prop_map(|flags| flags.into_iter().flatten().collect::<Vec<_>>().join(" "))
        .prop_filter("something", |name| !name.is_empty())
}
