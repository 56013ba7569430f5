//! A namespace to plant in, and what `weir check` says of it.

use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Finished, Pod, RunAs, weir};
use serde_json::Value;
use tempfile::TempDir;

/// What a machine may have of its own that check would rightly note is hidden: the machine is that of the test.
const PLAIN: &str =
    "for dir in /run/nscd /run/systemd/resolve; do [ ! -d $dir ] || mount -t tmpfs none $dir; done\n";

/// A namespace with one device and routes of both families, and a resolv.conf that is in order.
pub(crate) struct Stage {
    pub(crate) pod: Pod,
    files: TempDir,
}

/// What check said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) report: Value,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, report } = self;
        let (found, skipped) = (&report["findings"], &report["not_looked_at"]);
        write!(
            f,
            "exit status {code}, findings {found:#}, not looked at {skipped:#}"
        )
    }
}

impl Stage {
    pub(crate) fn set() -> Result<Self> {
        let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
        // Addresses that come by themselves come at any time.
        pod.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        for line in [
            "link add eth0 type veth peer name other",
            "link set eth0 up",
            "link set other up",
            "addr add 10.77.0.1/16 dev eth0",
            "addr add fd00:77::1/64 dev eth0 nodad",
            "route add default via 10.77.0.2",
            "-6 route add default via fd00:77::2 dev eth0",
        ] {
            pod.ip(line)?;
        }
        let stage = Self {
            pod,
            files: tempfile::tempdir()?,
        };
        stage.resolv_conf("nameserver 10.77.0.53\n")?;
        Ok(stage)
    }

    /// A file of the stage's.
    pub(crate) fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_string_lossy().into_owned()
    }

    pub(crate) fn resolv_conf(&self, text: &str) -> Result<()> {
        fs::write(self.file("resolv.conf"), text).context("writing resolv.conf")
    }

    /// Each line is a command of a shell in the namespace.
    pub(crate) fn sh(&self, script: &str) -> Result<Finished> {
        self.pod.run("sh", ["-ec", script])
    }

    /// `weir check -o json ARGUMENTS` as root.
    pub(crate) fn check(&self, arguments: &str) -> Result<Said> {
        self.check_after("", arguments)
    }

    /// The same, after a script in mounts of its own; what it mounts nobody else sees.
    pub(crate) fn check_after(&self, script: &str, arguments: &str) -> Result<Said> {
        let resolv_conf = self.file("resolv.conf");
        let mut words = vec!["-o", "json", "--resolv-conf", &resolv_conf];
        words.extend(arguments.split_whitespace());
        let finished = self.run(script, &words)?;
        let text = finished.text();
        let report = serde_json::from_str(&text).with_context(|| format!("{text}{}", finished.errors()))?;
        let code = finished.status.code().context("it was killed")?;
        Ok(Said { code, report })
    }

    /// `weir check WORDS`, in mounts of its own, after a script.
    pub(crate) fn run(&self, script: &str, words: &[&str]) -> Result<Finished> {
        let weir = weir::binary()?;
        let script = format!("{PLAIN}{script}\nexec \"$@\"");
        let mut all = vec!["-m", "sh", "-ec", &script, "sh"];
        let weir = weir.to_string_lossy();
        all.extend([weir.as_ref(), "check"]);
        all.extend(words);
        self.pod.try_run(RunAs::Root, "unshare", all)
    }
}

impl Said {
    /// Nothing at all, and everything was looked at.
    pub(crate) fn is_silent(&self) -> Result<()> {
        let empty = |field: &str| self.report[field].as_array().is_some_and(Vec::is_empty);
        ensure!(
            self.code == 0 && empty("findings") && empty("not_looked_at"),
            "{self:?}"
        );
        Ok(())
    }

    /// Exactly these findings, each as `SEVERITY NAME TEXT`, the text a part of its subject and what was found.
    pub(crate) fn is(&self, expected: &[&str]) -> Result<()> {
        let findings = self.report["findings"].as_array().context("no findings")?;
        let mut left: Vec<&Value> = findings.iter().collect();
        for wanted in expected {
            let mut words = wanted.splitn(3, ' ');
            let (severity, name) = (words.next(), words.next());
            let text = words.next().unwrap_or_default();
            let is_it = |finding: &&Value| {
                let told = format!("{} {}", finding["subject"], finding["found"]);
                finding["severity"].as_str() == severity
                    && finding["name"].as_str() == name
                    && told.contains(text)
            };
            let Some(index) = left.iter().position(is_it) else {
                bail!("not found: {wanted}\n{self:?}");
            };
            left.remove(index);
        }
        ensure!(left.is_empty(), "more than {expected:?}: {left:#?}");
        let any = |severity: &str| expected.iter().any(|wanted| wanted.starts_with(severity));
        let code = match (any("error"), any("warning")) {
            (true, _) => 1,
            (false, true) => 4,
            (false, false) if self.report["not_looked_at"].as_array().is_some_and(Vec::is_empty) => 0,
            (false, false) => 3,
        };
        ensure!(self.code == code, "exit status {} instead of {code}", self.code);
        for finding in findings {
            let is_said = |field: &str| finding[field].as_str().is_some_and(|text| !text.is_empty());
            ensure!(is_said("why") && is_said("fix"), "{finding:#?}");
        }
        Ok(())
    }
}
