//! Each rule of a plan taken out of the kernel in turn: caught every time. The numbers are printed.

use anyhow::{Context, Result, ensure};
use e2e::Pod;

use super::{BACKENDS, Verified, World, init, verify};

/// Between them these ask for nearly every kind of rule, in both modes.
const SETTINGS: [&str; 2] = [
    "--sidecar -x 192.0.2.0/24,2001:db8::/32 -o 22 --inbound-exclude-sources 198.51.100.7,2001:db8:5::7 -u 1337,1338 -g 1337",
    "-i 10.96.0.0/12,fd00:96::/32 -q 443 -b * -d 22 -m TPROXY -t 7 -r 77 --drop-invalid",
];

/// How one rule is taken out, and which it is.
struct Deletion {
    what: String,
    command: (String, Vec<String>),
}

/// One for each rule of Weir's that decides.
fn deletions(pod: &Pod, backend: &str) -> Result<Vec<Deletion>> {
    if backend == "nft" {
        return of_nft(pod);
    }
    let mut all = vec![];
    for program in [backend.to_owned(), backend.replacen("iptables", "ip6tables", 1)] {
        let saved = pod.run(&format!("{program}-save"), [] as [&str; 0])?.text();
        let mut table = String::new();
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            }
            let is_ours = line.starts_with("-A WEIR_") || line.contains("-j WEIR_");
            let Some(rule) = line.strip_prefix("-A ").filter(|_| is_ours) else {
                continue;
            };
            if rule.starts_with("WEIR_ASKED") {
                continue;
            }
            let arguments = format!("-t {table} -D {rule}");
            all.push(Deletion {
                what: format!("{program} {table} {rule}"),
                command: (
                    "sh".to_owned(),
                    vec!["-c".to_owned(), format!("{program} {arguments}")],
                ),
            });
        }
    }
    Ok(all)
}

fn of_nft(pod: &Pod) -> Result<Vec<Deletion>> {
    let listed = pod.run("nft", ["-a", "list table inet weir"])?.text();
    let mut chain = "";
    let mut all = vec![];
    for line in listed.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.split(' ').next().unwrap_or_default();
            continue;
        }
        let Some((rule, handle)) = line.rsplit_once(" # handle ") else {
            continue;
        };
        let is_rule = rule.contains(" comment ") && !chain.ends_with("WEIR_ASKED");
        if !is_rule {
            continue;
        }
        all.push(Deletion {
            what: format!("nft {chain} {rule}"),
            command: (
                "nft".to_owned(),
                vec![format!("delete rule inet weir {chain} handle {handle}")],
            ),
        });
    }
    Ok(all)
}

#[test]
fn each_rule_that_is_missing_is_caught() -> Result<()> {
    let world = World::create()?;
    let (mut shown, mut by_comparison, mut all) = (0, 0, 0);
    for backend in BACKENDS {
        for setting in SETTINGS {
            let flags = format!("{setting} --backend {backend}");
            init(&world.pod, &flags)?;
            let mut number = 0;
            loop {
                // Handles are others after each time.
                let rules = deletions(&world.pod, backend)?;
                ensure!(rules.len() > 5, "{flags}: only {} rules", rules.len());
                let Some(deletion) = rules.get(number) else {
                    break;
                };
                let (program, arguments) = &deletion.command;
                world.pod.run(program, arguments)?;
                let verified = verify(&world.pod, "--before-proxy --timeout 1")?;
                let what = &deletion.what;
                match verified.code {
                    1 => shown += 1,
                    3 => {
                        by_comparison += 1;
                        println!("by comparison alone: {flags}: {what}");
                    }
                    code => anyhow::bail!("{flags}: without {what}: {code}\n{}", verified.why()),
                }
                ensure!(
                    is_named(&verified),
                    "{flags}: {what} is not named:\n{}",
                    verified.why()
                );
                init(&world.pod, &flags)?;
                number += 1;
                all += 1;
            }
            let verified = verify(&world.pod, "--before-proxy")?;
            ensure!(verified.code == 0, "{flags}, whole again: {}", verified.why());
        }
    }
    println!(
        "{all} rules taken out in turn: {shown} shown by a probe, {by_comparison} found missing by comparison"
    );
    Ok(())
}

/// Whether the report says that a rule is missing.
fn is_named(verified: &Verified) -> bool {
    verified.why().contains("missing: ")
}

#[test]
fn a_missing_route_or_address_is_caught() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    let table = [
        ("--sidecar -m TPROXY", "rule del fwmark 1337 lookup 133"),
        ("--sidecar -m TPROXY", "-6 rule del fwmark 1337 lookup 133"),
        ("--sidecar -m TPROXY", "route del local default dev lo table 133"),
        (
            "--sidecar -m TPROXY",
            "-6 route del local default dev lo table 133",
        ),
        ("--sidecar", "-6 addr del ::6/128 dev lo"),
    ];
    for (flags, command) in table {
        init(pod, "--cleanup")?;
        init(pod, flags)?;
        pod.ip(command)?;
        let verified = verify(pod, "--before-proxy --timeout 1")?;
        ensure!(verified.code == 1, "{flags}: {command}: {verified:?}");
    }
    Ok(())
}

#[test]
fn a_family_without_rules_is_caught() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    for program in ["iptables-nft", "ip6tables-nft"] {
        init(pod, "--sidecar --backend iptables-nft")?;
        pod.run(program, ["-t", "nat", "-F"])?;
        let verified = verify(pod, "--before-proxy --timeout 1")?;
        let report = verified.report.as_ref().context("a report")?;
        let broken = report["findings"].as_array().context("findings")?;
        let family = if program.starts_with("ip6") {
            "IPv6"
        } else {
            "IPv4"
        };
        let of_family = |kind: &str| {
            broken
                .iter()
                .filter(|finding| finding["verdict"] == "broken" && finding["family"] == family)
                .any(|finding| finding["probe"] == kind)
        };
        ensure!(
            verified.code == 1 && of_family("TCP out") && of_family("TCP in"),
            "{program}: {}",
            verified.why()
        );
    }
    Ok(())
}
