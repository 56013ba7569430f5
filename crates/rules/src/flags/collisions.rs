//! Ports that would lead what is captured to somebody else than the proxy's listener for it.

use model::ports;

use super::Reader;
use crate::intent::Intent;

const OUTBOUND: &str = "-p (--envoy-port)";
const INBOUND: &str = "-z (--inbound-capture-port)";
const TUNNEL: &str = "-e (--inbound-tunnel-port)";

/// Where the proxy serves something else.
const TAKEN: [(u16, &str); 5] = [
    (ports::ADMIN, "its admin"),
    (ports::METRICS, "its metrics"),
    (ports::HEALTH, "its health"),
    (ports::DNS, "its DNS"),
    (ports::ENVOY_METRICS, "Envoy's metrics"),
];

impl Reader {
    /// Each listener has a port of its own.
    pub(super) fn distinct_ports(&mut self, intent: &Intent) {
        let listeners = [
            (OUTBOUND, intent.outbound.to_port),
            (INBOUND, intent.inbound.to_port),
            (TUNNEL, intent.inbound.tunnel_port),
        ];
        for (index, (flag, port)) in listeners.into_iter().enumerate() {
            let same = listeners[..index].iter().find(|(_, other)| *other == port);
            if let Some((other, _)) = same {
                self.wrong(
                    flag,
                    format!("{port} is the port of {other} already; give another one"),
                );
            }
            if let Some((_, what)) = TAKEN.iter().find(|(taken, _)| *taken == port) {
                self.wrong(
                    flag,
                    format!("at {port} the proxy serves {what}; give another port"),
                );
            }
        }
    }
}
