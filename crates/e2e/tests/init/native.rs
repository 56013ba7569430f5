//! Native nftables: one transaction in a table of Weir's own, without any iptables program.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use e2e::{Finished, Pod, RunAs, weir};

pub(crate) fn pod() -> Result<Pod> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    pod.ip("link set other up")?;
    Ok(pod)
}

pub(crate) fn init(pod: &Pod, arguments: &str) -> Result<Finished> {
    let mut all = vec!["init"];
    all.extend(arguments.split_whitespace());
    weir::run(pod, &all)
}

/// Everything that nf_tables holds.
pub(crate) fn listed(pod: &Pod) -> Result<String> {
    Ok(pod.run("nft", ["list", "ruleset"])?.text())
}

fn nft(pod: &Pod, command: &str) -> Result<()> {
    pod.run("nft", [command]).map(drop)
}

pub(crate) fn on_lo(pod: &Pod) -> Result<String> {
    Ok(pod.run("ip", ["-6", "addr", "show", "dev", "lo"])?.text())
}

#[test]
fn a_second_run_writes_nothing_and_no_counter_moves() -> Result<()> {
    let pod = pod()?;
    let said = init(
        &pod,
        "--sidecar -x 10.0.0.0/8,11.0.0.0/9,192.0.2.7,fd00::/8 -u 1337,1339",
    )?
    .text();
    assert!(
        said.contains("Captured") && said.contains("rules by nft"),
        "{said}"
    );
    // So that a counter has something to lose.
    let _ = pod.dial("127.0.0.1:80".parse()?);
    let _ = pod.dial("[::1]:80".parse()?);
    let before = listed(&pod)?;
    assert!(before.contains("packets 2 "), "{before}");
    let said = init(
        &pod,
        "--sidecar -x 11.0.0.0/9,192.0.2.7/32,10.0.0.0/8,fd00::/8 -u 1339,1337",
    )?
    .text();
    assert!(said.contains("Nothing to do"), "{said}");
    assert_eq!(listed(&pod)?, before);
    Ok(())
}

/// Without the counts of packets.
pub(crate) fn still(text: &str) -> String {
    let words = text.split(' ').filter(|word| word.parse::<u64>().is_err());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_others_have_is_left_to_them_and_clean_up_leaves_what_was_before() -> Result<()> {
    let pod = pod()?;
    nft(
        &pod,
        "add table inet theirs; add chain inet theirs out { type nat hook output priority -100; }; \
               add rule inet theirs out tcp dport 4242 counter redirect to :4244",
    )?;
    nft(
        &pod,
        "add table ip weir-not; add set ip weir-not some { type ipv4_addr; }",
    )?;
    let before = (listed(&pod)?, on_lo(&pod)?);
    init(&pod, "--sidecar")?;
    init(&pod, "-i 10.0.0.0/8 -b 80")?;
    assert!(listed(&pod)?.starts_with(&before.0), "theirs have changed");
    assert!(listed(&pod)?.contains("table inet weir {"));
    assert!(on_lo(&pod)?.contains("::6/128"));
    let said = init(&pod, "--cleanup")?.text();
    assert!(said.contains("nothing of Weir's is left"), "{said}");
    assert_eq!((listed(&pod)?, on_lo(&pod)?), before);
    let said = init(&pod, "--cleanup")?.text();
    assert!(said.contains("Nothing to take out"), "{said}");
    Ok(())
}

/// The handle of the first rule of a chain of ours.
fn first_handle(pod: &Pod, chain: &str) -> Result<String> {
    let text = pod
        .run("nft", ["-a", "list", "chain", "inet", "weir", chain])?
        .text();
    let handles = text.lines().filter(|line| line.contains("counter"));
    let mut handles = handles.filter_map(|line| line.rsplit_once("# handle "));
    let (_, handle) = handles
        .next()
        .ok_or_else(|| anyhow::anyhow!("no rule in {text}"))?;
    Ok(handle.to_owned())
}

#[test]
fn what_is_missing_added_or_out_of_order_is_mended() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar -o 22")?;
    let wanted = still(&listed(&pod)?);
    let handle = first_handle(&pod, "nat-output")?;
    for damage in [
        &*format!("delete rule inet weir nat-output handle {handle}"),
        "flush chain inet weir nat-prerouting",
        "insert rule inet weir nat-output tcp dport 1-65535 return",
        "add rule inet weir nat-output limit rate 3/minute drop",
        "insert rule inet weir nat-output meta l4proto tcp counter redirect to :15001",
        "add chain inet weir theirs",
        "add chain inet weir more { type filter hook output priority 0; policy drop; }",
        "delete chain inet weir nat-prerouting",
        "add table ip weir",
        "add chain inet weir nat-output { policy drop; }",
        "delete table inet weir",
        "add table inet weir { flags dormant; }",
    ] {
        nft(&pod, damage)?;
        ensure!(still(&listed(&pod)?) != wanted, "{damage} did nothing");
        let said = init(&pod, "--sidecar -o 22")?.text();
        assert!(said.contains("Captured"), "after {damage}: {said}");
        assert_eq!(still(&listed(&pod)?), wanted, "after {damage}");
    }
    // The first rule at the end: the same rules, in another order.
    let first = first_handle(&pod, "nat-output")?;
    nft(&pod, &format!("delete rule inet weir nat-output handle {first}"))?;
    nft(
        &pod,
        "add rule inet weir nat-output tcp dport 22 counter return comment \"weir: excluded port\"",
    )?;
    init(&pod, "--sidecar -o 22")?;
    assert_eq!(still(&listed(&pod)?), wanted);
    Ok(())
}

#[test]
fn no_iptables_program_is_needed() -> Result<()> {
    let pod = pod()?;
    let hide = "mount --make-rprivate / && for f in /usr/sbin/*tables*; do mount --bind /dev/null $f; done && \
                \"$0\" init --sidecar && \"$0\" init --sidecar -o 22 && \"$0\" init --sidecar -o 22";
    let binary = weir::binary()?;
    let said = pod
        .run_as(
            RunAs::Root,
            "unshare",
            ["--mount", "sh", "-c", hide, &binary.to_string_lossy()],
        )?
        .text();
    assert!(
        said.contains("rules by nft") && said.contains("Nothing to do"),
        "{said}"
    );
    assert!(listed(&pod)?.contains("dport 22 "));
    Ok(())
}

#[test]
fn without_the_program_it_says_so_and_nothing_is_written() -> Result<()> {
    let pod = pod()?;
    let hide = "mount --make-rprivate / && mount --bind /dev/null $(command -v nft) && ! \"$0\" init --sidecar --backend nft 2>&1";
    let binary = weir::binary()?;
    let arguments = ["--mount", "sh", "-c", hide, &binary.to_string_lossy()];
    let said = pod.run("unshare", arguments)?.text();
    assert!(said.contains("nft") && !said.contains("Captured"), "{said}");
    assert_eq!(listed(&pod)?, "");
    Ok(())
}

#[test]
fn where_the_kernel_has_no_nat_for_both_families_each_has_a_table() -> Result<()> {
    let pod = pod()?;
    // Such a kernel, as far as the program can tell.
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("nft");
    std::fs::write(
        &program,
        "#!/bin/sh\nPATH=${PATH#*:}\ncase \"$*\" in -f*) t=$(cat); case \"$t\" in *'inet weir {'*) \
         echo 'Error: Could not process rule: Operation not supported' >&2; exit 1;; esac; \
         printf '%s' \"$t\" | exec nft \"$@\";; esac\nexec nft \"$@\"\n",
    )?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("PATH={}:{}", directory.path().display(), std::env::var("PATH")?);
    let binary = weir::binary()?;
    let run = |arguments: &[&str]| {
        let mut all = vec![path.as_str(), binary.to_str().unwrap_or_default(), "init"];
        all.extend(arguments);
        pod.run("env", all)
    };
    run(&["--sidecar"])?;
    let held = listed(&pod)?;
    assert!(
        held.contains("table ip weir {") && held.contains("table ip6 weir {"),
        "{held}"
    );
    assert!(!held.contains("inet"), "{held}");
    assert!(run(&["--sidecar"])?.text().contains("Nothing to do"));
    // A kernel that can do better is not bothered either, and clean-up finds both.
    assert!(init(&pod, "--sidecar")?.text().contains("Nothing to do"));
    init(&pod, "--cleanup")?;
    assert_eq!(listed(&pod)?, "");
    Ok(())
}

#[test]
fn an_unconfirmed_change_of_native_rules_is_taken_back() -> Result<()> {
    let pod = pod()?;
    init(&pod, "-b 80 -x 10.0.0.0/8,11.0.0.0/9 -i * --backend nft")?;
    let before = still(&listed(&pod)?);
    init(&pod, "--sidecar --host --confirm-within 1")?;
    e2e::eventually("the earlier rules to come back", || {
        (still(&listed(&pod).ok()?) == before).then_some(())
    })
}

#[test]
fn a_dry_run_prints_the_transaction() -> Result<()> {
    let pod = pod()?;
    let binary = weir::binary()?;
    let arguments = ["init", "--sidecar", "-n"];
    let shown = pod
        .run_as(RunAs::Application, &binary.to_string_lossy(), arguments)?
        .text();
    assert_eq!(listed(&pod)?, "");
    nft(&pod, &shown)?;
    let by_hand = listed(&pod)?;
    init(&pod, "--cleanup")?;
    init(&pod, "--sidecar")?;
    assert_eq!(listed(&pod)?, by_hand);
    Ok(())
}

#[test]
fn a_file_says_what_flags_say() -> Result<()> {
    let pod = pod()?;
    // The example of the documentation, so that it stays true; its group may be missing here.
    let manual = include_str!("../../../../docs/capture.md");
    let example = manual
        .split("```yaml")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let example = example.unwrap_or_default().replace("[backup]", "[34]");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), example)?;
    let path = file.path().display().to_string();
    init(&pod, &format!("--config {path}"))?;
    let by_file = listed(&pod)?;
    init(
        &pod,
        "-i * -x 192.168.0.0/16 -o 22 -b * -d 15020,15021 -u 1337 -g 1337 --proxy-mark 0x539/0xfff \
         --inbound-exclude-sources 169.254.7.127 -c eth1 -k tap+ --drop-invalid --families both --redirect-dns",
    )?;
    assert!(by_file.contains("skgid 34 "), "{by_file}");
    let of_group = |line: &&str| line.contains("skgid 34 ") || line.contains("weir asked: ");
    let without = |text: &str| {
        let lines = text.lines().filter(|line| !of_group(line));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without(&listed(&pod)?), without(&by_file));

    std::fs::write(file.path(), "outbound:\n  excludePorts: [ssh]\n  cidr: x\n")?;
    let arguments = ["init", "--config", &path];
    let said = pod
        .try_run(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?
        .errors();
    assert!(
        said.contains(&path) && said.contains("outbound.cidr: is no field"),
        "{said}"
    );
    Ok(())
}

#[test]
fn clean_up_takes_the_passthrough_address_away_also_where_its_rules_have_gone() -> Result<()> {
    for (backend, damage) in [
        ("nft", "nft delete table inet weir"),
        ("iptables-nft", "nft flush ruleset"),
        ("iptables-legacy", "ip6tables-legacy -t nat -F"),
    ] {
        let pod = pod()?;
        let before = on_lo(&pod)?;
        init(&pod, &format!("--sidecar --backend {backend}"))?;
        pod.run("sh", ["-c", damage])?;
        assert!(on_lo(&pod)?.contains("::6/128"));
        let said = init(&pod, "--cleanup")?.text();
        assert!(said.contains("Taken out"), "{backend}: {said}");
        assert_eq!(on_lo(&pod)?, before, "{backend}");
    }
    Ok(())
}
