//! One HTTP connection: it reads bytes, makes one request of them at a time, and sends the answer back. While the node
//! has a request, nothing more is read from the socket, so a client that sends faster than it gets answers has to wait.
//!
//! Not here: the meaning of a request, and the choice of the connection for an answer; see `http`.
//!
//! ```text
//! Reading -> (request) Busy -> (answer) Reading ...
//!    |                   \--> (last answer) Closing -> Draining -> closed
//!    |                    \-> Streaming -> (its end) as after any answer
//!    \--> (bad request, too slow) Closing
//! ```
//!
//! Invariants: the node has at most one request of a connection; the buffers hold at most one request and one answer,
//! or one part of an answer.

use crate::model::Mono;
use crate::wire::http::{
    BODY_BYTES_MAX, BadRequest, CONTINUE, HEAD_BYTES_MAX, LAST_CHUNK, Parsed, Parser, Request, Response, chunk,
    text_head,
};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

/// How long a request may take from its first byte to its last.
const REQUEST_MS: u64 = 10_000;
/// How long a connection stays open without a request. A proxy keeps one for less (nginx: 60 s), so its next request
/// does not meet the end of the connection.
const IDLE_MS: u64 = 75_000;
/// How long a client may take no byte of an answer.
const WRITE_MS: u64 = 10_000;
/// How long a client has to read the last answer and close.
const DRAIN_MS: u64 = 2_000;
/// How many bytes may still come after the last answer.
const DRAIN_BYTES_MAX: usize = 4 << 20;
/// Bytes that are read in one turn of the loop.
const TURN_BYTES_MAX: usize = 256 << 10;
const INPUT_BYTES_MAX: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX + 1;

pub struct Connection {
    pub stream: TcpStream,
    parser: Parser,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    state: State,
    keep_alive: bool,
    takes_chunks: bool,
    is_eof: bool,
    deadline: Mono,
    drained: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Reading,
    Busy,
    /// The answer comes in parts; nobody knows yet how many.
    Streaming,
    Closing,
    Draining,
}

/// How far `advance` has come.
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
            state: State::Reading,
            keep_alive: true,
            takes_chunks: true,
            is_eof: false,
            deadline: now.plus_ms(IDLE_MS),
            drained: 0,
        }
    }

    /// Writes and reads as much as goes at once. After `Request` nothing is read until `respond`.
    pub fn advance(&mut self, now: Mono) -> Progress {
        let mut budget = TURN_BYTES_MAX;
        loop {
            if !self.write(now) {
                return Progress::Closed;
            }
            match self.state {
                State::Busy => return Progress::Waiting,
                State::Streaming if self.is_client_gone() => return Progress::Closed,
                State::Streaming => return Progress::Waiting,
                State::Closing if self.output.is_empty() => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.state = State::Draining;
                    self.deadline = now.plus_ms(DRAIN_MS);
                }
                State::Closing => return Progress::Waiting,
                State::Draining if self.is_eof || DRAIN_BYTES_MAX < self.drained => return Progress::Closed,
                State::Draining => {}
                State::Reading => {
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
        self.state = if keep_alive { State::Reading } else { State::Closing };
        self.deadline = now.plus_ms(WRITE_MS);
    }

    /// Gives the last answer: after it the connection ends.
    pub fn respond_last(&mut self, response: Response, now: Mono) {
        self.keep_alive = false;
        self.respond(response, now);
    }

    /// Begins an answer in parts to the request that `advance` gave.
    pub fn begin_stream(&mut self, headers: &[(&str, String)], now: Mono) {
        // To a client that knows no chunks, only the end of the connection tells the end of the answer.
        self.keep_alive &= self.takes_chunks;
        self.state = State::Streaming;
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
        self.state = if self.keep_alive { State::Reading } else { State::Closing };
        self.deadline = now.plus_ms(WRITE_MS);
    }

    /// Whether the client has taken every byte that was to be sent.
    pub fn has_sent_all(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether its time is over. Only a client in the middle of a request is told so; see `is_midway`.
    pub fn is_overdue(&self, now: Mono) -> bool {
        // While the run writes nothing the client has nothing to take.
        let is_idle_stream = self.state == State::Streaming && self.output.is_empty();
        self.state != State::Busy && !is_idle_stream && self.deadline <= now
    }

    /// Whether the client has begun a request and may be told that it takes too long.
    pub fn is_midway(&self) -> bool {
        self.state == State::Reading && self.output.is_empty() && self.parser.is_midway(&self.input)
    }

    fn send(&mut self, bytes: &[u8], now: Mono) {
        if self.output.is_empty() {
            self.deadline = now.plus_ms(WRITE_MS);
        }
        self.output.extend_from_slice(bytes);
    }

    /// Looks without reading: the next request may be there already, and has to wait.
    fn is_client_gone(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn close_after_answer(&mut self) {
        self.state = State::Closing;
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
                self.state = State::Busy;
                Some(Progress::Request(request))
            }
            Err(bad) => Some(Progress::BadRequest(bad)),
        }
    }

    /// True: bytes came, or the end did. False: there is nothing to read now.
    fn read(&mut self, budget: &mut usize, now: Mono) -> Result<bool, ()> {
        let mut buffer = [0; 16 << 10];
        let bytes_max = INPUT_BYTES_MAX.saturating_sub(self.input.len()).min(buffer.len()).min(*budget).max(1);
        match self.stream.read(&mut buffer[..bytes_max]) {
            Ok(0) => self.is_eof = true,
            Ok(count) if self.state == State::Draining => self.drained += count,
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

    /// Writes as much of the answer as goes at once; false: the client is gone.
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
