//! The whole node: opens the store, takes part in the election, leads where it is the leader, executes the runs that it
//! is given, and shuts down in good order.
//!
//! ```text
//! store:  Closed -> Opening -> Open
//! lead:   None -> Bumping -> Loading -> Leading -> None (deposed, lock lost)
//! ```
//!
//! Not a place for decisions about runs: those are `leader`'s and `executor`'s. The node routes inputs to them,
//! delivers their messages to each other, and owns what outlives a lead. `leadership` goes from a closed store to the
//! lead and back, `links` speaks with other nodes, `calls` and `reads` answer clients, `shutdown` knows the steps of a
//! shutdown, `retention` deletes old log rows, `health` and `health_check` tell whether this node and its store work,
//! `inspection` counts and recounts.
//!
//! Invariants: every command is answered exactly once; after `handle` no mail is left undelivered.

mod calls;
mod health;
mod health_check;
mod inspection;
mod leadership;
mod links;
mod pending_reads;
mod reads;
mod retention;
mod shutdown;

use crate::core::Lender;
use crate::core::cluster::election::Election;
use crate::core::cluster::follower::Follower;
use crate::core::cluster::lookup::Lookup;
use crate::core::executor::{Committed, Executor};
use crate::core::io::ports::{Done, SpoolLeft, WorkId};
use crate::core::io::{Effect, FoundMark, Input, Signal};
use crate::core::jobs::listing::Listing;
use crate::core::jobs::replica::Replica;
use crate::core::leader::{Leader, Verdict};
use crate::core::log::logbook::Logbook;
use crate::core::node::health_check::HealthCheck;
use crate::core::node::pending_reads::PendingReads;
use crate::core::node::shutdown::Shutdown;
use crate::core::time::{Backoff, Stalled, Timer, Timers};
use crate::model::command::{Answer, Command, RequestId};
use crate::model::config::Limits;
use crate::model::message::{LinkId, ToLeader};
use crate::model::{Epoch, Incarnation, Mono, NodeId, Now, Server, Zones};
use std::collections::{BTreeMap, VecDeque};

/// Limit of the calls that wait for a leader.
const WAITING_MAX: usize = 1_000;
/// How often leader and node of this process may answer each other within one input.
const ROUNDS_MAX: usize = 1_000;

/// A node's settings, and the marks and log rows of its former incarnations.
#[derive(Clone, Debug)]
pub struct Setup {
    pub server: Server,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub lock_key: String,
    /// There is no Consul: this node leads, and its lease has no end.
    pub is_alone: bool,
    pub zones: Zones,
    pub limits: Limits,
    /// Names that jobs may give in `node`, beside the server.
    pub labels: Vec<String>,
    /// How long a shutdown waits for runs before it asks them to end.
    pub drain_timeout_ms: u64,
    /// Log rows older than so many days are deleted; 0: none are.
    pub log_retention_days: u32,
    /// Marks of former incarnations.
    pub found: Vec<FoundMark>,
    /// This node may have begun runs that the marks do not name.
    pub has_forgotten: bool,
    /// Log rows of former incarnations.
    pub spool_left: SpoolLeft,
}

/// One node of the cluster, driven by `handle`.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    lender: Lender,
    store: StoreConnection,
    store_backoff: Backoff,
    /// None where this node stands alone.
    election: Option<Election>,
    lead: Leadership,
    lead_backoff: Backoff,
    replica: Replica,
    /// The largest epoch that this node has seen.
    last_epoch: Epoch,
    /// The end of this leader's right to grant leases.
    authority: Mono,
    follower: Follower,
    lookup: Lookup,
    remote_calls: RemoteCalls,
    executor: Executor,
    health_check: HealthCheck,
    /// Since when this node's own store answers; none while it does not.
    store_since: Option<Mono>,
    reads: PendingReads,
    listing: Listing,
    /// Calls that wait for a leader, and until when.
    waiting: VecDeque<(Mono, RequestId, Command)>,
    /// When old log rows are deleted next; `Mono::NEVER` while they are being deleted.
    retain_at: Mono,
    /// A SIGHUP came while this node was taking the lead: it reads the jobs again as soon as it leads.
    is_reload_wanted: bool,
    shutdown: Option<Shutdown>,
    /// Why this node cannot be part of the cluster; it exits for that reason.
    fatal: Option<String>,
    /// Why the leader does not take this node in, as it was last told.
    rejected_for: Option<String>,
    /// The time of the last input.
    handled: Now,
    stalled: Stalled,
}

/// Calls that other nodes have forwarded to this one: by this node's request id, the link and the request id at the
/// other node.
#[derive(Debug, Default)]
struct RemoteCalls {
    next: u64,
    calls: BTreeMap<RequestId, (LinkId, u64)>,
}

#[derive(Debug)]
enum StoreConnection {
    /// `reason`: the error of the last attempt; none before the first.
    Closed {
        reason: Option<String>,
    },
    Opening {
        id: WorkId,
        /// The error of the attempt before this one.
        reason: Option<String>,
    },
    Open,
}

/// An epoch that this node's own bump has made.
#[derive(Clone, Copy, Debug)]
struct OwnEpoch {
    epoch: Epoch,
    /// When the bump was sent: the authority counts from then.
    sent_at: Mono,
    /// When every lease of a former leader is over.
    leases_end: Mono,
}

#[derive(Debug)]
enum Leadership {
    None,
    Bumping { id: WorkId, sent_at: Mono },
    Loading { id: WorkId, own: OwnEpoch },
    Leading(Box<Leader>),
}

impl Node {
    /// A node whose store is closed; its first input lets it open the store.
    pub fn new(mut setup: Setup) -> Node {
        let mut lender = Lender::new(Logbook::new(std::mem::take(&mut setup.spool_left)));
        let mut executor = Executor::new(setup.server.clone(), setup.limits, &setup.found);
        executor.mark_logged(&lender.logbook);
        if setup.is_alone {
            executor.extend_lease(Mono::NEVER, &mut lender.at(Now::default()));
        }
        Node {
            lender,
            store: StoreConnection::Closed { reason: None },
            store_backoff: Backoff::default(),
            election: (!setup.is_alone)
                .then(|| Election::new(setup.server.clone(), setup.node_id.clone(), setup.incarnation)),
            lead: Leadership::None,
            lead_backoff: Backoff::default(),
            replica: Replica::new(setup.zones.clone()),
            last_epoch: Epoch::default(),
            authority: Mono(0),
            follower: Follower::default(),
            lookup: Lookup::new(setup.server.clone(), setup.node_id.clone(), setup.lock_key.clone()),
            remote_calls: RemoteCalls::default(),
            executor,
            health_check: HealthCheck::default(),
            store_since: None,
            reads: PendingReads::default(),
            listing: Listing::default(),
            waiting: VecDeque::new(),
            retain_at: Mono(0),
            is_reload_wanted: false,
            shutdown: None,
            fatal: None,
            rejected_for: None,
            handled: Now::default(),
            stalled: Stalled::default(),
            setup,
        }
    }

    /// Takes one input. Call `poll_effect` until it answers none before the next.
    pub fn handle(&mut self, input: Input, now: Now) {
        if self.is_leading() {
            self.heartbeat_now(now);
            self.deliver(now);
        }
        match input {
            Input::Wake => {}
            Input::Command(client, command) => self.on_command(client, command, now),
            Input::Done(id, done) => self.on_done(id, done, now),
            Input::Exited { attempt, ended } => {
                let mut cx = self.lender.at(now);
                self.executor.on_exited(attempt, ended, &mut cx);
            }
            Input::OutputRead { request, part } => self.lender.fx.tell_leader(ToLeader::OutputRead { request, part }),
            Input::Signal(signal) => self.on_signal(signal, now),
            Input::Linked(link) => self.on_linked(link, now),
            Input::Received(link, message) => self.on_received(link, message, now),
            Input::Unlinked(link, gone) => self.on_unlinked(link, gone, now),
        }
        self.advance(now);
    }

    /// The next effect to carry out; none when all are taken.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.lender.fx.take()?;
        Some(self.redirect(effect))
    }

    /// When to call `handle(Input::Wake)` at the latest. To be asked once the effects of the last input are taken.
    pub fn poll_timeout(&mut self) -> Mono {
        self.checked_timers().next()
    }

    /// The same without the wake that comes every second anyway, for the simulator: that wake would hide a timer that a
    /// part forgot to set.
    pub fn poll_listed(&mut self) -> Option<Mono> {
        self.checked_timers().next_listed()
    }

    fn checked_timers(&mut self) -> Timers {
        let timers = self.timers();
        for timer in timers.stalled() {
            if let Some(text) = self.stalled.note(timer) {
                self.lender.fx.notice(log::Level::Error, text);
            }
        }
        timers
    }

    fn timers(&self) -> Timers {
        let mut timers = Timers::new(self.handled);
        let is_closed = matches!(self.store, StoreConnection::Closed { .. });
        timers.set(Timer::OpenStore, is_closed.then(|| self.store_backoff.ready_at()));
        timers.set(Timer::TakeLead, self.may_take_lead(self.handled).then(|| self.lead_backoff.ready_at()));
        timers.set(Timer::Retention, self.retains().then_some(self.retain_at));
        timers.set(Timer::WaitingChange, self.waiting.front().map(|(until, _, _)| *until));
        self.executor.timers(&mut timers);
        self.lender.logbook.timers(&mut timers);
        self.listing.timers(&mut timers);
        self.reads.timers(&mut timers);
        self.follower.timers(self.leader_to_follow().is_some(), &mut timers);
        self.lookup.timers(&mut timers);
        if self.may_read_jobs() {
            self.replica.timers(&mut timers);
        }
        if self.checks_health() {
            self.health_check.timers(self.is_store_busy(), &mut timers);
        }
        if let Some(election) = self.election.as_ref().filter(|_| self.takes_part()) {
            election.timers(&mut timers);
        }
        if let Some(shutdown) = &self.shutdown {
            shutdown.timers(&mut timers);
        }
        if let Leadership::Leading(leader) = &self.lead {
            leader.timers(&mut timers);
        }
        timers
    }

    fn on_done(&mut self, id: WorkId, done: Done, now: Now) {
        self.reads.on_done(&done, now);
        let (executor, lender) = (&mut self.executor, &mut self.lender);
        match done {
            Done::Opened(result) => self.on_opened(id, result, now),
            Done::Bumped(result) => self.on_bumped(id, result, now),
            Done::Loaded(result) => self.on_loaded(id, result, now),
            Done::Journaled(result) => self.lead(now, |leader, cx| leader.on_journaled(id, result, cx)),
            Done::Changed(result) => self.lead(now, |leader, cx| leader.on_changed(id, result, cx)),
            Done::Rows(result) => self.lead(now, |leader, cx| leader.on_rows(id, result, cx)),
            Done::Paused(result) => self.lead(now, |leader, cx| leader.on_paused(id, result, cx)),
            Done::Closed(result) => self.lead(now, |leader, cx| leader.on_closed(id, result, cx.now)),
            Done::LogsWritten(result) => {
                if result.is_ok() {
                    self.health_check.on_answer(now);
                }
                // Where this node wrote a row as leader and was deposed since, it does not tell of the row: the present
                // leader may have given the run to another node.
                let is_leader = matches!(self.lead, Leadership::Leading(_));
                let mut attempts = lender.logbook.on_written(id, result, &mut lender.fx, now);
                attempts.retain(|attempt| match executor.on_committed(*attempt, &mut lender.fx) {
                    Committed::Over => true,
                    Committed::NotHeld => is_leader,
                    Committed::StillHeld => false,
                });
                if !attempts.is_empty() {
                    lender.fx.tell_leader(ToLeader::Logged(attempts));
                }
            }
            Done::Pinged(result) => self.health_check.on_pinged(id, &result, now),
            Done::Spooled(result) => lender.logbook.on_spooled(id, result, &mut lender.fx, now),
            Done::LogsRetained(result) => self.on_retained(result, now),
            Done::Logs(result) => self.on_read(id, result.map(Answer::Logs)),
            Done::Jobs(result) => self.on_jobs(id, result, now),
            Done::Batch(result) if self.replica.has_asked(id) => self.replica.on_batch(id, result, &mut lender.at(now)),
            Done::Batch(result) => self.lead(now, |leader, cx| {
                leader.on_batch(id, result, cx);
                Verdict::Ok
            }),
            Done::Differences(result) => self.replica.on_differences(id, result, &mut lender.at(now)),
            Done::Leader(result) => self.lookup.on_answer(id, result, now),
            Done::LogRow(result) => self.lead(now, |leader, cx| leader.on_log_row(id, result, cx)),
            Done::LastRuns(result) => self.listing.on_last_runs(id, result, &mut lender.fx),
            Done::Consul(result) => {
                let Some(election) = &mut self.election else { return };
                let outcome = election.on_consul(id, result, &mut lender.at(now));
                self.on_outcome(outcome, now);
            }
            Done::Watched(result) => self.on_watched(id, result, now),
            Done::LookingUp => executor.on_looking_up(id),
            Done::Spawned(result) => executor.on_spawned(id, result, &mut lender.at(now)),
            Done::Killed(left) => executor.on_killed(id, left, &mut lender.at(now)),
        }
    }

    fn on_signal(&mut self, signal: Signal, now: Now) {
        match signal {
            Signal::Reload => match &mut self.lead {
                Leadership::Leading(leader) => leader.reload(&mut self.lender.fx),
                Leadership::Bumping { .. } | Leadership::Loading { .. } => self.is_reload_wanted = true,
                Leadership::None if self.election.is_none() => self.is_reload_wanted = true,
                Leadership::None => self
                    .lender
                    .fx
                    .notice(log::Level::Info, "reload: this node does not lead: send SIGHUP to the leader"),
            },
            Signal::Drain | Signal::Orphaned => {
                let is_first = self.shutdown.is_none();
                let timeout_ms = self.setup.drain_timeout_ms;
                let shutdown = self.shutdown.get_or_insert_with(|| Shutdown::new(signal));
                shutdown.hurry(timeout_ms, now);
                if signal == Signal::Orphaned && is_first {
                    shutdown.hurry(0, now);
                }
                if let Leadership::Leading(leader) = &mut self.lead {
                    leader.drain();
                }
                self.drain_executor(now);
                let message = if is_first { "shutdown: nothing new is started" } else { "shutdown: hurrying" };
                self.lender.fx.notice(log::Level::Info, message);
            }
        }
    }

    /// Lets every part act on its due timers, until no part has a message for another. A part that depends on another
    /// comes after it: otherwise its timer would still be due at the end, and count as stalled.
    fn advance(&mut self, now: Now) {
        self.handled = now;
        self.open_store(now);
        self.advance_lead(now);
        self.deliver(now);
        self.shut_down(now);
        self.give_way(now);
        for round in 0.. {
            debug_assert!(round < ROUNDS_MAX, "leader and node go on talking to each other for ever");
            if let Leadership::Leading(leader) = &mut self.lead {
                leader.poll(&mut self.lender.at(now));
            }
            let leaders_wall = self.follower.leaders_now(now).wall;
            let mut cx = self.lender.at(now);
            self.executor.poll(leaders_wall, &mut cx);
            // Messages beyond the limit are delivered with the next input.
            if !self.deliver(now) || ROUNDS_MAX <= round {
                break;
            }
        }
        self.lender.logbook.poll(&mut self.lender.fx, now);
        self.retain(now);
        self.give_up_reads(now);
        if self.checks_health() {
            let is_busy = self.is_store_busy();
            self.health_check.poll(is_busy, &mut self.lender.at(now));
        }
        self.store_since = self.is_store_ok(now).then(|| self.store_since.unwrap_or(now.mono));
        self.decline_waiting(now);
        self.elect(now);
        self.follow(now);
        self.look_up(now);
        if self.may_read_jobs() {
            let wanted = self.listing.wanted_since();
            self.replica.poll(wanted, &mut self.lender.at(now));
        }
        self.tell_jobs(now);
        self.listing.poll(&mut self.lender.at(now));
    }

    /// Whether this node's own store answers, as far as is known.
    fn is_store_ok(&self, now: Now) -> bool {
        // Deleting old rows may take long, and no other statement can go over that connection meanwhile.
        let is_known = !self.is_retaining() || self.lender.logbook.is_failing();
        self.is_open() && (!is_known || !self.lender.logbook.is_store_away(now) && self.health_check.is_ok(now))
    }

    /// Whether the store is pinged at all. Where this node stands alone, only clients that wait need the answer, and a
    /// fault that was found has to be seen to end.
    fn checks_health(&self) -> bool {
        let is_wanted = self.election.is_some() || self.reads.has_clients() || !self.health_check.is_ok(self.handled);
        self.is_open() && is_wanted
    }

    /// Whether another statement is with the store, and will show whether it answers.
    fn is_store_busy(&self) -> bool {
        self.lender.logbook.is_asking() || self.is_retaining()
    }

    /// Whether the replica reads the jobs. A node that takes the lead, or leads, reads them in other ways.
    fn may_read_jobs(&self) -> bool {
        self.is_open() && matches!(self.lead, Leadership::None)
    }

    fn is_leading(&self) -> bool {
        matches!(self.lead, Leadership::Leading(_))
    }

    fn is_open(&self) -> bool {
        matches!(self.store, StoreConnection::Open)
    }
}
