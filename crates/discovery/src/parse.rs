//! The text of one manifest file, turned into objects. Pure: whatever the text, it never panics, tells
//! every mistake at once, and a bad object takes down no other.

mod document;
mod endpoints;
mod kind;
mod list;
mod node;
mod pod;
mod reader;
mod service;
mod settings;
mod slice;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{ErrorName, ObjectName, Settings};
use serde_json::Value;

use model::problem::{Place, Problem, Severity};
use node::{Node, Note};

pub use endpoints::EndpointsObject;
pub use kind::Kind;
pub use pod::PodObject;
pub use reader::Reader;
pub use service::{Family, ServiceObject};
pub use slice::SliceObject;

/// What identifies an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// An object that was read without a mistake.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each is the object of that kind")]
pub enum Object {
    Service(ServiceObject),
    EndpointSlice(SliceObject),
    Endpoints(EndpointsObject),
    Pod(PodObject),
    MeshConfig(Box<Settings>),
}

/// What one file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The good objects.
    pub objects: BTreeMap<Key, (Place, Arc<Object>)>,
    /// Those that were refused, where it could be told which they are.
    pub refused: Vec<Key>,
    /// Whether something was refused of which that could not be told.
    pub unreadable: bool,
    /// Everything wrong or worth knowing, in the order of the file.
    pub problems: Vec<Problem>,
}

/// What one object came to, wherever it stands.
#[derive(Debug)]
struct Reading {
    /// `Service sidecar/nginx`; empty where not even that could be read.
    object: String,
    outcome: Outcome,
    /// What is wrong with it or worth knowing.
    notes: Vec<Note>,
}

#[derive(Debug)]
enum Outcome {
    Good(Key, Arc<Object>),
    Refused(Key),
    /// Refused, and it could not be told which it is.
    Unknown,
    /// Another kind, which is no concern of ours.
    PassedOver,
}

const NO_KIND: &str = "the document has no `kind`; every Kubernetes object has one";
const NO_OBJECT: &str = "the document is no object; a manifest begins with `apiVersion:` and `kind:`";

/// Reads the text of the file `file` once: YAML documents, JSON documents, lists of objects in either.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    Reader::default().read(file, text)
}

/// A file that cannot even be read as text: what it held stays.
#[must_use]
pub fn unreadable(file: &str, message: String) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.refuse(&file.into(), Place::default(), ErrorName::ManifestFile, message);
    parsed
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&called(self.kind, Some(&self.name)))
    }
}

impl Parsed {
    fn refuse(&mut self, file: &Arc<str>, place: Place, name: ErrorName, message: String) {
        self.unreadable = true;
        self.problems.push(Problem {
            file: Arc::clone(file),
            place,
            field: String::new(),
            severity: Severity::Error,
            name,
            message,
        });
    }

    fn keep(&mut self, file: &Arc<str>, place: Place, key: &Key, object: &Arc<Object>) {
        if let Some((first, _)) = self.objects.get(key) {
            let message = format!(
                "the same object is in document {} (line {}) already, which is used; remove one of the two",
                first.document, first.line
            );
            self.problems.push(Problem {
                file: Arc::clone(file),
                place,
                field: String::new(),
                severity: Severity::Error,
                name: ErrorName::ManifestTwice,
                message,
            });
        } else {
            self.objects.insert(key.clone(), (place, Arc::clone(object)));
        }
    }
}

impl Reading {
    /// Reads an item of a list, which may leave out what the list says already.
    fn of_item(item: &Value, list: &Value) -> Self {
        let kind = list.get("kind").and_then(Value::as_str).unwrap_or_default();
        let item_kind = kind.strip_suffix("List").unwrap_or_default();
        let whole = with_kind_of_list(item, list, item_kind);
        Self::of(whole.as_ref().unwrap_or(item))
    }

    /// Reads an object.
    fn of(value: &Value) -> Self {
        let text = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = Kind::of(text("apiVersion"), text("kind")) else {
            return Self::passed_over(text("apiVersion"), text("kind"));
        };
        let notes = RefCell::default();
        let root = Node::root(value, &notes);
        let name = object_name(&root.at("metadata"), kind);
        let object = match kind {
            Kind::Service => service::read(&root, name.as_ref()).map(Object::Service),
            Kind::EndpointSlice => slice::read(&root, name.as_ref()).map(Object::EndpointSlice),
            Kind::Endpoints => endpoints::read(&root, name.as_ref()).map(Object::Endpoints),
            Kind::Pod => pod::read(&root, name.as_ref()).map(Object::Pod),
            Kind::MeshConfig => settings::mesh(&root).map(|mesh| Object::MeshConfig(Box::new(mesh))),
        };
        let notes = notes.into_inner();
        let failed = notes.iter().any(|note| note.severity == Severity::Error);
        Self {
            object: called(kind, name.as_ref()),
            outcome: match (name, object) {
                (Some(name), Some(object)) if !failed => Outcome::Good(Key { kind, name }, Arc::new(object)),
                (Some(name), _) => Outcome::Refused(Key { kind, name }),
                (None, _) => Outcome::Unknown,
            },
            notes,
        }
    }

    fn passed_over(api_version: &str, kind: &str) -> Self {
        let note = kind::passed_over(api_version, kind).map(|(severity, message)| Note {
            severity,
            name: ErrorName::ManifestUnknown,
            field: String::new(),
            message,
        });
        Self {
            object: kind.to_owned(),
            outcome: Outcome::PassedOver,
            notes: note.into_iter().collect(),
        }
    }
}

/// What an object is called in messages. There is one MeshConfig, whatever its name.
fn called(kind: Kind, name: Option<&ObjectName>) -> String {
    match name {
        Some(name) if kind != Kind::MeshConfig => format!("{} {name}", kind.as_str()),
        _ => kind.as_str().to_owned(),
    }
}

/// Items of a `ServiceList` may leave out what the list says already.
fn with_kind_of_list(item: &Value, list: &Value, item_kind: &str) -> Option<Value> {
    if item_kind.is_empty() || item.get("kind").is_some() {
        return None;
    }
    let mut item = item.as_object()?.clone();
    item.insert("kind".to_owned(), item_kind.into());
    item.entry("apiVersion")
        .or_insert_with(|| list.get("apiVersion").cloned().unwrap_or_default());
    Some(Value::Object(item))
}

/// Namespace and name; an object without a namespace is in `default`, as kubectl has it.
fn object_name(metadata: &Node, kind: Kind) -> Option<ObjectName> {
    let part = |node: &Node, text: &str| {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let ok = !text.is_empty() && text.len() <= 253 && text.chars().all(fine);
        if !ok {
            node.error("must be lower-case letters, digits, `-` and `.`");
        }
        ok
    };
    let namespace_node = metadata.at("namespace");
    let namespace = namespace_node.text().unwrap_or("default");
    let name_node = metadata.at("name");
    let name = match (kind, name_node.require_text()) {
        (_, Some(name)) => name,
        (..) => return None,
    };
    let ok = part(&namespace_node, namespace) & part(&name_node, name);
    ok.then(|| match kind {
        // There is one, so that two of them are a conflict whatever they are called.
        Kind::MeshConfig => ObjectName::new("", "mesh"),
        _ => ObjectName::new(namespace, name),
    })
}
