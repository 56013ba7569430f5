//! The changes that make a head fit to be passed on, made in place: the bytes after what changes stay
//! where they are, the bytes before it move, so that head and body remain one run of bytes.

use std::ops::Range;

use smallvec::SmallVec;

use super::Span;

/// Changes to one head. Made by the parser; the engine may add to them before it applies them.
#[derive(Clone, Default, Debug)]
pub struct Edits {
    /// Field lines to take out, in the order they stand.
    removed: SmallVec<[Span; 4]>,
    /// Field lines to put in behind the start line.
    inserted: SmallVec<[u8; 96]>,
    /// Another start line, with its CRLF.
    start_line: Option<Box<[u8]>>,
}

impl Edits {
    /// Takes a field's line out.
    pub(super) fn remove(&mut self, line: Span) {
        match self
            .removed
            .iter()
            .position(|other| other.start() >= line.start())
        {
            None => self.removed.push(line),
            Some(at) if self.removed[at] == line => {}
            Some(at) => self.removed.insert(at, line),
        }
    }

    /// Whether the line that holds `part` is taken out.
    pub(super) fn takes_out(&self, part: Span) -> bool {
        self.removed
            .iter()
            .any(|line| line.start() <= part.start() && part.end() <= line.end())
    }

    /// Puts a field in. Name and value must be valid as such.
    pub fn insert(&mut self, name: &str, value: &[u8]) {
        self.inserted.extend_from_slice(name.as_bytes());
        self.inserted.extend_from_slice(b": ");
        self.inserted.extend_from_slice(value);
        self.inserted.extend_from_slice(b"\r\n");
    }

    /// Puts in a field line that is whole, with its CRLF.
    pub fn insert_line(&mut self, line: &[u8]) {
        self.inserted.extend_from_slice(line);
    }

    /// Puts another start line in the place of the present one. It ends with CRLF.
    pub(super) fn replace_start_line(&mut self, line: Vec<u8>) {
        self.start_line = Some(line.into_boxed_slice());
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.inserted.is_empty() && self.start_line.is_none()
    }

    /// Bytes of the head after the changes. `head` is its range within what was parsed.
    #[must_use]
    pub fn length(&self, head: &Range<usize>, start_line: Span) -> usize {
        let removed: usize = self.removed.iter().map(|line| line.end() - line.start()).sum();
        let line = start_line.end() - start_line.start();
        let new_line = self.start_line.as_ref().map_or(line, |line| line.len());
        head.len() - removed - line + new_line + self.inserted.len()
    }

    /// Makes the changes in `bytes`, in which what was parsed begins at `base`. The head's last byte
    /// stays where it is; the answer is where its first byte is now. `None`, and nothing is changed,
    /// where there is too little room before it: make [`Self::length`] bytes of room and try again.
    #[must_use]
    pub fn apply(
        &self,
        bytes: &mut [u8],
        base: usize,
        head: &Range<usize>,
        start_line: Span,
    ) -> Option<usize> {
        if self.is_empty() {
            return Some(base + head.start);
        }
        let new_start = (base + head.end).checked_sub(self.length(head, start_line))?;
        // What is kept moves towards the end, last piece first: nothing is written over before it is read.
        let mut to = base + head.end;
        let mut from = to;
        for line in self.removed.iter().rev() {
            to = move_up(bytes, base + line.end()..from, to);
            from = base + line.start();
        }
        to = move_up(bytes, base + start_line.end()..from, to);
        // The start line may move either way; it is one piece and the last to move.
        if let Some(line) = &self.start_line {
            bytes[new_start..new_start + line.len()].copy_from_slice(line);
        } else {
            bytes.copy_within(base + start_line.start()..base + start_line.end(), new_start);
        }
        bytes[to - self.inserted.len()..to].copy_from_slice(&self.inserted);
        Some(new_start)
    }
}

/// Moves a piece so that it ends at `to`; answers where it begins then.
fn move_up(bytes: &mut [u8], piece: Range<usize>, to: usize) -> usize {
    let start = to - piece.len();
    if piece.start != start {
        bytes.copy_within(piece, start);
    }
    start
}
