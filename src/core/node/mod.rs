//! The whole node: opens the store, takes part in the election, leads where it is the leader, runs what it is given, and
//! leaves in good order.
//!
//! ```text
//! store:  Closed -> Opening -> Open
//! lead:   None -> Bumping -> Loading -> Leading -> None (deposed, lock lost)
//! ```
//!
//! Not a place for decisions about runs: those are `leader`'s and `executor`'s; this routes inputs to them, delivers
//! what they say to each other, and owns what outlives a lead. `stages` goes from a closed store to the lead and back,
//! `cluster` speaks with other nodes and leaves in good order.
//!
//! Invariants: every command is answered exactly once; after `handle` no mail is left undelivered.

mod cluster;
mod stages;

use super::backoff::Backoff;
use super::copy::WarmCopy;
use super::effects::Effects;
use super::election::Election;
use super::executor::{Counters, Executor};
use super::follower::Follower;
use super::leader::{Leader, Rooms, Verdict};
use super::leaving::Leaving;
use super::logbook::Logbook;
use super::work::{Done, Log, Read, StoreError, Work, WorkId};
use super::{FoundMark, Input, Output, Signal};
use crate::model::command::{Answer, Command, Refusal, RequestId};
use crate::model::config::Limits;
use crate::model::message::{LinkId, ToLeader};
use crate::model::{Epoch, Incarnation, Mono, NodeId, Now, Server};
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
    /// What jobs may name in `node`, beside the server.
    pub labels: Vec<String>,
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
    copy: WarmCopy,
    /// The largest that was seen.
    last_epoch: Epoch,
    /// Until when our lead lets us grant leases.
    authority: Mono,
    follower: Follower,
    forwarded: Forwarded,
    executor: Executor,
    logbook: Logbook,
    reads: BTreeMap<WorkId, RequestId>,
    waiting: VecDeque<(Mono, RequestId, Command)>,
    retain_at: Mono,
    leaving: Option<Leaving>,
    /// Why this node may not take its place: it is about to go.
    refused: Option<String>,
    handled_at: Mono,
}

/// Calls of other nodes' clients.
#[derive(Debug, Default)]
struct Forwarded {
    next: u64,
    calls: BTreeMap<RequestId, (LinkId, u64)>,
}

#[derive(Debug)]
enum StoreStage {
    Closed {
        reason: Option<String>,
    },
    Opening {
        id: WorkId,
        /// Why it did not open the last time.
        reason: Option<String>,
    },
    Open,
}

#[derive(Debug)]
enum LeadStage {
    None,
    Bumping { id: WorkId, sent_at: Mono },
    Loading { id: WorkId, epoch: Epoch, sent_at: Mono, leases_end: Mono },
    Leading(Box<Leader>),
}

impl Node {
    pub fn new(setup: Setup) -> Node {
        let mut fx = Effects::default();
        let mut executor = Executor::new(setup.server.clone(), setup.limits, &setup.found);
        if setup.is_alone {
            executor.extend_lease(Mono::NEVER, &mut fx, Now::default());
        }
        Node {
            fx,
            store: StoreStage::Closed { reason: None },
            store_backoff: Backoff::default(),
            election: (!setup.is_alone).then(|| Election::new(setup.node_id.clone(), setup.incarnation)),
            lead: LeadStage::None,
            lead_backoff: Backoff::default(),
            copy: WarmCopy::new(setup.zone.clone()),
            last_epoch: Epoch::default(),
            authority: Mono(0),
            follower: Follower::default(),
            forwarded: Forwarded::default(),
            executor,
            logbook: Logbook::default(),
            reads: BTreeMap::new(),
            waiting: VecDeque::new(),
            retain_at: Mono(0),
            leaving: None,
            refused: None,
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
            Input::OutputRead { request, part } => self.fx.tell_leader(ToLeader::OutputRead { request, part }),
            Input::Signal(signal) => self.on_signal(signal, now),
            Input::Linked(link) => self.on_linked(link, now),
            Input::Received(link, message) => self.on_received(link, message, now),
            Input::Unlinked(link, gone) => self.on_unlinked(link, gone, now),
        }
        self.advance(now);
    }

    /// The next thing to do; None when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.fx.take()?;
        Some(self.redirect(output))
    }

    /// What became of runs on this node since its start.
    pub fn counters(&self) -> Counters {
        self.executor.counters()
    }

    /// When to call `handle(Input::Wake)` at the latest.
    pub fn poll_timeout(&self, now: Now) -> Option<Mono> {
        let store = matches!(self.store, StoreStage::Closed { .. }).then(|| self.store_backoff.deadline()).flatten();
        let lead = match &self.lead {
            LeadStage::None => self.lead_backoff.deadline(),
            LeadStage::Leading(leader) => leader.deadline(now),
            _ => None,
        };
        let copy = self.may_read_jobs().then(|| self.copy.deadline()).flatten();
        let log = self.is_open().then(|| self.logbook.deadline()).flatten();
        let retain = (self.is_open() && self.setup.log_retention_days != 0).then_some(self.retain_at);
        let waiting = self.waiting.front().map(|(until, _, _)| *until);
        let election = self.election.as_ref().and_then(Election::deadline);
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        let follower = self.follower.deadline();
        let deadlines =
            [store, lead, copy, self.executor.deadline(), log, retain, waiting, election, follower, leaving];
        // What was due at the last input has had its chance: only what lies after it can be waited for.
        deadlines.into_iter().flatten().filter(|at| self.handled_at < *at).min()
    }

    fn on_command(&mut self, client: RequestId, command: Command, now: Now) {
        let may_take_ms = self.may_take_ms(&command);
        match (command, &mut self.lead) {
            (Command::ListJobs, LeadStage::Leading(leader)) => {
                self.fx.reply(client, Ok(Answer::Jobs(leader.jobs())));
            }
            (Command::ListJobs, _) => self.read(client, Read::Jobs),
            (Command::ListLogs(filter), _) => self.read(client, Read::Logs(filter)),
            (command @ (Command::ShowCluster | Command::DrainNode(_)), LeadStage::Leading(_)) => {
                self.on_cluster_command(client, command, now);
            }
            (Command::ReadOutput(query), LeadStage::Leading(leader)) => {
                leader.read_output(client, query, &mut Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now });
            }
            // What still runs can be read to its end.
            (command @ Command::ReadOutput(_), _)
                if self.follower.forward(client, &command, may_take_ms, &mut self.fx, now) => {}
            (Command::ShowHealth, _) => {
                let health = self.health();
                self.fx.reply(client, Ok(Answer::Health(health)));
            }
            (_, _) if self.leaving.is_some() => self.refuse(client, "this node is leaving"),
            (
                command @ (Command::RunJob(..) | Command::KillRun(_) | Command::ListRuns { .. } | Command::Pause(_)),
                LeadStage::Leading(leader),
            ) => {
                let mut rooms = Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now };
                leader.control(client, command, &mut rooms);
            }
            (command, LeadStage::Leading(leader)) => leader.change(client, command),
            (command, _) if self.follower.forward(client, &command, may_take_ms, &mut self.fx, now) => {}
            (_, _) if WAITING_MAX <= self.waiting.len() => self.refuse(client, "too many changes wait for a leader"),
            (command, _) => self.waiting.push_back((now.mono.plus_ms(NO_LEADER_MS), client, command)),
        }
    }

    /// How long the leader may take for it in good order.
    fn may_take_ms(&self, command: &Command) -> u64 {
        if matches!(command, Command::KillRun(_)) { self.setup.limits.kill_grace_ms } else { 0 }
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
            Done::Found(result) => self.lead(now, |leader, rooms| leader.on_found(id, result, rooms)),
            Done::Paused(result) => self.lead(now, |leader, rooms| leader.on_paused(id, result, rooms)),
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
            Done::Page(result) if self.copy.has_asked(id) => self.copy.on_page(id, result, fx, now),
            Done::Page(result) => self.lead(now, |leader, rooms| {
                leader.on_page(id, result, rooms);
                Verdict::Ok
            }),
            Done::Differences(result) => self.copy.on_differences(id, result, fx, now),
            Done::LogRow(result) => self.lead(now, |leader, rooms| leader.on_log_row(id, result, rooms)),
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
                _ => self.fx.notice(log::Level::Info, "reload: this node does not lead: send SIGHUP to the leader"),
            },
            Signal::Drain | Signal::Orphaned => {
                let is_first = self.leaving.is_none();
                let timeout_ms = self.setup.drain_timeout_ms;
                let leaving = self.leaving.get_or_insert_with(|| Leaving::new(signal));
                leaving.hurry(timeout_ms, now);
                if signal == Signal::Orphaned && is_first {
                    leaving.hurry(0, now);
                }
                self.executor.drain();
                if let LeadStage::Leading(leader) = &mut self.lead {
                    leader.drain(now);
                }
                self.executor.hand_back(&mut self.fx);
                let message = if is_first { "leaving: nothing new is started" } else { "leaving at once" };
                self.fx.notice(log::Level::Info, message);
            }
        }
    }

    /// Lets every part do what is due now, until none has anything to say to another.
    fn advance(&mut self, now: Now) {
        self.handled_at = now.mono;
        self.open_store(now);
        if self.may_read_jobs() {
            self.copy.poll(&mut self.fx, now);
        }
        self.advance_lead(now);
        self.deliver(now);
        self.leave(now);
        loop {
            if let LeadStage::Leading(leader) = &mut self.lead {
                leader.set_own_full(self.executor.load().is_full, now);
                leader.poll(&mut Rooms { logbook: &mut self.logbook, fx: &mut self.fx, now });
            }
            let leaders_wall = self.follower.leaders_now(now).wall;
            self.executor.poll(&mut self.logbook, &mut self.fx, now, leaders_wall);
            if !self.deliver(now) {
                break;
            }
        }
        if self.is_open() {
            self.logbook.poll(&mut self.fx, now);
            self.retain(now);
        }
        self.refuse_waiting(now);
        self.follow(now);
        self.elect(now);
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
            let why = self.why_no_leader();
            self.refuse(client, &why);
        }
    }

    /// On the way to the lead, and as the leader, it reads them otherwise.
    fn may_read_jobs(&self) -> bool {
        self.is_open() && matches!(self.lead, LeadStage::None)
    }

    fn is_open(&self) -> bool {
        matches!(self.store, StoreStage::Open)
    }
}
