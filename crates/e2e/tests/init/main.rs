//! The rules of `weir init` and `weir run` against the kernel, and the command itself.

mod backends;
mod cgroups;
mod command;
mod contained;
mod foreign;
mod invalid;
mod native;
mod open;
mod others;
mod packets;
mod replace;
mod roundtrip;
mod services;
mod stuck;
