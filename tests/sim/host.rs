//! A host: its daemon and its starts and ends, its marks, its spool, its processes and its clocks.
//!
//! How the work of its daemon ends is in `hands`; what daemons send to each other is in `network`.

use crate::guard::Guard;
use crate::world::{Event, MS, SECOND, WALL, World};
use std::collections::BTreeMap;
use wing_crontab::core::io::ports::{Chunk, SpoolLeft, Work};
use wing_crontab::core::io::{Effect, FoundMark, FoundState, Input, MarkOp};
use wing_crontab::core::node::{Node, Setup};
use wing_crontab::model::command::{Answer, NodeState, NodeView, Reply, RequestId, Role};
use wing_crontab::model::config::Limits;
use wing_crontab::model::message::Held;
use wing_crontab::model::{Attempt, Epoch, Incarnation, Job, JobId, LogRow, Mono, NodeId, Now, Server, Version, Wall};

/// A node recounts its jobs once in so many steps of the world, because counting takes longer than a step.
const JOBS_CHECKED_EVERY: u64 = 50;
/// What a monotonic clock shows at virtual time zero: hosts were started long before.
const BOOT: u64 = 1_000 * SECOND;
/// How many millionths a monotonic clock may be too fast or too slow.
const MONO_PPM_MAX: u64 = 5_000;
/// The same for a wall clock.
const WALL_PPM_MAX: u64 = 1_000;
const MILLION: i128 = 1_000_000;
/// For so long after a step of a clock a leader may misjudge it.
const CLOCK_KNOWN: u64 = 15 * SECOND;
/// How far a leader may misjudge a clock at any other time.
const CLOCK_WRONG_MS: i64 = 130;
/// Without the guard `EveryTimerWakes` the world forgets one wake in so many.
const FORGOTTEN_WAKES: u64 = 100;

pub struct Host {
    pub node: Option<Box<Node>>,
    /// Counts the daemons and the times between them.
    pub life: u64,
    /// Counts the daemons.
    starts: u64,
    pub server: Server,
    pub node_id: NodeId,
    pub marks: BTreeMap<Attempt, Mark>,
    /// It may have begun runs that its marks do not name.
    pub has_forgotten: bool,
    /// It was rebooted since its daemon was started last.
    pub is_rebooted: bool,
    pub lease: Mono,
    /// The rows of each chunk, by its offset.
    pub spool: BTreeMap<u64, Vec<LogRow>>,
    pub wall_offset: i64,
    /// When its clock was stepped last, and when its daemon last began to follow a leader.
    pub stepped_at: u64,
    pub followed_at: u64,
    mono_ppm: i64,
    wall_ppm: i64,
    /// Until when daemon and guardian stand still, and until when the daemon alone does.
    pub paused_until: u64,
    pub daemon_paused_until: u64,
    pub processes: BTreeMap<u64, Process>,
    pub pids: u64,
    pub lead_free_at: u64,
    pub wakes: u64,
    /// While it reads an old state in Consul: the moment of that state, and the time at which that ends.
    pub old_news: Option<(u64, u64)>,
    /// The holdings that it last told a leader.
    pub told: Option<Vec<(Attempt, Held)>>,
    /// The largest epoch that the daemon has followed.
    pub followed: Epoch,
}

#[derive(Clone, Copy)]
pub struct Mark {
    version: Version,
    is_mutex: bool,
    pub state: FoundState,
    /// Which daemon made it.
    start: u64,
}

#[derive(Clone, Copy)]
pub struct Process {
    pub attempt: Attempt,
    pub is_mutex: bool,
    pub life: u64,
}

impl Host {
    /// Forgets marks, where the guard that keeps them is taken out.
    fn forget_marks(&mut self, without: Option<Guard>) {
        match without {
            Some(Guard::Marks) => self.marks.clear(),
            Some(Guard::MarksOfAllIncarnations) => self.marks.retain(|_, mark| mark.start == self.starts),
            _ => {}
        }
    }

    /// What a daemon finds when it starts.
    fn setup(&self, now: Now, is_alone: bool, limits: Limits) -> Setup {
        let found = self.marks.iter().map(|(attempt, mark)| FoundMark {
            attempt: *attempt,
            version: mark.version,
            is_mutex: mark.is_mutex,
            state: mark.state,
        });
        Setup {
            server: self.server.clone(),
            node_id: self.node_id.clone(),
            incarnation: Incarnation(now.wall.0 as u64),
            lock_key: "key".into(),
            is_alone,
            zones: wing_crontab::model::Zones::default(),
            limits,
            labels: Vec::new(),
            drain_timeout_ms: 2_000,
            log_retention_days: 0,
            found: found.collect(),
            has_forgotten: self.has_forgotten,
            spool_left: SpoolLeft {
                attempts: self.spool.values().flatten().map(|row| row.attempt).collect(),
                chunks: self.spool.keys().map(|at| Chunk { at: *at, bytes: 1 }).collect(),
            },
        }
    }
}

// How daemons live and die, and how they are asked for the time.
impl World {
    pub fn new_host(&mut self, at: usize) -> Host {
        let random = &mut self.random;
        let mut around_zero = |most: u64| random.within(0, 2 * most) as i64 - most as i64;
        Host {
            node: None,
            life: 0,
            starts: 0,
            server: Server(format!("10.0.0.{at}:9991").into()),
            node_id: NodeId(format!("node-{at}").into()),
            marks: BTreeMap::new(),
            has_forgotten: false,
            is_rebooted: false,
            lease: Mono(0),
            spool: BTreeMap::new(),
            wall_offset: around_zero(50 * MS),
            stepped_at: 0,
            followed_at: 0,
            mono_ppm: around_zero(MONO_PPM_MAX),
            wall_ppm: around_zero(WALL_PPM_MAX),
            paused_until: 0,
            daemon_paused_until: 0,
            processes: BTreeMap::new(),
            pids: 0,
            lead_free_at: 0,
            wakes: 0,
            old_news: None,
            told: None,
            followed: Epoch(0),
        }
    }

    pub fn frozen_until(&self, host: usize) -> u64 {
        self.hosts[host].paused_until.max(self.hosts[host].daemon_paused_until)
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].node.is_some()
    }

    pub fn clock(&self, host: usize) -> Now {
        let it = &self.hosts[host];
        let drifted = |ppm: i64| (i128::from(self.now) * (MILLION + i128::from(ppm)) / MILLION) as u64;
        let wall = WALL + drifted(it.wall_ppm) as i64 + it.wall_offset;
        Now { mono: Mono(BOOT + drifted(it.mono_ppm)), wall: Wall(wall) }
    }

    /// The virtual time at which the host's monotonic clock shows `mono`.
    fn when(&self, host: usize, mono: Mono) -> u64 {
        let since_boot = i128::from(mono.0.saturating_sub(BOOT));
        let rate = MILLION + i128::from(self.hosts[host].mono_ppm);
        (since_boot * MILLION / rate) as u64 + 1
    }

    pub fn start(&mut self, host: usize) {
        let now = self.clock(host);
        let (without, is_alone, limits) = (self.without, self.hosts.len() == 1, self.limits);
        let it = &mut self.hosts[host];
        if it.node.is_some() {
            return;
        }
        it.life += 1;
        it.lead_free_at = 0;
        it.followed = Epoch(0);
        it.forget_marks(without);
        if std::mem::take(&mut it.is_rebooted) && without != Some(Guard::Forgetting) {
            it.has_forgotten = true;
        }
        it.starts += 1;
        it.node = Some(Box::new(Node::new(it.setup(now, is_alone, limits))));
        let life = it.life;
        self.say(format!("host {host}: daemon started, life {life}"));
        self.input(host, life, Input::Wake);
    }

    pub fn input(&mut self, host: usize, life: u64, input: Input) {
        let now = self.clock(host);
        if self.hosts[host].life != life {
            return;
        }
        let Some(mut node) = self.hosts[host].node.take() else { return };
        node.handle(input, now);
        node.check_invariants();
        if self.steps.is_multiple_of(JOBS_CHECKED_EVERY) {
            node.check_jobs();
        }
        let mut is_over = false;
        while let Some(effect) = node.poll_effect() {
            is_over |= self.carry_out_effect(host, life, effect);
        }
        if is_over {
            self.say(format!("host {host}: daemon ended"));
            self.end_daemon(host);
            self.kill_processes(host, |_| true);
            let back = self.random.within(200, 5_000) * MS;
            return self.at(self.now + back, Event::Start(host));
        }
        self.hosts[host].wakes += 1;
        // The node also wakes every second; that wake is left out, because it would hide a timer that a part forgot to
        // set.
        let wake = node.poll_listed();
        if node.stalled() != 0 {
            self.truth.rule(format!("host {host}: a timer was due and no part acted on it: {:?}", node.poll_effect()));
        }
        let is_forgotten = self.without == Some(Guard::EveryTimerWakes) && self.random.within(0, FORGOTTEN_WAKES) == 0;
        if let Some(wake) = wake.filter(|_| !is_forgotten) {
            self.at(self.when(host, wake), Event::Wake(host, life, self.hosts[host].wakes));
        }
        self.hosts[host].node = Some(node);
    }

    /// Carries out an effect; true when the daemon ends.
    fn carry_out_effect(&mut self, host: usize, life: u64, effect: Effect) -> bool {
        match effect {
            Effect::Work(id, Work::Lead(lead)) => {
                let latency_max = if self.now < self.store_slow.0 { self.store_slow.1 } else { 6 * MS };
                let at = self.hosts[host].lead_free_at.max(self.now) + self.random.within(MS / 2, latency_max);
                self.hosts[host].lead_free_at = at;
                self.at(at, Event::Lead(host, life, id, Box::new(lead)));
            }
            Effect::Work(id, work) => {
                if matches!(&work, Work::Spawn(spawn) if spawn.job.is_mutex)
                    && let Some((time, with_guardian)) = self.stop_at_start.take()
                {
                    self.pause(host, time, with_guardian);
                }
                let at = self.now + self.random.within(MS / 5, 4 * MS);
                self.at(at, Event::Work(host, life, id, Box::new(work)));
            }
            Effect::Reply(client, reply) => self.reply(host, client, reply),
            Effect::Mark(op) => self.mark(host, op),
            Effect::Notice(notice) => self.notice(host, &notice.text),
            Effect::Link(id, server) => self.at(self.now + MS, Event::Dial(host, life, id, server)),
            Effect::Send(id, message) => self.send(host, life, id, message),
            Effect::Unlink(id) => self.unlink(host, life, id),
            // Nobody reads output in this world.
            Effect::Ended { .. } | Effect::ReadOutput { .. } | Effect::LinkSecret(_) => {}
            Effect::Exit(_) => return true,
        }
        false
    }

    /// Compares an answer to a user with what really happens.
    fn reply(&mut self, host: usize, client: RequestId, reply: Reply) {
        match &reply {
            Ok(Answer::Job(job)) => self.truth.answered(Job::clone(job), self.now),
            Ok(Answer::Run(answer)) => {
                let runs = |host: &Host| host.processes.values().any(|it| it.attempt.run == answer.run_key);
                let is_running = self.hosts.iter().any(runs);
                self.truth.controlled(answer.run_key, answer.state, is_running);
            }
            Ok(Answer::Cluster(view)) => {
                self.truth.shown(view, &self.limits);
                // The host that was asked may have passed the call on.
                let leader = self.hosts.iter().position(|host| host.server == view.leader).unwrap_or(host);
                view.nodes.iter().for_each(|node| self.check_clock(leader, node));
            }
            _ => {}
        }
        self.truth.replied(client, reply.is_ok());
        let reply = reply.map(|_| "ok").map_err(|refusal| refusal.message);
        self.say(format!("host {host}: answer to {client:?}: {reply:?}"));
    }

    fn notice(&mut self, host: usize, text: &str) {
        if let Some(id) = unstored_stop(text) {
            self.truth.unstored(id, self.second());
        }
        if let Some((server, _)) = text.strip_prefix("the clock of ").and_then(|of| of.split_once(' ')) {
            self.check_warning(host, server);
        }
        self.say(format!("host {host}: {text}"));
    }

    /// The host with this name, and how far its wall clock is ahead of the clock of host `from`. None where one of the
    /// two clocks was stepped lately.
    fn clock_offset_ms(&self, from: usize, server: &str) -> Option<(usize, i64)> {
        let of = self.hosts.iter().position(|host| *host.server.0 == *server)?;
        let is_steady = |host: usize| self.hosts[host].stepped_at + CLOCK_KNOWN < self.now;
        let offset_ms = (self.clock(of).wall.0 - self.clock(from).wall.0) / MS as i64;
        (is_steady(from) && is_steady(of)).then_some((of, offset_ms))
    }

    /// Checks what a leader shows of a node's clock.
    fn check_clock(&mut self, leader: usize, node: &NodeView) {
        let is_fresh = node.last_contact_ms < 1_000 && node.state == NodeState::Alive && node.role == Role::Follower;
        let Some((of, offset_ms)) = self.clock_offset_ms(leader, &node.server.0).filter(|_| is_fresh) else { return };
        let shown_ms = node.clock_offset_ms;
        if self.hosts[of].followed_at + SECOND < self.now && CLOCK_WRONG_MS < (shown_ms - offset_ms).abs() {
            self.truth.rule(format!("the clock of host {of} is {offset_ms} ms off, and {shown_ms} ms are shown"));
        }
    }

    /// Checks that a clock is wrong where a leader warns of it.
    fn check_warning(&mut self, leader: usize, server: &str) {
        let Some((of, offset_ms)) = self.clock_offset_ms(leader, server) else { return };
        if offset_ms.abs() < CLOCK_WRONG_MS {
            self.truth.broken(format!("it was warned of the clock of host {of}, which is {offset_ms} ms off"));
        }
    }

    fn mark(&mut self, host: usize, op: MarkOp) {
        let it = &mut self.hosts[host];
        match op {
            MarkOp::Hold { attempt, version, is_mutex } => {
                let is_named = self.store.names(attempt, version, &it.node_id);
                let start = it.starts;
                it.marks.insert(attempt, Mark { version, is_mutex, state: FoundState::Held, start });
                if !is_named {
                    self.truth.rule(format!("{attempt} was given to host {host}, and the journal does not say so"));
                }
            }
            MarkOp::Ended { attempt, exit } => {
                it.marks.entry(attempt).and_modify(|mark| mark.state = FoundState::Ended(exit));
            }
            MarkOp::Clear { attempt } => drop(it.marks.remove(&attempt)),
            MarkOp::Lease { until } => it.lease = until,
            MarkOp::Remember => it.has_forgotten = false,
        }
    }
}

/// The job in a notice that says that its stop is in force and not stored yet.
fn unstored_stop(text: &str) -> Option<JobId> {
    let (id, rest) = text.strip_prefix("job ")?.split_once(" is stopped, ")?;
    rest.contains("in force, and stored when").then(|| id.parse().ok().map(JobId))?
}
