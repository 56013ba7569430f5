//! What was explained, as text, JSON or YAML, and as an exit status.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use diagnose::explain::{self, Detail, Explanation, Finding, Outcome};
use diagnose::journey::Style;
use diagnose::place::Shell;
use model::ErrorName;
use model::error_name::Explained;
use serde::Serialize;

use super::Form;
use super::target::Target;
use crate::cmd::pc::print as write;

/// One explanation for each address that was looked at.
#[derive(Serialize)]
pub(super) struct Told {
    /// As it was asked.
    to: String,
    /// The worst there is.
    outcome: Outcome,
    /// What that is in one sentence, where there is no address.
    #[serde(skip_serializing_if = "str::is_empty")]
    headline: &'static str,
    /// In the way of the name already.
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<Finding>,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
struct Connection {
    address: SocketAddr,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Told {
    /// Of a name that leads nowhere.
    pub(super) fn nameless(to: &Target, headline: &'static str, finding: Finding) -> Self {
        Self {
            to: to.to_string(),
            outcome: Outcome::Fails,
            headline,
            finding: Some(finding),
            connections: vec![],
        }
    }

    /// Commands in what is to be done are for where the client is.
    pub(super) fn run_by(&mut self, shell: &Shell) {
        let findings = self
            .connections
            .iter_mut()
            .filter_map(|it| it.explanation.finding.as_mut());
        for finding in findings.chain(&mut self.finding) {
            finding.fix = explain::commands_by(shell, &finding.fix);
        }
    }

    /// A client does not use a family that it has no route for, where it has the other one.
    pub(super) fn new(to: &Target, told: Vec<(SocketAddr, Explanation)>) -> Self {
        let (usable, unusable): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(_, told)| !told.client.is_empty());
        let told = if usable.is_empty() { unusable } else { usable };
        let mut connections: Vec<_> = told
            .into_iter()
            .map(|(address, explanation)| Connection { address, explanation })
            .collect();
        connections.sort_by_key(|connection| std::cmp::Reverse(connection.explanation.outcome));
        let worst = connections
            .first()
            .map(|connection| connection.explanation.outcome);
        Self {
            to: to.to_string(),
            outcome: worst.unwrap_or(Outcome::Unknown),
            headline: "",
            finding: None,
            connections,
        }
    }

    fn text(&self, detail: Detail, style: &Style) -> String {
        if let Some(finding) = &self.finding {
            return explain::nameless(&self.to, self.headline, finding, style);
        }
        let Some((first, others)) = self.connections.split_first() else {
            return String::new();
        };
        let mut text = explain::text(&self.title(first), &first.explanation, detail, style);
        for other in others {
            text.push('\n');
            // The same once more says nothing.
            text.push_str(&match detail {
                Detail::Short if other.explanation.outcome == Outcome::Works => {
                    explain::headline(&self.title(other), &other.explanation, style)
                }
                Detail::Short if other.explanation.is_like(&first.explanation) => {
                    explain::headline(&self.title(other), &other.explanation, style)
                }
                _ => explain::text(&self.title(other), &other.explanation, detail, style),
            });
        }
        text
    }

    fn title(&self, connection: &Connection) -> String {
        let address = connection.address.to_string();
        match self.to == address {
            true => address,
            false => format!("{} at {address}", self.to),
        }
    }
}

/// What holds for all errors of a name.
pub(super) fn error(name: ErrorName, form: Form) -> Result<ExitCode> {
    let Explained {
        name,
        says,
        because,
        fix,
    } = name.explained();
    let told = serde_json::json!({ "name": name, "says": says, "because": because, "fix": fix });
    let text = match form {
        Form::Json => serde_json::to_string_pretty(&told)? + "\n",
        Form::Yaml => serde_saphyr::to_string(&told)?,
        Form::Text => format!(
            "{}  {says}\n  because  {because}\n  fix      {fix}\n",
            style().title(name)
        ),
    };
    write(&text)
}

fn style() -> Style {
    let out = io::stdout();
    let is_coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Style::new(netsys::terminal::columns(&out), is_coloured)
}

pub(super) fn print(told: &Told, verbose: bool, form: Form) -> Result<ExitCode> {
    let text = match form {
        Form::Json => serde_json::to_string_pretty(told)? + "\n",
        Form::Yaml => serde_saphyr::to_string(told)?,
        Form::Text => {
            let detail = if verbose { Detail::All } else { Detail::Short };
            told.text(detail, &style())
        }
    };
    write(&text)?;
    Ok(ExitCode::from(match told.outcome {
        Outcome::Works | Outcome::Passes => 0,
        Outcome::Fails | Outcome::Bypasses => 1,
        Outcome::Unknown => 3,
    }))
}
