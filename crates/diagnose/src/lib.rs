//! What the tools print: the tables of weir pc and the journey of a connection, what
//! `weir verify` finds. Comes in: dumps, events,
//! snapshots. Goes out: text for people, JSON for programs.

#![forbid(unsafe_code)]

pub mod explain;
pub mod journey;
pub mod tables;
pub mod verify;
