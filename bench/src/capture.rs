//! `bench --capture`: what capture itself costs, without a proxy: how long `weir init` takes by each back-end,
//! beside the programs that it starts alone, and what a new connection costs by each back-end and mode.

mod commands;
mod connections;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::machine;
use crate::stats::Spread;

/// What stands below this line of the report is made by this group, and by it alone.
const CAPTURE: &str = "<!-- capture -->";

/// A table as it is printed.
struct Table {
    title: &'static str,
    about: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<String>)>,
}

/// Measures everything, `rounds` times each in turn.
pub(crate) fn run(rounds: usize) -> Result<String> {
    let mut tables = vec![];
    tables.extend(commands::measure(rounds)?);
    tables.extend(connections::measure(rounds)?);
    Ok(text(rounds, &tables))
}

fn text(rounds: usize, tables: &[Table]) -> String {
    let mut text = String::from("\n# What capture costs\n\n");
    let arguments: Vec<String> = env::args().skip(1).collect();
    let known = ["date", "machine", "kernel", "weir"];
    for (name, value) in machine::facts()
        .into_iter()
        .filter(|(name, _)| known.contains(name))
    {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(
        text,
        "- command: `bench {}`; a cell is the median of {rounds} rounds [lowest–highest]",
        arguments.join(" ")
    );
    for table in tables {
        let Table {
            title,
            about,
            columns,
            rows,
        } = table;
        let _ = writeln!(text, "\n## {title}\n\n{about}\n\n| | {} |", columns.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
        for (name, cells) in rows {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
    }
    text
}

/// Puts the report at the end of another one, in the place of an earlier one.
pub(crate) fn write(report: &str, path: &Path) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let kept = old.split(CAPTURE).next().unwrap_or_default().trim_end();
    fs::write(path, format!("{kept}\n\n{CAPTURE}\n{report}"))
        .with_context(|| format!("writing {}", path.display()))
}

/// Median and range, or a dash.
fn cell(samples: &[f64]) -> String {
    Spread::of(samples.iter().copied()).map_or_else(|| "–".to_owned(), |spread| spread.to_string())
}
