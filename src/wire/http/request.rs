//! A request as it was understood, and the refusal of one that was not.
//!
//! Not its meaning: that is `api`. Invariant: a refusal says what is expected.

use super::super::headers::Headers;

/// A whole request.
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
    pub headers: Headers,
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

/// The bytes are not a request that we take. The connection cannot go on: nobody knows where the next request begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRequest {
    pub status: u16,
    pub reason: &'static str,
}

impl BadRequest {
    /// TLS has come where a request was expected.
    pub const TLS: BadRequest =
        BadRequest::new(400, "these bytes are TLS, and a request in the plain is expected here");
    /// Plain http has come where TLS is spoken.
    pub const PLAIN_TO_TLS: BadRequest =
        BadRequest::new(400, "this port speaks https: ask it by https://, and not by http://");

    pub(super) const fn new(status: u16, reason: &'static str) -> BadRequest {
        BadRequest { status, reason }
    }
}
