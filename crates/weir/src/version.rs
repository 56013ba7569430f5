//! Which version, commit and build this is.

/// `0.1.0 (commit 0123456789ab)`.
pub(crate) const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("WEIR_COMMIT"), ")");

/// With the build: profile and target.
pub(crate) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("WEIR_COMMIT"),
    ", ",
    env!("WEIR_PROFILE"),
    " build for ",
    env!("WEIR_TARGET"),
    ")"
);

/// Version alone, a label of the metrics.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit alone, a label of the metrics.
pub(crate) const COMMIT: &str = env!("WEIR_COMMIT");
