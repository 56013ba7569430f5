//! Where a command has to be run that is printed for people to paste: in the namespace that was looked at, and not
//! where it was looked from.

use std::fmt;
use std::path::Path;

/// What goes before a command, so that a shell beside `weir` runs it in the namespace that `weir` looked at. As text it
/// is empty, or ends with a space: `format!("{shell}iptables -t nat -D OUTPUT 1")`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Shell {
    prefix: String,
}

impl Shell {
    /// In the namespace that `weir` itself runs in.
    #[must_use]
    pub fn here() -> Self {
        Self::default()
    }

    /// In one that has a path: `nsenter --net=PATH`.
    #[must_use]
    pub fn by_path(path: &Path) -> Self {
        Self {
            prefix: format!("nsenter --net={} ", quoted(&path.to_string_lossy())),
        }
    }

    /// In a process's: `nsenter -t PID -n`.
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self {
            prefix: format!("nsenter -t {pid} -n "),
        }
    }
}

impl fmt::Display for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// As a shell reads it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,+@%".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_where_weir_looked() {
        let command = |shell: &Shell| format!("{shell}nft list ruleset");
        assert_eq!(command(&Shell::here()), "nft list ruleset");
        assert_eq!(command(&Shell::of_process(7)), "nsenter -t 7 -n nft list ruleset");
        for (path, word) in [
            ("/run/netns/a", "/run/netns/a"),
            ("/tmp/o'my pod", r"'/tmp/o'\''my pod'"),
        ] {
            assert_eq!(
                command(&Shell::by_path(Path::new(path))),
                format!("nsenter --net={word} nft list ruleset")
            );
        }
    }
}
