//! One HTTP connection: it reads bytes, makes one request of them at a time, and sends the answer back. While the node
//! has a request, nothing more is read from the socket, so a client that sends faster than it gets answers has to wait.
//!
//! Not here: the meaning of a request, and the choice of the connection for an answer; see `http`.
//!
//! ```text
//! Reading -> (request) Busy -> (answer) Reading ...
//!    |                   \--> (last answer) Closing -> Draining -> closed
//!    |                    \-> Streaming -> (its end) as after any answer
//!    \--> (bad request, too slow, no more memory for it) Closing
//! ```
//!
//! Invariants: the node has at most one request of a connection; the buffers hold at most one request and one answer,
//! or one part of an answer.

use super::budget::Holding;
use super::outbox::{Outbox, Wrote};
use super::pace::Pace;
use super::stream::Stream;
use super::tls::Handshake;
use crate::core::time::bounds::CONNECTION_IDLE_MS;
use crate::model::Mono;
use crate::wire::http::{
    BadRequest, CONTINUE, Content, HEAD_BYTES_MAX, LAST_CHUNK, Parsed, Parser, Request, Response, chunk, response_head,
};
use crate::worker::clock;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;

/// How long the head of a request may take from its first byte to its last.
const HEAD_MS: u64 = 10_000;
/// How long a client has to read the last answer and close.
const DRAIN_MS: u64 = 2_000;
/// How many bytes may still come after the last answer.
const DRAIN_BYTES_MAX: usize = 4 << 20;
/// Bytes that are read in one turn of the loop.
const TURN_BYTES_MAX: usize = 256 << 10;
/// Bytes that are read at one time.
const READ_BYTES_MAX: usize = 16 << 10;

pub struct Connection {
    pub stream: Stream,
    /// What the budget knows of it.
    pub counted: Holding,
    parser: Parser,
    input: Vec<u8>,
    /// What the body that is being read may come to.
    body_bytes: usize,
    body_pace: Pace,
    expects_continue: bool,
    outbox: Outbox,
    state: State,
    keep_alive: bool,
    takes_chunks: bool,
    takes_gzip: bool,
    /// The answer has no body.
    is_head: bool,
    is_eof: bool,
    /// As it was when the deadline was set.
    handshake: Handshake,
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

/// What a read of the socket gave.
enum Got {
    /// Bytes, or the end of them.
    Something,
    /// There is nothing to read now.
    Nothing,
    Failure,
    /// Plain http, where TLS is spoken.
    PlainHttp,
}

/// How far `advance` has come.
pub enum Progress {
    Waiting,
    /// There may be more to read or to write at once.
    Unfinished,
    /// A request with a body begins: it wants `admit`, or a last answer.
    Body,
    Request(Request),
    BadRequest(BadRequest),
    Closed,
}

impl Connection {
    pub fn new(stream: Stream, now: Mono) -> Connection {
        Connection {
            handshake: stream.handshake(),
            stream,
            counted: Holding::default(),
            parser: Parser::default(),
            input: Vec::new(),
            body_bytes: 0,
            body_pace: Pace::from(now),
            expects_continue: false,
            outbox: Outbox::new(now),
            state: State::Reading,
            keep_alive: true,
            takes_chunks: true,
            takes_gzip: false,
            is_head: false,
            is_eof: false,
            deadline: now.plus_ms(CONNECTION_IDLE_MS),
            drained: 0,
        }
    }

    /// Writes and reads as much as goes at once. After `Request` nothing is read until `respond`.
    pub fn advance(&mut self, now: Mono) -> Progress {
        let mut budget = TURN_BYTES_MAX;
        loop {
            match self.write(now) {
                Wrote::Failed => return Progress::Closed,
                Wrote::Unfinished => return Progress::Unfinished,
                Wrote::All | Wrote::Blocked => {}
            }
            match self.state {
                State::Busy => return Progress::Waiting,
                State::Streaming => return if self.is_client_gone() { Progress::Closed } else { Progress::Waiting },
                State::Closing if self.outbox.is_empty() => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.state = State::Draining;
                    self.deadline = now.plus_ms(DRAIN_MS);
                }
                State::Closing => return Progress::Waiting,
                State::Draining if self.is_eof || DRAIN_BYTES_MAX < self.drained => return Progress::Closed,
                State::Draining => {}
                State::Reading => {
                    if let Some(progress) = self.parse() {
                        return progress;
                    }
                    if self.is_eof {
                        self.state = State::Closing;
                        continue;
                    }
                }
            }
            if budget == 0 {
                return Progress::Unfinished;
            }
            match self.read(&mut budget, now) {
                Got::Something => {}
                Got::Nothing => return Progress::Waiting,
                Got::Failure => return Progress::Closed,
                Got::PlainHttp => return Progress::BadRequest(BadRequest::PLAIN_TO_TLS),
            }
        }
    }

    /// Lets the body come of which `advance` told.
    pub fn admit(&mut self, now: Mono) {
        self.body_pace = Pace::from(now);
        // A client that sends its body without waiting needs no leave.
        if std::mem::take(&mut self.expects_continue) && self.input.is_empty() {
            self.outbox.push(CONTINUE, now);
        }
    }

    /// The answer to the request that `advance` gave.
    pub fn respond(&mut self, response: Response, now: Mono) {
        let keep_alive = self.keep_alive && !self.is_eof;
        let status = response.status;
        let (headers, content) = response.into_parts(self.takes_gzip);
        let content = if self.is_head { Content::Plain(Vec::new()) } else { content };
        self.outbox.push_answer(&response_head(status, &headers, keep_alive, clock::now().wall), content, now);
        self.state = if keep_alive { State::Reading } else { State::Closing };
        // What goes out at once is not held. A client that is gone is noticed by `advance`.
        let _ = self.write(now);
    }

    /// Gives the last answer: after it the connection ends.
    pub fn respond_last(&mut self, response: Response, now: Mono) {
        self.keep_alive = false;
        self.is_head = self.parser.is_head();
        self.body_bytes = 0;
        self.input = Vec::new();
        self.respond(response, now);
    }

    /// Begins an answer in parts to the request that `advance` gave. False: the client wants no more than its head.
    pub fn begin_stream(&mut self, mut headers: Vec<(&'static str, String)>, now: Mono) -> bool {
        // To a client that knows no chunks, only the end of the connection tells the end of the answer.
        self.keep_alive &= self.takes_chunks;
        self.state = State::Streaming;
        headers.insert(0, ("Content-Type", "text/plain; charset=utf-8".into()));
        if self.takes_chunks {
            headers.push(("Transfer-Encoding", "chunked".into()));
        }
        self.outbox.push(&response_head(200, &headers, self.keep_alive, clock::now().wall), now);
        !self.is_head
    }

    pub fn stream(&mut self, bytes: &[u8], now: Mono) {
        match self.takes_chunks {
            _ if self.is_head => {}
            true => self.outbox.push(&chunk(bytes), now),
            false => self.outbox.push(bytes, now),
        }
    }

    pub fn end_stream(&mut self, now: Mono) {
        if self.takes_chunks && !self.is_head {
            self.outbox.push(LAST_CHUNK, now);
        }
        self.state = if self.keep_alive { State::Reading } else { State::Closing };
    }

    /// Tells the client that the connection ends here, where it is not in the middle of anything.
    pub fn take_leave(&mut self) {
        if self.state == State::Reading && self.outbox.is_empty() {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Whether the client has taken every byte that was to be sent.
    pub fn has_sent_all(&self) -> bool {
        self.outbox.is_empty()
    }

    /// See `Outbox::patience`.
    pub fn patience(&self, now: Mono) -> (u64, Mono) {
        self.outbox.patience(now)
    }

    pub fn holding(&self) -> Holding {
        let request = match self.body_bytes {
            0 => self.parser.head_bytes() + self.input.len(),
            body_bytes => body_bytes,
        };
        // In an answer in parts, what the stream holds is the next request, which has not begun.
        let held = if self.state == State::Reading { self.stream.held() } else { 0 };
        Holding { request: request + held, answer: self.outbox.len() }
    }

    /// Whether its time is over. Only a client in the middle of a request is told so; see `slow_part`.
    pub fn is_overdue(&self, now: Mono) -> bool {
        let deadline = match self.state {
            _ if !self.outbox.is_empty() => self.outbox.deadline(),
            // While the run writes nothing the client has nothing to take.
            State::Busy | State::Streaming => return false,
            State::Reading if self.parser.is_in_body() => self.body_pace.deadline(),
            State::Reading | State::Closing | State::Draining => self.deadline,
        };
        deadline <= now
    }

    /// What takes the client too long, where it has begun a request and may be told so.
    pub fn slow_part(&self) -> Option<&'static str> {
        let is_midway = self.state == State::Reading && self.outbox.is_empty() && self.parser.is_midway(&self.input);
        is_midway.then(|| match self.parser.is_in_body() {
            true => "the body of the request comes slower than 1 KiB a second, or not at all for 10 s",
            false => "the head of the request took longer than 10 s to arrive",
        })
    }

    /// Looks without reading: the next request may be there already, and has to wait.
    fn is_client_gone(&mut self) -> bool {
        match self.stream.peek() {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn parse(&mut self) -> Option<Progress> {
        // The next request waits until the answer to this one is on its way: answers must not pile up.
        if !self.outbox.is_empty() {
            return Some(Progress::Waiting);
        }
        let parsed = self.parser.next(&mut self.input);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        match parsed {
            Ok(Parsed::Partial) => None,
            Ok(Parsed::Body { bytes_max, expects_continue }) => {
                self.body_bytes = bytes_max;
                self.expects_continue = expects_continue;
                Some(Progress::Body)
            }
            Ok(Parsed::Request(request)) => {
                self.body_bytes = 0;
                self.keep_alive = request.keep_alive;
                self.takes_chunks = request.takes_chunks;
                self.takes_gzip = request.takes_gzip;
                self.is_head = request.method == "HEAD";
                self.state = State::Busy;
                Some(Progress::Request(request))
            }
            Err(bad) => Some(Progress::BadRequest(bad)),
        }
    }

    fn read(&mut self, budget: &mut usize, now: Mono) -> Got {
        let mut buffer = [0; READ_BYTES_MAX];
        // What comes behind a head may be the next request, which has to wait: no more of it than a head is kept.
        let wanted = if self.parser.is_in_body() {
            READ_BYTES_MAX
        } else {
            (HEAD_BYTES_MAX + 1).saturating_sub(self.input.len())
        };
        let bytes_max = wanted.clamp(1, READ_BYTES_MAX).min(*budget);
        let read = self.stream.read(&mut buffer[..bytes_max]);
        self.note_handshake(now);
        match read {
            Ok(0) => self.is_eof = true,
            Ok(count) if self.state == State::Draining => self.drained += count,
            Ok(count) => {
                if !self.parser.is_midway(&self.input) {
                    self.deadline = now.plus_ms(HEAD_MS);
                }
                self.body_pace.advance(count, now);
                self.input.extend_from_slice(&buffer[..count]);
                *budget = budget.saturating_sub(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Got::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => *budget = budget.saturating_sub(READ_BYTES_MAX),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Got::PlainHttp,
            Err(_) => return Got::Failure,
        }
        Got::Something
    }

    /// A handshake has as long as a head, from its first byte on.
    fn note_handshake(&mut self, now: Mono) {
        let handshake = self.stream.handshake();
        if handshake != std::mem::replace(&mut self.handshake, handshake) {
            let is_begun = handshake == Handshake::Begun;
            self.deadline = now.plus_ms(if is_begun { HEAD_MS } else { CONNECTION_IDLE_MS });
        }
    }

    fn write(&mut self, now: Mono) -> Wrote {
        if self.outbox.is_empty() {
            return Wrote::All;
        }
        let wrote = self.outbox.write(&mut self.stream, now);
        if wrote == Wrote::All {
            let wait_ms = if self.parser.is_midway(&self.input) { HEAD_MS } else { CONNECTION_IDLE_MS };
            self.deadline = now.plus_ms(wait_ms);
        }
        wrote
    }
}
