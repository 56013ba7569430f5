//! Bodies. Comes in: bytes as they arrive. Goes out: how many of them belong to the body and may be
//! passed on. Chunk sizes and trailers are checked whole before any byte of them goes.

use memchr::memchr;

use super::Malformed;
use super::fields::Name;
use super::line::is_token;

/// Longest chunk size line with its extensions and CRLF, in bytes.
pub const CHUNK_LINE_MAX: usize = 4 * 1024;
/// Longest trailer section, in bytes.
pub const TRAILERS_MAX: usize = 8 * 1024;

/// How much of a body is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All there is until the connection closes.
    UntilClose,
}

/// Where in a chunked body we are. Made by [`Body`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// Before a size line.
    Size,
    /// In the data: so many bytes of it, and its CRLF, are still to come.
    Data(u64),
    /// Behind the last chunk; so many bytes of trailers have passed.
    Trailers(u16),
}

impl Body {
    pub(super) fn exactly(length: u64) -> Self {
        if length == 0 {
            Self::Done
        } else {
            Self::Length(length)
        }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Whether its end has been passed.
    #[must_use]
    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Bytes still to come, where that is known and they need no looking at.
    #[must_use]
    pub fn unread(self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Moves on over `input`, and answers how many of its bytes belong to the body and may be passed
    /// on. A line that is not complete is left: offer it again with what follows it.
    ///
    /// # Errors
    /// What is wrong with the chunk or trailer; nothing of it may be passed on, and the message must
    /// not be ended.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match *self {
            Self::Done => Ok(0),
            Self::UntilClose => Ok(input.len()),
            Self::Length(left) => {
                let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                *self = Self::exactly(left - taken as u64);
                Ok(taken)
            }
            Self::Chunked(_) => self.advance_chunks(input),
        }
    }

    fn advance_chunks(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Self::Chunked(chunk) = *self {
            let rest = &input[at..];
            let step = match chunk {
                Chunk::Size => size_line(rest)?,
                Chunk::Data(left) => data(rest, left)?,
                Chunk::Trailers(passed) => trailer_line(rest, passed)?,
            };
            let Some((taken, next)) = step else { break };
            at += taken;
            *self = next;
        }
        Ok(at)
    }
}

/// Bytes taken and what comes next; `None` where more input is needed.
type Step = Option<(usize, Body)>;

fn size_line(input: &[u8]) -> Result<Step, Malformed> {
    let Some(line) = whole_line(
        input,
        CHUNK_LINE_MAX,
        Malformed::ChunkLineTooLong,
        Malformed::ChunkSize,
    )?
    else {
        return Ok(None);
    };
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (size, extension) = line.split_at(digits);
    // 15 digits cannot overflow.
    if size.is_empty() || size.len() > 15 || !is_extension(extension) {
        return Err(Malformed::ChunkSize);
    }
    let size = size.iter().fold(0, |sum, &digit| {
        sum * 16 + u64::from((digit as char).to_digit(16).unwrap_or_default())
    });
    let next = match size {
        0 => Chunk::Trailers(0),
        size => Chunk::Data(size + 2),
    };
    Ok(Some((line.len() + 2, Body::Chunked(next))))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`: held to its beginning and its characters. A control
/// character, or white space without a semicolon, is what readers disagree about.
fn is_extension(extension: &[u8]) -> bool {
    match extension.trim_ascii_start() {
        [] => extension.is_empty(),
        [b';', rest @ ..] => {
            !rest.trim_ascii().is_empty()
                && rest.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
        }
        _ => false,
    }
}

fn data(input: &[u8], left: u64) -> Result<Step, Malformed> {
    if left > 2 {
        let taken = usize::try_from(left - 2).map_or(input.len(), |left| left.min(input.len()));
        let next = Body::Chunked(Chunk::Data(left - taken as u64));
        return Ok((taken > 0).then_some((taken, next)));
    }
    match input {
        [b'\r', b'\n', ..] => Ok(Some((2, Body::Chunked(Chunk::Size)))),
        [] | [b'\r'] => Ok(None),
        _ => Err(Malformed::ChunkEnd),
    }
}

fn trailer_line(input: &[u8], passed: u16) -> Result<Step, Malformed> {
    let limit = TRAILERS_MAX - usize::from(passed);
    let Some(line) = whole_line(input, limit, Malformed::TrailersTooLarge, Malformed::Trailer)? else {
        return Ok(None);
    };
    if line.is_empty() {
        return Ok(Some((2, Body::Done)));
    }
    check_trailer(line)?;
    let passed = passed + (line.len() + 2) as u16;
    Ok(Some((line.len() + 2, Body::Chunked(Chunk::Trailers(passed)))))
}

/// A trailer must be a field, and must not be one that frames or routes the message or changes what its
/// head said of the connection (RFC 9110 section 6.5.1).
fn check_trailer(line: &[u8]) -> Result<(), Malformed> {
    let colon = memchr(b':', line).ok_or(Malformed::Trailer)?;
    let (name, value) = line.split_at(colon);
    let is_value = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) || !value.iter().all(is_value) {
        return Err(Malformed::Trailer);
    }
    const NEVER: [&str; 6] = [
        "trailer",
        "authorization",
        "set-cookie",
        "cookie",
        "content-encoding",
        "content-range",
    ];
    let is_barred = !matches!(Name::of(name), Name::Other | Name::RequestId)
        || NEVER
            .iter()
            .any(|barred| name.eq_ignore_ascii_case(barred.as_bytes()));
    if is_barred {
        Err(Malformed::Trailer)
    } else {
        Ok(())
    }
}

/// The line `input` begins with, without its CRLF; `None` where it is not complete. A line feed must
/// follow a carriage return.
fn whole_line(
    input: &[u8],
    limit: usize,
    too_long: Malformed,
    bad: Malformed,
) -> Result<Option<&[u8]>, Malformed> {
    let Some(feed) = memchr(b'\n', &input[..input.len().min(limit)]) else {
        return if input.len() >= limit {
            Err(too_long)
        } else {
            Ok(None)
        };
    };
    match input[..feed].strip_suffix(b"\r") {
        Some(line) => Ok(Some(line)),
        None => Err(bad),
    }
}
