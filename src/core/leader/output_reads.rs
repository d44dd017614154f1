//! Questions for the output of runs: from the leader to the node that has the output, and the answers back.
//!
//! ```text
//! ask -> (a node has the attempt) ask that node -> its part
//!     -> (no node has it) read its log row -> (the node that ran it is there) ask that node -> its part
//!                                          -> (it is not, or has nothing) the row's text
//! ```
//!
//! A part is pulled, never pushed: a client that follows a run asks again from the end of the last part.
//!
//! Not the reading of output files: each node's reactor does that.
//!
//! Invariants: each question is answered once; no more questions are open at one time than a link can carry answers.

use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Read, StoreError, Work, WorkId};
use crate::core::time::bounds::ANSWER_MS;
use crate::model::command::{Answer, CallError, OutputQuery, Reply, RequestId, RunOutput};
use crate::model::log_row::StoredLog;
use crate::model::message::ToNode;
use crate::model::output::{OutputPart, OutputState};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Epoch, Mono, NodeId, RunState, Server};
use std::collections::BTreeMap;

/// Limit of open questions. Each answer may be a part of full size, and a link's buffer has a limit.
const QUESTIONS_MAX: usize = 128;

/// The source of an attempt's output.
#[derive(Debug)]
pub enum Where {
    /// The leader still has the run: there is no output yet.
    Waiting(Attempt, RunStatus),
    /// This node has the attempt.
    At(Attempt, NodeId, Server),
    /// The node with this server has the attempt, and cannot be reached.
    Away(Server),
    /// No run is in flight: it is over, or there never was one.
    Logged,
}

/// The open questions.
#[derive(Debug)]
pub struct Questions {
    /// The number of the last question to a node.
    next: u64,
    asked: BTreeMap<u64, PendingRead>,
    reading: BTreeMap<WorkId, Reading>,
}

/// A question that is with a node.
#[derive(Debug)]
struct PendingRead {
    client: RequestId,
    attempt: Attempt,
    from: u64,
    server: Server,
    /// The log row to answer with where the node has nothing.
    row: Option<Box<StoredLog>>,
    answer_by: Mono,
}

/// A question whose row is being read.
#[derive(Debug)]
struct Reading {
    client: RequestId,
    query: OutputQuery,
    /// The attempt that a node was asked for and does not have (any more), and that node; the row may not be stored
    /// yet.
    told: Option<(Attempt, Server)>,
}

impl Questions {
    /// No question yet. The epoch makes each leader's numbers its own: a late answer to a former leader finds no
    /// question.
    pub fn new(epoch: Epoch) -> Questions {
        Questions { next: epoch.0 << 32, asked: BTreeMap::new(), reading: BTreeMap::new() }
    }

    /// Takes a client's question; its output is at `source`.
    pub fn ask(&mut self, client: RequestId, query: OutputQuery, source: Where, cx: &mut Context) {
        if QUESTIONS_MAX <= self.asked.len() + self.reading.len() {
            let message = format!("{QUESTIONS_MAX} outputs are being read, the most at one time; try again");
            return cx.fx.reply(client, Err(CallError::unavailable(message)));
        }
        match source {
            Where::Waiting(attempt, stage) => {
                let part = OutputPart::empty(stage, query.from);
                cx.fx.reply(client, output(attempt, Server::default(), part));
            }
            Where::At(attempt, node, server) => {
                let answer_by = cx.now.mono.plus_ms(ANSWER_MS);
                let asked = PendingRead { client, attempt, from: query.from, server, row: None, answer_by };
                self.ask_node(asked, &node, cx.fx);
            }
            Where::Away(server) => {
                let message = format!("node {server} has the run and cannot be reached");
                cx.fx.reply(client, Err(CallError::unavailable(message)));
            }
            Where::Logged => self.read_row(Reading { client, query, told: None }, cx.fx),
        }
    }

    /// The node's answer; `part`: none where the node has no output of the attempt.
    pub fn on_read(&mut self, request: u64, part: Option<OutputPart>, fx: &mut Effects) {
        let Some(PendingRead { client, attempt, from, server, row, .. }) = self.asked.remove(&request) else { return };
        match (part, row) {
            (Some(part), Some(row)) => {
                // The output is of a former incarnation. This one does not know how the attempt ended; the row does.
                let state = row_state(&row).map_or(part.state, OutputState::Over);
                fx.reply(client, output(attempt, server, OutputPart { state, ..part }));
            }
            (Some(part), None) => fx.reply(client, output(attempt, server, part)),
            (None, Some(row)) => fx.reply(client, of_row(attempt, &row, from)),
            (None, None) => {
                let query = OutputQuery { run: attempt.run, attempt: Some(attempt.number), from, follow: false };
                self.read_row(Reading { client, query, told: Some((attempt, server)) }, fx);
            }
        }
    }

    /// The log row of a question. `node`: the node that ran the attempt, where it can be asked.
    pub fn on_log_row(
        &mut self,
        id: WorkId,
        result: Result<Option<Box<StoredLog>>, StoreError>,
        node: Option<NodeId>,
        cx: &mut Context,
    ) {
        let Some(Reading { client, query, told }) = self.reading.remove(&id) else { return };
        let row = match result {
            Ok(row) => row,
            Err(error) => return cx.fx.reply(client, Err(CallError::unavailable(error.to_string()))),
        };
        match (row, told, node) {
            (None, None, _) => cx.fx.reply(client, Err(CallError::unknown_run(query.run))),
            (None, Some((attempt, server)), _) => {
                cx.fx.reply(client, output(attempt, server, OutputPart::empty(RunStatus::Unknown, query.from)));
            }
            (Some(row), None, Some(node)) => {
                let attempt = Attempt { run: query.run, number: row.attempt.unwrap_or(0) };
                let server = Server(row.run_server.as_str().into());
                let answer_by = cx.now.mono.plus_ms(ANSWER_MS);
                let asked = PendingRead { client, attempt, from: query.from, server, row: Some(row), answer_by };
                self.ask_node(asked, &node, cx.fx);
            }
            (Some(row), _, _) => {
                let attempt = Attempt { run: query.run, number: row.attempt.unwrap_or(0) };
                cx.fx.reply(client, of_row(attempt, &row, query.from));
            }
        }
    }

    /// Answers the questions that their nodes have not answered in time.
    pub fn give_up_late(&mut self, cx: &mut Context) {
        for (_, asked) in self.asked.extract_if(.., |_, asked| asked.answer_by <= cx.now.mono) {
            cx.fx.reply(
                asked.client,
                match asked.row {
                    Some(row) => of_row(asked.attempt, &row, asked.from),
                    None => {
                        Err(CallError::unavailable(format!("node {} has the run and does not answer", asked.server)))
                    }
                },
            );
        }
    }

    /// The lead is lost: answers all questions.
    pub fn abandon(self, fx: &mut Effects) {
        let asked = self.asked.into_values().map(|asked| asked.client);
        for client in asked.chain(self.reading.into_values().map(|reading| reading.client)) {
            fx.reply(client, Err(CallError::unavailable("this node has lost the lead; ask again")));
        }
    }

    fn ask_node(&mut self, asked: PendingRead, node: &NodeId, fx: &mut Effects) {
        self.next += 1;
        fx.tell_node(node, ToNode::ReadOutput { request: self.next, attempt: asked.attempt, from: asked.from });
        self.asked.insert(self.next, asked);
    }

    fn read_row(&mut self, reading: Reading, fx: &mut Effects) {
        let read = Read::LogRow { run: reading.query.run, attempt: reading.query.attempt };
        self.reading.insert(fx.work(Work::Read(read)), reading);
    }
}

fn output(attempt: Attempt, server: Server, part: OutputPart) -> Reply {
    Ok(Answer::Output(RunOutput { attempt, server, part }))
}

fn of_row(attempt: Attempt, row: &StoredLog, from: u64) -> Reply {
    let state = row_state(row).unwrap_or(RunState::Lost);
    output(attempt, Server(row.run_server.as_str().into()), OutputPart::of_row(state, &row.output, from))
}

fn row_state(row: &StoredLog) -> Option<RunState> {
    row.state.as_deref().and_then(RunState::parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::io::{Effect, Mail};
    use crate::model::Now;

    const CLIENT: RequestId = RequestId(5);

    fn questions() -> (Questions, Lender) {
        (Questions::new(Epoch(1)), Lender::default())
    }

    fn query() -> OutputQuery {
        OutputQuery { run: "7-100".parse().unwrap(), attempt: None, from: 2, follow: false }
    }

    fn attempt() -> Attempt {
        Attempt { run: query().run, number: 3 }
    }

    fn at() -> Where {
        Where::At(attempt(), NodeId("n".into()), Server("a:1".into()))
    }

    fn row() -> Option<Box<StoredLog>> {
        Some(Box::new(StoredLog {
            id: 1,
            cron_id: attempt().run.cron_id,
            time: 100,
            output: "written\n".into(),
            use_time_ms: 0,
            dispatch_time: 0,
            dispatch_server: "a:1".into(),
            run_server: "b:1".into(),
            run_key: Some("7-100".into()),
            attempt: Some(3),
            state: Some("failed".into()),
            exit_code: None,
            start_time_ms: None,
            version: None,
            cpu_ms: None,
            memory_kb_max: None,
        }))
    }

    fn part() -> OutputPart {
        OutputPart { bytes: b"xy".to_vec(), next: 4, ..OutputPart::empty(RunStatus::Running, 2) }
    }

    fn asked(fx: &mut Effects) -> u64 {
        match fx.take_mail() {
            Some(Mail::ToNode(_, ToNode::ReadOutput { request, attempt: of, from: 2 })) if of == attempt() => request,
            other => panic!("{other:?}"),
        }
    }

    fn reading(fx: &mut Effects) -> WorkId {
        match fx.take() {
            Some(Effect::Work(id, Work::Read(Read::LogRow { .. }))) => id,
            other => panic!("{other:?}"),
        }
    }

    fn answer(fx: &mut Effects) -> Result<(String, OutputPart), u16> {
        match fx.take() {
            Some(Effect::Reply(CLIENT, Ok(Answer::Output(output)))) => Ok((output.server.to_string(), output.part)),
            Some(Effect::Reply(CLIENT, Err(error))) => Err(error.status),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_node_that_has_it_is_asked_and_its_answer_passed_on_once() {
        let (mut questions, mut lender) = questions();
        questions.ask(CLIENT, query(), at(), &mut lender.at(Now::default()));
        let request = asked(&mut lender.fx);
        questions.on_read(request + 1, Some(part()), &mut lender.fx);
        assert!(lender.fx.take().is_none(), "an answer to nothing");
        questions.on_read(request, Some(part()), &mut lender.fx);
        assert_eq!(answer(&mut lender.fx), Ok(("a:1".into(), part())));
        questions.on_read(request, Some(part()), &mut lender.fx);
        questions.give_up_late(&mut lender.at(Now { mono: Mono::NEVER, ..Now::default() }));
        assert!(lender.fx.take().is_none());
    }

    #[test]
    fn a_node_that_does_not_answer_is_given_up() {
        let (mut questions, mut lender) = questions();
        questions.ask(CLIENT, query(), at(), &mut lender.at(Now::default()));
        let request = asked(&mut lender.fx);
        questions.give_up_late(&mut lender.at(Now { mono: Mono(0).plus_ms(ANSWER_MS - 1), ..Now::default() }));
        assert!(lender.fx.take().is_none());
        questions.give_up_late(&mut lender.at(Now { mono: Mono(0).plus_ms(ANSWER_MS), ..Now::default() }));
        assert_eq!(answer(&mut lender.fx), Err(503));
        questions.on_read(request, Some(part()), &mut lender.fx);
        assert!(lender.fx.take().is_none(), "it comes too late");
        questions.ask(CLIENT, query(), Where::Away(Server::default()), &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Err(503));
        questions.ask(CLIENT, query(), Where::Waiting(attempt(), RunStatus::Delayed), &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Ok((String::new(), OutputPart::empty(RunStatus::Delayed, 2))));
    }

    #[test]
    fn the_row_has_the_output_that_no_node_has() {
        let expect = OutputPart::of_row(RunState::Failed, "written\n", 2);
        let (mut questions, mut lender) = questions();
        questions.ask(CLIENT, query(), Where::Logged, &mut lender.at(Now::default()));
        let id = reading(&mut lender.fx);
        questions.on_log_row(id, Ok(row()), None, &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Ok(("b:1".into(), expect.clone())));

        // The node that ran it may have more than the row, or nothing at all, or be away.
        for (told, state) in [(Some(part()), OutputState::Over(RunState::Failed)), (None, expect.state)] {
            questions.ask(CLIENT, query(), Where::Logged, &mut lender.at(Now::default()));
            let id = reading(&mut lender.fx);
            questions.on_log_row(id, Ok(row()), Some(NodeId("n".into())), &mut lender.at(Now::default()));
            let request = asked(&mut lender.fx);
            questions.on_read(request, told.clone(), &mut lender.fx);
            let expect = told.map_or(expect.clone(), |part| OutputPart { state, ..part });
            assert_eq!(answer(&mut lender.fx), Ok(("b:1".into(), expect)));
        }
        questions.ask(CLIENT, query(), Where::Logged, &mut lender.at(Now::default()));
        let id = reading(&mut lender.fx);
        questions.on_log_row(id, Ok(row()), Some(NodeId("n".into())), &mut lender.at(Now::default()));
        questions.give_up_late(&mut lender.at(Now { mono: Mono::NEVER, ..Now::default() }));
        assert_eq!(answer(&mut lender.fx), Ok(("b:1".into(), expect)));
    }

    #[test]
    fn a_run_that_is_nowhere_is_unknown_and_one_between_node_and_row_is_not() {
        let (mut questions, mut lender) = questions();
        questions.ask(CLIENT, query(), Where::Logged, &mut lender.at(Now::default()));
        let id = reading(&mut lender.fx);
        questions.on_log_row(id, Ok(None), None, &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Err(404));
        questions.ask(CLIENT, query(), at(), &mut lender.at(Now::default()));
        let request = asked(&mut lender.fx);
        questions.on_read(request, None, &mut lender.fx);
        let id = reading(&mut lender.fx);
        questions.on_log_row(id, Ok(None), None, &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Ok(("a:1".into(), OutputPart::empty(RunStatus::Unknown, 2))));
        questions.ask(CLIENT, query(), Where::Logged, &mut lender.at(Now::default()));
        let id = reading(&mut lender.fx);
        questions.on_log_row(id, Err(StoreError::Away("away".into())), None, &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Err(503));
    }

    #[test]
    fn there_is_a_limit_and_nobody_is_left_without_an_answer() {
        let (mut questions, mut lender) = questions();
        for at_node in (0..QUESTIONS_MAX).map(|count| count % 2 == 0) {
            questions.ask(CLIENT, query(), if at_node { at() } else { Where::Logged }, &mut lender.at(Now::default()));
        }
        while lender.fx.take().is_some() {}
        questions.ask(CLIENT, query(), at(), &mut lender.at(Now::default()));
        assert_eq!(answer(&mut lender.fx), Err(503));
        questions.abandon(&mut lender.fx);
        (0..QUESTIONS_MAX).for_each(|_| assert_eq!(answer(&mut lender.fx), Err(503)));
        assert!(lender.fx.take().is_none());
    }
}
