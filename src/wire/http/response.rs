//! Responses as bytes.
//!
//! Not the choice of an answer: that is `api`'s and the node's. Invariant: every head has a date.

use super::gzip::Gzip;
use crate::model::Wall;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// From how many bytes on an answer is worth compressing.
pub(super) const GZIP_BYTES_MIN: usize = 1 << 10;

/// An answer before it is bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Beside those that every response has.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// The body of a response, as it is to be sent.
pub enum Content {
    Plain(Vec<u8>),
    /// In chunks.
    Gzip(Box<Gzip>),
}

impl Response {
    /// An answer whose body is this JSON text.
    pub fn json(status: u16, body: Vec<u8>) -> Response {
        Response { status, headers: vec![("Content-Type", "application/json; charset=utf-8".into())], body }
    }

    /// Without content: its headers say it all.
    pub fn no_content() -> Response {
        Response { status: 204, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds the headers that tell of the body, which is compressed where the client takes that and it is worth it.
    pub fn into_parts(self, takes_gzip: bool) -> (Vec<(&'static str, String)>, Content) {
        let Response { status, mut headers, body } = self;
        let is_worth_it = GZIP_BYTES_MIN < body.len();
        if is_worth_it {
            headers.push(("Vary", "Accept-Encoding".into()));
        }
        if is_worth_it && takes_gzip {
            headers.extend([("Content-Encoding", "gzip".into()), ("Transfer-Encoding", "chunked".into())]);
            return (headers, Content::Gzip(Box::new(Gzip::new(body))));
        }
        if status != 204 {
            headers.push(("Content-Length", body.len().to_string()));
        }
        (headers, Content::Plain(body))
    }
}

/// The head of a response, its end included. `keep_alive`: the connection stays open after it.
pub fn response_head(status: u16, headers: &[(&'static str, String)], keep_alive: bool, date: Wall) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (reason, date) = (reason_phrase(status), date_text(date));
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!("HTTP/1.1 {status} {reason}\r\n{headers}Date: {date}\r\nConnection: {connection}\r\n\r\n").into_bytes()
}

/// One chunk; no bytes at all for an empty one, which would end the body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    match bytes.is_empty() {
        true => Vec::new(),
        false => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
    }
}

/// Ends a body that comes in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A moment as HTTP writes it. A clock beyond the calendar shows 1970.
fn date_text(date: Wall) -> String {
    let moment = Timestamp::from_nanosecond(i128::from(date.0)).unwrap_or_default();
    DateTimePrinter::new().timestamp_to_rfc9110_string(&moment).unwrap_or_default()
}

pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
