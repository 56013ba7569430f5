//! What the tools print: the tables of weir pc, the journey of a connection, what `weir check`, `weir explain` and
//! `weir verify` find. Comes in: dumps, events, snapshots. Goes out: text for people, JSON for programs.

#![forbid(unsafe_code)]

pub mod check;
pub mod explain;
pub mod journey;
pub mod place;
pub mod tables;
pub mod verify;
