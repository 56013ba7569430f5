//! Each error that Weir prints has a name, by which people find what it means: `weir explain WEIR-NAME`, and
//! docs/errors.md, which is made from the list here. What an error says of its own case (which file, which
//! port) is in its message; what holds for all of its kind is here.

mod list;

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::list::ErrorName;

/// What can be said of an error without having seen it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explained {
    /// `WEIR-PORT-IN-USE`.
    pub name: &'static str,
    /// What it means.
    pub says: &'static str,
    /// How it comes about.
    pub because: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl ErrorName {
    /// `WEIR-PORT-IN-USE`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.explained().name
    }
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no error of that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no error has the name {0}")]
pub struct UnknownName(String);

/// In capitals or not, with `WEIR-` or without.
impl FromStr for ErrorName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let rest = upper.strip_prefix("WEIR-").unwrap_or(&upper);
        let named = |name: &&Self| name.as_str().strip_prefix("WEIR-") == Some(rest);
        let found = Self::ALL.iter().find(named);
        found.copied().ok_or_else(|| UnknownName(text.to_owned()))
    }
}

impl Serialize for ErrorName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_there_once_and_is_read_as_it_is_printed() {
        let names: BTreeSet<_> = ErrorName::ALL.iter().map(|name| name.as_str()).collect();
        assert_eq!(names.len(), ErrorName::ALL.len());
        for name in ErrorName::ALL {
            let printed = name.to_string();
            let plain = printed.strip_prefix("WEIR-").unwrap();
            assert!(
                plain
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'-'),
                "{printed}"
            );
            assert_eq!(printed.parse(), Ok(*name));
            assert_eq!(plain.to_ascii_lowercase().parse(), Ok(*name));
            let json = serde_json::to_string(name).unwrap();
            assert_eq!(serde_json::from_str::<ErrorName>(&json).unwrap(), *name);
        }
        assert!("WEIR-WEIR-USAGE".parse::<ErrorName>().is_err());
        assert!("".parse::<ErrorName>().is_err());
    }

    #[test]
    fn each_flag_of_the_access_log_is_one() {
        for code in crate::event::Flags::every().codes() {
            let name: ErrorName = code.parse().unwrap();
            assert_eq!(name.as_str(), format!("WEIR-{code}"));
        }
    }

    #[test]
    fn each_is_explained_in_whole_sentences() {
        for name in ErrorName::ALL {
            let Explained {
                says, because, fix, ..
            } = name.explained();
            for text in [says, because, fix] {
                assert!(text.ends_with('.'), "{name}: {text}");
                assert!(!text.contains("  "), "{name}: {text}");
            }
        }
    }
}
