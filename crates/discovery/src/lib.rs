//! Manifests folder and (later) the Kubernetes API, turned into updates. Comes in: the text of files
//! ([`parse()`]). Goes out: [`model::Update`]s into a [`registry::Table`], and its snapshots on a channel
//! ([`start_manifests`]).

#![forbid(unsafe_code)]

pub mod catalog;
mod folder;
pub mod manifests;
pub mod parse;
mod watch;

pub use catalog::Catalog;
pub use manifests::{Error, Handle, start_manifests, start_manifests_briefly};
pub use model::problem::{Place, Problem, Severity};
pub use parse::{Parsed, Reader, parse};
