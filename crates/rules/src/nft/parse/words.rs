//! The words of a listing, a line of it at a time.

/// One word, or a piece of punctuation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::nft) struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    /// Without its quotes.
    pub(in crate::nft) fn text(&self) -> &str {
        &self.text
    }

    /// What stands there for a bare word; a quoted one is never a keyword.
    pub(in crate::nft) fn raw(&self) -> &str {
        if self.quoted { "\"" } else { &self.text }
    }

    /// Whether it stood in quotes.
    pub(super) fn is_quoted(&self) -> bool {
        self.quoted
    }

    /// As it was written.
    pub(in crate::nft) fn written(&self) -> String {
        if self.quoted {
            format!("\"{}\"", self.text)
        } else {
            self.text.clone()
        }
    }
}

/// A set within a chain may go on over several lines of the text: it is one line here.
pub(in crate::nft) fn lines(text: &str) -> Vec<Vec<Word>> {
    let mut lines = vec![];
    let mut line: Vec<Word> = vec![];
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\n' => {
                if depth <= BLOCK {
                    lines.push(std::mem::take(&mut line));
                }
                1
            }
            _ if c.is_whitespace() => c.len_utf8(),
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
                line.push(Word {
                    text: rest[1..end].to_owned(),
                    quoted: true,
                });
                (end + 1).min(rest.len())
            }
            '{' | '}' | ',' | ';' => {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                line.push(bare(&rest[..1]));
                1
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || "{},;\"".contains(c);
                let end = rest.find(ends).unwrap_or(rest.len());
                line.push(bare(&rest[..end]));
                end
            }
        };
        rest = &rest[length..];
    }
    lines.push(line);
    lines
}

/// Braces around what is in a chain: the table's and the chain's.
const BLOCK: usize = 2;

fn bare(text: &str) -> Word {
    Word {
        text: text.to_owned(),
        quoted: false,
    }
}
