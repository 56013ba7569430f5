//! The sign of life of the DNS proxy. While it answers, it sends itself a datagram every so often; the capture
//! rules remember the last one for a while, and only as long do they lead port 53 to it. So nobody needs a right
//! to switch, and no process has to be left that could.

use std::time::Duration;

/// How often the proxy sends it.
pub const SENT_EVERY: Duration = Duration::from_secs(1);
/// How long the rules remember one: two may be late, or lost, before look-ups go direct.
pub const HELD_FOR: Duration = Duration::from_secs(3);
