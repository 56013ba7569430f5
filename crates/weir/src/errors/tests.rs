//! Which name an error has, and that none is printed without one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

use super::*;

#[test]
fn the_outermost_name_counts_and_types_have_theirs() {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let table = [
        (named(ErrorName::Usage, "no"), ErrorName::Usage),
        (
            Err::<(), _>(named(ErrorName::Usage, "no"))
                .or_named(ErrorName::Demo, "while shown")
                .unwrap_err(),
            ErrorName::Demo,
        ),
        (
            named(ErrorName::Usage, "no").context("a context has none"),
            ErrorName::Usage,
        ),
        (
            None::<()>.or_named(ErrorName::NotFound, "no").unwrap_err(),
            ErrorName::NotFound,
        ),
        (
            anyhow::Error::new(netsys::rules::Error::Busy {
                seconds: 1,
                holders: String::new(),
            })
            .context("of a type"),
            ErrorName::RulesBusy,
        ),
        (missing().into(), ErrorName::System),
        (
            io::Error::from(io::ErrorKind::PermissionDenied).into(),
            ErrorName::Privilege,
        ),
        (anyhow::Error::msg("nobody named it"), ErrorName::Defect),
    ];
    for (error, name) in table {
        assert_eq!(name_of(&error), name, "{error:#}");
    }
    let chain = Err::<(), _>(missing()).or_named(ErrorName::Input, "cannot read it");
    assert!(format!("{:#}", chain.unwrap_err()).starts_with("cannot read it: "));
    assert_eq!(
        Err::<(), _>(missing())
            .context("it")
            .map_err(|error| name_of(&error)),
        Err(ErrorName::System)
    );
}

/// Files of Rust that make up the program, without tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_test = matches!(
            name.as_str(),
            "tests" | "tests.rs" | "e2e" | "benches" | "documents.rs"
        );
        if path.is_dir() && !is_test {
            sources(&path, found);
        } else if name.ends_with(".rs") && !is_test {
            found.push(path);
        }
    }
}

/// Lines of code, with their number, up to the tests of the file.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().enumerate();
    code.filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// A list that is whole today stays whole only where nothing can be printed past it.
#[test]
fn no_error_is_printed_without_a_name() {
    let mut files = vec![];
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
    assert!(files.len() > 100, "{files:?}");
    let mut wrong = vec![];
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let is_binary = file.to_string_lossy().contains("/weir/src/") && !file.ends_with("errors.rs");
        for (number, line) in lines(&text) {
            let rest = || text.lines().skip(number - 1).take(4).collect::<String>();
            let unnamed = ["bail!(", "anyhow!(", "ensure!(", "with_context(", ".context(\""];
            if is_binary && unnamed.iter().any(|word| line.contains(word)) {
                wrong.push(format!(
                    "{}:{number}: use errors::fail or OrNamed",
                    file.display()
                ));
            }
            if (line.contains("tracing::warn!(") || line.contains("tracing::error!("))
                && !rest().contains("see = ")
                && !line.contains("(\"{problem}\")")
            {
                wrong.push(format!("{}:{number}: a warning without `see`", file.display()));
            }
            // Notes, and a table that is empty, are no errors.
            let is_none = ["note: ", "{nothing}", "[WEIR-", "[{name}]"]
                .iter()
                .any(|word| line.contains(word));
            if line.contains("eprintln!(\"weir") && !is_none {
                wrong.push(format!("{}:{number}: an error without a name", file.display()));
            }
            for name in line.split("WEIR-").skip(1) {
                let end = name.find(|c: char| !c.is_ascii_uppercase() && c != '-');
                let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
                if !name.is_empty() && name.parse::<ErrorName>().is_err() {
                    wrong.push(format!(
                        "{}:{number}: WEIR-{name} is no error's name",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
