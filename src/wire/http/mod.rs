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
mod parser;
mod request;
mod response;

pub use body::BODY_BYTES_MAX;
pub use gzip::Gzip;
pub use head::HEAD_BYTES_MAX;
pub use parser::{CONTINUE, Parsed, Parser};
pub use request::{BadRequest, Request};
pub use response::{Content, LAST_CHUNK, Response, chunk, response_head};

#[cfg(test)]
mod tests;
