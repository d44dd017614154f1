//! Answers that are compressed by gzip (RFC 1952) while they are sent, piece by piece.
//!
//! Not the decision which answers are worth it: that is `response`.
//!
//! Invariant: a piece costs a bounded time, however long the answer: the thread that compresses also starts the runs.

use flate2::{Compress, Compression, Crc, FlushCompress};

/// The bytes of the answer that are compressed at one time.
const PIECE_BYTES: usize = 64 << 10;
/// No name, no time, any system; deflate.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Whether the client would rather have gzip than nothing done. `accepted`: the items of Accept-Encoding, in small
/// letters.
pub fn is_wanted(accepted: &[String]) -> bool {
    let quality = |coding: &str| {
        let of = |item: &String| {
            let mut parts = item.split(';').map(str::trim);
            (parts.next() == Some(coding)).then(|| parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, number))
        };
        accepted.iter().find_map(of)
    };
    let any = quality("*");
    let gzip = quality("gzip").or_else(|| quality("x-gzip")).or(any).unwrap_or(0.0);
    0.0 < gzip && quality("identity").unwrap_or(0.0) <= gzip
}

/// A quality from 0 to 1; 0 where it cannot be read.
fn number(text: &str) -> f32 {
    text.trim().parse().ok().filter(|number| (0.0..=1.0).contains(number)).unwrap_or(0.0)
}

/// An answer, as far as it is compressed.
pub struct Gzip {
    body: Vec<u8>,
    at: usize,
    crc: Crc,
    compress: Compress,
    is_over: bool,
}

impl Gzip {
    /// Begins to compress this body.
    pub fn new(body: Vec<u8>) -> Gzip {
        Gzip { body, at: 0, crc: Crc::new(), compress: Compress::new(Compression::fast(), false), is_over: false }
    }

    /// How many bytes are not yet compressed.
    pub fn left(&self) -> usize {
        self.body.len() - self.at
    }

    /// The next bytes to send, which may be none; `None` at the end.
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE_BYTES / 4);
        if self.at == 0 {
            out.extend(HEADER);
        }
        let piece = &self.body[self.at..self.body.len().min(self.at + PIECE_BYTES)];
        self.crc.update(piece);
        self.at += piece.len();
        let is_last = self.at == self.body.len();
        let flush = if is_last { FlushCompress::Finish } else { FlushCompress::None };
        self.deflate(flush, &mut out);
        if is_last {
            self.is_over = true;
            out.extend(self.crc.sum().to_le_bytes());
            out.extend(self.crc.amount().to_le_bytes());
        }
        Some(out)
    }

    /// Compresses what lies before `at`.
    fn deflate(&mut self, flush: FlushCompress, out: &mut Vec<u8>) {
        loop {
            let done = self.compress.total_in() as usize;
            if done == self.at && flush == FlushCompress::None {
                return;
            }
            out.reserve(4 << 10);
            match self.compress.compress_vec(&self.body[done..self.at], out, flush) {
                Ok(flate2::Status::StreamEnd) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
