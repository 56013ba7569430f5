//! Which objects are under a label, so that neither a pod looks at every service nor a service at every pod.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::ObjectName;

/// A label within a namespace.
type Label = (Arc<str>, Arc<str>, Arc<str>);

/// Objects by label.
#[derive(Debug, Default)]
pub(super) struct Labels {
    under: HashMap<Label, BTreeSet<ObjectName>>,
}

impl Labels {
    pub(super) fn put<'a>(
        &mut self,
        name: &ObjectName,
        pairs: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
    ) {
        for label in labels(name, pairs) {
            self.under.entry(label).or_default().insert(name.clone());
        }
    }

    pub(super) fn drop<'a>(
        &mut self,
        name: &ObjectName,
        pairs: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
    ) {
        for label in labels(name, pairs) {
            if let Some(names) = self.under.get_mut(&label) {
                names.remove(name);
                if names.is_empty() {
                    self.under.remove(&label);
                }
            }
        }
    }

    /// Objects in the namespace of `name` that are under any of these labels.
    pub(super) fn any<'a>(
        &self,
        name: &ObjectName,
        pairs: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
    ) -> BTreeSet<&ObjectName> {
        let under = labels(name, pairs).filter_map(|label| self.under.get(&label));
        under.flatten().collect()
    }
}

fn labels<'a>(
    name: &ObjectName,
    pairs: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
) -> impl Iterator<Item = Label> {
    pairs.map(|(label, value)| (Arc::clone(&name.namespace), Arc::clone(label), Arc::clone(value)))
}
