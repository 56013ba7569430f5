//! The subcommands, a file each: `Args` as clap reads them, and `run`.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod init;
pub(crate) mod pc;
pub(crate) mod place;
pub(crate) mod proxy;
pub(crate) mod run;
pub(crate) mod verify;
