//! Capture rules, as values. Comes in: an [`Intent`] (what flags say) and [`Facts`] (what the namespace
//! is like). Goes out: a [`Plan`], rendered to one [`Ruleset`] a family, which `netsys` applies.
//!
//! Diagnosis is the way back: a dump is [parsed](parse()) into the same type, [compared](diff) with what
//! is wanted and [evaluated](evaluate()) for a packet. Nothing here touches a kernel.

#![forbid(unsafe_code)]

pub mod asked;
pub mod beside;
pub mod cgroup;
pub mod config;
pub mod diff;
pub mod dumps;
pub mod evaluate;
pub mod family;
pub mod flags;
pub mod hook;
pub mod installed;
pub mod intent;
pub mod ipset;
pub mod mentions;
pub mod mistake;
pub mod nft;
pub mod parse;
pub mod pieces;
pub mod plan;
pub mod render;
pub mod ruleset;
pub mod witness;

pub use beside::beside;
pub use evaluate::{Fate, Origin, Packet, State, Step, Verdict, evaluate, evaluate_from};
pub use family::Family;
pub use flags::Flags;
pub use installed::Installed;
pub use intent::{Intent, Proxy, Selection, SocketMark};
pub use mentions::Mentions;
pub use mistake::Mistake;
pub use parse::parse;
pub use plan::{Facts, Plan, plan};
pub use render::render;
pub use ruleset::Ruleset;
