//! One HTTP connection: bytes in, a request at a time out, an answer back.
//!
//! While a request is with the node nothing more is read, so a client that sends faster than it is answered is held back
//! by its own socket.
//!
//! ```text
//! Reading -> (request) Busy -> (answer) Reading ...
//!    |                   \--> (last answer) Closing -> Draining -> closed
//!    |                    \-> Streaming -> (its end) as after any answer
//!    \--> (bad request, too slow) Closing
//! ```
//!
//! Invariants: at most one request is with the node; the buffers hold one request and one answer at most, or one part of
//! one.

use crate::model::Mono;
use crate::wire::http::{
    BODY_BYTES_MAX, BadRequest, CONTINUE, HEAD_BYTES_MAX, LAST_CHUNK, Parsed, Parser, Request, Response, chunk,
    text_head,
};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

/// From the first byte of a request to its last.
const REQUEST_MS: u64 = 10_000;
const IDLE_MS: u64 = 75_000;
/// Without a byte of the answer taken.
const WRITE_MS: u64 = 10_000;
/// For the client to read the last answer and close.
const DRAIN_MS: u64 = 2_000;
/// Bytes that may still come after the last answer.
const DRAIN_BYTES_MAX: usize = 4 << 20;
/// Bytes read in one turn.
const TURN_BYTES_MAX: usize = 256 << 10;
const INPUT_BYTES_MAX: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX + 1;

pub struct Connection {
    pub stream: TcpStream,
    parser: Parser,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    stage: Phase,
    keep_alive: bool,
    takes_chunks: bool,
    is_eof: bool,
    deadline: Mono,
    drained: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Reading,
    Busy,
    /// An answer that comes in parts, whose end is not known.
    Streaming,
    Closing,
    Draining,
}

/// What came of being ready.
pub enum Progress {
    Waiting,
    /// There may be more to read at once.
    Unfinished,
    Request(Request),
    BadRequest(BadRequest),
    Closed,
}

impl Connection {
    pub fn new(stream: TcpStream, now: Mono) -> Connection {
        Connection {
            stream,
            parser: Parser::default(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            stage: Phase::Reading,
            keep_alive: true,
            takes_chunks: true,
            is_eof: false,
            deadline: now.plus_ms(IDLE_MS),
            drained: 0,
        }
    }

    /// Does all that can be done now. After `Request` nothing is read until `respond`.
    pub fn advance(&mut self, now: Mono) -> Progress {
        let mut budget = TURN_BYTES_MAX;
        loop {
            if !self.write(now) {
                return Progress::Closed;
            }
            match self.stage {
                Phase::Busy => return Progress::Waiting,
                Phase::Streaming if self.is_client_gone() => return Progress::Closed,
                Phase::Streaming => return Progress::Waiting,
                Phase::Closing if self.output.is_empty() => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.stage = Phase::Draining;
                    self.deadline = now.plus_ms(DRAIN_MS);
                }
                Phase::Closing => return Progress::Waiting,
                Phase::Draining if self.is_eof || DRAIN_BYTES_MAX < self.drained => return Progress::Closed,
                Phase::Draining => {}
                Phase::Reading => {
                    if let Some(progress) = self.parse(now) {
                        return progress;
                    }
                    if self.is_eof {
                        self.close_after_answer();
                        continue;
                    }
                }
            }
            if budget == 0 {
                return Progress::Unfinished;
            }
            match self.read(&mut budget, now) {
                Ok(true) => {}
                Ok(false) => return Progress::Waiting,
                Err(()) => return Progress::Closed,
            }
        }
    }

    /// The answer to the request that `advance` gave.
    pub fn respond(&mut self, response: Response, now: Mono) {
        let keep_alive = self.keep_alive && !self.is_eof;
        self.output.extend(response.into_bytes(keep_alive));
        self.stage = if keep_alive { Phase::Reading } else { Phase::Closing };
        self.deadline = now.plus_ms(WRITE_MS);
    }

    /// The last answer: after it the connection ends.
    pub fn respond_last(&mut self, response: Response, now: Mono) {
        self.keep_alive = false;
        self.respond(response, now);
    }

    /// Begins an answer in parts to the request that `advance` gave.
    pub fn begin_stream(&mut self, headers: &[(&str, String)], now: Mono) {
        // Without chunks only the end of the connection tells the end of the answer.
        self.keep_alive &= self.takes_chunks;
        self.stage = Phase::Streaming;
        self.send(&text_head(headers, self.takes_chunks, self.keep_alive), now);
    }

    pub fn stream(&mut self, bytes: &[u8], now: Mono) {
        match self.takes_chunks {
            true => self.send(&chunk(bytes), now),
            false => self.send(bytes, now),
        }
    }

    pub fn end_stream(&mut self, now: Mono) {
        if self.takes_chunks {
            self.send(LAST_CHUNK, now);
        }
        self.stage = if self.keep_alive { Phase::Reading } else { Phase::Closing };
        self.deadline = now.plus_ms(WRITE_MS);
    }

    /// Whether the client has taken all of it.
    pub fn has_sent_all(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether its time is over: some are told so, the others just end.
    pub fn is_overdue(&self, now: Mono) -> bool {
        // While the run says nothing there is nothing to be taken.
        let is_idle_stream = self.stage == Phase::Streaming && self.output.is_empty();
        self.stage != Phase::Busy && !is_idle_stream && self.deadline <= now
    }

    /// Whether the client has begun a request and may be told that it takes too long.
    pub fn is_midway(&self) -> bool {
        self.stage == Phase::Reading && self.output.is_empty() && self.parser.is_midway(&self.input)
    }

    fn send(&mut self, bytes: &[u8], now: Mono) {
        if self.output.is_empty() {
            self.deadline = now.plus_ms(WRITE_MS);
        }
        self.output.extend_from_slice(bytes);
    }

    /// Looked at without reading: the next request may be there already, and it has to wait.
    fn is_client_gone(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn close_after_answer(&mut self) {
        self.stage = Phase::Closing;
    }

    fn parse(&mut self, now: Mono) -> Option<Progress> {
        // The next request waits until the answer to this one is on its way: answers must not pile up.
        if !self.output.is_empty() {
            return Some(Progress::Waiting);
        }
        match self.parser.next(&mut self.input) {
            Ok(Parsed::Partial) => None,
            Ok(Parsed::ExpectsContinue) => {
                self.output.extend_from_slice(CONTINUE);
                if self.write(now) { None } else { Some(Progress::Closed) }
            }
            Ok(Parsed::Request(request)) => {
                self.keep_alive = request.keep_alive;
                self.takes_chunks = request.takes_chunks;
                self.stage = Phase::Busy;
                Some(Progress::Request(request))
            }
            Err(bad) => Some(Progress::BadRequest(bad)),
        }
    }

    /// True: something came (or the end did). False: nothing for now.
    fn read(&mut self, budget: &mut usize, now: Mono) -> Result<bool, ()> {
        let mut buffer = [0; 16 << 10];
        let room = INPUT_BYTES_MAX.saturating_sub(self.input.len()).min(buffer.len()).min(*budget).max(1);
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) => self.is_eof = true,
            Ok(count) if self.stage == Phase::Draining => self.drained += count,
            Ok(count) => {
                if !self.parser.is_midway(&self.input) {
                    self.deadline = now.plus_ms(REQUEST_MS);
                }
                self.input.extend_from_slice(&buffer[..count]);
                *budget = budget.saturating_sub(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
        }
        Ok(true)
    }

    /// Writes what there is; false: the client is gone.
    fn write(&mut self, now: Mono) -> bool {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => {
                    self.sent += count;
                    self.deadline = now.plus_ms(WRITE_MS);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if !self.output.is_empty() {
            self.output.clear();
            self.output.shrink_to(64 << 10);
            self.sent = 0;
            let wait_ms = if self.parser.is_midway(&self.input) { REQUEST_MS } else { IDLE_MS };
            self.deadline = now.plus_ms(wait_ms);
        }
        true
    }
}
