//! Rules that ask by which device a packet goes: probed by devices that are there, and by some that are not yet.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::{Pod, connect};
use netsys::probe::{Addresses, Tap};

use super::{BACKENDS, World, init, verify};

const SETTINGS: [&str; 3] = [
    "--sidecar -c eth1,tun7 -k tap+",
    "-i 10.96.0.0/12,fd00:96::/32 -b 8080 -c eth+,tun7 -k br7",
    "--sidecar -m TPROXY -c eth1,tun7,tap+",
];

#[test]
fn what_is_asked_for_by_device_is_proven_and_nothing_gets_out() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    let other = Pod::bare("other", "10.9.1.1".parse()?, "fd09:1::1".parse()?)?;
    connect((pod, "eth1"), (&other, "eth1"))?;
    pod.ip("addr add 10.9.1.2/24 dev eth1")?;
    pod.ip("-6 addr add fd09:1::2/64 dev eth1 nodad")?;
    let outside = other.within(|| Tap::open(Addresses::CHOICES[0]))??;
    for backend in BACKENDS {
        for setting in SETTINGS {
            init(pod, &format!("{setting} --backend {backend}"))?;
            let verified = verify(pod, "--before-proxy")?;
            ensure!(verified.code == 0, "{backend} {setting}: {}", verified.why());
            let findings = verified.findings()?;
            let named = setting.split_once(" -c ").context("devices")?.1;
            for name in named.replace(" -k ", ",").split(',') {
                let name = match name.strip_suffix('+') {
                    Some("eth") => "eth0".to_owned(),
                    Some(start) => format!("{start}weirprobe"),
                    None => name.to_owned(),
                };
                for (family, way) in [
                    ("IPv4", "from"),
                    ("IPv6", "from"),
                    ("IPv4", "uid"),
                    ("IPv6", "uid"),
                ] {
                    let is_it = |finding: &serde_json::Value| {
                        let sent = finding["sent"].as_str().unwrap_or_default();
                        let by = format!(" by {name} to ");
                        finding["family"] == family && sent.starts_with(way) && sent.contains(&by)
                    };
                    let is_there = findings.iter().any(is_it);
                    ensure!(is_there, "{backend} {setting}: nothing {way} by {name}, {family}");
                }
            }
        }
        init(pod, "--cleanup")?;
    }
    let seen = outside.next(Instant::now())?;
    ensure!(seen.is_none(), "it got out: {seen:?}");
    Ok(())
}

#[test]
fn what_no_probe_can_go_by_is_named() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    pod.ip("link add br0 type bridge")?;
    pod.ip("link add port0 type veth peer name port1")?;
    pod.ip("link set port0 master br0 up")?;
    pod.ip("link add small0 type veth peer name small1")?;
    pod.ip("link set small1 up")?;
    pod.ip("link set small0 mtu 1000 up")?;
    for (device, setting, why) in [
        ("br0", "", "br0, and no probe comes or leaves by it: it is down"),
        ("port0", "", "it is a port of another device"),
        (
            "small0",
            "",
            "nothing shows what goes by it by IPv6: it does not speak it",
        ),
        (
            "eth0",
            "net/ipv4/conf/eth0/rp_filter",
            "nothing shows what comes in by it by IPv4: rp_filter",
        ),
    ] {
        if !setting.is_empty() {
            pod.sysctl(setting, "1")?;
        }
        init(pod, &format!("--sidecar -c {device}"))?;
        let verified = verify(pod, "--before-proxy")?;
        ensure!(
            verified.code == 3 && verified.why().contains(why),
            "{device}: {}\n{}",
            verified.code,
            verified.why()
        );
    }
    Ok(())
}
