//! HTTP/1.1 (RFC 9110 and 9112): requests taken out of a growing buffer, responses written.
//!
//! Not the meaning of a request: that is `api`. Not a socket and not a clock: those are the reactor's.
//!
//! Invariants: the requests that are found do not depend on how the bytes were split on their way; a line ends with CR LF
//! and with nothing else, so nobody in front of us can see another request in the same bytes.

mod body;
mod gzip;
mod head;
mod line;
mod response;

pub use gzip::Gzip;
pub use response::{Content, LAST_CHUNK, Response, chunk, response_head};

use body::{BodyReader, Framing};
use head::Head;
use line::Lines;

/// The most bytes of the request line and the headers together.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// The most bytes of a body.
pub const BODY_BYTES_MAX: usize = 256 << 10;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    pub method: String,
    /// As sent: percent signs are not decoded. `*` in `OPTIONS *`.
    pub path: String,
    /// What follows the question mark, as sent.
    pub query: Vec<u8>,
    pub body: Vec<u8>,
    /// Whether a body was announced, by its length or in chunks; it may be empty.
    pub has_body: bool,
    /// The header Content-Type, as sent.
    pub content_type: Option<String>,
    /// The header Content-Encoding, as sent.
    pub content_encoding: Option<String>,
    /// The header Idempotency-Key, as sent.
    pub request_key: Option<String>,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
    /// Whether the answer may come in chunks, as from HTTP/1.1 on.
    pub takes_chunks: bool,
    /// Whether the client would rather have the answer compressed by gzip.
    pub takes_gzip: bool,
}

/// What the parser has found in the buffer.
#[derive(Debug, Eq, PartialEq)]
pub enum Parsed {
    /// No whole request yet.
    Partial,
    /// The head of a request with a body of at most so many bytes; told once for each such request, before any of the
    /// body is taken out of the buffer.
    Body {
        bytes_max: usize,
        /// The client waits for `CONTINUE` before it sends the body.
        expects_continue: bool,
    },
    /// A whole request, which is taken out of the buffer.
    Request(Request),
}

pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The bytes are not a request that we take. The connection cannot go on: nobody knows where the next request begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRequest {
    pub status: u16,
    pub reason: &'static str,
}

impl BadRequest {
    const fn new(status: u16, reason: &'static str) -> BadRequest {
        BadRequest { status, reason }
    }
}

/// Takes requests out of a buffer, one after the other.
#[derive(Debug, Default)]
pub struct Parser {
    step: Step,
    is_head: bool,
}

#[derive(Debug)]
enum Step {
    Head(Head),
    Body(Box<Request>, BodyReader),
}

impl Default for Step {
    fn default() -> Step {
        Step::Head(Head::default())
    }
}

impl Parser {
    /// Whether a request has begun and is not whole yet.
    pub fn is_midway(&self, buffer: &[u8]) -> bool {
        !buffer.is_empty() || !matches!(&self.step, Step::Head(head) if head.is_empty())
    }

    /// Whether the head of a request is whole and its body is not.
    pub fn is_in_body(&self) -> bool {
        matches!(self.step, Step::Body(..))
    }

    /// How many bytes of an unfinished head have been taken out of the buffer.
    pub fn head_bytes(&self) -> usize {
        if let Step::Head(head) = &self.step { head.bytes() } else { 0 }
    }

    /// Whether the request at hand, also one that is refused, has the method HEAD: its answer has no body.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Looks for the next request. Call it whenever the buffer has grown, and again after each `Body` and `Request`.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Parsed, BadRequest> {
        let mut lines = Lines::new(buffer);
        let parsed = self.advance(&mut lines);
        let taken = lines.taken();
        buffer.drain(..taken);
        parsed
    }

    fn advance(&mut self, lines: &mut Lines) -> Result<Parsed, BadRequest> {
        match &mut self.step {
            Step::Head(head) => {
                let done = head.read(lines);
                self.is_head = head.is_head;
                let Some((request, framing, expects_continue)) = done? else { return Ok(Parsed::Partial) };
                if framing == Framing::Length(0) {
                    self.step = Step::default();
                    return Ok(Parsed::Request(request));
                }
                self.step = Step::Body(Box::new(request), BodyReader::new(framing));
                Ok(Parsed::Body { bytes_max: framing.bytes_max(), expects_continue })
            }
            Step::Body(request, reader) => {
                let Some(body) = reader.read(lines)? else { return Ok(Parsed::Partial) };
                let request = Request { body, ..std::mem::take(&mut **request) };
                self.step = Step::default();
                Ok(Parsed::Request(request))
            }
        }
    }
}

#[cfg(test)]
mod tests;
