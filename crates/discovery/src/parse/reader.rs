//! One file, read again whenever it changes: what did not change in it is not parsed again. A folder often
//! holds a whole cluster in one file, of which a change touches one object.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use model::ErrorName;
use serde_json::Value;

use super::document::{self, Document};
use super::list::{self, Item, List};
use super::{NO_KIND, NO_OBJECT, Parsed, Reading};
use crate::{Place, Problem};

/// Reads one file, and remembers what was in it.
#[derive(Debug, Default)]
pub struct Reader {
    /// Keyed at random, so that no file can be made to take one text for another.
    hasher: RandomState,
    known: Known,
}

/// What the texts of the last time came to.
#[derive(Debug, Default)]
struct Known {
    documents: HashMap<u64, Contents>,
    items: HashMap<u64, Arc<Reading>>,
}

/// What one document holds.
#[derive(Clone, Debug)]
struct Contents {
    objects: Arc<[Arc<Reading>]>,
    is_list: bool,
}

impl Reader {
    /// Reads the text of the file `file`: YAML documents, JSON documents, lists of objects in either.
    #[must_use]
    pub fn read(&mut self, file: &str, text: &str) -> Parsed {
        let before = std::mem::take(&mut self.known);
        let file: Arc<str> = file.into();
        let mut parsed = Parsed::default();
        for document in document::split(text) {
            let place = Place {
                document: document.number,
                line: document.line,
                ..Place::default()
            };
            let digest = self.hasher.hash_one(document.text);
            let known = before.documents.get(&digest).cloned();
            match known.map_or_else(|| self.contents(&document, &before), Ok) {
                Ok(contents) => {
                    contents.tell(&file, &place, &mut parsed);
                    self.known.documents.insert(digest, contents);
                }
                Err(message) => parsed.refuse(&file, place, ErrorName::ManifestSyntax, message),
            }
        }
        parsed
    }

    fn contents(&mut self, document: &Document<'_>, before: &Known) -> Result<Contents, String> {
        let parse = |text: &str| document::parse(text).ok();
        if let Some(list) = list::split(document.text, parse)
            && let Some(contents) = self.items(&list, before)
        {
            return Ok(contents);
        }
        whole(&document.value()?)
    }

    /// The items of a list; none where one of them cannot be read by itself.
    fn items(&mut self, list: &List<'_>, before: &Known) -> Option<Contents> {
        let of_list = list.rest.to_string();
        let mut known: HashMap<u64, Arc<Reading>> = HashMap::with_capacity(list.items.len());
        let mut read_one = |item: &Item<'_>| {
            let digest = self.hasher.hash_one((&of_list, item.text()));
            let reading = match before.items.get(&digest) {
                Some(reading) => Arc::clone(reading),
                None => {
                    let value = item.value(|text| document::parse(text).ok())?;
                    Arc::new(Reading::of_item(&value, &list.rest))
                }
            };
            known.insert(digest, Arc::clone(&reading));
            Some(reading)
        };
        let objects: Option<Vec<_>> = list.items.iter().map(&mut read_one).collect();
        let objects = objects?.into();
        self.known.items.extend(known);
        Some(Contents {
            objects,
            is_list: true,
        })
    }
}

/// What a document holds that was parsed whole.
fn whole(value: &Value) -> Result<Contents, String> {
    if value.is_null() {
        return Ok(Contents {
            objects: Arc::default(),
            is_list: false,
        });
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str) else {
        let is_object = value.is_object();
        return Err(if is_object { NO_KIND } else { NO_OBJECT }.to_owned());
    };
    let items = value.get("items").and_then(Value::as_array);
    Ok(match items {
        Some(items) if kind.ends_with("List") => Contents {
            objects: items
                .iter()
                .map(|item| Arc::new(Reading::of_item(item, value)))
                .collect(),
            is_list: true,
        },
        _ => Contents {
            objects: Arc::new([Arc::new(Reading::of(value))]),
            is_list: false,
        },
    })
}

impl Contents {
    /// Puts what it holds into `parsed`, with the places that it has this time.
    fn tell(&self, file: &Arc<str>, place: &Place, parsed: &mut Parsed) {
        for (index, reading) in self.objects.iter().enumerate() {
            let place = Place {
                item: self.is_list.then_some(index + 1),
                object: reading.object.clone(),
                ..*place
            };
            reading.tell(file, place, parsed);
        }
    }
}

impl Reading {
    fn tell(&self, file: &Arc<str>, place: Place, parsed: &mut Parsed) {
        parsed.problems.extend(self.notes.iter().map(|note| Problem {
            file: Arc::clone(file),
            place: place.clone(),
            field: note.field.clone(),
            severity: note.severity,
            name: note.name,
            message: note.message.clone(),
        }));
        match &self.outcome {
            super::Outcome::Good(key, object) => parsed.keep(file, place, key, object),
            super::Outcome::Refused(key) => parsed.refused.push(key.clone()),
            super::Outcome::Unknown => parsed.unreadable = true,
            super::Outcome::PassedOver => {}
        }
    }
}
