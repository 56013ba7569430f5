//! What stands against what was asked for.

use model::ErrorName;

/// Something that cannot be done as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{flag}: {problem}")]
pub struct Mistake {
    /// Which kind it is.
    pub name: ErrorName,
    /// The flag, as people write it, or the fact that stands against it.
    pub flag: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Mistake {
    pub(crate) fn new(flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::of(ErrorName::Setting, flag, problem)
    }

    /// One that has a name of its own.
    pub(crate) fn of(name: ErrorName, flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            name,
            flag: flag.into(),
            problem: problem.into(),
        }
    }
}
