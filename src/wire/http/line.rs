//! Lines, and counted bytes, taken from the front of a buffer.
//!
//! Not what a line says. Invariant: a line ends with CR LF; a CR or LF that stands alone is refused, never skipped.

use super::request::BadRequest;

const BARE_CR_OR_LF: BadRequest = BadRequest::new(400, "a line ends with CR LF; this one has a CR or a LF by itself");

/// A place in a buffer. What lies before it is taken.
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    pub fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { bytes, at: 0 }
    }

    /// How many bytes have been taken.
    pub fn taken(&self) -> usize {
        self.at
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next line, without its end; none while it is not whole. One longer than `bytes_max`, end included, is
    /// `too_long`, as soon as so many bytes are there.
    pub fn line(&mut self, bytes_max: usize, too_long: BadRequest) -> Result<Option<&'a [u8]>, BadRequest> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'\n');
        if bytes_max < end.map_or(rest.len(), |end| end + 1) {
            return Err(too_long);
        }
        let Some(end) = end else { return Ok(None) };
        let line = rest[..end].strip_suffix(b"\r").ok_or(BARE_CR_OR_LF)?;
        if line.contains(&b'\r') {
            return Err(BARE_CR_OR_LF);
        }
        self.at += end + 1;
        Ok(Some(line))
    }

    /// As many bytes as there are, at most `count`.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let rest = self.rest();
        let taken = &rest[..rest.len().min(count)];
        self.at += taken.len();
        taken
    }
}
