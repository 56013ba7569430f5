//! Readiness: named gates, all of which must be open. Components open theirs when they can do their
//! work; the health server asks for the names of those still closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All gates of one process. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<Gate>>>);

/// One condition of being ready. Clones are the same gate; dropping leaves it as it is.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Named>);

#[derive(Debug)]
struct Named {
    name: &'static str,
    open: AtomicBool,
}

impl Readiness {
    /// A new gate, closed.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate(Arc::new(Named {
            name,
            open: AtomicBool::new(false),
        }));
        self.lock().push(gate.clone());
        gate
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.closed().is_empty()
    }

    /// Names of the gates that are closed, in the order in which they were made.
    #[must_use]
    pub fn closed(&self) -> Vec<&'static str> {
        let gates = self.lock();
        gates
            .iter()
            .filter(|gate| !gate.is_open())
            .map(|gate| gate.0.name)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::Release);
    }

    /// The condition no longer holds.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_all_gates_are_open() {
        let readiness = Readiness::default();
        let (listeners, registry) = (readiness.gate("listeners"), readiness.gate("registry"));
        assert_eq!(readiness.closed(), ["listeners", "registry"]);
        listeners.open();
        assert_eq!(readiness.closed(), ["registry"]);
        registry.open();
        assert!(readiness.is_ready());
        listeners.close();
        assert!(!readiness.is_ready());
    }
}
