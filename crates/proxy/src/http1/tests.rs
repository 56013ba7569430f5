//! Hostile and honest messages, and what becomes of them.

#![expect(clippy::too_many_lines, reason = "tables are long")]

mod bodies;
mod edits;
mod requests;
mod responses;
