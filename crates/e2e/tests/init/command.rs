//! `weir init` as its users run it: what it writes, what it leaves alone, what it refuses, and that it
//! takes back what nobody confirms.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{Finished, Net, Pod, RunAs, eventually, weir};

fn pod() -> Result<Pod> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    pod.ip("link set other up")?;
    Ok(pod)
}

/// With rules by iptables-nft, unless it is said otherwise: what is there is then seen by iptables-save.
fn init(pod: &Pod, arguments: &str) -> Result<Finished> {
    let writes = !["--cleanup", "--confirm", "--force", "--backend"]
        .iter()
        .any(|flag| {
            arguments
                .split_whitespace()
                .any(|given| given.starts_with(flag) && given != "--confirm-within")
        });
    let by = if writes { "--backend iptables-nft" } else { "" };
    init_as_it_fits(pod, &format!("{arguments} {by}"))
}

fn init_as_it_fits(pod: &Pod, arguments: &str) -> Result<Finished> {
    let mut all = vec!["init"];
    all.extend(arguments.split_whitespace());
    weir::run(pod, &all)
}

/// Runs it where it must fail, and gives back what it said.
fn refusal(pod: &Pod, who: RunAs, arguments: &[&str]) -> Result<String> {
    let binary = weir::binary()?;
    let mut all = vec!["init"];
    all.extend(arguments);
    let finished = pod.try_run(who, &binary.to_string_lossy(), all)?;
    ensure!(
        !finished.status.success(),
        "{arguments:?} was accepted: {}",
        finished.text()
    );
    Ok(finished.errors())
}

/// Both families of one variant as `iptables-save` shows them, without the dates and the packet counts of
/// chains: the kernel's own neighbour packets count too.
fn saved(pod: &Pod, variant: &str, arguments: &[&str]) -> Result<String> {
    let mut text = String::new();
    for program in ["iptables", "ip6tables"] {
        let said = pod.run(&format!("{program}-{variant}-save"), arguments)?.text();
        text.extend(said.lines().filter(|line| !line.starts_with('#')).map(
            |line| match line.split_once(" [") {
                Some((chain, _)) if line.starts_with(':') => format!("{chain}\n"),
                _ => format!("{line}\n"),
            },
        ));
    }
    Ok(text)
}

fn rules(pod: &Pod) -> Result<String> {
    saved(pod, "nft", &[])
}

fn on_lo(pod: &Pod) -> Result<String> {
    Ok(pod.run("ip", ["-6", "addr", "show", "dev", "lo"])?.text())
}

#[test]
fn a_second_run_writes_nothing_and_no_counter_moves() -> Result<()> {
    let pod = pod()?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(
        said.contains("Captured") && said.contains("IPv4") && said.contains("IPv6"),
        "{said}"
    );
    // So that a counter has something to lose.
    let _ = pod.dial("192.0.2.1:80".parse()?);
    let _ = pod.dial("[2001:db8::1]:80".parse()?);
    let before = saved(&pod, "nft", &["-c"])?;
    assert!(before.contains("WEIR_OUTPUT"), "{before}");
    let said = init(&pod, "--sidecar")?.text();
    assert!(said.contains("Nothing to do"), "{said}");
    assert_eq!(saved(&pod, "nft", &["-c"])?, before);
    Ok(())
}

/// Rules of somebody else before, around and after ours, in chains of theirs too.
fn foreign(pod: &Pod, variant: &str, place: &str) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        let run = |arguments: &str| pod.run(&format!("{program}-{variant}"), arguments.split(' '));
        run(&format!("-t nat -{place} OUTPUT -p tcp --dport 4242 -j RETURN"))?;
        run(&format!(
            "-t nat -{place} PREROUTING -p tcp --dport 4242 -j RETURN"
        ))?;
        if place == "A" {
            run("-t nat -N OTHERS")?;
            run("-t nat -A OTHERS -p tcp -m multiport --dports 1:5,4243 -j REDIRECT --to-ports 4244")?;
            run(
                "-t nat -A OUTPUT -p tcp -m limit --limit 5/min -m comment --comment it's_\"theirs\" -j OTHERS",
            )?;
            run("-t filter -A INPUT -m conntrack --ctstate INVALID -j DROP")?;
        }
    }
    Ok(())
}

#[test]
fn foreign_rules_stay_where_they_are_and_clean_up_leaves_what_was_before() -> Result<()> {
    for variant in ["nft", "legacy"] {
        let force = format!("--force-iptables-binary {variant}");
        let pod = pod()?;
        foreign(&pod, variant, "A")?;
        let before = (saved(&pod, variant, &[])?, on_lo(&pod)?);
        init(&pod, &format!("--sidecar {force}"))?;
        init(&pod, "--cleanup")?;
        assert_eq!((saved(&pod, variant, &[])?, on_lo(&pod)?), before, "{variant}");

        // Ours stay between theirs when they are replaced.
        init(&pod, &format!("--sidecar {force}"))?;
        foreign(&pod, variant, "I")?;
        foreign_tail(&pod, variant)?;
        let order = jumps(&saved(&pod, variant, &[])?);
        init(&pod, &format!("-i 10.0.0.0/8 -b 80 -x 10.1.0.0/16 {force}"))?;
        assert_eq!(jumps(&saved(&pod, variant, &[])?), order, "{variant}");
        init(&pod, "--cleanup")?;
        let after = saved(&pod, variant, &[])?;
        assert!(!after.contains("WEIR") && !after.contains("weir"), "{after}");
        let theirs: Vec<_> = order.into_iter().filter(|line| !line.contains("WEIR")).collect();
        assert_eq!(jumps(&after), theirs, "{variant}");
    }
    Ok(())
}

fn foreign_tail(pod: &Pod, variant: &str) -> Result<()> {
    let tail = [
        "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "4245", "-j", "RETURN",
    ];
    pod.run(&format!("iptables-{variant}"), tail).map(drop)
}

/// The rules of the built-in chains, in order.
fn jumps(saved: &str) -> Vec<String> {
    let of_builtin = |line: &&str| line.starts_with("-A OUTPUT") || line.starts_with("-A PREROUTING");
    saved.lines().filter(of_builtin).map(str::to_owned).collect()
}

#[test]
fn clean_up_takes_away_the_tables_that_weir_made_and_no_others() -> Result<()> {
    let pod = pod()?;
    let before = rules(&pod)?;
    assert_eq!(before, "", "a new namespace has no table");
    init(&pod, "--sidecar")?;
    init(&pod, "--sidecar -o 22")?;
    init(&pod, "--cleanup")?;
    assert_eq!(rules(&pod)?, before);
    assert_eq!(pod.run("nft", ["list", "ruleset"])?.text(), "");

    // Made by somebody else, and empty.
    pod.run("iptables-nft", ["-t", "nat", "-A", "OUTPUT", "-j", "RETURN"])?;
    pod.run("iptables-nft", ["-t", "nat", "-F", "OUTPUT"])?;
    let before = rules(&pod)?;
    init(&pod, "--sidecar")?;
    init(&pod, "--cleanup")?;
    assert_eq!(rules(&pod)?, before);

    // Made by Weir, and used by others since, in a way that iptables does not show.
    pod.run("nft", ["delete", "table", "ip", "nat"])?;
    init(&pod, "--sidecar")?;
    pod.run("nft", "add set ip nat theirs { type ipv4_addr; }".split(' '))?;
    init(&pod, "--cleanup")?;
    assert!(pod.run("nft", ["list", "ruleset"])?.text().contains("theirs"));
    Ok(())
}

#[test]
fn an_address_that_was_there_before_stays() -> Result<()> {
    let pod = pod()?;
    pod.ip("addr add ::6/128 dev lo nodad")?;
    let before = on_lo(&pod)?;
    init(&pod, "--sidecar")?;
    init(&pod, "--sidecar")?;
    init(&pod, "--cleanup")?;
    assert_eq!(on_lo(&pod)?, before);
    Ok(())
}

#[test]
fn the_passthrough_address_is_put_on_lo_and_comes_back_if_lost() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    assert!(on_lo(&pod)?.contains("::6/128"));
    pod.ip("addr del ::6/128 dev lo")?;
    init(&pod, "--sidecar")?;
    assert!(on_lo(&pod)?.contains("::6/128"));
    init(&pod, "--cleanup")?;
    assert!(!on_lo(&pod)?.contains("::6/128"));
    Ok(())
}

#[test]
fn what_somebody_has_changed_is_mended() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    let wanted = rules(&pod)?;
    for damage in [
        "-t nat -D WEIR_OUTPUT 2",
        "-t nat -F WEIR_INBOUND",
        "-t nat -I WEIR_OUTPUT 1 -p tcp -j RETURN",
        "-t nat -A OUTPUT -p tcp -j WEIR_OUTPUT",
        "-t nat -F OUTPUT",
        "-t nat -N WEIR_STALE",
        "-t mangle -N WEIR_STALE",
    ] {
        pod.run("iptables-nft", damage.split(' '))?;
        ensure!(rules(&pod)? != wanted, "{damage} did nothing");
        init(&pod, "--sidecar")?;
        // An empty table has no rule to mend, and iptables has no word for removing it.
        let now = rules(&pod)?;
        let nat = |text: &str| text[text.find("*nat").unwrap_or(0)..].to_owned();
        assert_eq!(nat(&now), nat(&wanted), "after {damage}");
        assert!(!now.contains("STALE"), "{now}");
    }
    Ok(())
}

#[test]
fn nothing_is_captured_without_a_flag_that_says_so() -> Result<()> {
    let pod = pod()?;
    let before = rules(&pod)?;
    for arguments in [
        "",
        "-u 1337 -g 1337 -p 15001 -z 15006 -m REDIRECT",
        "-x 10.0.0.0/8 -d 80 -o 22",
    ] {
        let said = init(&pod, arguments)?.text();
        assert!(
            said.contains("Nothing is captured") && said.contains("--sidecar"),
            "{said}"
        );
    }
    assert_eq!(rules(&pod)?, before);

    // Nor is anything taken away without one, and it is said that it stays.
    init(&pod, "--sidecar")?;
    let captured = rules(&pod)?;
    let said = init(&pod, "-b=")?.text();
    assert!(
        said.contains("go on capturing") && said.contains("--cleanup"),
        "{said}"
    );
    assert_eq!(rules(&pod)?, captured);
    let binary = weir::binary()?.to_string_lossy().into_owned();
    pod.run("env", ["CLEANUP_ONLY=true", &*binary, "init", "-i", "*"])?;
    assert_eq!(rules(&pod)?, before);
    let said = refusal(&pod, RunAs::Root, &["--sidecar", "--netns", "/etc/passwd"])?;
    assert!(
        said.contains("/etc/passwd is a file, but no network namespace"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_dry_run_prints_what_a_run_writes_and_writes_nothing() -> Result<()> {
    let pod = pod()?;
    let before = (rules(&pod)?, on_lo(&pod)?);
    // It needs no right either.
    let binary = weir::binary()?;
    let shown = pod
        .run_as(
            RunAs::Application,
            &binary.to_string_lossy(),
            ["init", "--sidecar", "-n", "--backend", "iptables"],
        )?
        .text();
    assert_eq!((rules(&pod)?, on_lo(&pod)?), before);
    // Handed to iptables-restore, it is what a run would have written.
    let v4 = shown.split("# IPv6").next().context("both families")?;
    restore(&pod, v4)?;
    let by_hand = pod.run("iptables-nft-save", ["-t", "nat"])?.text();
    init(&pod, "--cleanup")?;
    init(&pod, "--sidecar")?;
    let by_init = pod.run("iptables-nft-save", ["-t", "nat"])?.text();
    let lines = |text: &str| -> Vec<String> {
        let rules = text.lines().filter(|line| !line.starts_with('#'));
        rules.map(str::to_owned).collect()
    };
    assert_eq!(lines(&by_hand), lines(&by_init));
    Ok(())
}

fn restore(pod: &Pod, text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let path = file.path().to_string_lossy();
    pod.run("iptables-nft-restore", ["--noflush", path.as_ref()])
        .map(drop)
}

#[test]
fn several_at_once_leave_one_whole_rule_set() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    let wanted = rules(&pod)?;
    init(&pod, "--cleanup")?;
    let binary = weir::binary()?;
    let others = ["--sidecar", "--cleanup", "-i 10.0.0.0/8 -b 80", "--sidecar -o 22"];
    for round in 0..5 {
        let started: Vec<_> = (0..8)
            .map(|index| {
                let arguments = others[(index + round) % others.len()].split(' ');
                let mut command = Command::new(&binary);
                command
                    .arg("init")
                    .args(arguments)
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped());
                pod.netns().start_in(&mut command);
                command.spawn()
            })
            .collect();
        for child in started {
            let output = child?.wait_with_output()?;
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        init(&pod, "--sidecar")?;
        assert_eq!(rules(&pod)?, wanted);
    }
    Ok(())
}

#[test]
fn it_enters_a_namespace_by_path() -> Result<()> {
    let pod = pod()?;
    let elsewhere = Pod::bare("elsewhere", "10.77.0.2".parse()?, "fd00:77::2".parse()?)?;
    init(&elsewhere, &format!("--sidecar --netns {}", pod.path()))?;
    assert!(rules(&pod)?.contains("WEIR_OUTPUT"));
    assert!(!rules(&elsewhere)?.contains("WEIR_OUTPUT"));
    init(
        &elsewhere,
        &format!("--cleanup --network-namespace {}", pod.path()),
    )?;
    assert!(!rules(&pod)?.contains("WEIR_OUTPUT"));
    let said = refusal(&elsewhere, RunAs::Root, &["--sidecar", "--netns", "no-such-name"])?;
    assert!(
        said.contains("no-such-name") && said.contains("/run/netns"),
        "{said}"
    );
    Ok(())
}

#[test]
fn it_enters_a_namespace_by_name() -> Result<()> {
    let pod = pod()?;
    let elsewhere = Pod::bare("elsewhere", "10.77.0.2".parse()?, "fd00:77::2".parse()?)?;
    // Where `ip netns` keeps them, in a view of the file system of the test's own.
    let script = format!(
        "mount -t tmpfs weir /run && mkdir /run/netns && touch /run/netns/blue && mount --bind {} /run/netns/blue && \
         exec {} init --sidecar --netns blue --backend iptables-nft",
        pod.path(),
        weir::binary()?.display()
    );
    elsewhere.run("unshare", ["-m", "sh", "-c", &script])?;
    assert!(rules(&pod)?.contains("WEIR_OUTPUT"));
    assert!(!rules(&elsewhere)?.contains("WEIR_OUTPUT"));
    Ok(())
}

#[test]
fn the_environment_of_istio_iptables_is_understood_and_the_command_line_wins() -> Result<()> {
    let pod = pod()?;
    let binary = weir::binary()?;
    let environment = [
        "ISTIO_SERVICE_CIDR=10.96.0.0/12",
        "ISTIO_INBOUND_PORTS=80",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE=22",
        "PROXY_UID=4321",
        "INBOUND_CAPTURE_PORT=16006",
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.0/8",
        "ISTIO_OUTBOUND_OWNER_GROUPS=*",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=root,55",
        "ISTIO_EXCLUDE_INTERFACES=eth1",
        "KUBE_VIRT_INTERFACES=tap0",
        "INVALID_DROP=true",
        "REDIRECT_DNS=false",
        "DRY_RUN=false",
        "FORCE_IPTABLES_BINARY=nft",
    ];
    let binary = binary.to_string_lossy();
    let arguments = [binary.as_ref(), "init", "-b", "8080", "-g", "77", "-p", "16001"];
    pod.run("env", environment.iter().chain(&arguments))?;
    let rules = rules(&pod)?;
    for expected in [
        "-d 10.96.0.0/12 -p tcp -m comment --comment \"weir: included network\" -j REDIRECT --to-ports 16001",
        "--dport 8080 -m comment --comment \"weir: included port\" -j REDIRECT --to-ports 16006",
        "--dport 22 ",
        "--uid-owner 4321",
        "--gid-owner 77",
        "! -d 127.0.0.0/8 -o lo",
        "--gid-owner 0 -m comment --comment \"weir: excluded group\"",
        "--gid-owner 55 -m comment --comment \"weir: excluded group\"",
        "-A WEIR_OUTPUT -o eth1 ",
        "-A WEIR_INBOUND -d 10.96.0.0/12 -i tap0 -p tcp ",
        "--ctstate INVALID",
    ] {
        assert!(rules.contains(expected), "{expected} is not in\n{rules}");
    }
    assert!(!rules.contains("--dport 80 "), "{rules}");
    Ok(())
}

#[test]
fn the_arguments_that_an_injector_gives_are_the_preset() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    let arguments = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020 \
                     --log_output_level=default:info --reconcile --dual-stack=true -t 1337 -r 133 --redirect-dns=false";
    let mut all = vec!["init", "--force-iptables-binary", "nft", "-x", ""];
    all.extend(arguments.split_whitespace());
    let said = weir::run(&pod, &all)?.text();
    // The order of the excluded ports is another.
    assert!(said.contains("15008,15090,15021,15020"), "{said}");
    let mut given = rules(&pod)?.lines().map(str::to_owned).collect::<Vec<_>>();
    init(&pod, "--sidecar")?;
    let mut preset = rules(&pod)?.lines().map(str::to_owned).collect::<Vec<_>>();
    given.sort();
    preset.sort();
    assert_eq!(given, preset);
    // Of a flag that is given twice the last one counts.
    let said = init(&pod, "-i * -b 80 -b 81 -i 10.0.0.0/8")?.text();
    assert!(
        said.contains("TCP to ports 81 ") && said.contains("TCP to 10.0.0.0/8 "),
        "{said}"
    );
    Ok(())
}

#[test]
fn every_mistake_is_told_at_once_and_nothing_is_written() -> Result<()> {
    let pod = pod()?;
    let before = rules(&pod)?;
    let said = refusal(
        &pod,
        RunAs::Root,
        &[
            "-p",
            "0",
            "-b",
            "80,web",
            "-i",
            "10.0.0.0/40",
            "-x",
            "*",
            "-m",
            "TUN",
            "-t",
            "0",
            "-u",
            "envoy",
            "-k",
            "tap 0",
            "-c",
            "eth1/2",
            "--families",
            "ipv5",
            "--drop-invalid=maybe",
            "--inbound-exclude-sources",
            "probe",
            "--redirect-dns",
            "--resolv-conf",
            "/nonexistent",
            "--proxy-mark",
            "0x1ffffffff",
        ],
    )?;
    for expected in [
        "-p (--envoy-port): `0`",
        "`web`",
        "`10.0.0.0/40`",
        "`*` would exclude everything",
        "-m (--istio-inbound-interception-mode): `TUN`",
        "-t (--istio-inbound-tproxy-mark): `0`",
        "`envoy`",
        "-k (--kube-virt-interfaces)",
        "-c (--istio-exclude-interfaces)",
        "--families: `ipv5`",
        "--drop-invalid: `maybe`",
        "--inbound-exclude-sources: `probe`",
        "--redirect-dns: /nonexistent names no DNS server",
        "`0x1ffffffff`",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    assert_eq!(rules(&pod)?, before);
    Ok(())
}

#[test]
fn without_the_right_to_it_says_what_to_give() -> Result<()> {
    let pod = pod()?;
    for arguments in [["--sidecar"], ["--cleanup"]] {
        let said = refusal(&pod, RunAs::Application, &arguments)?;
        assert!(
            said.contains("CAP_NET_ADMIN") && said.contains("NET_ADMIN, NET_RAW"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn ipv6_is_captured_exactly_where_it_is_on() -> Result<()> {
    let pod = pod()?;
    pod.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(!said.contains("IPv6"), "{said}");
    assert!(!pod.run("ip6tables-save", [""; 0])?.text().contains("WEIR"));
    pod.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")?;
    pod.sysctl("net/ipv6/conf/lo/disable_ipv6", "0")?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(said.contains("IPv6"), "{said}");
    assert!(pod.run("ip6tables-save", [""; 0])?.text().contains("WEIR"));
    Ok(())
}

#[test]
fn a_family_that_cannot_be_captured_is_an_error_and_no_hole() -> Result<()> {
    let pod = pod()?;
    // A directory that has everything but ip6tables. System directories are looked in as well, so they
    // are hidden from the program.
    let hide = "mount --make-rprivate / && for v in -nft -legacy ''; do for w in save restore; do \
                mount --bind /dev/null /usr/sbin/ip6tables$v-$w; done; done && \
                \"$0\" init --sidecar --backend iptables";
    let binary = weir::binary()?;
    let binary = binary.to_string_lossy();
    let finished = pod.try_run(
        RunAs::Root,
        "unshare",
        ["--mount", "sh", "-c", hide, binary.as_ref()],
    )?;
    let said = finished.errors();
    assert!(!finished.status.success(), "{}", finished.text());
    assert!(
        said.contains("IPv6: is on") && said.contains("disable_ipv6=1"),
        "{said}"
    );
    assert!(!rules(&pod)?.contains("WEIR"));
    Ok(())
}

#[test]
fn lo_without_ipv6_takes_back_everything() -> Result<()> {
    let pod = pod()?;
    pod.sysctl("net/ipv6/conf/lo/disable_ipv6", "1")?;
    let said = refusal(&pod, RunAs::Root, &["--sidecar"])?;
    assert!(
        said.contains("::6") && said.contains("net.ipv6.conf.lo.disable_ipv6=0"),
        "{said}"
    );
    assert!(!rules(&pod)?.contains("WEIR"));
    Ok(())
}

#[test]
fn a_machine_is_refused_without_host() -> Result<()> {
    // Asked by a dry run, which can write nothing whatever it answers.
    let physical = netsys::links::physical_devices()?;
    let binary = weir::binary()?;
    let dry = |arguments: &[&str]| {
        Command::new(&binary)
            .args(["init", "--sidecar", "-n"])
            .args(arguments)
            .output()
    };
    let output = dry(&[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    if let Some(device) = physical.first() {
        assert!(!output.status.success(), "{device:?}");
        assert!(said.contains("--host") && said.contains(device), "{said}");
    } else {
        assert!(output.status.success(), "{said}");
    }
    assert!(dry(&["--host"])?.status.success());
    Ok(())
}

#[test]
fn a_change_of_a_machine_is_taken_back_unless_it_is_confirmed() -> Result<()> {
    let pod = pod()?;
    init(&pod, "-b 80")?;
    let earlier = (rules(&pod)?, on_lo(&pod)?);
    // Not confirmed: what was there before comes back, although the program that made the change is long gone.
    let said = init(&pod, "--sidecar --host --confirm-within 1")?.text();
    assert!(
        said.contains("Captured:") && said.contains("weir init --confirm"),
        "{said}"
    );
    eventually("the earlier rules to come back", || {
        let now = (rules(&pod).ok()?, on_lo(&pod).ok()?);
        (now == earlier).then_some(())
    })?;
    eventually("the waiting process to end", || {
        refusal(&pod, RunAs::Root, &["--confirm"]).ok()
    })?;

    // Confirmed: it stays.
    init(&pod, "--sidecar --host --confirm-within 30")?;
    let said = refusal(&pod, RunAs::Root, &["--sidecar", "-o", "22", "--host"])?;
    assert!(said.contains("--confirm"), "{said}");
    init(&pod, "--confirm")?;
    let said = refusal(&pod, RunAs::Root, &["--confirm"])?;
    assert!(said.contains("waits"), "{said}");
    assert!(rules(&pod)?.contains("15021"));
    Ok(())
}

#[test]
fn a_stranger_cannot_confirm() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar --host")?;
    let said = refusal(&pod, RunAs::Application, &["--confirm"])?;
    assert!(said.contains("user who made the change"), "{said}");
    // It goes on waiting for one who may.
    init(&pod, "--confirm").map(drop)
}

#[test]
fn rules_move_from_one_back_end_to_the_other_when_asked() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("pod")?;
    init(&pod, "--sidecar --force-iptables-binary legacy")?;
    assert!(saved(&pod, "legacy", &[])?.contains("WEIR_OUTPUT"));
    // Without being asked it stays where the rules are.
    let said = init_as_it_fits(&pod, "--sidecar")?.text();
    assert!(
        said.contains("Nothing to do") && said.contains("iptables-legacy"),
        "{said}"
    );
    init(&pod, "--sidecar --force-iptables-binary nft")?;
    assert!(!saved(&pod, "legacy", &[])?.contains("WEIR"));
    assert!(saved(&pod, "nft", &[])?.contains("WEIR_OUTPUT"));
    init(&pod, "--cleanup")?;
    assert!(!saved(&pod, "nft", &[])?.contains("WEIR"));
    Ok(())
}
