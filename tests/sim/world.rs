//! Hosts with nodes, processes, marks and guardians; a network; clocks that drift; all from one seed.
//!
//! Here is what the world is and how nodes live and die; `deeds` is what is done to them, `hands` what their work comes to,
//! `network` what they say to each other.
//!
//! Invariant: one seed gives one history: whatever is drawn is drawn from `random`, and events of one moment come in the
//! order in which they were made.

use crate::consul::Consul;
use crate::guard::Guard;
use crate::network::Link;
use crate::random::Random;
use crate::store::Store;
use crate::truth::Truth;
use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::io::{Effect, FoundMark, FoundState, Input, MarkOp};
use wing_crontab::core::node::{Node, Setup};
use wing_crontab::core::ports::{Chunk, Lead, Log, SpoolLeft, Work, WorkId};
use wing_crontab::model::command::{Answer, NodeState, NodeView, Role};
use wing_crontab::model::config::Limits;
use wing_crontab::model::message::{Held, LinkId};
use wing_crontab::model::{
    Attempt, Epoch, Exit, Incarnation, Job, JobId, LogRow, Mono, NodeId, Now, Server, Version, Wall,
};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// The wall clock at virtual zero.
pub const WALL: i64 = 1_700_000_000 * SECOND as i64;
/// The monotonic clock at virtual zero: hosts were booted long ago.
const BOOT: u64 = 1_000 * SECOND;
/// How often a guardian looks at the lease.
pub const GUARD_EVERY: u64 = 100 * MS;
/// How far the rates of clocks are off at most, in millionths: of the monotonic ones, and of the wall clocks.
const MONO_PPM_MAX: u64 = 5_000;
const WALL_PPM_MAX: u64 = 1_000;
const MILLION: i128 = 1_000_000;
/// How long after a step a clock may be judged wrongly, and how wrongly it may be judged at any other time.
const CLOCK_KNOWN: u64 = 15 * SECOND;
const CLOCK_WRONG_MS: i64 = 130;
/// Without its guard one wake in so many is forgotten.
const FORGOTTEN_WAKES: u64 = 100;

pub struct World {
    pub without: Option<Guard>,
    pub now: u64,
    made: u64,
    steps: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub hosts: Vec<Host>,
    pub store: Store,
    pub consul: Consul,
    pub watches: Vec<Watching>,
    pub links: Vec<Link>,
    /// Who cannot speak to whom, in this direction. The store and Consul come behind the hosts.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Until when the store answers nobody, and Consul.
    pub store_back_at: u64,
    pub consul_back_at: u64,
    /// Until when a statement takes so long at most.
    pub store_slow: (u64, u64),
    /// For how long the next host stands still that is about to start a mutex run, and whether its guardian does too.
    pub stop_at_start: Option<(u64, bool)>,
    /// Nothing goes wrong any more.
    pub is_healed: bool,
    /// The host that was the last to bump the epoch.
    pub leader: Option<usize>,
    pub random: Random,
    pub truth: Truth,
    pub trace: Vec<String>,
    limits: Limits,
    pub requests: u64,
}

pub struct Host {
    pub node: Option<Box<Node>>,
    /// Counts the daemons, and the times between two.
    pub life: u64,
    /// Counts the daemons.
    starts: u64,
    pub server: Server,
    pub node_id: NodeId,
    pub marks: BTreeMap<Attempt, Mark>,
    pub lease: Mono,
    /// Rows of each page, by its place.
    pub spool: BTreeMap<u64, Vec<LogRow>>,
    pub wall_offset: i64,
    /// When its clock was stepped the last time, and when its daemon last followed a leader anew.
    pub stepped_at: u64,
    pub followed_at: u64,
    mono_ppm: i64,
    wall_ppm: i64,
    /// Daemon and guardian stand still until then; or the daemon alone.
    pub paused_until: u64,
    pub daemon_paused_until: u64,
    pub processes: BTreeMap<u64, Process>,
    pub pids: u64,
    pub lead_free_at: u64,
    wakes: u64,
    /// What it reads in Consul is as old as this, until then.
    pub old_news: Option<(u64, u64)>,
    /// What it last told a leader that it has.
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

/// Somebody waits for the lock to change.
#[derive(Clone, Copy)]
pub struct Watching {
    pub host: usize,
    pub life: u64,
    pub id: WorkId,
}

pub enum Event {
    /// Of a life; only the one that was asked for last counts.
    Wake(usize, u64, u64),
    Input(usize, u64, Box<Input>),
    Lead(usize, u64, WorkId, Box<Lead>),
    /// Carried out when its caller has long given up. A bump only if the epoch is still what it was then.
    LateLead(Box<Lead>, u64),
    LateLog(Box<Log>),
    Work(usize, u64, WorkId, Box<Work>),
    Dial(usize, u64, LinkId, Server),
    /// The first of what is under way to that end of the link.
    Deliver(usize, usize),
    Close(usize, usize),
    WatchOver(usize, u64, WorkId),
    ProcessEnd(usize, u64, Exit),
    Guard(usize),
    Start(usize),
    Heal(usize, usize),
}

impl World {
    pub fn new(seed: u64, nodes: usize, without: Option<Guard>) -> World {
        let mut world = World {
            without,
            now: 0,
            made: 0,
            steps: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            store: Store::default(),
            consul: Consul::new(),
            watches: Vec::new(),
            links: Vec::new(),
            cuts: BTreeSet::new(),
            store_back_at: 0,
            consul_back_at: 0,
            store_slow: (0, 0),
            stop_at_start: None,
            is_healed: false,
            leader: None,
            random: Random(seed),
            // Without a guard only what a user would see counts: that a rule of the inside is broken proves nothing.
            truth: Truth::new(without.is_none()),
            trace: Vec::new(),
            limits: Limits::default(),
            requests: 0,
        };
        world.limits = world.draw_limits();
        world.store.without = without;
        world.store.max_pending_per_job = world.limits.max_pending_per_job;
        for at in 0..nodes {
            let host = world.new_host(at);
            world.hosts.push(host);
            world.at(at as u64 * 37 * MS, Event::Start(at));
            world.at(0, Event::Guard(at));
        }
        world
    }

    /// Small ones now and then, so that they are met; ticks are often cut in parts.
    fn draw_limits(&mut self) -> Limits {
        let part_runs_max = if self.random.chance(70) { 2 } else { Limits::default().part_runs_max };
        let limits = Limits { part_runs_max, ..Limits::default() };
        if self.random.chance(70) {
            return limits;
        }
        Limits { max_running: 4, max_pending: 12, max_pending_per_job: 6, ..limits }
    }

    fn new_host(&mut self, at: usize) -> Host {
        let random = &mut self.random;
        let mut around_zero = |most: u64| random.within(0, 2 * most) as i64 - most as i64;
        Host {
            node: None,
            life: 0,
            starts: 0,
            server: Server(format!("10.0.0.{at}:9991").into()),
            node_id: NodeId(format!("node-{at}").into()),
            marks: BTreeMap::new(),
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

    /// Lets time pass up to `until`, or up to the first promise that is broken.
    pub fn run(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, made), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.steps += 1;
            self.truth.moment = (self.steps, self.now);
            self.store.second = self.second();
            self.happen(event, made);
            self.truth.hear(&mut self.store);
            if self.is_broken() {
                return;
            }
        }
        self.now = self.now.max(until);
    }

    pub fn say(&mut self, text: String) {
        self.trace.push(format!("{:9.3} {text}", self.now as f64 / SECOND as f64));
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].node.is_some()
    }

    pub fn is_broken(&self) -> bool {
        !self.truth.violations.is_empty()
    }

    /// The wall-clock second of a host that is exactly right.
    pub fn second(&self) -> i64 {
        (WALL + self.now as i64) / SECOND as i64
    }

    // What happens.

    pub fn at(&mut self, time: u64, event: Event) {
        self.made += 1;
        self.queue.insert((time.max(self.now), self.made), event);
    }

    pub fn input_later(&mut self, host: usize, life: u64, input: Input) {
        self.at(self.now + MS, Event::Input(host, life, Box::new(input)));
    }

    pub fn frozen_until(&self, host: usize) -> u64 {
        self.hosts[host].paused_until.max(self.hosts[host].daemon_paused_until)
    }

    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    fn happen(&mut self, event: Event, made: u64) {
        // A host that stands still hears of it when it wakes, in the order in which it came.
        let frozen = match &event {
            Event::Wake(host, ..) | Event::Input(host, _, _) => Some(self.frozen_until(*host)),
            Event::Start(host) | Event::Guard(host) => Some(self.hosts[*host].paused_until),
            Event::Lead(host, ..) | Event::Work(host, ..) | Event::Dial(host, ..) => {
                // A statement may be on its way already when its sender is stopped.
                let is_under_way = !matches!(&event, Event::Work(_, _, _, work) if matches!(**work, Work::Spawn(_)));
                (!(is_under_way && self.random.chance(50))).then(|| self.frozen_until(*host))
            }
            _ => None,
        };
        if let Some(until) = frozen.filter(|until| self.now < *until) {
            self.queue.insert((until, made), event);
            return;
        }
        match event {
            Event::Wake(host, life, wake) => {
                if self.hosts[host].wakes == wake {
                    self.input(host, life, Input::Wake);
                }
            }
            Event::Input(host, life, input) => self.input(host, life, *input),
            Event::Lead(host, life, id, lead) => self.do_lead(host, life, id, *lead),
            Event::LateLead(lead, epoch) => self.do_late_lead(&lead, epoch),
            Event::LateLog(log) => drop(self.store.log(&log)),
            Event::Work(host, life, id, work) => self.do_work(host, life, id, *work),
            Event::Dial(host, life, id, server) => self.dial(host, life, id, &server),
            Event::Deliver(link, end) => self.deliver(link, end),
            Event::Close(link, end) => self.close(link, end),
            Event::WatchOver(host, life, id) => self.watch_over(host, life, id),
            Event::ProcessEnd(host, pid, exit) => self.process_end(host, pid, exit),
            Event::Guard(host) => self.guard(host),
            Event::Start(host) => self.start(host),
            Event::Heal(from, to) => {
                self.cuts.remove(&(from, to));
                self.say(format!("healed {from} -> {to}"));
            }
        }
    }

    pub fn clock(&self, host: usize) -> Now {
        let it = &self.hosts[host];
        let drifted = |ppm: i64| (i128::from(self.now) * (MILLION + i128::from(ppm)) / MILLION) as u64;
        let wall = WALL + drifted(it.wall_ppm) as i64 + it.wall_offset;
        Now { mono: Mono(BOOT + drifted(it.mono_ppm)), wall: Wall(wall) }
    }

    /// When the host's monotonic clock will show that.
    fn when(&self, host: usize, mono: Mono) -> u64 {
        let since_boot = i128::from(mono.0.saturating_sub(BOOT));
        let rate = MILLION + i128::from(self.hosts[host].mono_ppm);
        (since_boot * MILLION / rate) as u64 + 1
    }

    fn start(&mut self, host: usize) {
        let now = self.clock(host);
        let without = self.without;
        let is_alone = self.hosts.len() == 1;
        let it = &mut self.hosts[host];
        if it.node.is_some() {
            return;
        }
        it.life += 1;
        it.lead_free_at = 0;
        it.followed = Epoch(0);
        match without {
            Some(Guard::Marks) => it.marks.clear(),
            Some(Guard::MarksOfAllIncarnations) => it.marks.retain(|_, mark| mark.start == it.starts),
            _ => {}
        }
        it.starts += 1;
        let found = it.marks.iter().map(|(attempt, mark)| FoundMark {
            attempt: *attempt,
            version: mark.version,
            is_mutex: mark.is_mutex,
            state: mark.state,
        });
        let setup = Setup {
            server: it.server.clone(),
            node_id: it.node_id.clone(),
            incarnation: Incarnation(now.wall.0 as u64),
            lock_key: "key".into(),
            is_alone,
            zones: wing_crontab::model::Zones::default(),
            limits: self.limits,
            labels: Vec::new(),
            drain_timeout_ms: 2_000,
            log_retention_days: 0,
            found: found.collect(),
            spool_left: SpoolLeft {
                attempts: it.spool.values().flatten().map(|row| row.attempt).collect(),
                chunks: it.spool.keys().map(|at| Chunk { at: *at, bytes: 1 }).collect(),
            },
        };
        it.node = Some(Box::new(Node::new(setup)));
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
        let mut is_over = false;
        while let Some(output) = node.poll_effect() {
            is_over |= self.output(host, life, output);
        }
        if is_over {
            self.say(format!("host {host}: daemon ended"));
            self.end_daemon(host);
            self.kill_processes(host, |_| true);
            let back = self.random.within(200, 5_000) * MS;
            return self.at(self.now + back, Event::Start(host));
        }
        self.hosts[host].wakes += 1;
        // Not the wake of every second: what a part forgets to wait for must show.
        let wake = node.poll_listed();
        if node.stalled() != 0 {
            self.truth.rule(format!("host {host}: a timer was due and nobody acted on it: {:?}", node.poll_effect()));
        }
        let is_forgotten = self.without == Some(Guard::EveryTimerWakes) && self.random.within(0, FORGOTTEN_WAKES) == 0;
        if let Some(wake) = wake.filter(|_| !is_forgotten) {
            self.at(self.when(host, wake), Event::Wake(host, life, self.hosts[host].wakes));
        }
        self.hosts[host].node = Some(node);
    }

    /// True: the daemon ends.
    fn output(&mut self, host: usize, life: u64, output: Effect) -> bool {
        match output {
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
            Effect::Reply(client, reply) => {
                match &reply {
                    Ok(Answer::Job(job)) => self.truth.answered(Job::clone(job), self.now),
                    Ok(Answer::Run(answer)) => {
                        let runs = |host: &Host| host.processes.values().any(|it| it.attempt.run == answer.run_key);
                        let is_running = self.hosts.iter().any(runs);
                        self.truth.controlled(answer.run_key, answer.state, is_running);
                    }
                    Ok(Answer::Cluster(view)) => {
                        self.truth.shown(view, &self.limits);
                        // Whoever was asked may have passed it on.
                        let leader = self.hosts.iter().position(|host| host.server == view.leader).unwrap_or(host);
                        view.nodes.iter().for_each(|node| self.check_clock(leader, node));
                    }
                    _ => {}
                }
                self.truth.replied(client, reply.is_ok());
                let reply = reply.map(|_| "ok").map_err(|refusal| refusal.message);
                self.say(format!("host {host}: answer to {client:?}: {reply:?}"));
            }
            Effect::Mark(op) => self.mark(host, op),
            Effect::Notice(notice) => {
                if let Some(id) = unstored_stop(&notice.text) {
                    self.truth.unstored(id, self.second());
                }
                if let Some((server, _)) = notice.text.strip_prefix("the clock of ").and_then(|of| of.split_once(' ')) {
                    self.check_warning(host, server);
                }
                self.say(format!("host {host}: {}", notice.text));
            }
            Effect::Link(id, server) => self.at(self.now + MS, Event::Dial(host, life, id, server)),
            Effect::Send(id, message) => self.send(host, life, id, message),
            Effect::Unlink(id) => self.unlink(host, life, id),
            // Nobody reads output in this world.
            Effect::Ended { .. } | Effect::ReadOutput { .. } => {}
            Effect::Exit(_) => return true,
        }
        false
    }

    /// How far the clock of the host with this name is off from that of another, unless one of them was stepped lately.
    fn clock_offset_ms(&self, from: usize, server: &str) -> Option<(usize, i64)> {
        let of = self.hosts.iter().position(|host| *host.server.0 == *server)?;
        let is_steady = |host: usize| self.hosts[host].stepped_at + CLOCK_KNOWN < self.now;
        let offset_ms = (self.clock(of).wall.0 - self.clock(from).wall.0) / MS as i64;
        (is_steady(from) && is_steady(of)).then_some((of, offset_ms))
    }

    /// What a leader shows of a node's clock.
    fn check_clock(&mut self, leader: usize, node: &NodeView) {
        let is_fresh = node.last_contact_ms < 1_000 && node.state == NodeState::Alive && node.role == Role::Follower;
        let Some((of, offset_ms)) = self.clock_offset_ms(leader, &node.server.0).filter(|_| is_fresh) else { return };
        let shown_ms = node.clock_offset_ms;
        if self.hosts[of].followed_at + SECOND < self.now && CLOCK_WRONG_MS < (shown_ms - offset_ms).abs() {
            self.truth.rule(format!("the clock of host {of} is {offset_ms} ms off, and {shown_ms} ms are shown"));
        }
    }

    /// A leader warns of a clock.
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
        }
    }

    pub fn max_running(&self) -> usize {
        self.limits.max_running
    }
}

/// The job whose stop a leader says to be in force and not stored.
fn unstored_stop(text: &str) -> Option<JobId> {
    let (id, rest) = text.strip_prefix("job ")?.split_once(" is stopped, ")?;
    rest.contains("in force, and stored when").then(|| id.parse().ok().map(JobId))?
}
