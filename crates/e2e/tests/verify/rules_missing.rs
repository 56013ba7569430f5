//! Each rule of a plan taken out of the kernel in turn, with its like of the other family: caught every time. The
//! numbers are printed.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use e2e::Pod;

use super::{Verified, World, init, side_by_side, verify};

/// Between them these ask for nearly every kind of rule, in both modes.
const SETTINGS: [&str; 3] = [
    "--sidecar -x 192.0.2.0/24,2001:db8::/32 -o 22 --inbound-exclude-sources 198.51.100.7,2001:db8:5::7 -u 1337,1338 -g 1337",
    "-i 10.96.0.0/12,fd00:96::/32 -q 443 -b * -d 22 -m TPROXY -t 7 -r 77 --drop-invalid",
    "-i 10.96.0.0/12,fd00:96::/32 -b 8080 -c eth0,tun7 -k tap+",
];

/// Rules that are taken out together, of which no probe meets two: one of each family.
struct Deletion {
    what: String,
    /// What a shell runs.
    command: String,
    /// The families whose packets the rules are about.
    families: &'static [&'static str],
}

/// The names of a family's programs.
fn programs(backend: &str) -> [String; 2] {
    [backend.to_owned(), backend.replacen("iptables", "ip6tables", 1)]
}

/// One for each rule of Weir's that decides, and its like of the other family.
fn deletions(pod: &Pod, backend: &str) -> Result<Vec<Deletion>> {
    if backend == "nft" {
        return of_nft(pod);
    }
    let [v4, v6] = programs(backend).map(|program| of_iptables(pod, &program));
    let (v4, v6) = (v4?, v6?);
    ensure!(v4.len() == v6.len(), "{v4:#?} {v6:#?}");
    let pairs = v4.iter().zip(&v6);
    let both = pairs.map(|(v4, v6)| Deletion {
        what: format!("{v4}, and {v6}"),
        command: format!("{v4} && {v6}"),
        families: &["IPv4", "IPv6"],
    });
    Ok(both.collect())
}

fn of_iptables(pod: &Pod, program: &str) -> Result<Vec<String>> {
    let saved = pod.run(&format!("{program}-save"), [] as [&str; 0])?.text();
    let mut table = "";
    let mut all = vec![];
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let is_ours = line.starts_with("-A WEIR_") || line.contains("-j WEIR_");
        let decides = |rule: &&str| is_ours && !rule.starts_with("WEIR_ASKED");
        if let Some(rule) = line.strip_prefix("-A ").filter(decides) {
            all.push(format!("{program} -t {table} -D {rule}"));
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
            command: format!("nft delete rule inet weir {chain} handle {handle}"),
            families: &[],
        });
    }
    Ok(all)
}

/// The rules as they are, to be put back faster than they are made.
struct Saved {
    backend: &'static str,
    flags: String,
    dumps: Vec<String>,
}

impl Saved {
    fn of(pod: &Pod, backend: &'static str, flags: String) -> Result<Self> {
        let dump = |program: &String| Ok(pod.run(&format!("{program}-save"), [] as [&str; 0])?.text());
        let dumps = match backend {
            "nft" => vec![],
            _ => programs(backend).iter().map(dump).collect::<Result<_>>()?,
        };
        Ok(Self {
            backend,
            flags,
            dumps,
        })
    }

    fn put_back(&self, pod: &Pod) -> Result<()> {
        for (program, dump) in programs(self.backend).iter().zip(&self.dumps) {
            let script = format!("{program}-restore <<'END'\n{dump}END\n");
            pod.run("sh", ["-c", &script])?;
        }
        if self.dumps.is_empty() {
            init(pod, &self.flags)?;
        }
        Ok(())
    }
}

/// What became of a set-up's rules, each of which was taken out.
#[derive(Default)]
struct Caught {
    shown: usize,
    by_comparison: usize,
}

fn take_out_each_rule(backend: &'static str, setting: &str) -> Result<Caught> {
    let world = World::create()?;
    let pod = &world.pod;
    let flags = format!("{setting} --backend {backend}");
    init(pod, &flags)?;
    let saved = Saved::of(pod, backend, flags.clone())?;
    let count = deletions(pod, backend)?.len();
    ensure!(count > 5, "{flags}: only {count} rules");
    let mut caught = Caught::default();
    for number in 0..count {
        // Handles are others after each time.
        let Deletion {
            what,
            command,
            families,
        } = deletions(pod, backend)?.swap_remove(number);
        pod.run("sh", ["-c", &command])?;
        let verified = verify(pod, "--before-proxy --timeout 1")?;
        ensure!(
            matches!(verified.code, 1 | 3) && verified.why().contains("missing: "),
            "{flags}: without {what}: {}\n{}",
            verified.code,
            verified.why()
        );
        let shown = verified.families_shown_broken()?;
        let of_each = families.iter().map(|family| shown.contains(*family));
        let any = families.is_empty().then_some(!shown.is_empty());
        for is_shown in of_each.chain(any) {
            if is_shown {
                caught.shown += 1;
            } else {
                caught.by_comparison += 1;
            }
        }
        for family in families {
            let is_named = verified.is_named_missing(family)?;
            ensure!(is_named, "{flags}: {what}, {family}:\n{}", verified.why());
        }
        saved.put_back(pod)?;
    }
    let verified = verify(pod, "--before-proxy")?;
    ensure!(verified.code == 0, "{flags}, whole again: {}", verified.why());
    Ok(caught)
}

impl Verified {
    /// The families of which a probe has fared otherwise than it should.
    fn families_shown_broken(&self) -> Result<HashSet<String>> {
        let broken = self.findings()?.into_iter().filter(|finding| {
            finding["verdict"] == "broken" && !finding["sent"].as_str().unwrap_or_default().is_empty()
        });
        Ok(broken
            .filter_map(|finding| Some(finding["family"].as_str()?.to_owned()))
            .collect())
    }

    /// Whether it is said that a rule of that family is missing.
    fn is_named_missing(&self, family: &str) -> Result<bool> {
        let mut findings = self.findings()?.into_iter();
        Ok(findings.any(|finding| {
            let why = finding["why"].as_str().unwrap_or_default();
            finding["family"] == family && why.starts_with("missing: ")
        }))
    }
}

/// All settings of a back-end. Answers how many rules there were, in words.
fn take_out_all(backend: &'static str) -> Result<String> {
    let of_each = side_by_side(SETTINGS, |setting| take_out_each_rule(backend, setting))?;
    let shown: usize = of_each.iter().map(|caught| caught.shown).sum();
    let by_comparison: usize = of_each.iter().map(|caught| caught.by_comparison).sum();
    Ok(format!(
        "{backend}: rules taken out in turn: {shown} shown by a probe, {by_comparison} found missing by comparison"
    ))
}

#[test]
fn each_rule_that_is_missing_is_caught_on_nft() -> Result<()> {
    println!("{}", take_out_all("nft")?);
    Ok(())
}

#[test]
fn each_rule_that_is_missing_is_caught_on_iptables_nft() -> Result<()> {
    println!("{}", take_out_all("iptables-nft")?);
    Ok(())
}

#[test]
fn each_rule_that_is_missing_is_caught_on_iptables_legacy() -> Result<()> {
    println!("{}", take_out_all("iptables-legacy")?);
    Ok(())
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
        let broken = verified.findings()?;
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
