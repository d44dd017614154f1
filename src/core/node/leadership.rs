//! The node's way from a closed store to the lead, and back.
//!
//! Not the election, which says whether this node holds the lock; not the leader's work.
//!
//! Invariant: a leader exists only under an epoch that its own bump has made.

use super::{Leadership, Node, OwnEpoch, StoreConnection};
use crate::core::Context;
use crate::core::cluster::election::{Election, Outcome};
use crate::core::io::ports::{Bump, Bumped, Lead, Loaded, Opened, StoreError, Work, WorkId};
use crate::core::io::{Effect, ExitReason};
use crate::core::leader::{Leader, LeaderSetup, Verdict};
use crate::core::runs::RunLimits;
use crate::core::time::bounds::{LEASE_MS, PLAN_AHEAD_ALONE_MS, PLAN_AHEAD_MS};
use crate::model::message::{LinkId, Message};
use crate::model::{Mono, Now};

impl Node {
    /// Opens the store where it is closed and the back-off is over.
    pub(super) fn open_store(&mut self, now: Now) {
        if let StoreConnection::Closed { reason } = &mut self.store
            && self.store_backoff.is_over(now)
        {
            let reason = reason.take();
            self.store = StoreConnection::Opening { id: self.lender.fx.work(Work::Lead(Lead::Open)), reason };
        }
    }

    /// The store is open, or why it is not; it is opened again until it opens.
    pub(super) fn on_opened(&mut self, id: WorkId, result: Result<Opened, StoreError>, now: Now) {
        if !matches!(self.store, StoreConnection::Opening { id: opening, .. } if opening == id) {
            return;
        }
        let result = result.map_err(|error| error.to_string()).and_then(|opened| self.check_clock(opened, now));
        match result {
            Ok(opened) => {
                opened.advice.into_iter().for_each(|advice| self.lender.fx.notice(log::Level::Warn, advice));
                opened.link_secret.into_iter().for_each(|secret| self.lender.fx.push(Effect::LinkSecret(secret)));
                self.lender.fx.notice(log::Level::Info, "the store is open");
                self.store_backoff.reset();
                self.store = StoreConnection::Open;
                self.lender.logbook.on_opened();
                self.health_check.on_answer(now);
            }
            Err(reason) => {
                if !self.store_backoff.is_failing() {
                    self.lender
                        .fx
                        .notice(log::Level::Error, format!("open the store: {reason}; trying again until it opens"));
                }
                self.store_backoff.fail(now);
                self.store = StoreConnection::Closed { reason: Some(reason) };
            }
        }
    }

    /// Rejects a store whose clock differs from this host's by more than the grace: every run would be late, or early.
    fn check_clock(&self, opened: Opened, now: Now) -> Result<Opened, String> {
        let off_secs = opened.clock.map_or(0, |clock| (clock.second().0 - now.wall.second().0).abs());
        if i64::from(self.setup.limits.misfire_grace_secs) < off_secs {
            return Err(format!(
                "this host's clock is {off_secs} s off from the store's, more than misfire_grace; set the clocks"
            ));
        }
        Ok(opened)
    }

    /// Bumps the epoch where this node may take the lead.
    pub(super) fn advance_lead(&mut self, now: Now) {
        if self.may_take_lead(now) && self.lead_backoff.is_over(now) {
            let id = self.lender.fx.work(Work::Lead(Lead::Bump(Bump {
                lock_key: self.setup.lock_key.clone(),
                server: self.setup.server.clone(),
                node_id: self.setup.node_id.clone(),
                alone: self.setup.is_alone,
                lease_ms: LEASE_MS,
            })));
            self.lead = Leadership::Bumping { id, sent_at: now.mono };
        }
    }

    /// Whether this node may take the lead: it holds the lock or stands alone, and its store and its replica are ready.
    pub(super) fn may_take_lead(&self, now: Now) -> bool {
        let may_stay = self.shutdown.is_none() && self.fatal.is_none();
        let has_lock = |election: &Election| election.may_lead(now) && self.is_store_ok(now);
        let may_lead = self.election.as_ref().is_none_or(has_lock) && self.is_open() && self.replica.is_ready();
        matches!(self.lead, Leadership::None) && may_stay && may_lead
    }

    /// The epoch is bumped: reads the journal's open entries under it.
    pub(super) fn on_bumped(&mut self, id: WorkId, result: Result<Bumped, StoreError>, now: Now) {
        let Leadership::Bumping { id: bumping, sent_at } = self.lead else { return };
        if bumping != id {
            return;
        }
        self.lead = match result {
            Ok(Bumped { epoch }) => {
                self.last_epoch = epoch;
                let since = self.replica.since();
                let id = self.lender.fx.work(Work::Lead(Lead::Load { epoch, since }));
                // After the bump a former leader cannot grant a lease, so its last one ends `LEASE_MS` from now at the
                // latest.
                let own = OwnEpoch { epoch, sent_at, leases_end: now.mono.plus_ms(LEASE_MS) };
                Leadership::Loading { id, own }
            }
            Err(error) => self.on_lead_failed(error, now),
        };
    }

    /// The open entries are read: brings the replica up to date, and leads.
    pub(super) fn on_loaded(&mut self, id: WorkId, result: Result<Loaded, StoreError>, now: Now) {
        match (&self.lead, result) {
            (Leadership::Loading { id: loading, own }, Ok(mut loaded)) if *loading == id => {
                let own = *own;
                // Where the replica is too old, this node takes the lead again once it has read the jobs anew.
                self.lead = Leadership::None;
                let cx = &mut self.lender.at(now);
                if self.replica.bring_up(loaded.differences.take(), own.sent_at, cx) {
                    self.establish(own, loaded, now);
                }
            }
            (Leadership::Loading { id: loading, .. }, Err(error)) if *loading == id => {
                self.lead = self.on_lead_failed(error, now);
            }
            _ => {}
        }
    }

    fn establish(&mut self, bumped: OwnEpoch, loaded: Loaded, now: Now) {
        let OwnEpoch { epoch, sent_at, leases_end } = bumped;
        self.lead_backoff.reset();
        self.rejected_for = None;
        let lent = self.replica.lend(now);
        let (jobs, open) = (lent.scheduler.job_count(), loaded.open.len());
        self.lender.fx.notice(log::Level::Info, format!("leading: epoch={epoch} jobs={jobs} open_entries={open}"));
        self.confirm(sent_at, now);
        let limits = &self.setup.limits;
        let hello = self.hello();
        let setup = LeaderSetup {
            hello: hello.clone(),
            limits: RunLimits {
                max_pending_per_job: limits.max_pending_per_job,
                unplaced_max: limits.max_pending,
                grace_secs: limits.misfire_grace_secs.into(),
                part_runs_max: limits.part_runs_max,
            },
            kill_grace_ms: limits.kill_grace_ms,
            leases_end,
            plan_ahead_ms: if self.setup.is_alone { PLAN_AHEAD_ALONE_MS } else { PLAN_AHEAD_MS },
        };
        let mut cx = self.lender.at(now);
        let mut leader = Leader::establish(setup, epoch, loaded, lent, &mut cx);
        if std::mem::take(&mut self.is_reload_wanted) {
            leader.reload(cx.fx);
        }
        self.lead = Leadership::Leading(Box::new(leader));
        self.election.iter_mut().for_each(|election| election.renew_value(now));
        self.lender.fx.send(LinkId::Loopback, Message::Hello(hello));
        // The calls that have waited need a leader with a node.
        self.deliver(now);
        for (_, client, command) in std::mem::take(&mut self.waiting) {
            self.on_command(client, command, now);
        }
    }

    fn on_lead_failed(&mut self, error: StoreError, now: Now) -> Leadership {
        match error {
            StoreError::Permanent(reason) => self.fatal = Some(reason),
            error => {
                if !self.lead_backoff.is_failing() {
                    self.lender.fx.notice(log::Level::Error, format!("take the lead: {error}; trying again"));
                }
                self.lead_backoff.fail(now);
            }
        }
        Leadership::None
    }

    /// A step of the election is done.
    pub(super) fn on_outcome(&mut self, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Nothing | Outcome::Elected => {}
            Outcome::Renewed(sent_at) => {
                if self.is_leading() {
                    self.confirm(sent_at, now);
                }
            }
            Outcome::Lost => {
                self.lender.fx.notice(log::Level::Warn, "the lock is lost");
                self.step_down(now);
            }
        }
    }

    /// Hands an answer of the store to the leader, where there is one, and acts on the leader's verdict.
    pub(super) fn lead(&mut self, now: Now, answer: impl FnOnce(&mut Leader, &mut Context) -> Verdict) {
        let Leadership::Leading(leader) = &mut self.lead else { return };
        let mut cx = self.lender.at(now);
        match answer(leader, &mut cx) {
            Verdict::Ok => {}
            Verdict::Confirmed(sent_at) => self.confirm(sent_at, now),
            Verdict::Deposed => {
                self.lender.fx.notice(log::Level::Warn, "deposed: another node has a newer epoch");
                self.step_down(now);
                match &mut self.election {
                    Some(election) => election.resign(),
                    None => self.lender.fx.push(Effect::Exit(ExitReason::Fatal(
                        "another daemon has taken the lead on this database, and this one stands alone (no consul_address): \
                         give both the same consul_address and lock_key, or each a database of its own"
                            .into(),
                    ))),
                }
            }
        }
    }

    /// A statement that was sent at `sent_at` has shown that this node led then. So leases may be granted that end
    /// `LEASE_MS` after that, this node's own first.
    fn confirm(&mut self, sent_at: Mono, now: Now) {
        self.authority = self.authority.max(sent_at.plus_ms(LEASE_MS));
        if !self.setup.is_alone {
            let mut cx = self.lender.at(now);
            self.executor.extend_lease(self.authority, &mut cx);
        }
    }

    /// Ends the lead. The jobs go back into the replica.
    pub(super) fn step_down(&mut self, now: Now) {
        if let Leadership::Leading(leader) = std::mem::replace(&mut self.lead, Leadership::None) {
            let jobs = leader.step_down(&mut self.lender.fx);
            self.replica.take_back(jobs, now);
        }
        self.authority = Mono(0);
        self.lead_backoff.fail(now);
    }
}
