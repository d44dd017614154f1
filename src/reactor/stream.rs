//! An answer that goes on while a run does: parts of its output, asked for one after the other.
//!
//! ```text
//! Due -> (question) Asked -> (part, client has taken it) Due ... -> (the attempt is over) end
//!                        \-> (no answer) Due, for a while        -> (a last line says why) end
//! ```
//!
//! Invariant: no part is asked for before the client has taken the last one.

use super::connection::Connection;
use crate::api;
use crate::core::time::bounds::FOLLOW_MS;
use crate::model::Mono;
use crate::model::command::{Answer, CallError, Command, OutputQuery, Reply, RunOutput};
use crate::model::output::PART_BYTES_MAX;

/// How often a run that says nothing is asked.
const ASK_EVERY_MS: u64 = 200;
const UNAVAILABLE: u16 = 503;

pub struct Stream {
    /// Where it goes on.
    query: OutputQuery,
    /// None while the node has the question.
    ask_at: Option<Mono>,
    answered_at: Mono,
    has_begun: bool,
    /// Nothing or a line end was sent last.
    is_at_line_start: bool,
}

impl Stream {
    pub fn new(query: OutputQuery, now: Mono) -> Stream {
        Stream { query, ask_at: Some(now), answered_at: now, has_begun: false, is_at_line_start: true }
    }

    /// When `ask` has something to ask, once the client has taken what there was.
    pub fn deadline(&self) -> Option<Mono> {
        self.ask_at
    }

    /// Call it when the client has taken everything.
    pub fn ask(&mut self, now: Mono) -> Option<Command> {
        self.ask_at.take_if(|at| *at <= now).map(|_| Command::ReadOutput(self.query))
    }

    /// Passes a part on; true: that was the last.
    pub fn on_reply(&mut self, reply: &Reply, connection: &mut Connection, now: Mono) -> bool {
        match reply {
            Ok(Answer::Output(output)) => {
                self.pass(output, connection, now);
                if output.part.is_over {
                    connection.end_stream(now);
                }
                output.part.is_over
            }
            reply if !self.has_begun => {
                connection.respond(api::reply(reply), now);
                true
            }
            Err(CallError { status: UNAVAILABLE, .. }) if now < self.answered_at.plus_ms(FOLLOW_MS) => {
                self.ask_at = Some(now.plus_ms(ASK_EVERY_MS));
                false
            }
            reply => {
                let why = reply.as_ref().err().map_or("the output cannot be read", |error| &error.message);
                self.end(why, connection, now);
                true
            }
        }
    }

    /// The last line says why it ends before the run does.
    pub fn end(&self, why: &str, connection: &mut Connection, now: Mono) {
        if self.has_begun {
            let line_end = if self.is_at_line_start { "" } else { "\n" };
            connection.stream(format!("{line_end}[{why}]\n").as_bytes(), now);
            connection.end_stream(now);
        }
    }

    fn pass(&mut self, output: &RunOutput, connection: &mut Connection, now: Mono) {
        let RunOutput { attempt, server, part } = output;
        if !std::mem::replace(&mut self.has_begun, true) {
            // A retry that comes later is another attempt, with an output of its own.
            self.query.attempt = Some(attempt.number);
            let headers = [("X-Run-Attempt", attempt.number.to_string()), ("X-Run-Server", server.to_string())];
            connection.begin_stream(&headers, now);
        }
        connection.stream(&part.bytes, now);
        self.is_at_line_start = part.bytes.last().map_or(self.is_at_line_start, |byte| *byte == b'\n');
        self.query.from = part.next;
        self.answered_at = now;
        let wait_ms = if PART_BYTES_MAX <= part.bytes.len() { 0 } else { ASK_EVERY_MS };
        self.ask_at = Some(now.plus_ms(wait_ms));
    }
}
