//! The simulated workers. Store and Consul answer, are away, are slow, or carry out the work when the node does not
//! wait any more; processes run until they end or a guardian ends them.

use crate::guard::Guard;
use crate::host::Process;
use crate::store::Store;
use crate::world::{Event, GUARD_EVERY, MS, Watching, World};
use std::collections::BTreeMap;
use wing_crontab::core::io::ports::{
    Chunk, Consul, ConsulError, Done, KillHow, Lead, Left, LockState, Log, SpawnError, Spool, Spooled, Started,
    StoreError, Work, WorkId,
};
use wing_crontab::core::io::{Ended, FoundState, Input};
use wing_crontab::model::{Attempt, Exit, Job, RunState, Usage};

/// One statement in so many is carried out, and its answer is lost.
const ANSWERS_A_LOSS: u64 = 150;
/// One statement in so many is carried out after its caller has given up.
const STATEMENTS_A_LATE_ONE: u64 = 300;

/// How a statement ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Done,
    /// It did not reach the service.
    Away,
    /// It is carried out, and its answer is lost.
    Unheard,
    /// It is carried out after the caller was told that its result is unknown.
    Late,
}

impl World {
    // Store and Consul.

    fn fate(&mut self, host: usize, service: usize, back_at: u64) -> Fate {
        if self.now < back_at || !self.reaches(host, service) {
            Fate::Away
        } else if !self.reaches(service, host) {
            Fate::Unheard
        } else if self.is_healed {
            Fate::Done
        } else if self.random.within(0, ANSWERS_A_LOSS) == 0 {
            Fate::Unheard
        } else if self.random.within(0, STATEMENTS_A_LATE_ONE) == 0 {
            Fate::Late
        } else {
            Fate::Done
        }
    }

    fn store_fate(&mut self, host: usize) -> Fate {
        self.fate(host, self.hosts.len(), self.store_back_at)
    }

    fn log_fate(&mut self, host: usize, log: &Log) -> Fate {
        let fate = self.store_fate(host);
        if let Log::Write(rows) = log
            && fate != Fate::Away
        {
            let odd = |state: RunState| !matches!(state, RunState::Ok | RunState::Failed);
            let odd: Vec<_> = rows.iter().filter(|row| odd(row.state)).collect();
            odd.iter()
                .for_each(|row| self.say(format!("host {host}: row {} {} {fate:?}", row.attempt, row.state.as_str())));
        }
        fate
    }

    fn consul_fate(&mut self, host: usize) -> Fate {
        self.fate(host, self.hosts.len() + 1, self.consul_back_at)
    }

    pub fn do_lead(&mut self, host: usize, life: u64, id: WorkId, lead: Lead) {
        let fate = self.store_fate(host);
        let done = match fate {
            Fate::Away => lead.failed(StoreError::Away("the store is away".into())),
            Fate::Done | Fate::Unheard => {
                let done = self.carry_out(host, &lead);
                let unheard = || lead.failed(StoreError::Unavailable("no answer".into()));
                if fate == Fate::Unheard { unheard() } else { done }
            }
            Fate::Late => {
                let done = lead.failed(StoreError::Unavailable("no answer in time".into()));
                let (at, epoch) = (self.now + self.random.within(1, 6_000) * MS, self.store.epoch);
                self.at(at, Event::LateLead(Box::new(lead), epoch));
                done
            }
        };
        let wait = if fate == Fate::Done { MS } else { self.random.within(1, 3_000) * MS };
        self.hosts[host].lead_free_at = self.hosts[host].lead_free_at.max(self.now + wait);
        self.at(self.now + wait, Event::Input(host, life, Box::new(Input::Done(id, done))));
    }

    fn carry_out(&mut self, host: usize, lead: &Lead) -> Done {
        let done = self.store.lead(lead);
        if let (Lead::ReadRows { attempts, .. }, Done::Rows(found)) = (lead, &done) {
            let asked: Vec<String> = attempts.iter().map(|attempt| attempt.to_string()).collect();
            let found = found.as_ref().map_or(0, |found| found.len());
            self.say(format!("host {host}: looks for rows of {}: {found} are there", asked.join(" ")));
        }
        if matches!(done, Done::Bumped(Ok(_))) {
            self.leader = Some(host);
        }
        match (done, self.without) {
            (Done::Rows(Ok(_)), Some(Guard::LogRowReadAgain)) => Done::Rows(Ok(BTreeMap::new())),
            (done, _) => done,
        }
    }

    pub fn do_late_lead(&mut self, lead: &Lead, epoch: u64) {
        let is_bump_in_vain = matches!(lead, Lead::Bump(_)) && self.store.epoch != epoch;
        if self.store_back_at <= self.now && !is_bump_in_vain {
            self.say(format!("the store carries out a statement that nobody waits for: {}", name(lead)));
            self.store.lead(lead);
        }
    }

    /// The disk never fails.
    fn spool(&mut self, host: usize, work: Spool) -> Spooled {
        let spool = &mut self.hosts[host].spool;
        match work {
            Spool::Append(rows) => {
                let at = spool.last_key_value().map_or(0, |(at, _)| at + 1);
                spool.insert(at, rows.to_vec());
                Spooled::Chunk(Chunk { at, bytes: 1 })
            }
            Spool::Read(page) => Spooled::Rows(spool[&page.at].clone()),
            Spool::Empty => {
                spool.clear();
                Spooled::Emptied
            }
        }
    }

    pub fn do_work(&mut self, host: usize, life: u64, id: WorkId, work: Work) {
        let done = match work {
            Work::Lead(_) => return,
            Work::Log(Log::Ping) => match self.store_fate(host) {
                Fate::Done => Done::Pinged(Ok(())),
                _ => Done::Pinged(Err(StoreError::Away("the store is away".into()))),
            },
            // The thread for this work has died with its daemon.
            Work::Spool(_) if self.hosts[host].life != life => return,
            Work::Spool(work) => Done::Spooled(Ok(self.spool(host, work))),
            Work::Log(log) => self.write_log(host, log),
            Work::Read(read) => match self.store_fate(host) {
                Fate::Done => self.store.read(&read),
                _ => Store::unread(&read),
            },
            Work::Consul(ask) => self.ask_consul(host, &ask),
            Work::Watch { index, wait_ms } => match self.watch(host, index) {
                Some(done) => done,
                None => {
                    self.watches.push(Watching { host, life, id });
                    return self.at(self.now + wait_ms * MS, Event::WatchOver(host, life, id));
                }
            },
            Work::Spawn(spawn) => return self.spawn((host, life), id, spawn.attempt, &spawn.job),
            Work::Kill(kill) => {
                let is_it = |process: &Process| process.attempt == kill.attempt;
                // A simulated process ends as soon as it gets TERM.
                if kill.how == KillHow::Ask || kill.how == KillHow::Force {
                    self.kill_processes(host, is_it);
                }
                Done::Killed(Left::default())
            }
        };
        self.input_later(host, life, Input::Done(id, done));
    }

    fn write_log(&mut self, host: usize, log: Log) -> Done {
        match self.log_fate(host, &log) {
            Fate::Away => Done::LogsWritten(Err(StoreError::Away("the store is away".into()))),
            Fate::Done => self.store.log(&log),
            Fate::Unheard => {
                self.store.log(&log);
                Done::LogsWritten(Err(StoreError::Unavailable("no answer".into())))
            }
            Fate::Late => {
                let at = self.now + self.random.within(1, 6_000) * MS;
                self.at(at, Event::LateLog(Box::new(log)));
                Done::LogsWritten(Err(StoreError::Unavailable("no answer in time".into())))
            }
        }
    }

    /// The answer to a watch; none as long as the lock has the state that the host knows.
    fn watch(&mut self, host: usize, index: u64) -> Option<Done> {
        if self.now < self.consul_back_at || self.consul_fate(host) == Fate::Away {
            return Some(Done::Watched(Err(ConsulError::Unavailable("away".into()))));
        }
        self.expire_sessions();
        let lock = self.lock_seen_by(host);
        (index != lock.index).then_some(Done::Watched(Ok(lock)))
    }

    fn ask_consul(&mut self, host: usize, ask: &Consul) -> Done {
        let fate = self.consul_fate(host);
        if fate == Fate::Away {
            return Done::Consul(Err(ConsulError::Unavailable("away".into())));
        }
        let (answer, changed) = self.consul.ask(host, ask, self.now);
        if changed {
            self.tell_watches(|_| true);
        }
        // For Consul a late call is the same as one that is carried out now and whose answer is lost.
        Done::Consul(if fate == Fate::Done { answer } else { Err(ConsulError::Unavailable("no answer".into())) })
    }

    fn expire_sessions(&mut self) {
        if self.consul.expire(self.now) {
            self.tell_watches(|_| true);
        }
    }

    /// The lock, as the host reads it.
    fn lock_seen_by(&self, host: usize) -> LockState {
        match self.hosts[host].old_news {
            Some((as_of, until)) if self.now < until => self.consul.lock_at(as_of).clone(),
            _ => self.consul.lock.clone(),
        }
    }

    /// Tells these watches that the lock has changed.
    pub fn tell_watches(&mut self, is_wanted: impl Fn(&Watching) -> bool) {
        self.consul.note(self.now);
        let (told, left): (Vec<Watching>, Vec<Watching>) =
            std::mem::take(&mut self.watches).into_iter().partition(is_wanted);
        self.watches = left;
        for Watching { host, life, id } in told {
            let done = Done::Watched(Ok(self.lock_seen_by(host)));
            self.at(self.now + 2 * MS, Event::Input(host, life, Box::new(Input::Done(id, done))));
        }
    }

    pub fn watch_over(&mut self, host: usize, life: u64, id: WorkId) {
        let is_it = |watching: &Watching| (watching.host, watching.life, watching.id) == (host, life, id);
        let Some(at) = self.watches.iter().position(is_it) else { return };
        self.watches.remove(at);
        self.expire_sessions();
        let is_away = self.consul_fate(host) == Fate::Away;
        let state = if is_away { Err(ConsulError::Unavailable("away".into())) } else { Ok(self.lock_seen_by(host)) };
        self.input_later(host, life, Input::Done(id, Done::Watched(state)));
    }

    // Processes.

    fn spawn(&mut self, (host, life): (usize, u64), id: WorkId, attempt: Attempt, job: &Job) {
        let (mono, wall) = (self.clock(host).mono, self.clock(host).wall);
        let duration = self.truth.duration(job);
        let max_running = self.limits.max_running;
        let it = &mut self.hosts[host];
        if it.life != life || it.node.is_none() {
            return;
        }
        if it.lease <= mono && self.without != Some(Guard::LeaseAtTheStart) {
            let failed = Done::Spawned(Err(SpawnError::NoLease));
            return self.input_later(host, life, Input::Done(id, failed));
        }
        it.marks.entry(attempt).and_modify(|mark| mark.state = FoundState::Started);
        it.pids += 1;
        let pid = it.pids;
        it.processes.insert(pid, Process { attempt, is_mutex: job.is_mutex, life });
        let running = it.processes.len();
        self.say(format!("host {host}: start {attempt} version {}", job.version.0));
        if max_running < running {
            self.truth.rule(format!("{running} processes run on host {host}"));
        }
        let wakes: Vec<u64> = self.hosts.iter().map(|host| host.paused_until + 2 * GUARD_EVERY).collect();
        let now = self.now;
        self.store.started(attempt);
        self.truth.started(attempt, job, (host, now), |there| now < wakes[there]);
        let exit = self.truth.exit(attempt, job);
        self.at(self.now + duration, Event::ProcessEnd(host, pid, exit));
        let started = Started { pid: pid as u32, at: wall };
        self.input_later(host, life, Input::Done(id, Done::Spawned(Ok(started))));
    }

    pub fn process_end(&mut self, host: usize, pid: u64, exit: Exit) {
        let Some(process) = self.hosts[host].processes.remove(&pid) else { return };
        self.truth.ended(process.attempt, exit == Exit::Code(0));
        let input = Input::Exited {
            attempt: process.attempt,
            ended: Ended { exit, output: String::new(), usage: Usage::default() },
        };
        self.input_later(host, process.life, input);
    }

    pub fn kill_processes(&mut self, host: usize, is_wanted: impl Fn(&Process) -> bool) {
        let wanted = self.hosts[host].processes.iter().filter(|(_, process)| is_wanted(process));
        let pids: Vec<u64> = wanted.map(|(pid, _)| *pid).collect();
        pids.into_iter().for_each(|pid| self.process_end(host, pid, Exit::Signal(9)));
    }

    /// Does the guardian's part: at the lease's end it ends mutex runs, whatever the daemon does.
    pub fn guard(&mut self, host: usize) {
        if self.hosts[host].lease <= self.clock(host).mono && self.without != Some(Guard::GuardiansDeadline) {
            self.kill_processes(host, |process| process.is_mutex);
        }
        self.at(self.now + GUARD_EVERY, Event::Guard(host));
    }
}

fn name(lead: &Lead) -> String {
    match lead {
        Lead::Open => "open".into(),
        Lead::Bump(_) => "a bump".into(),
        Lead::Load { epoch, .. } => format!("load, epoch {epoch}"),
        Lead::Journal(entry) => format!("an entry of tick {:?}, epoch {}", entry.tick, entry.epoch),
        Lead::Change { epoch, .. } => format!("a change, epoch {epoch}"),
        Lead::ReadRows { epoch, .. } => format!("find, epoch {epoch}"),
        Lead::Pause { epoch, .. } => format!("a pause, epoch {epoch}"),
        Lead::Close { epoch, .. } => format!("close, epoch {epoch}"),
    }
}
