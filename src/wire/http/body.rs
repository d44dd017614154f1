//! The body of a request: by its length, or in chunks.
//!
//! Not what a body means. Invariants: there is one framing, or the request is refused; what comes beside the data of a
//! chunked body (extensions, trailers) is bounded and has no effect.

use super::line::Lines;
use super::request::BadRequest;

/// The most bytes of a body.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// The most bytes of the lines before the chunks, beyond what each chunk needs (its size and two line ends).
pub(super) const EXTENSION_BYTES_MAX: usize = 4 << 10;
/// The most bytes of the lines behind the last chunk.
pub(super) const TRAILER_BYTES_MAX: usize = 4 << 10;
/// The most bytes that a chunk's line needs: eight digits and the end of the line.
const SIZE_LINE_BYTES: usize = 10;

const TOO_LARGE: BadRequest = BadRequest::new(413, "the body is larger than 256 KiB");
const TRAILERS_TOO_LARGE: BadRequest = BadRequest::new(431, "the trailers are larger than 4096 bytes");
const EXTENSIONS_TOO_LARGE: BadRequest = BadRequest::new(400, "the chunks' extensions are larger than 4096 bytes");
const MALFORMED_CHUNK: BadRequest = BadRequest::new(
    400,
    "a chunk cannot be read: its size in hexadecimal, CR LF, so many bytes, and CR LF again are expected",
);

/// How a body comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

impl Framing {
    /// How many bytes the body may have.
    pub fn bytes_max(self) -> usize {
        match self {
            Framing::Length(bytes) => bytes,
            Framing::Chunked => BODY_BYTES_MAX,
        }
    }
}

/// The framing that the headers say. `codings`: the items of Transfer-Encoding. `is_old`: the request is HTTP/1.0, which
/// knows no codings.
pub fn framing(length: Option<&str>, codings: &[String], is_old: bool) -> Result<Framing, BadRequest> {
    let is_chunked = |coding: &&String| *coding == "chunked";
    match (length, codings) {
        (Some(_), [_, ..]) => {
            Err(BadRequest::new(400, "both Content-Length and Transfer-Encoding are given: one framing is expected"))
        }
        (None, [_, ..]) if is_old => Err(BadRequest::new(400, "HTTP/1.0 has no Transfer-Encoding")),
        (None, [only]) if is_chunked(&only) => Ok(Framing::Chunked),
        (None, [_, ..]) if 1 < codings.iter().filter(is_chunked).count() => {
            Err(BadRequest::new(400, "Transfer-Encoding says chunked twice"))
        }
        (None, [_, ..]) => Err(BadRequest::new(501, "no Transfer-Encoding but chunked is taken here")),
        (Some(length), []) => {
            let bytes = content_length(length)?;
            if bytes <= BODY_BYTES_MAX { Ok(Framing::Length(bytes)) } else { Err(TOO_LARGE) }
        }
        (None, []) => Ok(Framing::Length(0)),
    }
}

fn content_length(text: &str) -> Result<usize, BadRequest> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadRequest::new(400, "Content-Length is not a number"));
    }
    // A number too large to read is a body too large to take.
    Ok(text.parse().unwrap_or(usize::MAX))
}

/// A body as far as it has come.
#[derive(Debug)]
pub struct BodyReader {
    data: Vec<u8>,
    step: Step,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many bytes are still to come, and nothing behind them.
    Length(usize),
    /// The line with a chunk's size.
    Size,
    /// So many bytes of the chunk are still to come.
    Chunk(usize),
    /// The end of the line behind a chunk.
    ChunkEnd,
    Trailers,
}

impl BodyReader {
    pub fn new(framing: Framing) -> BodyReader {
        let step = match framing {
            Framing::Length(bytes) => Step::Length(bytes),
            Framing::Chunked => Step::Size,
        };
        BodyReader { data: Vec::new(), step, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Goes on with the body, and gives it when it is whole.
    pub fn read(&mut self, lines: &mut Lines) -> Result<Option<Vec<u8>>, BadRequest> {
        loop {
            self.step = match self.step {
                Step::Length(0) => return Ok(Some(std::mem::take(&mut self.data))),
                Step::Chunk(0) => Step::ChunkEnd,
                Step::Length(left) | Step::Chunk(left) => {
                    let taken = lines.bytes(left);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    self.data.extend_from_slice(taken);
                    let left = left - taken.len();
                    if matches!(self.step, Step::Length(_)) { Step::Length(left) } else { Step::Chunk(left) }
                }
                Step::Size => match self.read_size(lines)? {
                    None => return Ok(None),
                    Some(0) => Step::Trailers,
                    Some(bytes) => Step::Chunk(bytes),
                },
                Step::ChunkEnd => match lines.line(2, MALFORMED_CHUNK)? {
                    None => return Ok(None),
                    Some([]) => Step::Size,
                    Some(_) => return Err(MALFORMED_CHUNK),
                },
                Step::Trailers => {
                    let left = TRAILER_BYTES_MAX + 2 - self.trailer_bytes;
                    match lines.line(left, TRAILERS_TOO_LARGE)? {
                        None => return Ok(None),
                        Some([]) => Step::Length(0),
                        Some(line) => {
                            // The bound leaves the last, empty line its two bytes.
                            self.trailer_bytes += line.len() + 2;
                            if TRAILER_BYTES_MAX < self.trailer_bytes {
                                return Err(TRAILERS_TOO_LARGE);
                            }
                            Step::Trailers
                        }
                    }
                }
            };
        }
    }

    /// The size of the next chunk; 0 for the last.
    fn read_size(&mut self, lines: &mut Lines) -> Result<Option<usize>, BadRequest> {
        let bytes_max = SIZE_LINE_BYTES + EXTENSION_BYTES_MAX - self.extension_bytes;
        let Some(line) = lines.line(bytes_max, EXTENSIONS_TOO_LARGE)? else { return Ok(None) };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        if digits == 0 || !(extension.is_empty() || extension.trim_ascii_start().starts_with(b";")) {
            return Err(MALFORMED_CHUNK);
        }
        self.extension_bytes += line.len().saturating_sub(SIZE_LINE_BYTES - 2);
        let size = std::str::from_utf8(&line[..digits]).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        // A number too large to read is a chunk too large to take.
        let size = size.unwrap_or(usize::MAX);
        if BODY_BYTES_MAX - self.data.len() < size { Err(TOO_LARGE) } else { Ok(Some(size)) }
    }
}
