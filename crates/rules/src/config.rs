//! What a file for people says about capture, as [`Flags`]: each field stands for a flag, and a flag that is
//! given as well wins. Mistakes are told by the names of the fields, all at once.

use serde_json::{Map, Value};

use crate::flags::{FIELDS, Field, Flags};
use crate::mistake::Mistake;

/// What may stand in `apiVersion`.
pub const API_VERSION: &str = "weir.dev/v1alpha1";
/// What may stand in `kind`.
pub const KIND: &str = "Capture";

/// Adds to the flags what the document says, where they do not say it themselves.
///
/// # Errors
/// All fields that are not known or have no value of their kind. What a value says is looked at by
/// [`Flags::intent`], which tells the field's name.
pub fn read(document: &Value, flags: &mut Flags) -> Result<(), Vec<Mistake>> {
    let mut mistakes = vec![];
    match document {
        Value::Null => {}
        Value::Object(fields) => section("", fields, flags, &mut mistakes),
        _ => mistakes.push(Mistake::new(
            "the file",
            "is no list of fields; write `outbound:` and so on",
        )),
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

fn section(prefix: &str, fields: &Map<String, Value>, flags: &mut Flags, mistakes: &mut Vec<Mistake>) {
    for (name, value) in fields {
        let path = format!("{prefix}{name}");
        let is_section = FIELDS.iter().any(|field| {
            let rest = field.path.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        });
        if let Some(field) = FIELDS.iter().find(|field| field.path == path) {
            match text(value) {
                // As if it were not there.
                _ if value.is_null() => {}
                Ok(text) => keep(field, text, flags),
                Err(problem) => mistakes.push(Mistake::new(path, problem)),
            }
            continue;
        }
        match (path.as_str(), value) {
            ("apiVersion", Value::String(version)) if version == API_VERSION => {}
            ("kind", Value::String(kind)) if kind == KIND => {}
            ("apiVersion" | "kind", _) => mistakes.push(Mistake::new(
                path,
                format!(
                    "is not what this file is: write apiVersion: {API_VERSION} and kind: {KIND}, or neither"
                ),
            )),
            ("sidecar", Value::Bool(sidecar)) => flags.sidecar |= sidecar,
            ("sidecar", _) => mistakes.push(Mistake::new(path, "is neither true nor false")),
            (_, Value::Null) if is_section => {}
            (_, Value::Object(inner)) if is_section => section(&format!("{path}."), inner, flags, mistakes),
            _ if is_section => mistakes.push(Mistake::new(path, "has fields of its own, not a value")),
            _ => mistakes.push(Mistake::new(path, unknown(prefix))),
        }
    }
}

fn unknown(prefix: &str) -> String {
    let mut known: Vec<_> = FIELDS
        .iter()
        .filter_map(|field| field.path.strip_prefix(prefix)?.split('.').next())
        .collect();
    if prefix.is_empty() {
        known.extend(["apiVersion", "kind", "sidecar"]);
    }
    known.sort_unstable();
    known.dedup();
    format!("is no field; there are {}", known.join(", "))
}

fn keep(field: &Field, text: String, flags: &mut Flags) {
    let kept = (field.kept)(flags);
    if kept.as_deref().unwrap_or_default().is_empty() {
        *kept = Some(text);
        flags.named.push((field.flag, field.path));
    }
}

/// One value, or several in a list.
fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(scalar).collect();
            Ok(items?.join(","))
        }
        value => scalar(value),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => Err("is neither a value nor a list of values".to_owned()),
    }
}
