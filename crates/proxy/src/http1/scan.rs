//! Finds the end of a head. Comes in: what has arrived so far, again and again as it grows. Goes out:
//! where the head starts and ends. Each byte is looked at once, however slowly it comes.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr, memmem};

use super::Malformed;

/// Longest head, in bytes.
pub const HEAD_MAX: usize = 64 * 1024;
/// Longest request or status line, in bytes (RFC 9112 section 3 asks for 8,000 at least).
pub const START_LINE_MAX: usize = 16 * 1024;
/// Most fields in one head.
pub const FIELDS_MAX: usize = 128;

/// The empty line that ends a head, behind the line before it.
static END: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// How far a head has been looked at. One for each message.
#[derive(Clone, Copy, Default, Debug)]
pub struct Scan {
    start: u32,
    line: u32,
    seen: u32,
}

impl Scan {
    /// The range of the head within `input`, once its last line is there. `input` must begin where it
    /// began at the first call. One empty line before a request is skipped (RFC 9112 section 2.2).
    ///
    /// What a head that came in one piece says on its lines is for `line` to check.
    ///
    /// # Errors
    /// A bare line feed, an empty start line, and what is over the limits.
    pub(super) fn end(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, Malformed> {
        // Nearly every head comes in one piece.
        if self.seen == 0
            && !input.starts_with(b"\r")
            && let Some(last_line_end) = END.find(input)
        {
            let end = last_line_end + 4;
            return match end > HEAD_MAX {
                true => Err(Malformed::HeadTooLarge),
                false => Ok(Some(0..end)),
            };
        }
        self.end_by_lines(input)
    }

    fn end_by_lines(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, Malformed> {
        while let Some(distance) = memchr(b'\n', &input[self.seen as usize..]) {
            let feed = self.seen as usize + distance;
            let line = self.line as usize;
            if feed == line || input[feed - 1] != b'\r' {
                return Err(Malformed::BareLineFeed);
            }
            let next = feed + 1;
            if next > HEAD_MAX {
                return Err(Malformed::HeadTooLarge);
            }
            let is_first = line == self.start as usize;
            let is_empty = feed - line == 1;
            self.line = next as u32;
            self.seen = next as u32;
            match (is_first, is_empty) {
                (true, true) if line == 0 => self.start = next as u32,
                (true, true) => return Err(Malformed::Syntax),
                (true, false) if feed - line > START_LINE_MAX => return Err(Malformed::StartLineTooLong),
                (false, true) => return Ok(Some(self.start as usize..next)),
                _ => {}
            }
        }
        let in_first_line = self.line == self.start;
        if in_first_line && input.len() - self.line as usize > START_LINE_MAX {
            return Err(Malformed::StartLineTooLong);
        }
        if input.len() >= HEAD_MAX {
            return Err(Malformed::HeadTooLarge);
        }
        self.seen = input.len() as u32;
        Ok(None)
    }
}
