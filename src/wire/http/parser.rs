//! The parser: it takes requests out of a growing buffer, first the head of each and then its body.
//!
//! Not a head and not a body in detail: those are `head` and `body`.
//!
//! Invariant: a request is found or refused alike, however its bytes were split.

use super::body::{BodyReader, Framing};
use super::head::Head;
use super::line::Lines;
use super::request::{BadRequest, Request};

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

/// Tells a client that waits for leave to send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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
