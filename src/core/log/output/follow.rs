//! A client that follows a run: the output is asked for one part after the other, until the attempt is over.
//!
//! ```text
//! Due -> (question) Asked -> (part) Due, once the client has taken it ... -> (the attempt is over) end
//!                        \-> (no answer) Due, for a while               -> (a last line says why) end
//! ```
//!
//! Not here: the connection. `Follow` says what to send, the reactor sends it.
//!
//! Invariant: one question is open at most.

use crate::core::time::bounds::FOLLOW_MS;
use crate::model::Mono;
use crate::model::command::{Answer, CallError, Command, OutputQuery, Reply, RunOutput};
use crate::model::output::PART_BYTES_MAX;

/// How often the output of a silent run is asked for.
const ASK_EVERY_MS: u64 = 200;
/// The status of an error that may pass: no leader, or a node that does not answer.
const UNAVAILABLE: u16 = 503;

/// A client that follows a run, as far as it has been served.
#[derive(Debug)]
pub struct Follow {
    /// The next question; its `from` grows with each part.
    query: OutputQuery,
    /// When to ask it; none while its answer is awaited.
    ask_at: Option<Mono>,
    answered_at: Mono,
    has_begun: bool,
    is_at_line_start: bool,
}

/// What to do about an answer.
#[derive(Debug, Eq, PartialEq)]
pub enum Step<'a> {
    /// Send nothing: the question will be asked again.
    Wait,
    /// Answer the client with this very reply: the first question has failed, so nothing was sent yet.
    Refuse,
    /// Send the bytes of this part; with `is_first` the head of the answer before them; with `part.is_over` the end
    /// behind them.
    Pass { output: &'a RunOutput, is_first: bool },
    /// Send this line, then the end.
    End(String),
}

impl Follow {
    /// A client that follows this run from now on.
    pub fn new(query: OutputQuery, now: Mono) -> Follow {
        Follow { query, ask_at: Some(now), answered_at: now, has_begun: false, is_at_line_start: true }
    }

    /// When `ask` will have a question, provided that the client has taken every part by then.
    pub fn deadline(&self) -> Option<Mono> {
        self.ask_at
    }

    /// The question to ask now. To be called only when the client has taken every part, so that a slow client does not
    /// fill the memory.
    pub fn ask(&mut self, now: Mono) -> Option<Command> {
        self.ask_at.take_if(|at| *at <= now).map(|_| Command::ReadOutput(self.query))
    }

    /// The answer to the open question.
    pub fn on_reply<'a>(&mut self, reply: &'a Reply, now: Mono) -> Step<'a> {
        match reply {
            Ok(Answer::Output(output)) => self.pass(output, now),
            _ if !self.has_begun => Step::Refuse,
            Err(CallError { status: UNAVAILABLE, .. }) if now < self.answered_at.plus_ms(FOLLOW_MS) => {
                self.ask_at = Some(now.plus_ms(ASK_EVERY_MS));
                Step::Wait
            }
            Err(error) => Step::End(self.line(&error.message)),
            Ok(_) => Step::End(self.line("the output cannot be read")),
        }
    }

    /// The last line for a client whose answer has to end before the run does; none where no answer has begun.
    pub fn interrupt(&self, why: &str) -> Option<String> {
        self.has_begun.then(|| self.line(why))
    }

    fn pass<'a>(&mut self, output: &'a RunOutput, now: Mono) -> Step<'a> {
        let RunOutput { attempt, part, .. } = output;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        // A later retry is another attempt, with an output of its own.
        self.query.attempt = Some(attempt.number);
        self.query.from = part.next;
        self.is_at_line_start = part.bytes.last().map_or(self.is_at_line_start, |byte| *byte == b'\n');
        self.answered_at = now;
        let wait_ms = if PART_BYTES_MAX <= part.bytes.len() { 0 } else { ASK_EVERY_MS };
        self.ask_at = Some(now.plus_ms(wait_ms));
        Step::Pass { output, is_first }
    }

    fn line(&self, why: &str) -> String {
        let line_end = if self.is_at_line_start { "" } else { "\n" };
        format!("{line_end}[{why}]\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::output::{OutputPart, OutputState};
    use crate::model::status::RunStatus;
    use crate::model::{Attempt, RunState, Server};

    fn query() -> OutputQuery {
        OutputQuery { run: "7-100".parse().unwrap(), attempt: None, from: 0, follow: true }
    }

    fn follow() -> Follow {
        Follow::new(query(), Mono(0))
    }

    fn at(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    fn part(number: u32, from: u64, bytes: &[u8]) -> Reply {
        let attempt = Attempt { run: query().run, number };
        let next = from + bytes.len() as u64;
        let part = OutputPart { bytes: bytes.to_vec(), next, ..OutputPart::empty(RunStatus::Running, from) };
        Ok(Answer::Output(RunOutput { attempt, server: Server("a:1".into()), part }))
    }

    fn unavailable() -> Reply {
        Err(CallError::unavailable("away"))
    }

    /// Asks, and gives the answer.
    #[track_caller]
    fn hear<'a>(follow: &mut Follow, reply: &'a Reply, now: Mono) -> Step<'a> {
        assert!(follow.ask(now).is_some(), "it asks");
        assert!(follow.ask(Mono::NEVER).is_none() && follow.deadline().is_none(), "one question is open");
        follow.on_reply(reply, now)
    }

    #[track_caller]
    fn check_passes(step: Step, is_first: bool, bytes: &[u8]) {
        match step {
            Step::Pass { output, is_first: found } => assert_eq!((found, &output.part.bytes[..]), (is_first, bytes)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_part_is_asked_for_at_once_and_each_further_one_where_the_last_ended() {
        let mut follow = follow();
        assert_eq!((follow.deadline(), follow.ask(Mono(0))), (Some(Mono(0)), Some(Command::ReadOutput(query()))));
        check_passes(follow.on_reply(&part(2, 0, b"abc"), Mono(0)), true, b"abc");
        assert_eq!(follow.deadline(), Some(at(ASK_EVERY_MS)));
        assert!(follow.ask(at(ASK_EVERY_MS - 1)).is_none());
        let next = OutputQuery { attempt: Some(2), from: 3, ..query() };
        assert_eq!(follow.ask(at(ASK_EVERY_MS)), Some(Command::ReadOutput(next)));
        check_passes(follow.on_reply(&part(2, 3, b"d"), at(ASK_EVERY_MS)), false, b"d");
    }

    #[test]
    fn behind_a_full_part_the_next_is_asked_for_at_once() {
        let mut follow = follow();
        for (bytes, wait_ms) in [(PART_BYTES_MAX - 1, ASK_EVERY_MS), (PART_BYTES_MAX, 0)] {
            let now = follow.deadline().unwrap();
            let reply = part(1, 0, &vec![b'x'; bytes]);
            hear(&mut follow, &reply, now);
            assert_eq!(follow.deadline(), Some(now.plus_ms(wait_ms)));
        }
    }

    #[test]
    fn a_failure_before_the_first_part_is_the_answer() {
        for reply in [unavailable(), Err(CallError::unknown_run(query().run)), Ok(Answer::Jobs(Default::default()))] {
            let mut follow = follow();
            assert_eq!(hear(&mut follow, &reply, Mono(0)), Step::Refuse);
            assert_eq!(follow.interrupt("shutting down"), None, "no part was sent");
        }
    }

    #[test]
    fn an_output_that_cannot_be_read_is_asked_for_again_for_a_while() {
        let (mut follow, first, away) = (follow(), part(1, 0, b"abc\n"), unavailable());
        hear(&mut follow, &first, at(0));
        assert_eq!(hear(&mut follow, &away, at(ASK_EVERY_MS)), Step::Wait);
        assert_eq!(follow.deadline(), Some(at(2 * ASK_EVERY_MS)));
        assert_eq!(hear(&mut follow, &away, at(FOLLOW_MS - 1)), Step::Wait);
        // Each part sets the time that the client waits back to its full length.
        let second = part(1, 4, b"d");
        check_passes(hear(&mut follow, &second, at(FOLLOW_MS + 500)), false, b"d");
        assert_eq!(hear(&mut follow, &away, at(2 * FOLLOW_MS + 499)), Step::Wait);
        let end = Step::End("\n[away]\n".into());
        assert_eq!(hear(&mut follow, &away, at(2 * FOLLOW_MS + 699)), end);
    }

    #[test]
    fn any_other_failure_ends_the_answer_at_once_with_a_line_that_says_why() {
        let gone = Err(CallError { status: 404, message: "gone".into() });
        let other = Ok(Answer::Jobs(Default::default()));
        for (reply, line) in [(gone, "[gone]\n"), (other, "[the output cannot be read]\n")] {
            for (bytes, line_end) in [(&b""[..], ""), (b"abc\n", ""), (b"abc", "\n")] {
                let (mut follow, first) = (follow(), part(1, 0, bytes));
                hear(&mut follow, &first, at(0));
                assert_eq!(follow.interrupt("shutting down"), Some(format!("{line_end}[shutting down]\n")));
                let end = Step::End(format!("{line_end}{line}"));
                assert_eq!(hear(&mut follow, &reply, at(ASK_EVERY_MS)), end);
            }
        }
    }

    #[test]
    fn an_empty_part_leaves_the_line_as_it_was() {
        let (mut follow, first, silent) = (follow(), part(1, 0, b"abc"), part(1, 3, b""));
        hear(&mut follow, &first, at(0));
        check_passes(hear(&mut follow, &silent, at(ASK_EVERY_MS)), false, b"");
        assert_eq!(follow.interrupt("shutting down"), Some("\n[shutting down]\n".into()));
    }

    #[test]
    fn the_part_that_ends_the_attempt_is_passed_on_as_such() {
        let Ok(Answer::Output(mut output)) = part(1, 0, b"abc") else { unreachable!() };
        output.part = OutputPart { state: OutputState::Over(RunState::Ok), is_over: true, ..output.part };
        let reply = Ok(Answer::Output(output));
        match hear(&mut follow(), &reply, Mono(0)) {
            Step::Pass { output, is_first: true } => assert!(output.part.is_over),
            other => panic!("{other:?}"),
        }
    }
}
