//! Which network namespace a command is about: the one it runs in, one with a name, or one at a path.

use std::path::{Path, PathBuf};

use anyhow::Result;
use model::ErrorName;
use netsys::netns::Netns;

use crate::errors::OrNamed;

/// A name is one that `ip netns` gave.
pub(crate) fn named(name: &str) -> Result<Netns> {
    let path = match name.contains('/') {
        true => PathBuf::from(name),
        false => Path::new("/run/netns").join(name),
    };
    Netns::open(&path).or_named_with(ErrorName::Namespace, || {
        format!("--netns {name}: cannot open {} (see `ip netns`)", path.display())
    })
}
