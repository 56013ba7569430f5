//! A place in an object while it is being read: its value, its path, and where mistakes are noted.
//! A reader asks for what it needs; what is absent or null is `None`, what is of the wrong type is noted.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::Value;

use model::{ErrorName, Severity};
use runtime::nearest::nearest;

/// Something noted about one field.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) severity: Severity,
    pub(super) field: String,
    pub(super) name: ErrorName,
    pub(super) message: String,
}

type Notes = RefCell<Vec<Note>>;

/// One place in an object.
#[derive(Clone)]
pub(super) struct Node<'a> {
    /// `None`: absent or null.
    value: Option<&'a Value>,
    path: String,
    notes: &'a Notes,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, notes: &'a Notes) -> Self {
        Self {
            value: Some(value),
            path: String::new(),
            notes,
        }
    }

    /// The field of that name, there or not.
    pub(super) fn at(&self, field: &str) -> Self {
        let path = match (self.path.is_empty(), field.contains(['.', '/'])) {
            (true, _) => field.to_owned(),
            (false, false) => format!("{}.{field}", self.path),
            (false, true) => format!("{}[{field}]", self.path),
        };
        Self {
            value: self.value.and_then(|v| v.get(field)).filter(|v| !v.is_null()),
            path,
            notes: self.notes,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value? {
            Value::String(text) => Some(text),
            other => self.wrong_type("text", other),
        }
    }

    /// The text of a field that must be there.
    pub(super) fn require_text(&self) -> Option<&'a str> {
        if self.is_absent() {
            self.error("is missing");
        }
        self.text()
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self.value? {
            Value::Bool(flag) => Some(*flag),
            other => self.wrong_type("true or false", other),
        }
    }

    pub(super) fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value?;
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong_type(
                format!("a number from {} to {}", range.start(), range.end()),
                value,
            ),
        }
    }

    /// A port number; zero is none.
    pub(super) fn port(&self) -> Option<u16> {
        self.number(1..=65535)
            .and_then(|number| u16::try_from(number).ok())
    }

    /// Text that stands for something, for example an IP address.
    pub(super) fn parsed<T: FromStr>(&self, what: &str) -> Option<T> {
        let text = self.text()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.error(format!("must be {what}, and is `{}`", shortened(text)));
        }
        parsed
    }

    /// One of the words; any other is noted, with the nearest.
    pub(super) fn word(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let hint = hint(text, words);
            let text = shortened(text);
            self.error(format!(
                "must be one of {}, and is `{text}`{hint}",
                words.join(", ")
            ));
        }
        found
    }

    /// The elements of a list; none where it is absent.
    pub(super) fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let list = match self.value {
            Some(Value::Array(list)) => list.as_slice(),
            Some(other) => {
                self.wrong_type::<()>("a list", other);
                &[]
            }
            None => &[],
        };
        let (path, notes) = (self.path.clone(), self.notes);
        list.iter().enumerate().map(move |(index, value)| Self {
            value: Some(value).filter(|v| !v.is_null()),
            path: format!("{path}[{index}]"),
            notes,
        })
    }

    /// The names and values of a map; none where it is absent.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let map = match self.value {
            Some(Value::Object(map)) => Some(map),
            Some(other) => self.wrong_type("a map", other),
            None => None,
        };
        map.into_iter()
            .flat_map(|map| map.keys())
            .map(|key| (key.as_str(), self.at(key)))
    }

    /// Scalars as text: what settings are written in.
    pub(super) fn scalar(&self) -> Option<String> {
        match self.value? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            other => self.wrong_type("a single value", other),
        }
    }

    /// Warns of each field that is not among the known ones of this place.
    pub(super) fn known(&self, fields: &[&str]) {
        let Some(Value::Object(map)) = self.value else {
            if let Some(other) = self.value {
                self.wrong_type::<()>("a map", other);
            }
            return;
        };
        for field in map.keys().filter(|field| !fields.contains(&field.as_str())) {
            self.at(field).warn(
                ErrorName::ManifestUnknown,
                format!("is not a known field and is ignored{}", hint(field, fields)),
            );
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.note(Severity::Error, ErrorName::ManifestField, message.into());
    }

    pub(super) fn warn(&self, name: ErrorName, message: impl Into<String>) {
        self.note(Severity::Warning, name, message.into());
    }

    pub(super) fn remark(&self, message: impl Into<String>) {
        self.note(Severity::Note, ErrorName::NotCaptured, message.into());
    }

    fn note(&self, severity: Severity, name: ErrorName, message: String) {
        self.notes.borrow_mut().push(Note {
            severity,
            field: self.path.clone(),
            name,
            message,
        });
    }

    fn wrong_type<T>(&self, wanted: impl Display, found: &Value) -> Option<T> {
        let found = match found {
            Value::Object(_) => "a map".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::String(text) => format!("the text `{}`", shortened(text)),
            other => shortened(&other.to_string()),
        };
        self.error(format!("must be {wanted}, and is {found}"));
        None
    }
}

fn hint(text: &str, words: &[&str]) -> String {
    nearest(text, words)
        .map(|word| format!("; did you mean `{word}`?"))
        .unwrap_or_default()
}

/// Fit for a message, whatever a file holds.
fn shortened(text: &str) -> String {
    let mut short: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(60)
        .collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
