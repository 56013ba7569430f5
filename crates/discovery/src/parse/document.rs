//! A file, split into its documents, each parsed by itself: one that is broken leaves the others readable.

use serde_json::Value;

/// One document of a file, not parsed yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// From 1, as people count; empty documents count too.
    pub(super) number: usize,
    /// Line of the file where it begins, from 1.
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// Splits at document markers: a line that begins with `---` always ends a document, and `...` closes one,
/// even within a block of text (YAML 1.2.2, section 9.1.2), so no parser is needed for it.
pub(super) fn split(text: &str) -> impl Iterator<Item = Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut starts = vec![(0, 1)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        // Comments and directives before the first marker are no document.
        if is_marker && offset > 0 {
            let (last, _) = starts[starts.len() - 1];
            if starts.len() == 1 && is_blank(&text[last..offset]) {
                starts.pop();
            }
            starts.push((offset, index + 1));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = starts
        .iter()
        .skip(1)
        .map(|&(start, _)| start)
        .chain([text.len()])
        .collect();
    let documents = starts.into_iter().zip(ends).enumerate();
    documents.map(move |(index, ((start, line), end))| Document {
        number: index + 1,
        line,
        text: &text[start..end],
    })
}

fn is_blank(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.starts_with(['#', '%']))
}

impl Document<'_> {
    /// Its value; null where it is empty.
    ///
    /// # Errors
    /// A message for people: what is wrong and in which line of the file.
    pub(super) fn value(&self) -> Result<Value, String> {
        let body = self.text.trim_start();
        if body.starts_with('{')
            && let Ok(value) = serde_json::from_str(body)
        {
            return Ok(value);
        }
        if self.text.contains('\0') {
            return Err("holds a NUL byte, so it is no YAML".to_owned());
        }
        parse(self.text).map_err(|error| self.message(&error))
    }

    fn message(&self, error: &serde_saphyr::Error) -> String {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        match error.location() {
            Some(location) => {
                let line = self.line as u64 + location.line() - 1;
                format!("not valid YAML, line {line} of the file: {first}")
            }
            None => format!("not valid YAML: {first}"),
        }
    }
}

/// Parses YAML.
pub(super) fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// Room for what `kubectl get -A -o yaml` prints of a large cluster, and none for alias bombs.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 25_000_000,
            max_total_scalar_bytes: 512 * 1024 * 1024,
            max_depth: 64,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}
