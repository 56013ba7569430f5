//! The program's own log: on standard error, as text or JSON, with a filter that can be changed while
//! it runs. Not for what happens per request: that is the access log ([`crate::lines`]).

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::metadata::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::nearest::nearest;

/// The filter where neither the command line nor `WEIR_LOG` says one.
pub const DEFAULT_FILTER: &str = "info";

/// What a filter may say of a target, or of all.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How a filter is written.
const HOW: &str = "write a level (error, warn, info, debug, trace, off) or target=level, separated by commas";

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// A line for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("log filter {filter:?} cannot be read; {HOW}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word of the filter stands alone, and is no level: taken for a target it would silence all others.
    #[error("log filter {filter:?}: `{word}` is no level{hint}; {HOW}")]
    Level {
        /// As given.
        filter: String,
        /// What is none.
        word: String,
        /// What was meant, where that can be guessed.
        hint: String,
    },
    /// A target of the filter is nothing that logs.
    #[error("log filter {filter:?}: nothing logs as `{target}`{hint}; the targets are {}", targets.join(", "))]
    Target {
        /// As given.
        filter: String,
        /// What nothing logs as.
        target: String,
        /// What was meant, where that can be guessed.
        hint: String,
        /// What there is.
        targets: &'static [&'static str],
    },
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
    /// The log has gone; only at the end of the process.
    #[error("the log has been shut down")]
    Gone,
}

/// Changes the filter of the running log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
    targets: &'static [&'static str],
    filter: Arc<Mutex<String>>,
}

/// Sets up the log of this process, once. `targets` are what a filter may name: crates of the program, by which
/// its modules are named as well, and those of others that log.
///
/// # Errors
/// For a filter that cannot be read or names what is not there, and on the second call.
pub fn start(format: Format, filter: &str, targets: &'static [&'static str]) -> Result<Level, Error> {
    let (reloadable, handle) = reload::Layer::new(parse(filter, targets)?);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Text => Box::new(
            fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal()),
        ),
        Format::Json => Box::new(
            fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr),
        ),
    };
    let subscriber = Registry::default().with(reloadable).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    Ok(Level {
        handle,
        targets,
        filter: Arc::new(Mutex::new(filter.to_owned())),
    })
}

impl Level {
    /// The filter as it was last set.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another filter in force, at once and for all threads.
    ///
    /// # Errors
    /// For a filter that cannot be read; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        let parsed = parse(filter, self.targets)?;
        self.handle.reload(parsed).map_err(|_| Error::Gone)?;
        filter.clone_into(&mut self.filter.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn parse(filter: &str, targets: &'static [&'static str]) -> Result<EnvFilter, Error> {
    for directive in filter.split(',').filter(|directive| !directive.trim().is_empty()) {
        known(filter, directive.trim(), targets)?;
    }
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::Filter {
            filter: filter.to_owned(),
            source,
        })
}

/// Whether a directive is about anything: a word alone must be a level, and before `=` stand a target and
/// perhaps a span.
fn known(filter: &str, directive: &str, targets: &'static [&'static str]) -> Result<(), Error> {
    let hint = |near: Option<&str>| near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
    let is_target = |target: &str| {
        let mut names = target.split("::");
        names.next().is_some_and(|name| targets.contains(&name))
    };
    let named = directive.split(['=', '[']).next().unwrap_or_default();
    if named.len() == directive.len() {
        if named.parse::<LevelFilter>().is_ok() || is_target(named) {
            return Ok(());
        }
        return Err(Error::Level {
            filter: filter.to_owned(),
            word: named.to_owned(),
            hint: hint(nearest(named, &LEVELS)),
        });
    }
    // `[span]=debug` is about every target.
    if named.is_empty() || is_target(named) {
        return Ok(());
    }
    Err(Error::Target {
        filter: filter.to_owned(),
        target: named.to_owned(),
        hint: hint(nearest(named, targets)),
        targets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &[&str] = &["runtime", "proxy"];

    #[test]
    fn the_filter_is_changed_while_running_and_a_bad_one_leaves_it() {
        let level = start(Format::Text, "warn", TARGETS).unwrap();
        assert!(!tracing::enabled!(tracing::Level::INFO));
        level.set("runtime=debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        let error = level.set("runtime=very").unwrap_err().to_string();
        assert!(
            error.contains("\"runtime=very\"") && error.contains("write a level"),
            "{error}"
        );
        level.set("warnn").unwrap_err();
        assert_eq!(level.filter(), "runtime=debug");
        assert!(matches!(start(Format::Json, "info", TARGETS), Err(Error::Twice)));
    }

    #[test]
    fn what_is_about_nothing_is_refused() {
        for filter in [
            "",
            "info",
            "WARN",
            "off",
            "3",
            "proxy",
            "info,proxy::dial=debug",
            "warn,runtime=trace",
            "[a]=debug",
        ] {
            assert!(parse(filter, TARGETS).is_ok(), "{filter}");
        }
        let table = [
            (
                "warnn",
                "`warnn` is no level, did you mean `warn`?; write a level (error, warn, info",
            ),
            ("info,foo", "`foo` is no level; write"),
            (
                "proxi=debug",
                "nothing logs as `proxi`, did you mean `proxy`?; the targets are runtime, proxy",
            ),
            ("info,proxy::dial=debug,dsn=info", "nothing logs as `dsn`"),
        ];
        for (filter, expected) in table {
            let error = parse(filter, TARGETS).unwrap_err().to_string();
            assert!(error.contains(expected), "{filter}: {error}");
        }
    }
}
