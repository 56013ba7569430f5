//! How often the log is told of what may befall every query: once a minute for each thing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use model::ErrorName;
use tokio::time::Instant;

/// How often.
const EVERY: Duration = Duration::from_mins(1);
/// Things that are kept in mind; where there are more, the log has enough of them.
const KEPT_MAX: usize = 1000;

/// When it was told of what. Of one thread.
#[derive(Debug, Default)]
pub(crate) struct Told {
    at: RefCell<HashMap<String, Instant>>,
    /// Whether it was told that no resolver answers, and not yet that one does.
    is_failing: Cell<bool>,
}

impl Told {
    /// Whether it is time to tell of this, such as of a name; it counts as told.
    pub(crate) fn is_due(&self, what: &str) -> bool {
        let now = Instant::now();
        let mut at = self.at.borrow_mut();
        if at.len() >= KEPT_MAX {
            at.retain(|_, at| now - *at < EVERY);
        }
        match at.get(what) {
            Some(at) if now - *at < EVERY => false,
            None if at.len() >= KEPT_MAX => false,
            _ => {
                at.insert(what.to_owned(), now);
                true
            }
        }
    }

    /// Tells when resolvers stop answering, and when one answers again.
    pub(crate) fn asked(&self, is_answered: bool) {
        if is_answered && self.is_failing.replace(false) {
            tracing::info!("the resolvers of names outside the mesh answer again");
        } else if !is_answered && !self.is_failing.get() && self.is_due("the resolvers") {
            self.is_failing.set(true);
            tracing::warn!(
                see = %ErrorName::Resolvers,
                "no resolver answers for a name outside the mesh"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_told_once_a_minute() {
        let told = Told::default();
        assert_eq!(["a", "a", "b"].map(|name| told.is_due(name)), [true, false, true]);
        tokio::time::advance(EVERY).await;
        assert_eq!(["a", "a"].map(|name| told.is_due(name)), [true, false]);
        for number in 0..2 * KEPT_MAX {
            told.is_due(&number.to_string());
        }
        assert!(told.at.borrow().len() <= KEPT_MAX && !told.is_due("x"));
        tokio::time::advance(EVERY).await;
        assert!(told.is_due("x"));
    }
}
