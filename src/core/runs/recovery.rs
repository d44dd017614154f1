//! What becomes of runs whose leader or node was lost.
//!
//! A run that a former leader left open, or that was sent to a node which was cut off, may have been started. It is given
//! again only when the node that the last entry names has said, under this leader, that it neither holds it nor started
//! it, and its log row, read after that, is not there. Nobody's word by the end of the grace: `lost`.
//!
//! Invariant: of a mutex job, what may run holds the mutex until it is known to be over.

use super::table::{InFlightRun, Stage};
use super::{Around, Orders, Runs, rows, send, settled_to};
use crate::model::journal::{EntryId, StoredEntry};
use crate::model::message::Held;
use crate::model::{Attempt, Job, JobId, NodeId, RunKey, RunState, Second, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the store says was left.
pub struct Left<'a> {
    pub open: &'a [StoredEntry],
    /// Rows of the runs that the open entries name, all attempts of each.
    pub logged: &'a BTreeMap<Attempt, RunState>,
    /// The largest tick that is whole.
    pub watermark: Option<Second>,
}

/// What is to be done about a node's holdings.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Settling {
    /// Not to be started there.
    pub drop: Vec<Attempt>,
    /// Of a definition that is not in force any more, and about to start by themselves: only the node can say which have not.
    pub back: Vec<Attempt>,
    /// Neither held nor started: whether they have a log row is to be read now, in answer to the question with this number.
    pub unknown: Vec<Attempt>,
    pub question: u64,
    /// Mutex jobs whose next run may be free to go once the node has been told.
    pub jobs: BTreeSet<JobId>,
}

impl Runs {
    /// Takes in the entries that a former leader left open: every run without a row may be on the node that the last
    /// entry names.
    pub fn recover(&mut self, left: &Left, around: &mut Around) {
        self.away_secs = left.watermark.map_or(0, |watermark| around.now.wall.second().0 - watermark.0);
        for StoredEntry { id, entry } in left.open {
            self.open.insert(*id, 0);
            if let Some(tick) = entry.tick.filter(|_| entry.tick > left.watermark) {
                let missed = entry.body.missed.iter().map(|gap| RunKey::scheduled(gap.cron_id, gap.last));
                let refused = entry.body.refused.iter().map(|refused| refused.run);
                self.named.extend(entry.body.runs.iter().map(|run| run.attempt.run).chain(missed).chain(refused));
                self.begun.insert(*id, tick);
            }
            if let Some(last) = settled_to(&entry.body).filter(|last| left.watermark < Some(*last)) {
                self.begun.insert(*id, last);
            }
            for run in &entry.body.runs {
                let node = entry.body.nodes.get(usize::from(run.node)).cloned().unwrap_or_default();
                let stage = if node.is_nobody() { Stage::Waiting } else { Stage::Sent };
                // When a further attempt was due is not known any more: its grace begins anew.
                let due = if run.attempt.number == 1 { run.attempt.run.scheduled_at } else { around.now.wall.second() };
                self.recover_run(*id, run.attempt, run.version, left, (node, stage, due), around);
            }
            for delayed in &entry.body.delayed {
                let candidate = (NodeId::default(), Stage::Delayed, delayed.due);
                self.recover_run(*id, delayed.attempt, delayed.version, left, candidate, around);
                // Of the end of its delay the entry says the whole second by which it is over.
                let ready_at = around.now.mono_at(delayed.due.wall());
                self.delayed.insert((ready_at, delayed.attempt));
            }
            self.write_outcomes(*id, &entry.body, left.logged, around);
            self.drop_refused(*id, &entry.body);
        }
        let logged: BTreeSet<Attempt> = left.logged.keys().copied().collect();
        self.table.followed_by(&logged).into_iter().for_each(|attempt| self.table.set_followed(attempt));
        left.open.iter().for_each(|stored| self.recover_follower(stored, left, around));
        left.open.iter().for_each(|stored| self.close_if_empty(stored.id));
    }

    fn recover_run(
        &mut self,
        id: EntryId,
        attempt: Attempt,
        version: Version,
        left: &Left,
        (node, stage, due): (NodeId, Stage, Second),
        around: &Around,
    ) {
        // `lost` may be the word of a leader that was deposed and did not know: the run may be there all the same, and its mutex
        // with it.
        let logged = left.logged.get(&attempt);
        if logged.is_some_and(|state| *state != RunState::Lost || stage != Stage::Sent) {
            return;
        }
        let current = around.job(attempt.run.cron_id);
        // Of a definition that is gone only this is needed: nothing of it will be sent.
        let is_mutex = current.is_some_and(|job| job.is_mutex);
        let gone = || Job { id: attempt.run.cron_id, version, is_mutex, ..Job::default() };
        let job = current.filter(|job| job.version == version).cloned().unwrap_or_else(|| Arc::new(gone()));
        let is_limited = job.parallel_max().is_some();
        *self.open.entry(id).or_default() += 1;
        let earlier = self.table.get(attempt).and_then(|in_flight| in_flight.entry);
        self.leave_queue(attempt.run.cron_id, &[attempt]);
        let in_flight = InFlightRun { entry: Some(id), stage, ..InFlightRun::planned(job, node, true, due.wall()) };
        self.table.insert(attempt, in_flight);
        earlier.into_iter().for_each(|earlier| self.settle(earlier));
        if stage == Stage::Waiting {
            if is_limited {
                self.wait_for_permit(attempt);
            }
            self.unplaced.insert(attempt);
        }
    }

    /// What a former leader owed: an attempt that failed or was lost, and the next one was not journaled any more.
    fn recover_follower(&mut self, stored: &StoredEntry, left: &Left, around: &mut Around) {
        let body = &stored.entry.body;
        let runs = body.runs.iter().map(|run| (run.attempt, run.version));
        let named = runs.chain(body.delayed.iter().map(|delayed| (delayed.attempt, delayed.version)));
        for (attempt, version) in named {
            let Some(state) = left.logged.get(&attempt) else { continue };
            let next = Attempt { number: attempt.number + 1, ..attempt };
            let has_later = left.logged.range(next..).next().is_some_and(|(later, _)| later.run == attempt.run);
            let job = around.job(attempt.run.cron_id).filter(|job| job.version == version).cloned();
            if let (Some(job), false) = (job, has_later) {
                self.follow(attempt, &job, Some(stored.id), *state, around);
            }
        }
    }

    /// Runs of the tick that a former leader began and did not complete.
    pub fn named(&self) -> impl Iterator<Item = &RunKey> {
        self.named.iter()
    }

    /// The nodes that may have something of us.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.table.nodes()
    }

    /// The node has told all that it has.
    pub fn on_holdings(&mut self, node: &NodeId, held: &BTreeMap<Attempt, Held>, around: &mut Around) -> Settling {
        self.table.set_released(node, false);
        let mut settling = Settling::default();
        let (mut orders, mut jobs) = (Orders::new(), BTreeSet::new());
        let sent = self.table.sent_to(node);
        for attempt in &sent {
            self.table.set_question(*attempt, 0);
            let Some(in_flight) = self.table.get(*attempt).cloned() else { continue };
            match held.get(attempt) {
                Some(Held::Begun | Held::Unknown) => {}
                Some(Held::Waiting) if !self.is_current(*attempt, around) => settling.back.push(*attempt),
                Some(Held::Parked) if !self.is_current(*attempt, around) => {
                    settling.drop.push(*attempt);
                    self.reassign(*attempt, around);
                }
                // Its mutex may be another's by now: it has to wait for it once more, in its turn.
                Some(Held::Parked) if in_flight.job.is_mutex => {
                    settling.drop.push(*attempt);
                    self.wait_for_permit(*attempt);
                    jobs.insert(attempt.run.cron_id);
                }
                // It will start by itself; an order that came late, after its end, would start it a second time.
                Some(Held::Waiting) => {}
                Some(Held::Parked) => {
                    orders.entry(node.clone()).or_default().push(self.order(*attempt, &in_flight, around.now));
                }
                None => settling.unknown.push(*attempt),
            }
        }
        // It is over, and word of its row did not come through; rows of ours will tell themselves.
        let over = self.table.over_on(node).into_iter();
        settling.unknown.extend(over.filter(|attempt| !held.contains_key(attempt) && !around.logbook.has(*attempt)));
        self.questions += 1;
        settling.question = self.questions;
        settling.unknown.iter().for_each(|attempt| self.table.set_question(*attempt, settling.question));
        // What waits there and is not ours to be there: of another node by now, or of an entry that is closed.
        let is_waiting = |held: &Held| matches!(held, Held::Waiting | Held::Parked);
        let strays = held.iter().filter(|(attempt, held)| is_waiting(held) && !sent.contains(attempt));
        settling.drop.extend(strays.map(|(attempt, _)| *attempt));
        send(orders, around);
        settling.jobs = jobs;
        settling
    }

    /// The node has been told what to drop: mutexes that waited for it may go on.
    pub fn on_settled(&mut self, jobs: BTreeSet<JobId>, around: &mut Around) {
        jobs.into_iter().for_each(|id| self.grant_permits(id, around));
    }

    /// The log rows of what a node neither held nor had started were read: what has none is given again. What was given again
    /// meanwhile was so by a later answer.
    pub fn on_checked(
        &mut self,
        mut attempts: Vec<Attempt>,
        question: u64,
        logged: &BTreeMap<Attempt, RunState>,
        around: &mut Around,
    ) {
        let is_asked = |in_flight: &InFlightRun| question != 0 && in_flight.question == question;
        attempts.retain(|attempt| self.table.get(*attempt).is_some_and(is_asked));
        self.give_again(attempts, logged, around);
    }

    fn give_again(&mut self, attempts: Vec<Attempt>, logged: &BTreeMap<Attempt, RunState>, around: &mut Around) {
        let mut orders = Orders::new();
        let mut jobs = BTreeSet::new();
        for attempt in attempts {
            let Some(in_flight) = self.table.get(attempt).cloned() else { continue };
            if !matches!(in_flight.stage, Stage::Sent | Stage::Over) {
                continue;
            }
            jobs.insert(attempt.run.cron_id);
            if let Some(state) = logged.get(&attempt) {
                self.on_finished(attempt, *state, around);
                self.on_logged(attempt, around);
            } else if around.logbook.has(attempt) {
                self.table.set_stage(attempt, Stage::Over);
            } else if in_flight.stage == Stage::Over {
                self.push_row(attempt, in_flight.job.version, RunState::Lost, rows::ROW_LOST, around);
            } else if !self.is_current(attempt, around) {
                self.reassign(attempt, around);
            } else if in_flight.is_killed {
                self.drop_killed(attempt, around);
            } else if in_flight.job.parallel_max().is_some() {
                self.wait_for_permit(attempt);
            } else {
                self.send_or_move(attempt, around, &mut orders);
            }
        }
        send(orders, around);
        jobs.into_iter().for_each(|id| self.grant_permits(id, around));
    }

    /// A node that is leaving will not start these.
    pub fn on_returned(&mut self, node: &NodeId, mut attempts: Vec<Attempt>, around: &mut Around) {
        attempts.retain(|attempt| self.table.get(*attempt).is_some_and(|in_flight| in_flight.node == *node));
        self.give_again(attempts, &BTreeMap::new(), around);
    }

    /// The node's lease is surely over: what it had of mutex jobs has ended.
    pub fn on_released(&mut self, node: &NodeId, around: &mut Around) {
        self.table.set_released(node, true);
        let jobs: BTreeSet<_> = self.table.sent_to(node).iter().map(|attempt| attempt.run.cron_id).collect();
        jobs.into_iter().for_each(|id| self.grant_permits(id, around));
    }

    /// The node has not been heard of since then: what it had is lost when the grace is over.
    pub fn give_up(&mut self, node: &NodeId, silent_since: Second, around: &mut Around) {
        let now = around.now.wall.second();
        let over = self.table.over_on(node).into_iter().filter(|attempt| !around.logbook.has(*attempt));
        for attempt in self.table.sent_to(node).into_iter().chain(over.collect::<Vec<_>>()) {
            let Some(in_flight) = self.table.get(attempt).cloned() else { continue };
            let since = silent_since.max(in_flight.due.second());
            if since.plus(self.limits.grace_secs) < now {
                self.table.set_stage(attempt, Stage::Over);
                self.push_row(attempt, in_flight.job.version, RunState::Lost, rows::LOST, around);
                self.follow_up(attempt, RunState::Lost, around);
                self.grant_permits_after(attempt.run.cron_id, true, around);
            }
        }
    }

    fn is_current(&self, attempt: Attempt, around: &Around) -> bool {
        let version = self.table.get(attempt).map(|in_flight| in_flight.job.version);
        let may_run = |job: &&Arc<Job>| !job.stop || attempt.run.manual.is_some();
        around.job(attempt.run.cron_id).filter(may_run).is_some_and(|job| Some(job.version) == version)
    }
}
