//! A long list, taken apart as text, so that only the items that changed need to be parsed anew:
//! `kubectl get -o yaml` and `-o json` print a whole cluster as one document. What cannot be taken apart
//! for sure is not: then the document is parsed whole.
//!
//! Cutting YAML at lines is sound because every part is parsed by itself, and none of them may fail. Up to
//! a cut the parser of an item sees what the parser of the whole document sees; were the cut within a
//! quoted text or in brackets, the item would end within them, which is an error. Block text cannot hold a
//! line that is indented as its own list is. An alias to another item's anchor is an error, too.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A list, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct List<'a> {
    /// The document without its items.
    pub(super) rest: Value,
    /// The text of each item.
    pub(super) items: Vec<Item<'a>>,
}

/// The text of one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item<'a> {
    /// An object.
    Json(&'a str),
    /// A sequence of one.
    Yaml(&'a str),
}

/// Takes a document apart if it is a list and that can be done for sure. `parse` parses YAML.
pub(super) fn split<'a>(text: &'a str, parse: impl Fn(&str) -> Option<Value>) -> Option<List<'a>> {
    let body = text.trim_start();
    let list = match body.strip_prefix('{') {
        Some(_) => split_json(body),
        None => split_yaml(text, parse),
    }?;
    let kind = list.rest.get("kind")?.as_str()?;
    kind.ends_with("List").then_some(list)
}

impl<'a> Item<'a> {
    /// Its text.
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Json(text) | Self::Yaml(text) => text,
        }
    }

    /// Its value; none where it is not one whole object.
    pub(super) fn value(self, parse: impl Fn(&str) -> Option<Value>) -> Option<Value> {
        match self {
            Self::Json(text) => serde_json::from_str(text).ok(),
            Self::Yaml(text) => match parse(text)? {
                Value::Array(mut items) if items.len() == 1 => items.pop(),
                _ => None,
            },
        }
    }
}

/// What of a list concerns its items.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(default)]
    api_version: Value,
    #[serde(default)]
    kind: Value,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

fn split_json(text: &str) -> Option<List<'_>> {
    let list: Json<'_> = serde_json::from_str(text).ok()?;
    let rest = [("apiVersion", list.api_version), ("kind", list.kind)];
    let rest = rest.into_iter().map(|(field, value)| (field.to_owned(), value));
    Some(List {
        rest: Value::Object(rest.collect()),
        items: list.items.iter().map(|raw| Item::Json(raw.get())).collect(),
    })
}

fn split_yaml<'a>(text: &'a str, parse: impl Fn(&str) -> Option<Value>) -> Option<List<'a>> {
    // Where items begin and end is told by lines, which a directive or a value beside the document's marker
    // may change the meaning of.
    let mut rest = String::new();
    let mut lines = Lines { text, at: 0 };
    loop {
        let (start, line) = lines.next()?;
        if line.starts_with('%') || start == 0 && line.starts_with("---") && line.trim_end() != "---" {
            return None;
        }
        if line.trim_end() == "items:" {
            break;
        }
        rest.push_str(line);
    }
    rest.push_str("items: []\n");
    let (items, end) = items(&mut lines)?;
    rest.push_str(&text[end..]);
    let rest = parse(&rest)?;
    let is_empty = rest.get("items")?.as_array()?.is_empty();
    is_empty.then_some(List { rest, items })
}

/// The items, and where they end.
fn items<'a>(lines: &mut Lines<'a>) -> Option<(Vec<Item<'a>>, usize)> {
    let text = lines.text;
    let mut items = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut end = text.len();
    for (start, line) in lines.by_ref() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let content = line[indent..].trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let begins = content == "-" || content.starts_with("- ");
        match open {
            None if begins => open = Some((indent, start)),
            Some((own, before)) if begins && indent == own => {
                items.push(Item::Yaml(&text[before..start]));
                open = Some((own, start));
            }
            Some((own, _)) if indent > own => {}
            _ if indent == 0 => {
                end = start;
                break;
            }
            _ => return None,
        }
    }
    let (_, last) = open?;
    items.push(Item::Yaml(&text[last..end]));
    Some((items, end))
}

/// Lines with their ends, and where each begins.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.at += length;
        (length > 0).then(|| (start, &rest[..length]))
    }
}
