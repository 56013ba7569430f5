//! All objects of all files, joined: which file each comes from, and what the registry is to be told when
//! some change. Pure; the folder feeds it.
//!
//! The endpoints of a service are those of its EndpointSlices; where it has none, those of the Endpoints
//! object of its name (of which a mirrored slice would be a copy); where there is neither, the pods that
//! its selector selects.

mod checks;
mod labels;
mod pods;
#[cfg(test)]
mod tests;
mod virtual_addresses;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Created, Endpoint, ErrorName, ObjectName, Service, ServiceKind, Update};

use crate::parse::{Key, Kind, Object, Parsed, PodObject, ServiceObject};
use checks::Mismatch;
use labels::Labels;
use model::problem::{Place, Problem, Severity};
use pods::{endpoints_of_pod, selects};
use virtual_addresses::VirtualAddresses;

/// All objects of all files.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<Arc<str>, File>,
    /// In which files an object is.
    holders: BTreeMap<Key, BTreeSet<Arc<str>>>,
    /// Which of them is used: the first that had it, for as long as it does.
    used: BTreeMap<Key, (Arc<str>, Arc<Object>)>,
    slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Services by the first pair of their selectors.
    selecting: Labels,
    /// Pods by each of their labels.
    labelled: Labels,
    addresses: VirtualAddresses,
    /// Whether services without an address are left without.
    has_no_automatic: bool,
    /// Services by the virtual addresses that their manifests give.
    addressed: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    /// By service.
    mismatches: BTreeMap<ObjectName, Vec<Mismatch>>,
    /// What the registry was not told yet.
    changed: BTreeSet<Key>,
    /// Services whose endpoints may have changed.
    to_join: BTreeSet<ObjectName>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, (Place, Arc<Object>)>,
    problems: Vec<Problem>,
}

impl Catalog {
    /// A file appeared or changed. What it no longer says well, stays as it was last said well.
    pub fn put(&mut self, name: &str, parsed: Parsed) {
        let name: Arc<str> = name.into();
        let before = self.files.remove(&name).unwrap_or_default();
        let mut after = File {
            objects: parsed.objects,
            problems: parsed.problems,
        };
        let mut changed = Vec::new();
        for (key, (_, object)) in &mut after.objects {
            match before.objects.get(key) {
                Some((_, same)) if Arc::ptr_eq(same, object) => {}
                Some((_, same)) if same == object => *object = Arc::clone(same),
                _ => changed.push(key.clone()),
            }
        }
        let refused: BTreeSet<Key> = parsed.refused.into_iter().collect();
        for (key, last_good) in before.objects {
            if after.objects.contains_key(&key) {
                continue;
            }
            if parsed.unreadable || refused.contains(&key) {
                after.objects.insert(key, last_good);
            } else {
                changed.push(key);
            }
        }
        self.files.insert(Arc::clone(&name), after);
        self.settle(&name, changed);
    }

    /// A file is gone, and what it held with it.
    pub fn remove(&mut self, name: &str) {
        let Some((name, file)) = self.files.remove_entry(name) else {
            return;
        };
        self.settle(&name, file.objects.into_keys().collect());
    }

    /// The files it holds.
    pub fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// Everything that is wrong or worth knowing, by file, as of the last [`Self::updates`].
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self
            .files
            .values()
            .flat_map(|f| f.problems.iter().cloned())
            .collect();
        for (key, holders) in self.holders.iter().filter(|(_, holders)| holders.len() > 1) {
            let Some((used, _)) = self.used.get(key) else {
                continue;
            };
            for other in holders.iter().filter(|holder| *holder != used) {
                problems.push(self.conflict(key, used, other));
            }
        }
        let shared = checks::shared_addresses(self);
        for mismatch in self.mismatches.values().flatten().chain(&shared) {
            let Some((file, _)) = self.used.get(&mismatch.at) else {
                continue;
            };
            problems.push(Problem {
                file: Arc::clone(file),
                place: self.place(&mismatch.at, file),
                field: mismatch.field.to_owned(),
                severity: Severity::Warning,
                name: mismatch.name,
                message: mismatch.message.clone(),
            });
        }
        problems.sort();
        problems
    }

    /// What the registry is to be told of the changes since the last call.
    pub fn updates(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        self.give_addresses();
        for key in std::mem::take(&mut self.changed) {
            let object = self.used.get(&key).map(|(_, object)| Arc::clone(object));
            match (key.kind, object.as_deref()) {
                (Kind::Service, Some(Object::Service(object))) => {
                    updates.push(Update::Service(Box::new(self.with_address(object))));
                }
                (Kind::Service, _) => updates.push(Update::ServiceGone(key.name)),
                (Kind::Pod, Some(Object::Pod(pod))) => {
                    updates.push(Update::Workload(Box::new(pod.workload.clone())));
                }
                (Kind::Pod, _) => updates.push(Update::WorkloadGone(key.name)),
                (Kind::MeshConfig, Some(Object::MeshConfig(settings))) => {
                    updates.push(Update::Mesh(settings.clone()));
                }
                (Kind::MeshConfig, _) => updates.push(Update::Mesh(Box::default())),
                (Kind::EndpointSlice | Kind::Endpoints, _) => {}
            }
        }
        for service in std::mem::take(&mut self.to_join) {
            let endpoints = self.endpoints_of(&service);
            match checks::of_service(self, &service) {
                none if none.is_empty() => self.mismatches.remove(&service),
                some => self.mismatches.insert(service.clone(), some),
            };
            updates.push(Update::Endpoints { service, endpoints });
        }
        updates
    }

    /// Chooses anew which file each of these objects is used from, after `file` changed.
    fn settle(&mut self, file: &Arc<str>, keys: Vec<Key>) {
        for key in keys {
            let holders = self.holders.entry(key.clone()).or_default();
            if self.files.get(file).is_some_and(|f| f.objects.contains_key(&key)) {
                holders.insert(Arc::clone(file));
            } else {
                holders.remove(file);
            }
            let before = self.used.remove(&key);
            let stays = before
                .as_ref()
                .map(|(file, _)| file)
                .filter(|file| holders.contains(*file));
            let chosen = stays.or_else(|| holders.first()).cloned();
            let after = chosen.and_then(|file| {
                let (_, object) = self.files.get(&file)?.objects.get(&key)?;
                Some((file, Arc::clone(object)))
            });
            if holders.is_empty() {
                self.holders.remove(&key);
            }
            let (before, after_object) = (before.map(|(_, o)| o), after.as_ref().map(|(_, o)| Arc::clone(o)));
            if let Some(after) = after {
                self.used.insert(key.clone(), after);
            }
            let is_same = match (&before, &after_object) {
                (Some(before), Some(after)) => before == after,
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                self.touch(key, before.as_deref(), after_object.as_deref());
            }
        }
    }

    /// Notes what hangs on an object that changed.
    fn touch(&mut self, key: Key, before: Option<&Object>, after: Option<&Object>) {
        match key.kind {
            Kind::Service => {
                if let Some(Object::Service(service)) = before {
                    self.selecting.drop(&key.name, service.selector.iter().take(1));
                    for ip in virtual_addresses(service) {
                        let services = self.addressed.entry(*ip).or_default();
                        services.remove(&key.name);
                        if services.is_empty() {
                            self.addressed.remove(ip);
                        }
                    }
                }
                if let Some(Object::Service(service)) = after {
                    self.selecting.put(&key.name, service.selector.iter().take(1));
                    for ip in virtual_addresses(service) {
                        self.addressed.entry(*ip).or_default().insert(key.name.clone());
                    }
                }
                self.to_join.insert(key.name.clone());
            }
            Kind::Endpoints => {
                self.to_join.insert(key.name.clone());
            }
            Kind::EndpointSlice => {
                if let Some(Object::EndpointSlice(slice)) = before
                    && let Some(slices) = self.slices_of.get_mut(&slice.service)
                {
                    slices.remove(&key.name);
                    if slices.is_empty() {
                        self.slices_of.remove(&slice.service);
                    }
                }
                if let Some(Object::EndpointSlice(slice)) = after {
                    let slices = self.slices_of.entry(slice.service.clone()).or_default();
                    slices.insert(key.name.clone());
                }
                for object in [before, after].into_iter().flatten() {
                    if let Object::EndpointSlice(slice) = object {
                        self.to_join.insert(slice.service.clone());
                    }
                }
            }
            Kind::Pod => {
                if let Some(Object::Pod(pod)) = before {
                    self.labelled.drop(&key.name, pod.labels.iter());
                    self.join_selecting(pod);
                }
                if let Some(Object::Pod(pod)) = after {
                    self.labelled.put(&key.name, pod.labels.iter());
                    self.join_selecting(pod);
                }
            }
            Kind::MeshConfig => self.touch_settings(after),
        }
        self.changed.insert(key);
    }

    /// Notes what hangs on the mesh's settings.
    fn touch_settings(&mut self, after: Option<&Object>) {
        let has_no_automatic =
            matches!(after, Some(Object::MeshConfig(settings)) if !settings.automatic_addresses);
        if has_no_automatic == self.has_no_automatic {
            return;
        }
        self.has_no_automatic = has_no_automatic;
        let services = self.used.iter().filter_map(|(key, (_, object))| match &**object {
            Object::Service(service) if lacks_address(service) => Some(key.clone()),
            _ => None,
        });
        self.changed.extend(services.collect::<Vec<_>>());
    }

    /// Notes the services that select a pod.
    fn join_selecting(&mut self, pod: &PodObject) {
        let candidates = self.selecting.any(&pod.workload.name, pod.labels.iter());
        let selecting = candidates
            .into_iter()
            .filter(|name| match self.get(Kind::Service, name) {
                Some(Object::Service(service)) => selects(service, pod),
                _ => false,
            });
        self.to_join.extend(selecting.cloned().collect::<Vec<_>>());
    }

    /// The pods that a service selects, by name.
    fn selected(&self, service: &ServiceObject) -> impl Iterator<Item = &PodObject> {
        let candidates = self
            .labelled
            .any(&service.service.name, service.selector.iter().take(1));
        candidates
            .into_iter()
            .filter_map(move |name| match self.get(Kind::Pod, name) {
                Some(Object::Pod(pod)) if selects(service, pod) => Some(pod),
                _ => None,
            })
    }

    fn get(&self, kind: Kind, name: &ObjectName) -> Option<&Object> {
        let name = name.clone();
        self.used.get(&Key { kind, name }).map(|(_, object)| &**object)
    }

    fn endpoints_of(&self, service: &ObjectName) -> Vec<Endpoint> {
        if let Some(slices) = self.slices_of.get(service) {
            let slices = slices
                .iter()
                .filter_map(|name| self.get(Kind::EndpointSlice, name));
            return slices
                .flat_map(|object| match object {
                    Object::EndpointSlice(slice) => slice.endpoints.as_slice(),
                    _ => &[],
                })
                .cloned()
                .collect();
        }
        if let Some(Object::Endpoints(object)) = self.get(Kind::Endpoints, service) {
            return object.endpoints.clone();
        }
        let Some(Object::Service(object)) = self.get(Kind::Service, service) else {
            return Vec::new();
        };
        self.selected(object)
            .flat_map(|pod| endpoints_of_pod(object, pod))
            .collect()
    }

    /// Gives addresses to the services that changed and have none, the oldest first, then by name: so the same
    /// manifests give the same addresses, in whatever order their files were read.
    fn give_addresses(&mut self) {
        let mut without: Vec<(Created, ObjectName)> = Vec::new();
        for key in self.changed.iter().filter(|key| key.kind == Kind::Service) {
            match self.used.get(key).map(|(_, object)| &**object) {
                Some(Object::Service(object)) if !self.has_no_automatic && lacks_address(object) => {
                    without.push((object.service.created, key.name.clone()));
                }
                _ => self.addresses.release(&key.name),
            }
        }
        without.sort();
        for (_, name) in without {
            self.addresses.take(&name, |ip| self.addressed.contains_key(ip));
        }
    }

    /// The service, with automatic addresses where the manifest has none: before it is applied to a cluster
    /// a manifest seldom has.
    fn with_address(&self, object: &ServiceObject) -> Service {
        let mut service = object.service.clone();
        if let ServiceKind::ClusterIp(addresses) = &mut service.kind
            && addresses.is_empty()
        {
            *addresses = self.addresses.of(&service.name, &object.families);
        }
        service
    }

    fn place(&self, key: &Key, file: &Arc<str>) -> Place {
        let held = self.files.get(file).and_then(|file| file.objects.get(key));
        held.map(|(place, _)| place.clone()).unwrap_or_default()
    }

    fn conflict(&self, key: &Key, used: &Arc<str>, other: &Arc<str>) -> Problem {
        let first = self.place(key, used);
        Problem {
            file: Arc::clone(other),
            place: self.place(key, other),
            field: String::new(),
            severity: Severity::Error,
            name: ErrorName::ManifestTwice,
            message: format!(
                "the same object is in {used}, document {} (line {}), which is used; remove one of the two",
                first.document, first.line
            ),
        }
    }
}

/// Whether it is one that has a cluster address, but for its manifest.
fn lacks_address(object: &ServiceObject) -> bool {
    matches!(&object.service.kind, ServiceKind::ClusterIp(addresses) if addresses.is_empty())
}

fn virtual_addresses(object: &ServiceObject) -> &[IpAddr] {
    match &object.service.kind {
        ServiceKind::ClusterIp(addresses) => addresses,
        ServiceKind::Headless | ServiceKind::ExternalName(_) => &[],
    }
}
