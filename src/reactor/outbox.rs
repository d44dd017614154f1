//! What is yet to be sent to a client, and how fast the client takes it.
//!
//! Not the answer's meaning, and not the decision to end a slow client: those are `connection`'s and `http`'s.
//!
//! Invariant: bytes go out in the order in which they were given; one call of `write` takes a bounded time.

use super::pace::Pace;
use super::stream::Stream;
use crate::model::Mono;
use crate::wire::http::{Content, LAST_CHUNK, chunk};
use std::io::{ErrorKind, Write};

/// Bytes that one call of `write` gives to the socket.
const TURN_BYTES_MAX: usize = 256 << 10;
/// A body up to this size goes out together with its head.
const JOINED_BYTES_MAX: usize = 16 << 10;

pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// What follows `bytes`.
    rest: Option<Content>,
    pace: Pace,
    began: Mono,
    /// Since when the client has had to be waited for, and what it has taken since.
    waited: Option<(Mono, usize)>,
}

/// How far `write` has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrote {
    All,
    /// The client has to take something first.
    Blocked,
    /// More could go out at once.
    Unfinished,
    /// The client is gone.
    Failed,
}

impl Outbox {
    pub fn new(now: Mono) -> Outbox {
        Outbox { bytes: Vec::new(), sent: 0, rest: None, pace: Pace::from(now), began: now, waited: None }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.sent && self.rest.is_none()
    }

    /// The bytes that are held for the client.
    pub fn len(&self) -> usize {
        let rest = match &self.rest {
            None => 0,
            Some(Content::Plain(body)) => body.len(),
            Some(Content::Gzip(gzip)) => gzip.left(),
        };
        self.bytes.len() - self.sent + rest
    }

    /// When the client has taken too little for too long.
    pub fn deadline(&self) -> Mono {
        self.pace.deadline()
    }

    /// The order in which clients are given up: by the bytes a second that they have taken since they first had to be
    /// waited for, and of those who took the same by their age.
    pub fn patience(&self, now: Mono) -> (u64, Mono) {
        let rate =
            self.waited.map_or(0, |(since, bytes)| bytes as u64 * 1_000 / (now.since(since).as_millis() as u64 + 1));
        (rate, self.began)
    }

    pub fn push(&mut self, bytes: &[u8], now: Mono) {
        if self.is_empty() {
            *self = Outbox::new(now);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// A head and its body. What was pushed before them goes first.
    pub fn push_answer(&mut self, head: &[u8], content: Content, now: Mono) {
        self.push(head, now);
        match content {
            Content::Plain(body) if body.len() <= JOINED_BYTES_MAX => self.bytes.extend_from_slice(&body),
            content => self.rest = Some(content),
        }
    }

    /// Gives the socket as much as it takes at once.
    pub fn write(&mut self, stream: &mut Stream, now: Mono) -> Wrote {
        let mut left = TURN_BYTES_MAX;
        while !self.is_empty() {
            if left == 0 {
                return Wrote::Unfinished;
            }
            if self.sent == self.bytes.len() {
                left = left.saturating_sub(self.refill());
                continue;
            }
            let end = self.bytes.len().min(self.sent + left);
            match stream.write(&self.bytes[self.sent..end]) {
                Ok(0) => return Wrote::Failed,
                Ok(count) => {
                    self.sent += count;
                    left -= count;
                    self.pace.advance(count, now);
                    self.waited = self.waited.map(|(since, bytes)| (since, bytes + count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waited = self.waited.or(Some((now, 0)));
                    return Wrote::Blocked;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Failed,
            }
        }
        if !self.bytes.is_empty() {
            *self = Outbox::new(now);
        }
        Wrote::All
    }

    /// Takes the next bytes from the rest, once all before them are sent. Returns how many were compressed for that.
    fn refill(&mut self) -> usize {
        let left = self.len();
        self.sent = 0;
        self.bytes = match self.rest.take() {
            None => Vec::new(),
            Some(Content::Plain(body)) => body,
            Some(Content::Gzip(mut gzip)) => match gzip.next_piece() {
                None => LAST_CHUNK.to_vec(),
                Some(piece) => {
                    let compressed = left - gzip.left();
                    self.bytes = chunk(&piece);
                    self.rest = Some(Content::Gzip(gzip));
                    return compressed;
                }
            },
        };
        0
    }
}
