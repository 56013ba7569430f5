//! The thread that prints: takes events from the proxy's channel and writes what the journey says.

use std::io::Write;
use std::time::{Duration, SystemTime};

use model::event::Event;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Journey;

/// How often waiting connections are looked at.
const TICK: Duration = Duration::from_millis(50);

/// The running printer. It ends when every sender of events is gone.
#[derive(Debug)]
pub struct Printer(runtime::thread::Handle<()>);

/// Prints the journey of all events to `out` until their channel closes.
///
/// # Errors
/// Where the thread does not start.
pub fn start(
    mut journey: Journey,
    mut events: mpsc::Receiver<Event>,
    mut out: impl Write + Send + 'static,
) -> Result<Printer, runtime::thread::Error> {
    let thread = runtime::thread::spawn("journey", || async move {
        loop {
            let text = match timeout(TICK, events.recv()).await {
                Ok(Some(event)) => journey.step(&event),
                Ok(None) => break,
                Err(_) => journey.tick(SystemTime::now()),
            };
            // A reader that went away ends the telling, not the traffic.
            if write(&mut out, &text).is_err() {
                return;
            }
        }
        // The last words: nobody is left to hear of a failure.
        let _ = write(&mut out, &journey.finish());
    })?;
    Ok(Printer(thread))
}

impl Printer {
    /// Waits until all is printed. Every sender must be gone, or this waits for them.
    ///
    /// # Errors
    /// Where the thread panicked.
    pub fn join(self) -> Result<(), runtime::thread::Error> {
        self.0.join()
    }
}

fn write(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}
