//! What the program says of what went wrong: each error has a name ([`ErrorName`]), which is printed after it.
//! The crates below say what happened by their types; which name that has is decided here alone.

#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};

use model::ErrorName;
use rules::Mistake;

/// An error of the binary's own, or what it was doing when another one came up.
#[derive(Debug)]
struct Named {
    name: ErrorName,
    text: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Named {}

/// An error without a cause but itself.
pub(crate) fn named(name: ErrorName, text: impl Into<String>) -> anyhow::Error {
    let text = text.into();
    anyhow::Error::new(Named { name, text })
}

/// What was being done when `error` came up.
pub(crate) fn while_doing(
    name: ErrorName,
    text: &str,
    error: impl StdError + Send + Sync + 'static,
) -> anyhow::Error {
    let text = text.to_owned();
    anyhow::Error::new(error).context(Named { name, text })
}

/// All that is wrong with what was asked for, each in a line of its own.
pub(crate) fn of_mistakes(mistakes: &[Mistake]) -> anyhow::Error {
    let Some((last, others)) = mistakes.split_last() else {
        return named(ErrorName::Defect, "refused without a reason; please report this");
    };
    // The last one's name is printed as that of the whole.
    let line = |mistake: &Mistake| format!("{mistake} [{}]\nweir: ", mistake.name);
    let lines: String = others.iter().map(line).collect();
    named(last.name, lines + &last.to_string())
}

/// Ends the function with an error of that name, the text as in `format!`.
macro_rules! fail {
    ($name:ident, $($text:tt)*) => {
        return Err($crate::errors::named(model::ErrorName::$name, format!($($text)*)))
    };
}
pub(crate) use fail;

/// Says what was being done, and which name its failure has.
pub(crate) trait OrNamed<T> {
    /// With a text that is at hand.
    fn or_named(self, name: ErrorName, text: &str) -> anyhow::Result<T>;
    /// With one that is made where it is needed.
    fn or_named_with(self, name: ErrorName, text: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrNamed<T> for Result<T, E> {
    fn or_named(self, name: ErrorName, text: &str) -> anyhow::Result<T> {
        self.or_named_with(name, || text.to_owned())
    }

    fn or_named_with(self, name: ErrorName, text: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| {
            let text = text();
            error.into().context(Named { name, text })
        })
    }
}

impl<T> OrNamed<T> for Option<T> {
    fn or_named(self, name: ErrorName, text: &str) -> anyhow::Result<T> {
        self.or_named_with(name, || text.to_owned())
    }

    fn or_named_with(self, name: ErrorName, text: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.ok_or_else(|| named(name, text()))
    }
}

/// The one place where an error that ends the program is printed: its chain, and its name at the end. `who` is
/// the program, with the subcommand where its output stands beside that of others.
pub(crate) fn print(who: &str, error: &anyhow::Error) {
    say(&format!("{who}: {error:#} [{}]", name_of(error)));
}

/// A line on standard error; lost where nobody reads it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether it is only that nobody reads what is printed: `weir demo | head`.
pub(crate) fn is_unheard(error: &anyhow::Error) -> bool {
    let is_closed = |cause: &(dyn StdError + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    name_of(error) == ErrorName::Output && error.chain().any(is_closed)
}

/// The name of the outermost error that has one.
pub(crate) fn name_of(error: &anyhow::Error) -> ErrorName {
    if let Some(named) = error.downcast_ref::<Named>() {
        return named.name;
    }
    let mut chain = error.chain();
    chain.find_map(of_type).unwrap_or(ErrorName::Defect)
}

fn of_type(error: &(dyn StdError + 'static)) -> Option<ErrorName> {
    if let Some(error) = error.downcast_ref() {
        return Some(of_rules(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_contain(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_manifests(error));
    }
    if let Some(error) = error.downcast_ref::<diagnose::verify::Error>() {
        use diagnose::verify::Error as E;
        return match error {
            E::NothingInstalled | E::NothingAsked | E::NothingWanted => Some(ErrorName::NothingToVerify),
            E::Mistaken(_) => Some(ErrorName::FamilyHole),
            // What they come from has a name.
            E::Rules(_) | E::Wire(_) | E::Socket(_) => None,
        };
    }
    if let Some(error) = error.downcast_ref::<netsys::rules::undo::UndoError>() {
        use netsys::rules::undo::UndoError as E;
        return Some(match error {
            E::Waiting | E::Nothing | E::Refused | E::Socket(_) | E::State => ErrorName::Confirm,
        });
    }
    if let Some(error) = error.downcast_ref::<runtime::server::SocketError>() {
        use runtime::server::SocketError as E;
        return Some(match error {
            E::InUse { .. } | E::NotASocket { .. } | E::ForeignDirectory { .. } | E::Io { .. } => {
                ErrorName::AdminSocket
            }
        });
    }
    if let Some(error) = error.downcast_ref::<runtime::thread::Error>() {
        use runtime::thread::Error as E;
        return Some(match error {
            E::Start { .. } => ErrorName::Threads,
            E::Panicked { .. } => ErrorName::Defect,
        });
    }
    if let Some(error) = error.downcast_ref::<proxy::StartError>() {
        use proxy::StartError as E;
        return Some(match error {
            E::Worker(_) => ErrorName::Threads,
            E::Share(_) => ErrorName::Descriptors,
        });
    }
    if let Some(error) = error.downcast_ref::<runtime::telemetry::Error>() {
        use runtime::telemetry::Error as E;
        return Some(match error {
            E::Filter { .. } | E::Level { .. } | E::Target { .. } => ErrorName::LogFilter,
            E::Twice | E::Gone => ErrorName::Defect,
        });
    }
    if error.is::<Mistake>() {
        return Some(ErrorName::Setting);
    }
    if let Some(error) = error.downcast_ref::<netsys::netlink::Error>() {
        use netsys::netlink::Error as E;
        return Some(match error {
            E::Socket(source) | E::Refused { source, .. } => of_system(source),
        });
    }
    error.downcast_ref().map(of_system)
}

fn of_rules(error: &netsys::rules::Error) -> ErrorName {
    use netsys::rules::Error as E;
    match error {
        E::Hidden { .. } => ErrorName::RulesHidden,
        E::Unusable(_) | E::Start { .. } => ErrorName::Backend,
        E::Failed { .. } => ErrorName::RulesRefused,
        E::Dump(_) => ErrorName::RulesUnreadable,
        E::NotHeld { .. } => ErrorName::RulesNotHeld,
        E::Hung { .. } => ErrorName::ProgramHung,
        E::Busy { .. } => ErrorName::RulesBusy,
        E::Cgroups(_) => ErrorName::Privilege,
        E::Facts(source) | E::Table(source) | E::Trace(source) | E::Lock(source) => of_system(source),
        E::Address(_) => ErrorName::PassthroughAddress,
        E::Policy(_) => ErrorName::PolicyRoute,
        E::Switch { .. } => ErrorName::MarkSwitch,
        E::HalfDone { .. } => ErrorName::RulesHalfDone,
    }
}

fn of_contain(error: &netsys::contain::Error) -> ErrorName {
    use netsys::contain::Error as E;
    match error {
        E::UserNamespace(_) => ErrorName::UserNamespace,
        E::Step(_) | E::Gone | E::Io(_) => ErrorName::Contain,
    }
}

fn of_manifests(error: &discovery::Error) -> ErrorName {
    use discovery::Error as E;
    match error {
        E::Folder { .. } | E::Watch { .. } => ErrorName::ManifestFolder,
        E::Thread { .. } => ErrorName::Threads,
    }
}

fn of_system(error: &io::Error) -> ErrorName {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorName::Privilege,
        io::ErrorKind::AddrInUse => ErrorName::PortInUse,
        _ => ErrorName::System,
    }
}
