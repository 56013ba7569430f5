//! Set-ups that are as they should be.

use anyhow::{Result, ensure};

use super::{BACKENDS, World, init, verify};

/// Each asks for rules that the others do not.
const SETTINGS: [&str; 8] = [
    // Outbound alone, with what the injectors give as the proxy's user, and without.
    "-i *",
    "-i 10.96.0.0/12,fd00:96::/32 -u 1337 -g 1337",
    "--sidecar",
    "--sidecar -m TPROXY",
    "-i 10.96.0.0/12,fd00:96::/32 -x 10.96.7.0/24 -o 22 -b 8080,80 -u 1337,1338",
    "--sidecar -x 192.0.2.0/24,2001:db8::/32 -o 22,443 --inbound-exclude-sources 198.51.100.0/24,2001:db8:5::/48",
    "-q 80,443 -b * -d 22 --proxy-mark 0x539 --drop-invalid",
    "-i 127.0.0.0/8,10.96.0.0/12 -b * -e 8080 -m TPROXY -t 7 -r 77",
];
/// A hundred in all, and more.
const TIMES: usize = 6;

#[test]
fn what_is_right_is_proven_every_time() -> Result<()> {
    let world = World::create()?;
    let (mut runs, mut probes) = (0, 0);
    for backend in BACKENDS {
        for setting in SETTINGS {
            init(&world.pod, &format!("{setting} --backend {backend}"))?;
            for _ in 0..TIMES {
                let verified = verify(&world.pod, "--before-proxy")?;
                ensure!(
                    verified.code == 0,
                    "{backend} {setting}: {}\n{}",
                    verified.code,
                    verified.why()
                );
                runs += 1;
                let report = verified.report.unwrap_or_default();
                probes += report["findings"].as_array().map_or(0, Vec::len);
            }
        }
    }
    println!("{runs} runs, {probes} probes: each proven");
    Ok(())
}

#[test]
fn flags_given_here_count_for_more_than_what_the_rules_keep() -> Result<()> {
    let world = World::create()?;
    init(&world.pod, "--sidecar -o 22")?;
    let same = verify(&world.pod, "--before-proxy -- --sidecar -o 22")?;
    assert_eq!(same.code, 0, "{}", same.why());
    let other = verify(&world.pod, "--before-proxy --exit-code 126 -- --sidecar -o 23")?;
    assert_eq!(other.code, 126, "{}", other.why());
    assert!(other.said.contains("[WEIR-CAPTURE-BROKEN]"), "{}", other.said);
    Ok(())
}

#[test]
fn what_is_not_proven_comes_first_and_what_to_do_once() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    let binary = e2e::weir::binary()?.to_string_lossy().into_owned();
    let said = |words: &[&str]| {
        let words = ["verify", "--before-proxy"].iter().chain(words);
        Ok::<_, anyhow::Error>(pod.try_run(e2e::RunAs::Root, &binary, words)?.text())
    };
    init(pod, "--sidecar --backend iptables-nft")?;
    let short = said(&[])?;
    assert!(short.starts_with("Capture is proven: "), "{short}");
    assert_eq!(short.lines().count(), 2, "{short}");
    let long = said(&["-v"])?;
    let rows = long.lines().skip_while(|line| !line.starts_with("PROBE")).skip(1);
    let count = rows.filter(|line| line.contains("proven")).count();
    assert!(
        short.contains(&format!("proven: {count} findings")),
        "{short}{long}"
    );

    for program in ["iptables-nft", "ip6tables-nft"] {
        pod.run(program, ["-t", "nat", "-F", "OUTPUT"])?;
    }
    let broken = said(&[])?;
    assert!(broken.starts_with("Capture is BROKEN: "), "{broken}");
    let is_broken: Vec<_> = broken
        .lines()
        .skip_while(|line| !line.starts_with("PROBE"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.contains(" BROKEN"))
        .collect();
    assert!(is_broken[0] && is_broken.is_sorted_by(|a, b| a >= b), "{broken}");
    assert_eq!(broken.matches("weir init ").count(), 1, "{broken}");
    Ok(())
}

#[test]
fn a_namespace_without_rules_or_without_what_they_are_for_is_not_verified() -> Result<()> {
    let world = World::create()?;
    let nothing = verify(&world.pod, "--exit-code 126")?;
    assert_eq!(nothing.code, 2);
    assert!(
        nothing.said.contains("[WEIR-NOTHING-TO-VERIFY]"),
        "{}",
        nothing.said
    );
    let wanted = verify(&world.pod, "--before-proxy -- --sidecar")?;
    assert_eq!(wanted.code, 1, "{}", wanted.why());
    assert!(
        wanted.why().contains("no rule of Weir's is installed"),
        "{}",
        wanted.why()
    );

    init(&world.pod, "--sidecar --backend iptables-nft")?;
    for family in ["iptables-nft", "ip6tables-nft"] {
        world.pod.run(family, ["-t", "nat", "-F", "WEIR_ASKED"])?;
    }
    let unasked = verify(&world.pod, "")?;
    assert_eq!(unasked.code, 2);
    assert!(unasked.said.contains("give the flags"), "{}", unasked.said);
    Ok(())
}

#[test]
fn an_init_container_validates_what_it_has_installed() -> Result<()> {
    let world = World::create()?;
    let binary = e2e::weir::binary()?.to_string_lossy().into_owned();
    let run = |flags: &str| {
        let words: Vec<_> = std::iter::once("init").chain(flags.split(' ')).collect();
        world.pod.try_run(e2e::RunAs::Root, &binary, words)
    };
    let validated = run("--sidecar --run-validation")?;
    assert!(validated.status.success(), "{}", validated.errors());
    assert!(
        validated.text().contains("Capture is proven"),
        "{}",
        validated.text()
    );
    let outbound = run("-i * --run-validation")?;
    assert!(outbound.status.success(), "{}", outbound.text());
    assert!(
        outbound.text().contains("Capture is proven"),
        "{}",
        outbound.text()
    );
    init(&world.pod, "--sidecar")?;
    let only = run("--sidecar --run-validation --skip-rule-apply=true")?;
    assert!(only.status.success(), "{}", only.errors());
    init(&world.pod, "--cleanup")?;
    let missing = run("--sidecar --run-validation --skip-rule-apply")?;
    assert_eq!(missing.status.code(), Some(126), "{}", missing.text());
    Ok(())
}

#[test]
fn watched_it_is_a_metric_that_follows() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    init(pod, "--sidecar --backend iptables-nft")?;
    let binary = e2e::weir::binary()?;
    let words = [
        "verify",
        "--before-proxy",
        "--watch",
        "1s",
        "--metrics",
        "127.0.0.1:15022",
    ];
    let mut watch = pod.start_file(e2e::RunAs::Root, &binary, &[], words)?;
    let await_metric = |value: &str| {
        e2e::eventually(value, || {
            let scraped = pod
                .run("curl", ["-sf", "http://127.0.0.1:15022/metrics"])
                .ok()?
                .text();
            let line = format!("weir_capture_proven {value}");
            scraped.lines().any(|found| found == line).then_some(())
        })
    };
    await_metric("1")?;
    pod.run(
        "iptables-nft",
        ["-t", "nat", "-I", "OUTPUT", "-p", "tcp", "-j", "ACCEPT"],
    )?;
    await_metric("0")?;
    pod.run("iptables-nft", ["-t", "nat", "-D", "OUTPUT", "1"])?;
    await_metric("1")?;
    watch.signal(rustix::process::Signal::TERM)?;
    ensure!(watch.wait()?.success(), "{}", watch.said());
    let said = watch.said();
    assert_eq!(said.matches("Capture is proven.").count(), 2, "{said}");
    assert_eq!(said.matches("Capture is BROKEN:").count(), 1, "{said}");
    Ok(())
}
