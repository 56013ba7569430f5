//! The lines of a whole head, byte by byte as RFC 9112 has them; what is not quite one is refused. Comes
//! in: what [`super::Scan`] found to be a head. Goes out: the request or status line, then field by field.

use super::{FIELDS_MAX, Malformed, START_LINE_MAX, Span, Version};

/// A request line (RFC 9112 section 3).
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    /// Visible bytes; those beyond ASCII are UTF-8.
    pub(super) target: &'a [u8],
    pub(super) version: Version,
    /// Length of the line with its CRLF.
    pub(super) length: usize,
}

impl<'a> RequestLine<'a> {
    /// The line that `head` begins with.
    pub(super) fn read(head: &'a [u8]) -> Result<Self, Malformed> {
        let (method, rest) = head.split_at(token_end(head));
        let rest = match rest {
            [b' ', rest @ ..] if !method.is_empty() => rest,
            rest => return Err(unexpected(rest)),
        };
        let (target, rest) = rest.split_at(first_below::<b'!'>(rest));
        if target.is_empty() || !target.is_ascii() && std::str::from_utf8(target).is_err() {
            return Err(Malformed::Syntax);
        }
        let [b' ', rest @ ..] = rest else {
            return Err(unexpected(rest));
        };
        let (version, rest) = version(rest)?;
        let length = start_line_length(head, rest)?;
        Ok(Self {
            method,
            target,
            version,
            length,
        })
    }
}

/// A status line (RFC 9112 section 4).
pub(super) struct StatusLine {
    pub(super) version: Version,
    pub(super) status: u16,
    /// Length of the line with its CRLF.
    pub(super) length: usize,
}

impl StatusLine {
    /// The line that `head` begins with. The space before an empty reason may be missing: many leave it out.
    pub(super) fn read(head: &[u8]) -> Result<Self, Malformed> {
        let (version, rest) = version(head)?;
        let [
            b' ',
            hundreds @ b'0'..=b'9',
            tens @ b'0'..=b'9',
            ones @ b'0'..=b'9',
            rest @ ..,
        ] = rest
        else {
            return Err(Malformed::Syntax);
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        let status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
        let rest = match rest {
            [b' ', reason @ ..] => &reason[text_end(reason)..],
            rest => rest,
        };
        Ok(Self {
            version,
            status,
            length: start_line_length(head, rest)?,
        })
    }
}

/// One field line (RFC 9112 section 5).
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    /// Without the white space around it.
    pub(super) value: &'a [u8],
    /// Where the line stands in the input, with its CRLF.
    pub(super) line: Span,
}

/// The fields of a head, in their order. After an error nothing more is to be asked of it.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) input: &'a [u8],
    at: usize,
    /// Where the empty line begins.
    end: usize,
    /// Fields that may still come.
    left: usize,
}

impl<'a> Fields<'a> {
    /// The fields that stand in `input` from `start` on; the head ends, with its empty line, at `end`.
    pub(super) fn new(input: &'a [u8], start: usize, end: usize) -> Self {
        Self {
            input,
            at: start,
            end: end - 2,
            left: FIELDS_MAX,
        }
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let lines = &self.input[self.at..self.end];
        let (name, rest) = lines.split_at(token_end(lines));
        let rest = match rest {
            [b':', rest @ ..] if !name.is_empty() => rest,
            rest => return Err(unexpected(rest)),
        };
        let (value, rest) = rest.split_at(text_end(rest));
        let start = self.at;
        self.at += line_length(lines, rest)?;
        self.left = self.left.checked_sub(1).ok_or(Malformed::TooManyFields)?;
        Ok(Field {
            name,
            value: value.trim_ascii(),
            line: Span::new(start, self.at),
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.end).then(|| self.read())
    }
}

/// A 1 in each byte, and the high bit of each.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

fn version(input: &[u8]) -> Result<(Version, &[u8]), Malformed> {
    match input {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', rest @ ..] => Ok((Version::Http11, rest)),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', rest @ ..] => Ok((Version::Http10, rest)),
        _ => Err(Malformed::Version),
    }
}

fn start_line_length(input: &[u8], rest: &[u8]) -> Result<usize, Malformed> {
    match line_length(input, rest)? {
        length if length - 1 > START_LINE_MAX => Err(Malformed::StartLineTooLong),
        length => Ok(length),
    }
}

/// The length of the line that `input` begins with, with the CRLF that must stand where `rest` begins.
fn line_length(input: &[u8], rest: &[u8]) -> Result<usize, Malformed> {
    match rest {
        [b'\r', b'\n', ..] => Ok(input.len() - rest.len() + 2),
        rest => Err(unexpected(rest)),
    }
}

/// What is wrong where `rest` begins.
fn unexpected(rest: &[u8]) -> Malformed {
    match rest {
        [b'\n', ..] => Malformed::BareLineFeed,
        _ => Malformed::Syntax,
    }
}

/// Bytes of a token (RFC 9110 section 5.6.2).
static IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether a byte may stand in a token.
pub(super) fn is_token(byte: u8) -> bool {
    IS_TOKEN[usize::from(byte)]
}

/// Where the token that `bytes` begins with ends. Names are letters and hyphens, eight at a time.
fn token_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let others = no_letters(u64::from_le_bytes(*eight));
        at += others.trailing_zeros() as usize / 8;
        if others != 0 {
            break;
        }
    }
    let is_other = |&byte: &u8| !is_token(byte);
    at + bytes[at..].iter().position(is_other).unwrap_or(bytes.len() - at)
}

/// The high bit of each byte that is neither an ASCII letter nor a hyphen.
fn no_letters(word: u64) -> u64 {
    let ascii = word & !HIGH;
    let small = ascii | (ONES * 0x20);
    // Without its high bit a byte cannot carry into the next.
    let from_a = small + ONES * (0x80 - b'a' as u64);
    let past_z = small + ONES * (0x7f - b'z' as u64);
    let hyphen = !((ascii ^ (ONES * b'-' as u64)) + ONES * 0x7f);
    !(from_a & !past_z | hyphen) & HIGH | word & HIGH
}

/// Where the text that `bytes` begins with ends: visible characters, bytes beyond ASCII, spaces and tabs.
fn text_end(bytes: &[u8]) -> usize {
    let mut end = first_below::<b' '>(bytes);
    while bytes.get(end) == Some(&b'\t') {
        end += 1;
        end += first_below::<b' '>(&bytes[end..]);
    }
    end
}

/// Where the first byte is that is lower than `LOWEST` (at most 128), or DEL. Eight at a time.
fn first_below<const LOWEST: u8>(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let del = word ^ (ONES * 0x7f);
        // A subtraction that borrows sets the high bit, of the lowest such byte for certain.
        let below = word.wrapping_sub(ONES * LOWEST as u64) & !word;
        let hits = (below | del.wrapping_sub(ONES) & !del) & HIGH;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_hit = |&byte: &u8| byte < LOWEST || byte == 0x7f;
    at + bytes[at..].iter().position(is_hit).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_and_hyphens_are_told_from_all_else() {
        for byte in 0..=u8::MAX {
            let is_letter = byte.is_ascii_alphabetic() || byte == b'-';
            for place in 0..8 {
                let mut eight = *b"-aZzA-mM";
                eight[place] = byte;
                let others = if is_letter { 0 } else { 0x80 << (place * 8) };
                assert_eq!(no_letters(u64::from_le_bytes(eight)), others, "{byte} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_is_as_one_by_one(bytes in proptest::collection::vec(any::<u8>(), 0..40), tame in any::<bool>()) {
            // Mostly text: else the first byte is all that is ever looked at.
            let tamed = |byte: u8| if byte < 0x20 && byte & 7 != 0 || byte == 0x7f { byte | 0x80 } else { byte };
            let bytes: Vec<u8> = bytes.into_iter().map(|byte| if tame { tamed(byte) } else { byte }).collect();
            let naive = |lowest: u8| bytes.iter().position(|&byte| byte < lowest || byte == 0x7f).unwrap_or(bytes.len());
            prop_assert_eq!(first_below::<b' '>(&bytes), naive(b' '));
            prop_assert_eq!(first_below::<b'!'>(&bytes), naive(b'!'));
            let text = |&byte: &u8| byte != b'\t' && (byte < b' ' || byte == 0x7f);
            prop_assert_eq!(token_end(&bytes), bytes.iter().position(|&byte| !is_token(byte)).unwrap_or(bytes.len()));
            prop_assert_eq!(text_end(&bytes), bytes.iter().position(text).unwrap_or(bytes.len()));
        }
    }
}
