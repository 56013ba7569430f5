//! The text of one manifest file, turned into objects. Pure: whatever the text, it never panics, tells
//! every mistake at once, and a bad object takes down no other.

mod document;
mod endpoints;
mod node;
mod pod;
mod service;
mod settings;
mod slice;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{ObjectName, Settings};
use serde_json::Value;

use model::problem::{Place, Problem, Severity};
use node::Node;

pub use endpoints::EndpointsObject;
pub use pod::PodObject;
pub use service::{Family, ServiceObject};
pub use slice::SliceObject;

/// The kinds of object that say something to a proxy; all others are passed over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints.
    Endpoints,
    /// `v1` Pod.
    Pod,
    /// `weir.dev/v1alpha1` MeshConfig, of which there is one, whatever its name.
    MeshConfig,
}

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
    pub objects: BTreeMap<Key, (Place, Object)>,
    /// Those that were refused, where it could be told which they are.
    pub refused: Vec<Key>,
    /// Whether something was refused of which that could not be told.
    pub unreadable: bool,
    /// Everything wrong or worth knowing, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads the text of the file `file`: YAML documents, JSON documents, lists of objects in either.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let file: Arc<str> = file.into();
    for document in document::split(text) {
        let mut place = Place {
            document: document.number,
            line: document.line,
            ..Place::default()
        };
        match document.value() {
            Ok(Value::Null) => {}
            Ok(value) => parsed.take(&file, &mut place, &value),
            Err(message) => parsed.refuse(&file, place, message),
        }
    }
    parsed
}

/// A file that cannot even be read as text: what it held stays.
#[must_use]
pub fn unreadable(file: &str, message: String) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.refuse(&file.into(), Place::default(), message);
    parsed
}

impl Kind {
    /// The word in manifests and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Pod => "Pod",
            Self::MeshConfig => "MeshConfig",
        }
    }

    fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("v1", "Endpoints") => Some(Self::Endpoints),
            ("v1", "Pod") => Some(Self::Pod),
            ("weir.dev/v1alpha1", "MeshConfig") => Some(Self::MeshConfig),
            _ => None,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl Parsed {
    fn refuse(&mut self, file: &Arc<str>, place: Place, message: String) {
        self.unreadable = true;
        self.problems.push(Problem {
            file: Arc::clone(file),
            place,
            field: String::new(),
            severity: Severity::Error,
            message,
        });
    }

    /// Takes an object, or each object of a list.
    fn take(&mut self, file: &Arc<str>, place: &mut Place, value: &Value) {
        let Some(kind) = value.get("kind").and_then(Value::as_str) else {
            let message = match value {
                Value::Object(_) => "the document has no `kind`; every Kubernetes object has one",
                _ => "the document is no object; a manifest begins with `apiVersion:` and `kind:`",
            };
            return self.refuse(file, place.clone(), message.to_owned());
        };
        let items = value.get("items").and_then(Value::as_array);
        match (items, kind.strip_suffix("List")) {
            (Some(items), Some(item_kind)) => {
                for (index, item) in items.iter().enumerate() {
                    place.item = Some(index + 1);
                    let item = with_kind_of_list(item, value, item_kind);
                    self.take_object(file, place, item.as_ref().unwrap_or(&items[index]));
                }
            }
            _ => self.take_object(file, place, value),
        }
    }

    fn take_object(&mut self, file: &Arc<str>, place: &Place, value: &Value) {
        let text = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = Kind::of(text("apiVersion"), text("kind")) else {
            self.pass_over(file, place, value);
            return;
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
        let object_text = match &name {
            Some(name) => format!("{} {name}", kind.as_str()),
            None => kind.as_str().to_owned(),
        };
        let place = Place {
            object: object_text,
            ..place.clone()
        };
        let notes = notes.into_inner();
        let failed = notes.iter().any(|note| note.severity == Severity::Error);
        self.problems.extend(notes.into_iter().map(|note| Problem {
            file: Arc::clone(file),
            place: place.clone(),
            field: note.field,
            severity: note.severity,
            message: note.message,
        }));
        match (name, object) {
            (Some(name), Some(object)) if !failed => self.keep(file, place, Key { kind, name }, object),
            (Some(name), _) => self.refused.push(Key { kind, name }),
            (None, _) => self.unreadable = true,
        }
    }

    fn keep(&mut self, file: &Arc<str>, place: Place, key: Key, object: Object) {
        if let Some((first, _)) = self.objects.get(&key) {
            let message = format!(
                "the same object is in document {} (line {}) already, which is used; remove one of the two",
                first.document, first.line
            );
            self.problems.push(Problem {
                file: Arc::clone(file),
                place,
                field: String::new(),
                severity: Severity::Error,
                message,
            });
        } else {
            self.objects.insert(key, (place, object));
        }
    }

    /// Other kinds are no concern of ours, but a misspelt one of ours is its author's.
    fn pass_over(&mut self, file: &Arc<str>, place: &Place, value: &Value) {
        let text = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let message = match kind {
            "Service" | "Endpoints" | "Pod" if !api_version.contains('/') => {
                format!("apiVersion of a {kind} is `v1`, and this one has `{api_version}`; it is passed over")
            }
            "EndpointSlice" => format!(
                "apiVersion of an EndpointSlice is `discovery.k8s.io/v1`, and this one has `{api_version}`; it is passed over"
            ),
            _ if api_version.starts_with("weir.dev/") => format!(
                "Weir has no kind {api_version} {kind}; what there is, is `weir.dev/v1alpha1` MeshConfig"
            ),
            _ => return,
        };
        self.problems.push(Problem {
            file: Arc::clone(file),
            place: Place {
                object: kind.to_owned(),
                ..place.clone()
            },
            field: String::new(),
            severity: Severity::Warning,
            message,
        });
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
