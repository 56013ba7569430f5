//! What is wrong with a manifest, said so that its author finds the place. Sources make these; the tools
//! print them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error_name::ErrorName;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is refused; its last good state stays.
    Error,
    /// The object is taken, but probably does not say what its author meant.
    Warning,
    /// The object is taken; a part of it is not for a proxy of TCP.
    Note,
}

impl Severity {
    /// All, the worst first.
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    /// The word in tables, filters and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One mistake, or one thing worth knowing, in one manifest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The file, relative to the folder; the folder itself where that is what cannot be read.
    pub file: Arc<str>,
    /// Where in the file.
    pub place: Place,
    /// Path of the field within the object, `spec.ports[0].port`; empty where it is the whole object.
    pub field: String,
    /// How bad.
    pub severity: Severity,
    /// Which kind of mistake it is.
    pub name: ErrorName,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Which document of a file, and which object in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Number of the document, from 1; 0 where the whole file is meant.
    pub document: usize,
    /// Line of the file where the document begins, from 1.
    pub line: usize,
    /// Number of the item within a `kind: List`, from 1.
    pub item: Option<usize>,
    /// `Service sidecar/nginx`; empty where not even that could be read.
    pub object: String,
}

/// `web.yaml: document 2 (line 14), Service sidecar/nginx, spec.ports[0].port: must be ... [WEIR-MANIFEST-FIELD]`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        write!(f, "{}: ", self.file)?;
        if place.document > 0 {
            write!(f, "document {} (line {})", place.document, place.line)?;
            if let Some(item) = place.item {
                write!(f, ", item {item}")?;
            }
            for part in [&place.object, &self.field] {
                if !part.is_empty() {
                    write!(f, ", {part}")?;
                }
            }
            f.write_str(": ")?;
        }
        write!(f, "{} [{}]", self.message, self.name)
    }
}
