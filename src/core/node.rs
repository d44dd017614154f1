//! The whole node: opens the store, takes part in the election, leads where it is the leader, runs what it is given, and
//! leaves in good order.
//!
//! ```text
//! store:  Closed -> Opening -> Open
//! lead:   None -> Bumping -> Loading -> Leading -> None (deposed, lock lost)
//! ```
//!
//! Not a place for decisions about runs: those are `leader`'s and `executor`'s; this routes inputs to them, delivers
//! what they say to each other, and owns what outlives a lead.
//!
//! Invariants: every command is answered exactly once; after `handle` no mail is left undelivered.

use super::backoff::Backoff;
use super::command::{Answer, Command, Refusal, RequestId};
use super::dispatch::DispatchLimits;
use super::effects::{Effects, Mail};
use super::election::{Election, Outcome};
use super::executor::Executor;
use super::leader::{Leader, LeaderSetup, Rooms, Verdict};
use super::leaving::Leaving;
use super::logbook::Logbook;
use super::work::{Bump, Bumped, Done, Lead, Loaded, LockValue, Log, Opened, Read, StoreError, Work, WorkId};
use super::{ExitReason, FoundMark, Input, Output, Signal};
use crate::model::config::Limits;
use crate::model::message::{ToLeader, ToNode};
use crate::model::{Attempt, Epoch, Incarnation, Mono, NodeId, Now, Server};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, VecDeque};

/// The leader's authority, and with it the lease: from the sending of its last statement that succeeded.
pub const LEASE_MS: u64 = 10_000;
/// A change waits so long for a leader to be there.
const NO_LEADER_MS: u64 = 3_000;
/// Reads with the store at one time, and changes that wait for a leader.
const WAITING_MAX: usize = 1_000;
/// Old log rows are looked for so often.
const RETAIN_EVERY_MS: u64 = 3_600_000;

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub server: Server,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub lock_key: String,
    /// No Consul: this node leads, and its lease has no end.
    pub is_alone: bool,
    pub zone: TimeZone,
    pub limits: Limits,
    pub drain_timeout_ms: u64,
    pub log_retention_days: u32,
    pub found: Vec<FoundMark>,
}

#[derive(Debug)]
pub struct Node {
    setup: Setup,
    fx: Effects,
    store: StoreStage,
    store_backoff: Backoff,
    /// None: standing alone.
    election: Option<Election>,
    lead: LeadStage,
    lead_backoff: Backoff,
    last_epoch: Epoch,
    executor: Executor,
    logbook: Logbook,
    reads: BTreeMap<WorkId, RequestId>,
    waiting: VecDeque<(Mono, RequestId, Command)>,
    retain_at: Mono,
    leaving: Option<Leaving>,
    handled_at: Mono,
}

#[derive(Debug)]
enum StoreStage {
    Closed { reason: Option<String> },
    Opening(WorkId),
    Open,
}

#[derive(Debug)]
enum LeadStage {
    None,
    Bumping { id: WorkId, sent_at: Mono },
    Loading { id: WorkId, epoch: Epoch, sent_at: Mono },
    Leading(Box<Leader>),
}

impl Node {
    pub fn new(setup: Setup) -> Node {
        let mut fx = Effects::default();
        let mut executor = Executor::new(setup.server.clone(), setup.limits.max_running, &setup.found);
        if setup.is_alone {
            executor.extend_lease(Mono::NEVER, &mut fx);
        }
        Node {
            fx,
            store: StoreStage::Closed { reason: None },
            store_backoff: Backoff::default(),
            election: (!setup.is_alone).then(|| Election::new(setup.node_id.clone(), setup.incarnation)),
            lead: LeadStage::None,
            lead_backoff: Backoff::default(),
            last_epoch: Epoch::default(),
            executor,
            logbook: Logbook::default(),
            reads: BTreeMap::new(),
            waiting: VecDeque::new(),
            retain_at: Mono(0),
            leaving: None,
            handled_at: Mono(0),
            setup,
        }
    }

    /// Takes one input. Call `poll_output` until it is empty before the next.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Wake => {}
            Input::Command(client, command) => self.on_command(client, command, now),
            Input::Done(id, done) => self.on_done(id, done, now),
            Input::Exited { attempt, exit, output } => {
                self.executor.on_exited(attempt, exit, output, &mut self.logbook, &mut self.fx, now);
            }
            Input::Signal(signal) => self.on_signal(signal, now),
        }
        self.advance(now);
    }

    /// The next thing to do; None when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.fx.take()
    }

    /// When to call `handle(Input::Wake)` at the latest.
    pub fn poll_timeout(&self, now: Now) -> Option<Mono> {
        let store = matches!(self.store, StoreStage::Closed { .. }).then(|| self.store_backoff.deadline()).flatten();
        let lead = match &self.lead {
            LeadStage::None => self.lead_backoff.deadline(),
            LeadStage::Leading(leader) => leader.deadline(now),
            _ => None,
        };
        let log = self.is_open().then(|| self.logbook.deadline()).flatten();
        let retain = (self.is_open() && self.setup.log_retention_days != 0).then_some(self.retain_at);
        let waiting = self.waiting.front().map(|(until, _, _)| *until);
        let election = self.election.as_ref().and_then(Election::deadline);
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        let deadlines = [store, lead, self.executor.deadline(), log, retain, waiting, election, leaving];
        // What was due at the last input has had its chance: only what lies after it can be waited for.
        deadlines.into_iter().flatten().filter(|at| self.handled_at < *at).min()
    }

    fn on_command(&mut self, client: RequestId, command: Command, now: Now) {
        match (command, &mut self.lead) {
            (Command::ListJobs, LeadStage::Leading(leader)) => {
                self.fx.reply(client, Ok(Answer::Jobs(leader.jobs())));
            }
            (Command::ListJobs, _) => self.read(client, Read::Jobs),
            (Command::ListLogs(filter), _) => self.read(client, Read::Logs(filter)),
            (_, _) if self.leaving.is_some() => {
                self.fx.reply(client, Err(Refusal::unavailable("nothing was changed: this node is leaving")));
            }
            (command, LeadStage::Leading(leader)) => leader.change(client, command),
            (_, _) if WAITING_MAX <= self.waiting.len() => {
                self.fx.reply(
                    client,
                    Err(Refusal::unavailable("nothing was changed: too many changes wait for a leader")),
                );
            }
            (command, _) => self.waiting.push_back((now.mono.plus_ms(NO_LEADER_MS), client, command)),
        }
    }

    fn read(&mut self, client: RequestId, read: Read) {
        match &self.store {
            StoreStage::Open if self.reads.len() < WAITING_MAX => {
                let id = self.fx.work(Work::Read(read));
                self.reads.insert(id, client);
            }
            StoreStage::Open => self.fx.reply(client, Err(Refusal::unavailable("too many reads wait for the store"))),
            _ => self.fx.reply(client, Err(Refusal::unavailable(self.why_no_leader()))),
        }
    }

    fn on_done(&mut self, id: WorkId, done: Done, now: Now) {
        let (executor, logbook, fx) = (&mut self.executor, &mut self.logbook, &mut self.fx);
        match done {
            Done::Opened(result) => self.on_opened(id, result, now),
            Done::Bumped(result) => self.on_bumped(id, result, now),
            Done::Loaded(result) => self.on_loaded(id, result, now),
            Done::Journaled(result) => self.lead(now, |leader, rooms| leader.on_journaled(id, result, rooms)),
            Done::Changed(result) => self.lead(now, |leader, rooms| leader.on_changed(id, result, rooms)),
            Done::Closed(result) => self.lead(now, |leader, rooms| leader.on_closed(id, result, rooms.now)),
            Done::LogsWritten(result) => {
                let attempts = logbook.on_written(id, result, fx, now);
                if !attempts.is_empty() {
                    attempts.iter().for_each(|attempt| executor.forget(*attempt, fx));
                    fx.tell_leader(ToLeader::Logged(attempts));
                }
            }
            Done::LogsRetained(result) => self.on_retained(result, now),
            Done::Logs(result) => self.on_read(id, result.map(Answer::Logs)),
            Done::Jobs(result) => {
                self.on_read(id, result.map(|jobs| Answer::Jobs(jobs.into_iter().map(Into::into).collect())));
            }
            Done::Consul(result) => {
                let Some(election) = &mut self.election else { return };
                let outcome = election.on_consul(id, result, fx, now);
                self.on_outcome(outcome, now);
            }
            Done::Watched(result) => {
                if let Some(election) = &mut self.election {
                    election.on_watched(id, result, now);
                }
            }
            Done::Spawned(result) => executor.on_spawned(id, result, logbook, fx, now),
            Done::Killed => executor.on_killed(id, logbook, fx, now),
        }
    }

    fn on_opened(&mut self, id: WorkId, result: Result<Opened, StoreError>, now: Now) {
        if !matches!(self.store, StoreStage::Opening(opening) if opening == id) {
            return;
        }
        let result = result.map_err(|error| error.to_string()).and_then(|opened| self.check_clock(opened, now));
        match result {
            Ok(opened) => {
                opened.advice.into_iter().for_each(|advice| self.fx.notice(log::Level::Warn, advice));
                self.fx.notice(log::Level::Info, "the store is open");
                self.store_backoff.reset();
                self.store = StoreStage::Open;
            }
            Err(reason) => {
                if !self.store_backoff.is_failing() {
                    self.fx.notice(log::Level::Error, format!("open the store: {reason}; trying again until it opens"));
                }
                self.store_backoff.fail(now);
                self.store = StoreStage::Closed { reason: Some(reason) };
            }
        }
    }

    fn check_clock(&self, opened: Opened, now: Now) -> Result<Opened, String> {
        let off_secs = opened.clock.map_or(0, |clock| (clock.second().0 - now.wall.second().0).abs());
        if i64::from(self.setup.limits.misfire_grace_secs) < off_secs {
            return Err(format!(
                "this host's clock is {off_secs} s off from the store's, more than misfire_grace; set the clocks"
            ));
        }
        Ok(opened)
    }

    fn on_bumped(&mut self, id: WorkId, result: Result<Bumped, StoreError>, now: Now) {
        let LeadStage::Bumping { id: bumping, sent_at } = self.lead else { return };
        if bumping != id {
            return;
        }
        self.lead = match result {
            Ok(Bumped { epoch }) => {
                self.last_epoch = epoch;
                LeadStage::Loading { id: self.fx.work(Work::Lead(Lead::Load(epoch))), epoch, sent_at }
            }
            Err(error) => self.on_lead_failed(error, now),
        };
    }

    fn on_loaded(&mut self, id: WorkId, result: Result<Loaded, StoreError>, now: Now) {
        match (&self.lead, result) {
            (LeadStage::Leading(_), result) => {
                self.lead(now, |leader, rooms| leader.on_reloaded(id, result, rooms));
            }
            (LeadStage::Loading { id: loading, epoch, sent_at }, Ok(loaded)) if *loading == id => {
                let (epoch, sent_at) = (*epoch, *sent_at);
                self.establish(epoch, sent_at, loaded, now);
            }
            (LeadStage::Loading { id: loading, .. }, Err(error)) if *loading == id => {
                self.lead = self.on_lead_failed(error, now);
            }
            _ => {}
        }
    }

    fn establish(&mut self, epoch: Epoch, sent_at: Mono, loaded: Loaded, now: Now) {
        self.lead_backoff.reset();
        let (jobs, open) = (loaded.jobs.len(), loaded.open.len());
        self.fx.notice(log::Level::Info, format!("leading: epoch={epoch} jobs={jobs} open_entries={open}"));
        self.extend_lease(sent_at);
        let limits = &self.setup.limits;
        let setup = LeaderSetup {
            server: self.setup.server.clone(),
            node_id: self.setup.node_id.clone(),
            zone: self.setup.zone.clone(),
            limits: DispatchLimits {
                room: limits.max_pending + limits.max_running,
                max_pending_per_job: limits.max_pending_per_job,
                grace_secs: limits.misfire_grace_secs.into(),
            },
            lead_ms: if self.setup.is_alone { 100 } else { 500 },
        };
        let mut rooms = Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now };
        let executor = &self.executor;
        let held = |attempt: Attempt| executor.held(attempt);
        let leader = Leader::establish(setup, epoch, loaded, &held, &mut rooms);
        self.lead = LeadStage::Leading(Box::new(leader));
        // What the leader wants of the marks it has just said; the rest of them can be explained now.
        self.deliver(now);
        self.executor.explain_found(&mut self.logbook, &mut self.fx, now);
        for (_, client, command) in std::mem::take(&mut self.waiting) {
            self.on_command(client, command, now);
        }
    }

    fn on_lead_failed(&mut self, error: StoreError, now: Now) -> LeadStage {
        match error {
            StoreError::Refused(reason) => self.fx.output(Output::Exit(ExitReason::Refused(reason))),
            error => {
                if !self.lead_backoff.is_failing() {
                    self.fx.notice(log::Level::Error, format!("take the lead: {error}; trying again"));
                }
                self.lead_backoff.fail(now);
            }
        }
        LeadStage::None
    }

    fn on_outcome(&mut self, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Nothing | Outcome::Elected => {}
            Outcome::Kept(sent_at) => {
                if matches!(self.lead, LeadStage::Leading(_)) {
                    self.extend_lease(sent_at);
                }
            }
            Outcome::Lost => {
                self.fx.notice(log::Level::Warn, "the lock is lost");
                self.step_down(now);
            }
        }
    }

    /// Lets the leader answer, where there is one, and draws the consequences.
    fn lead(&mut self, now: Now, answer: impl FnOnce(&mut Leader, &mut Rooms) -> Verdict) {
        let LeadStage::Leading(leader) = &mut self.lead else { return };
        let mut rooms = Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now };
        match answer(leader, &mut rooms) {
            Verdict::Ok => {}
            Verdict::Confirmed(sent_at) => self.extend_lease(sent_at),
            Verdict::Deposed => {
                self.fx.notice(log::Level::Warn, "deposed: another node has a newer epoch");
                self.step_down(now);
                match &mut self.election {
                    Some(election) => election.resign(),
                    None => self.fx.output(Output::Exit(ExitReason::Refused(
                        "another daemon has taken the lead on this database, and this one stands alone (no consul_address): \
                         give both the same consul_address and lock_key, or each a database of its own"
                            .into(),
                    ))),
                }
            }
        }
    }

    fn extend_lease(&mut self, sent_at: Mono) {
        if !self.setup.is_alone {
            self.executor.extend_lease(sent_at.plus_ms(LEASE_MS), &mut self.fx);
        }
    }

    fn step_down(&mut self, now: Now) {
        if let LeadStage::Leading(leader) = std::mem::replace(&mut self.lead, LeadStage::None) {
            leader.step_down(&mut self.fx);
        }
        self.lead_backoff.fail(now);
    }

    fn on_read(&mut self, id: WorkId, result: Result<Answer, StoreError>) {
        if let Some(client) = self.reads.remove(&id) {
            let reply = result.map_err(|error| match error {
                StoreError::Refused(reason) => Refusal { status: 500, message: reason },
                error => Refusal::unavailable(error.to_string()),
            });
            self.fx.reply(client, reply);
        }
    }

    fn on_retained(&mut self, result: Result<(), StoreError>, now: Now) {
        if let Err(error) = result {
            self.fx.notice(log::Level::Warn, format!("delete log rows older than log_retention_days: {error}"));
        }
        self.retain_at = now.mono.plus_ms(RETAIN_EVERY_MS);
    }

    fn on_signal(&mut self, signal: Signal, now: Now) {
        match signal {
            Signal::Reload => match &mut self.lead {
                LeadStage::Leading(leader) => leader.reload(&mut self.fx),
                _ => self.fx.notice(log::Level::Info, "reload: this node does not lead and keeps no jobs"),
            },
            Signal::Drain | Signal::Orphaned => {
                let is_first = self.leaving.is_none();
                let timeout_ms = if signal == Signal::Drain && is_first { self.setup.drain_timeout_ms } else { 0 };
                let leaving = self.leaving.get_or_insert_with(|| Leaving::new(signal));
                leaving.hurry(timeout_ms, now);
                self.executor.drain();
                if let LeadStage::Leading(leader) = &mut self.lead {
                    leader.drain();
                }
                let message = if is_first { "leaving: nothing new is started" } else { "leaving at once" };
                self.fx.notice(log::Level::Info, message);
            }
        }
    }

    /// Lets every part do what is due now, until none has anything to say to another.
    fn advance(&mut self, now: Now) {
        self.handled_at = now.mono;
        self.open_store(now);
        self.advance_lead(now);
        self.deliver(now);
        self.leave(now);
        loop {
            if let LeadStage::Leading(leader) = &mut self.lead {
                leader.poll(&mut Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now });
            }
            self.executor.poll(&mut self.logbook, &mut self.fx, now);
            if !self.deliver(now) {
                break;
            }
        }
        if self.is_open() {
            self.logbook.poll(&mut self.fx, now);
            self.retain(now);
        }
        self.refuse_waiting(now);
        self.elect(now);
    }

    fn open_store(&mut self, now: Now) {
        if matches!(self.store, StoreStage::Closed { .. }) && self.store_backoff.is_over(now) {
            self.store = StoreStage::Opening(self.fx.work(Work::Lead(Lead::Open)));
        }
    }

    fn advance_lead(&mut self, now: Now) {
        let may_lead = self.election.as_ref().is_none_or(Election::is_holder) && self.leaving.is_none();
        if matches!(self.lead, LeadStage::None) && self.is_open() && may_lead && self.lead_backoff.is_over(now) {
            let id = self.fx.work(Work::Lead(Lead::Bump(Bump {
                lock_key: self.setup.lock_key.clone(),
                server: self.setup.server.clone(),
                node_id: self.setup.node_id.clone(),
                alone: self.setup.is_alone,
                lease_ms: LEASE_MS,
            })));
            self.lead = LeadStage::Bumping { id, sent_at: now.mono };
        }
    }

    /// Delivers what leader and executor say to each other; false when there was nothing.
    fn deliver(&mut self, now: Now) -> bool {
        let mut is_any = false;
        while let Some(mail) = self.fx.take_mail() {
            is_any = true;
            match (mail, &mut self.lead) {
                (Mail::ToLeader(message), LeadStage::Leading(leader)) => {
                    leader.on_message(message, &mut Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now });
                }
                // A leader that comes later learns it from the log rows and from what is held.
                (Mail::ToLeader(_), _) => {}
                (Mail::ToNode(ToNode::Dispatch(orders)), _) => self.executor.on_dispatch(orders, &mut self.fx, now),
                (Mail::ToNode(ToNode::Cancel { cron_id, below }), _) => {
                    self.executor.on_cancel(cron_id, below, &mut self.fx);
                }
            }
        }
        is_any
    }

    fn retain(&mut self, now: Now) {
        if self.setup.log_retention_days != 0 && self.retain_at <= now.mono {
            let before = now.wall.second().plus(-86_400 * i64::from(self.setup.log_retention_days));
            self.fx.work(Work::Log(Log::Retain { before }));
            self.retain_at = Mono::NEVER;
        }
    }

    fn refuse_waiting(&mut self, now: Now) {
        let is_leaving = self.leaving.is_some();
        while self.waiting.front().is_some_and(|(until, _, _)| is_leaving || *until <= now.mono) {
            let Some((_, client, _)) = self.waiting.pop_front() else { return };
            let message = format!("nothing was changed: {}", self.why_no_leader());
            self.fx.reply(client, Err(Refusal::unavailable(message)));
        }
    }

    fn leave(&mut self, now: Now) {
        let Some(leaving) = &mut self.leaving else { return };
        if let Some(how) = leaving.kill_now(now) {
            self.executor.end_all(how, &mut self.fx, now);
        }
        if !self.executor.is_idle() {
            return;
        }
        self.logbook.hurry(now);
        if let LeadStage::Leading(leader) = &mut self.lead {
            leader.hurry(now);
        }
        let is_leader_idle = !matches!(&self.lead, LeadStage::Leading(leader) if !leader.is_idle());
        let is_stored = self.logbook.is_empty() && is_leader_idle;
        if !leaving.may_go(is_stored, now) {
            return;
        }
        if !is_stored && leaving.say_unstored() {
            self.fx.notice(log::Level::Error, "leaving with log rows or decisions that could not be stored");
        }
        match &mut self.election {
            Some(election) if !election.has_left() => election.leave(),
            _ => {
                if let Some(reason) = leaving.go() {
                    self.fx.output(Output::Exit(reason));
                }
            }
        }
    }

    fn elect(&mut self, now: Now) {
        let Some(election) = &mut self.election else { return };
        let (is_leader, tick) = match &self.lead {
            LeadStage::Leading(leader) => (true, leader.tick()),
            _ => (false, now.wall.second()),
        };
        let value = || LockValue {
            epoch: self.last_epoch,
            tick,
            server: self.setup.server.clone(),
            node_id: self.setup.node_id.clone(),
            incarnation: self.setup.incarnation,
        };
        // A node that has never reached its store must not keep others from leading.
        if matches!(self.store, StoreStage::Open) || self.leaving.is_some() {
            election.poll(is_leader, value, &mut self.fx, now);
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.store, StoreStage::Open)
    }

    fn why_no_leader(&self) -> String {
        match (&self.store, &self.election) {
            (StoreStage::Closed { reason: Some(reason) }, _) => format!("the store is not open: {reason}"),
            (StoreStage::Closed { reason: None } | StoreStage::Opening(_), _) => {
                "the store is not open yet; try again in a second".into()
            }
            (StoreStage::Open, Some(election)) => election.why_not_leader(),
            (StoreStage::Open, None) => "this node does not lead yet; try again in a second".into(),
        }
    }
}
