//! Columns, colours and wrapping. A line is a time, a label and a text; the text wraps below itself.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style as Ansi};

/// Width of the time column.
const TIME: usize = 9;
/// Width of the label column.
const LABEL: usize = 9;
/// What a request's lines are indented by.
const INDENT: usize = 2;
/// Below this lines are longer than the terminal.
const COLUMNS_MIN: usize = 40;
/// Room that a text always has, though a line be longer than the terminal.
const TEXT_MIN: usize = 12;
/// Beyond this lines are hard to read.
const COLUMNS_MAX: usize = 120;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    columns: usize,
    colour: bool,
}

impl Style {
    /// For a terminal of so many columns, or for a file (`None`), with colour or without.
    #[must_use]
    pub fn new(columns: Option<usize>, colour: bool) -> Self {
        Self {
            columns: columns.unwrap_or(COLUMNS_MAX).clamp(COLUMNS_MIN, COLUMNS_MAX),
            colour,
        }
    }

    /// A heading.
    #[must_use]
    pub fn title(&self, text: &str) -> String {
        self.paint(Tone::Title, text)
    }

    /// Something that is as it should be.
    #[must_use]
    pub fn good(&self, text: &str) -> String {
        self.paint(Tone::Good, text)
    }

    /// Something that is not.
    #[must_use]
    pub fn bad(&self, text: &str) -> String {
        self.paint(Tone::Bad, text)
    }

    /// Something by the way.
    #[must_use]
    pub fn quiet(&self, text: &str) -> String {
        self.paint(Tone::Quiet, text)
    }

    /// Columns there are.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Breaks a text into lines that fit below an indentation.
    #[must_use]
    pub fn wrap<'a>(&self, text: &'a str, indent: usize) -> Vec<&'a str> {
        wrap(text, self.columns.saturating_sub(indent).max(TEXT_MIN))
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Quiet => Ansi::new().dimmed(),
            Tone::Label => AnsiColor::Cyan.on_default(),
            Tone::Title => Ansi::new().bold(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Odd => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
        };
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// What a text means, for its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    Plain,
    Quiet,
    Label,
    Title,
    Good,
    Odd,
    Bad,
}

/// One line of a block.
#[derive(Debug)]
pub(super) struct Line {
    since: Duration,
    label: Cow<'static, str>,
    text: String,
    tone: Tone,
    indent: usize,
}

impl Line {
    /// A hop of the connection.
    pub(super) fn hop(label: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self {
            since: Duration::ZERO,
            label: label.into(),
            text: text.into(),
            tone: Tone::Plain,
            indent: 0,
        }
    }

    /// A hop of a request on it.
    pub(super) fn request(label: &'static str, text: impl Into<String>) -> Self {
        Self {
            indent: INDENT,
            ..Self::hop(label, text)
        }
    }

    pub(super) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    pub(super) fn at(self, since: Duration) -> Self {
        Self { since, ..self }
    }

    /// As a hop of the connection.
    pub(super) fn outdent(self) -> Self {
        Self { indent: 0, ..self }
    }

    /// Writes it, wrapped.
    pub(super) fn render(&self, style: &Style, out: &mut String) {
        self.write(style, "", out);
    }

    /// Writes it with the place where it happened, in a column of some width.
    pub(super) fn render_at(&self, style: &Style, (place, width): (&str, usize), out: &mut String) {
        self.write(style, &format!("{place:<width$}  "), out);
    }

    fn write(&self, style: &Style, place: &str, out: &mut String) {
        let left = TIME + 2 + place.chars().count() + self.indent + LABEL + 1;
        let width = style.columns.saturating_sub(left).max(TEXT_MIN);
        let time = style.paint(Tone::Quiet, &format!("{:>TIME$}", elapsed(self.since)));
        let place = style.paint(Tone::Title, place);
        let label = style.paint(Tone::Label, &format!("{:<LABEL$}", self.label));
        let indent = " ".repeat(self.indent);
        for (index, part) in wrap(&self.text, width).into_iter().enumerate() {
            let text = style.paint(self.tone, part);
            let _ = if index == 0 {
                writeln!(out, "{time}  {place}{indent}{label} {text}")
            } else {
                writeln!(out, "{:left$}{text}", "")
            };
        }
    }
}

/// The heading of a block: its title, and the time of day on the right where there is room.
pub(super) fn heading(style: &Style, title: &str, start: SystemTime, out: &mut String) {
    let clock = time_of_day(start);
    let used = title.chars().count() + clock.len();
    for part in wrap(title, style.columns) {
        out.push_str(&style.paint(Tone::Title, part));
        out.push('\n');
    }
    if used + 4 <= style.columns {
        out.pop();
        let rule = "─".repeat(style.columns - used - 2);
        let _ = writeln!(
            out,
            " {} {}",
            style.paint(Tone::Quiet, &rule),
            style.paint(Tone::Quiet, &clock)
        );
    }
}

/// `hh:mm:ss.mmm`, UTC.
fn time_of_day(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03}Z",
        seconds % 60,
        since.subsec_millis()
    )
}

/// `0.05 ms`, `12.3 ms`, `1.24 s`.
#[must_use]
pub fn elapsed(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.2} ms")
    } else if millis < 1000.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{:.2} s", millis / 1000.0)
    }
}

/// `0 B`, `831 B`, `12.4 KiB`, `1.0 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut name = "";
    for unit in UNITS {
        value /= 1024.0;
        name = unit;
        if value < 1024.0 {
            break;
        }
    }
    format!("{value:.1} {name}")
}

/// Breaks a text at spaces, and a word that is too long where it must be.
fn wrap(text: &str, width: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((cut, _)) = rest.char_indices().nth(width) {
        let at = rest[..cut].rfind(' ').filter(|&space| space > 0).unwrap_or(cut);
        // A break right at the width loses the space that stands there.
        let at = if rest[cut..].starts_with(' ') { cut } else { at };
        parts.push(rest[..at].trim_end());
        rest = rest[at..].trim_start();
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_else_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("outbound|80||nginx", 10), ["outbound|8", "0||nginx"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("→→→→", 2), ["→→", "→→"]);
    }

    #[test]
    fn times_and_sizes_keep_three_figures() {
        let times = [0, 50, 12_345, 1_240_000].map(|micros| elapsed(Duration::from_micros(micros)));
        assert_eq!(times, ["0.00 ms", "0.05 ms", "12.3 ms", "1.24 s"]);
        let sizes = [0, 1023, 12_700, 1 << 30, 1 << 60].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "12.4 KiB", "1.0 GiB", "1048576.0 TiB"]);
    }
}
