//! The program's own log: on standard error, as text or JSON, with a filter that can be changed while
//! it runs. Not for what happens per request: that is the access log ([`crate::lines`]).

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The filter where neither the command line nor `WEIR_LOG` says one.
pub const DEFAULT_FILTER: &str = "info";

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
    #[error(
        "log filter {filter:?} cannot be read; write a level (error, warn, info, debug, trace) \
         or target=level, separated by commas"
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
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
    filter: Arc<Mutex<String>>,
}

/// Sets up the log of this process, once.
///
/// # Errors
/// For a filter that cannot be read, and on the second call.
pub fn start(format: Format, filter: &str) -> Result<Level, Error> {
    let (reloadable, handle) = reload::Layer::new(parse(filter)?);
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
        let parsed = parse(filter)?;
        self.handle.reload(parsed).map_err(|_| Error::Gone)?;
        filter.clone_into(&mut self.filter.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_changed_while_running_and_a_bad_one_leaves_it() {
        let level = start(Format::Text, "warn").unwrap();
        assert!(!tracing::enabled!(tracing::Level::INFO));
        level.set("runtime=debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        let error = level.set("loud=very").unwrap_err().to_string();
        assert!(
            error.contains("\"loud=very\"") && error.contains("write a level"),
            "{error}"
        );
        assert_eq!(level.filter(), "runtime=debug");
        assert!(matches!(start(Format::Json, "info"), Err(Error::Twice)));
    }
}
