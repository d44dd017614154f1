//! Operators' requests about runs: start one now, list them, end one, pause all.
//!
//! Not changes of jobs: those are in `changes`. How a list is put together is in `run_list`.
//!
//! Invariant: every request is answered exactly once: when it is fulfilled, or when its time is over.

use super::requests::{Controls, Kill, List, Outcome, Pausing, PendingRun};
use super::{Leader, Verdict};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Lead, StoreError, Work, WorkId};
use crate::core::runs::Stage;
use crate::core::time::bounds::{ANSWER_MS, KILL_MS, QUIET_SECS};
use crate::core::time::{Timer, Timers};
use crate::model::command::{Answer, CallError, Command, RequestId, RequestKey, RunAnswer};
use crate::model::journal::{Body, Entry};
use crate::model::message::ToNode;
use crate::model::run::Manual;
use crate::model::{Attempt, JobId, Mono, NodeId, Now, RunKey, RunState};
use std::collections::BTreeMap;

/// Limit of the requests of each kind that wait for an answer.
const WAITING_MAX: usize = 1_000;

impl Controls {
    /// The entry `asked` is in the journal. `body` is its own, or that of the first request with the same key; the
    /// first run in it is the answer.
    pub fn on_journaled(&mut self, asked: &Entry, body: &Body, fx: &mut Effects) {
        let Some(PendingRun { client, .. }) = self.runs.remove(&asked.request) else { return };
        let run_of = |body: &Body| body.runs.first().map(|run| run.attempt.run);
        let reply = match (run_of(&asked.body), run_of(body)) {
            (Some(wanted), Some(run)) if wanted.cron_id == run.cron_id => Ok(run_answer(run, None)),
            (_, Some(run)) => Err(CallError::other_request(format_args!("run {run}"))),
            _ => Err(CallError { status: 500, message: "the journal names no run for this request".into() }),
        };
        fx.reply(client, reply);
    }

    /// The attempt is over, with that state. Where it had not begun, or a row is written instead of its next attempt
    /// (`forgone`), the kill is answered only when that row is committed: until then another leader may give the
    /// attempt to a node.
    pub fn on_finished(&mut self, attempt: Attempt, outcome: Outcome, forgone: Option<Attempt>, fx: &mut Effects) {
        if outcome.state != RunState::Cancelled && forgone.is_none() {
            return self.on_over(attempt, Some(outcome), fx);
        }
        for kill in self.kills.iter_mut().filter(|kill| kill.attempt == attempt) {
            kill.attempt = forgone.unwrap_or(attempt);
            kill.node = None;
        }
    }

    /// The attempt is over: answers its kills. `outcome`: where that is known.
    pub fn on_over(&mut self, attempt: Attempt, outcome: Option<Outcome>, fx: &mut Effects) {
        for kill in self.kills.extract_if(.., |kill| kill.attempt == attempt && kill.node.is_some()) {
            fx.reply(kill.client, Ok(run_answer(attempt.run, outcome.clone())));
        }
    }

    /// The attempts among these that no node had begun, and whose kill waits for an answer.
    pub fn ended_here(&self, attempts: &[Attempt]) -> Vec<Attempt> {
        let is_ended =
            |attempt: &&Attempt| self.kills.iter().any(|kill| kill.attempt == **attempt && kill.node.is_none());
        attempts.iter().filter(is_ended).copied().collect()
    }

    /// These rows are committed, and this node still led when they were read: answers the kills of their attempts.
    pub fn on_rows(&mut self, logged: &BTreeMap<Attempt, RunState>, fx: &mut Effects) {
        for kill in self.kills.extract_if(.., |kill| kill.node.is_none() && logged.contains_key(&kill.attempt)) {
            fx.reply(
                kill.client,
                Ok(run_answer(kill.attempt.run, logged.get(&kill.attempt).copied().map(Outcome::from))),
            );
        }
    }

    /// The node's link is gone.
    pub fn on_silent(&mut self, node: &NodeId, fx: &mut Effects) {
        for kill in self.kills.extract_if(.., |kill| kill.node.as_ref() == Some(node)) {
            fx.reply(kill.client, Err(silent(kill.attempt)));
        }
        for list in self.lists.values_mut() {
            list.waiting.remove(node);
        }
    }

    /// The lead is lost: answers all requests.
    pub fn abandon(self, fx: &mut Effects) {
        let unknown = "the lead was lost while the request was under way: whether it was carried out is not known; /run/list tells";
        let runs = self.runs.into_values().map(|asked| asked.client);
        let kills = self.kills.into_iter().map(|kill| kill.client);
        let pause = self.pause.and_then(|pausing| pausing.client);
        let clients = runs.chain(kills).chain(pause);
        clients.for_each(|client| fx.reply(client, Err(CallError::unavailable(unknown))));
        for list in self.lists.into_values() {
            fx.reply(list.client, Err(CallError::unavailable("this node has lost the lead; ask again")));
        }
    }

    /// Lists when requests have to be answered.
    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::RunAnswer, self.runs.values().map(|asked| asked.answer_by).min());
        timers.set(Timer::KillAnswer, self.kills.iter().map(|kill| kill.answer_by).min());
        timers.set(Timer::RunList, self.lists.values().map(|list| list.answer_by).min());
        let pause = self.pause.as_ref().filter(|pausing| pausing.client.is_some());
        timers.set(Timer::PauseAnswer, pause.map(|pausing| pausing.answer_by));
    }

    /// When a paused leader journals its next empty entry.
    pub fn quiet_at(&self) -> Mono {
        self.quiet_at
    }
}

impl Leader {
    /// Whether scheduled runs are paused, even if only in memory.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Carries out an operator's request about runs.
    pub fn control(&mut self, client: RequestId, command: Command, cx: &mut Context) {
        let waiting = self.controls.runs.len().max(self.controls.kills.len()).max(self.controls.lists.len());
        if WAITING_MAX <= waiting {
            cx.fx.reply(client, Err(CallError::unavailable("too many requests wait for an answer; try again")));
            return;
        }
        match command {
            Command::RunJob(id, key) => self.run_now(client, id, key, cx),
            Command::KillRun(run) => self.kill(client, run, cx),
            Command::ListRuns { limit } => self.list_runs(client, limit, cx),
            Command::Pause(paused) => self.pause(client, paused, cx),
            _ => cx.fx.reply(client, Err(CallError { status: 500, message: "this command is not about runs".into() })),
        }
    }

    /// Answers the requests whose time is over, and complete lists.
    pub(super) fn poll_controls(&mut self, cx: &mut Context) {
        self.settle_pause(cx);
        let (now, fx) = (cx.now.mono, &mut *cx.fx);
        for (_, asked) in self.controls.runs.extract_if(.., |_, asked| asked.answer_by <= now) {
            let why = self.ledger.journal.trouble().unwrap_or("the store does not answer");
            let message = format!("whether the run is started is not known yet; /run/list will tell: {why}");
            fx.reply(asked.client, Err(CallError::unavailable(message)));
        }
        for kill in self.controls.kills.extract_if(.., |kill| kill.answer_by <= now) {
            fx.reply(kill.client, Err(not_over(kill.attempt)));
        }
        let is_due = |list: &List| list.answer_by <= now || list.waiting.is_empty();
        let due: Vec<u64> =
            self.controls.lists.iter().filter(|(_, list)| is_due(list)).map(|(number, _)| *number).collect();
        for number in due {
            if let Some(list) = self.controls.lists.remove(&number) {
                let page = self.page(&list, cx.now);
                cx.fx.reply(list.client, Ok(Answer::Runs(page)));
            }
        }
    }

    /// Journals an empty entry every `QUIET_SECS`: a paused leader takes no ticks, and others must see that it is alive.
    pub(super) fn keep_pause(&mut self, now: Now) {
        if self.controls.quiet_at <= now.mono {
            self.controls.quiet_at = now.mono.plus_ms(QUIET_SECS as u64 * 1_000);
            self.ledger.journal.push(None, 0, Body::default());
        }
    }

    /// The store's answer to a pause or its end.
    pub fn on_paused(&mut self, id: WorkId, result: Result<(), StoreError>, cx: &mut Context) -> Verdict {
        let Some(pausing) = self.controls.pause.as_mut().filter(|pausing| pausing.id == Some(id)) else {
            return Verdict::Ok;
        };
        pausing.id = None;
        match result {
            Ok(()) => {
                pausing.is_stored = true;
                self.is_paused = pausing.paused;
                let what = if self.is_paused { "paused: no scheduled run is started" } else { "resumed" };
                cx.fx.notice(log::Level::Info, what);
                self.settle_pause(cx);
            }
            Err(StoreError::Deposed) => return Verdict::Deposed,
            Err(error) => {
                let Some(Pausing { client, paused, .. }) = self.controls.pause.take() else { return Verdict::Ok };
                let what =
                    if paused { "paused in the memory of this leader, not stored" } else { "nothing was changed" };
                let message = format!("{what}: {error}; ask again");
                client.into_iter().for_each(|client| cx.fx.reply(client, Err(CallError::unavailable(message.clone()))));
            }
        }
        Verdict::Ok
    }

    fn run_now(&mut self, client: RequestId, id: JobId, key: Option<RequestKey>, cx: &mut Context) {
        let Some(job) = self.ledger.jobs.job(id).cloned() else {
            return cx.fx.reply(client, Err(CallError::unknown_job(id)));
        };
        self.controls.count += 1;
        let manual = Manual { epoch: self.epoch.0, count: self.controls.count };
        match self.runs.plan_manual(&job, manual, cx.now) {
            Err(state) => {
                let reason = match state {
                    RunState::Skipped => {
                        format!("job {id} has as many waiting runs as it may (max_pending_per_job)")
                    }
                    _ => "every node that may run it has as many runs as it may (max_pending, max_running)".into(),
                };
                cx.fx.reply(
                    client,
                    Err(CallError::unavailable(format!("nothing is started: {reason}; try again later"))),
                );
            }
            Ok((_, body)) => {
                // The prefix keeps clients' keys apart from the leader's own.
                let key = key.map(|key| RequestKey(format!("client:{}", key.0)));
                let request = self.ledger.journal.push_asked(body, key);
                let answer_by = cx.now.mono.plus_ms(ANSWER_MS);
                self.controls.runs.insert(request, PendingRun { client, answer_by });
            }
        }
    }

    fn kill(&mut self, client: RequestId, run: RunKey, cx: &mut Context) {
        let Some((attempt, in_flight)) = self.runs.latest_open(run) else {
            let message = format!(
                "run {run} neither runs nor waits; /run/list shows runs that do, /log/list those that are over"
            );
            return cx.fx.reply(client, Err(CallError { status: 404, message }));
        };
        let (stage, node) = (in_flight.stage(), in_flight.node.clone());
        cx.fx.notice(log::Level::Info, format!("attempt={attempt}: an operator ends it"));
        if stage != Stage::Sent {
            let answer_by = cx.now.mono.plus_ms(ANSWER_MS);
            self.controls.kills.push(Kill { client, attempt, node: None, answer_by });
            return self.runs.kill_here(attempt, &mut self.ledger, cx);
        }
        if !self.runs.can_speak_to(&node) {
            return cx.fx.reply(client, Err(silent(attempt)));
        }
        self.runs.set_killed(attempt);
        cx.fx.tell_node(&node, ToNode::Kill { attempt });
        let answer_by = cx.now.mono.plus_ms(self.setup.kill_grace_ms + KILL_MS);
        self.controls.kills.push(Kill { client, attempt, node: Some(node), answer_by });
    }

    /// Begins or ends a pause. A pause holds in memory at once, its end only when it is stored.
    fn pause(&mut self, client: RequestId, paused: bool, cx: &mut Context) {
        if self.controls.pause.is_some() {
            let message = "a pause or its end is under way; ask again in a second";
            return cx.fx.reply(client, Err(CallError::unavailable(message)));
        }
        self.is_paused |= paused;
        let id = Some(cx.fx.work(Work::Lead(Lead::Pause { epoch: self.epoch, paused })));
        let answer_by = cx.now.mono.plus_ms(ANSWER_MS);
        self.controls.pause = Some(Pausing { client: Some(client), paused, id, is_stored: false, answer_by });
    }

    /// Answers a pause when it is stored and every second that was decided before it has begun; the end of a pause when
    /// it is stored. Either is answered when its time is over.
    fn settle_pause(&mut self, cx: &mut Context) {
        let Some(pausing) = &mut self.controls.pause else { return };
        let is_begun = !pausing.paused || self.ledger.jobs.cursor() <= cx.now.wall.second();
        let is_late = pausing.answer_by <= cx.now.mono;
        let reply = match (pausing.is_stored, is_begun, is_late) {
            (true, true, _) | (true, _, true) => Ok(()),
            (false, _, true) => {
                let what = if pausing.paused { "paused in the memory of this leader" } else { "not resumed yet" };
                Err(CallError::unavailable(format!("{what}: the store does not answer; /cluster will tell")))
            }
            _ => {
                if pausing.is_stored {
                    pausing.answer_by = pausing.answer_by.min(cx.now.mono_at(self.ledger.jobs.cursor().wall()));
                }
                return;
            }
        };
        let client = pausing.client.take();
        if pausing.id.is_none() {
            self.controls.pause = None;
        }
        let Some(client) = client else { return };
        cx.fx.reply(client, reply.map(|()| Answer::Paused { paused: self.is_paused }));
    }
}

fn run_answer(run: RunKey, outcome: Option<Outcome>) -> Answer {
    let (state, left) = outcome.map_or((None, None), |outcome| (Some(outcome.state), outcome.left));
    Answer::Run(RunAnswer { run_key: run, cron_id: run.cron_id, state, left })
}

fn silent(attempt: Attempt) -> CallError {
    CallError::unavailable(format!(
        "run {} is not ended: its node cannot be reached; its lease ends within 10 s, a mutex run with it",
        attempt.run
    ))
}

fn not_over(attempt: Attempt) -> CallError {
    CallError::unavailable(format!("run {} was told to end and has not ended yet; see /run/list", attempt.run))
}
