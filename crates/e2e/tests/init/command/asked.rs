//! What flags and variables ask for, and what is wrong with them.

use anyhow::Result;
use e2e::{RunAs, weir};

use super::{init, pod, refusal, rules};

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
