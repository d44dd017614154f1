//! Hosts with nodes, processes, marks and guardians; a network; one virtual clock; all from one seed.
//!
//! Invariant: one seed gives one history: whatever is drawn is drawn from `random`, and events of one moment come in the
//! order in which they were made.

use crate::consul::Consul;
use crate::random::Random;
use crate::store::Store;
use crate::truth::Truth;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wing_crontab::core::node::Setup;
use wing_crontab::core::work::{ConsulError, Done, KillHow, Lead, SpawnError, Started, StoreError, Work, WorkId};
use wing_crontab::core::{FoundMark, FoundState, Gone, Input, MarkOp, Node, Output, Signal};
use wing_crontab::model::command::{Answer, Command, RequestId};
use wing_crontab::model::config::Limits;
use wing_crontab::model::message::{LinkId, Message};
use wing_crontab::model::{Attempt, Exit, Incarnation, Job, Mono, NodeId, Now, Server, Version, Wall};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// The wall clock at virtual zero.
const WALL: i64 = 1_700_000_000 * SECOND as i64;
/// The monotonic clock at virtual zero: hosts were booted long ago.
const BOOT: u64 = 1_000 * SECOND;
/// How often a guardian looks at the lease.
const GUARD_EVERY: u64 = 100 * MS;

/// A guard that keeps the promises. Taken out, some history must break one: otherwise the simulator could not tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The store refuses statements of an older epoch.
    EpochInTheStore,
    /// The lease is looked at right before a process is started.
    LeaseAtTheStart,
    /// At the lease's end the guardian ends mutex runs.
    GuardiansDeadline,
    /// What a daemon had begun is known to the next one.
    Marks,
    /// After a reboot nobody can say what had begun.
    BootId,
    /// Before a run is given again its log row is looked for.
    LogRowReadAgain,
}

impl Guard {
    pub const ALL: [Guard; 6] = [
        Guard::EpochInTheStore,
        Guard::LeaseAtTheStart,
        Guard::GuardiansDeadline,
        Guard::Marks,
        Guard::BootId,
        Guard::LogRowReadAgain,
    ];
}

pub struct World {
    pub without: Option<Guard>,
    pub now: u64,
    made: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub hosts: Vec<Host>,
    pub store: Store,
    pub consul: Consul,
    watches: Vec<(usize, u64, WorkId, u64)>,
    links: Vec<Link>,
    /// Who cannot speak to whom, in this direction. The store and Consul come behind the hosts.
    cuts: BTreeSet<(usize, usize)>,
    /// Until when the store answers nobody, and Consul.
    pub store_back_at: u64,
    pub consul_back_at: u64,
    pub random: Random,
    pub truth: Truth,
    pub trace: Vec<String>,
    requests: u64,
}

pub struct Host {
    node: Option<Node>,
    life: u64,
    server: Server,
    node_id: NodeId,
    marks: BTreeMap<Attempt, Mark>,
    lease: Mono,
    /// Ends by itself at each clean stop.
    is_wanted: bool,
    pub wall_offset: i64,
    /// Daemon and guardian stand still until then; or the daemon alone.
    pub paused_until: u64,
    pub daemon_paused_until: u64,
    processes: BTreeMap<u64, Process>,
    pids: u64,
    lead_free_at: u64,
    wakes: u64,
}

#[derive(Clone, Copy)]
struct Mark {
    version: Version,
    is_mutex: bool,
    state: FoundState,
}

#[derive(Clone, Copy)]
struct Process {
    attempt: Attempt,
    is_mutex: bool,
    life: u64,
}

/// Two ends, each a host, its life, and its name for the link.
struct Link {
    ends: [(usize, u64, LinkId); 2],
    is_up: bool,
    /// The time of the last delivery to each end.
    last: [u64; 2],
    /// What is on its way to each end, in order.
    under_way: [VecDeque<Message>; 2],
}

enum Event {
    /// Of a life; only the one that was asked for last counts.
    Wake(usize, u64, u64),
    Input(usize, u64, Box<Input>),
    Lead(usize, u64, WorkId, Box<Lead>),
    Work(usize, u64, WorkId, Box<Work>),
    Dial(usize, u64, LinkId, Server),
    /// The first of what is under way to that end of the link.
    Deliver(usize, usize),
    Close(usize, usize),
    WatchOver(usize, u64, WorkId),
    ProcessEnd(usize, u64),
    Guard(usize),
    Start(usize),
    Heal(usize, usize),
}

impl World {
    pub fn new(seed: u64, nodes: usize) -> World {
        let mut world = World {
            without: None,
            now: 0,
            made: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            store: Store::default(),
            consul: Consul::new(),
            watches: Vec::new(),
            links: Vec::new(),
            cuts: BTreeSet::new(),
            store_back_at: 0,
            consul_back_at: 0,
            random: Random(seed),
            truth: Truth::default(),
            trace: Vec::new(),
            requests: 0,
        };
        for at in 0..nodes {
            world.hosts.push(Host {
                node: None,
                life: 0,
                server: Server(format!("10.0.0.{at}:9991").into()),
                node_id: NodeId(format!("node-{at}").into()),
                marks: BTreeMap::new(),
                lease: Mono(0),
                is_wanted: true,
                wall_offset: world.random.within(0, 100 * MS) as i64 - 50 * MS as i64,
                paused_until: 0,
                daemon_paused_until: 0,
                processes: BTreeMap::new(),
                pids: 0,
                lead_free_at: 0,
                wakes: 0,
            });
            world.at(at as u64 * 37 * MS, Event::Start(at));
            world.at(0, Event::Guard(at));
        }
        world
    }

    /// Lets time pass up to `until`.
    pub fn run(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = until;
    }

    pub fn say(&mut self, text: String) {
        self.trace.push(format!("{:9.3} {text}", self.now as f64 / SECOND as f64));
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].node.is_some()
    }

    /// The wall-clock second of a host that is exactly right.
    pub fn second(&self) -> i64 {
        (WALL + self.now as i64) / SECOND as i64
    }

    // What is done to the world.

    pub fn command(&mut self, host: usize, command: Command) -> RequestId {
        self.requests += 1;
        let client = RequestId(self.requests);
        self.say(format!("host {host}: {command:?}"));
        self.input(host, self.hosts[host].life, Input::Command(client, command));
        client
    }

    /// kill -9 of the daemon: its guardian ends the runs and starts another.
    pub fn kill_daemon(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            self.say(format!("host {host}: daemon killed"));
            self.end_daemon(host);
            self.kill_processes(host, |_| true);
            let back_ms = self.random.within(40, 400);
            let at = (self.now + back_ms * MS).max(self.hosts[host].paused_until);
            self.at(at, Event::Start(host));
        }
    }

    /// The whole host is gone, and comes back; with another boot the marks are void.
    pub fn kill_host(&mut self, host: usize, down: u64, is_reboot: bool) {
        if self.hosts[host].node.is_some() {
            self.say(format!("host {host}: gone for {} ms, reboot {is_reboot}", down / MS));
            self.end_daemon(host);
            self.kill_processes(host, |_| true);
            if is_reboot {
                // Power loss: the latest marks may not have reached the disk, and the boot id says so.
                let state = if self.without == Some(Guard::BootId) { FoundState::Held } else { FoundState::Unknown };
                self.hosts[host].lease = Mono(0);
                self.hosts[host].marks.values_mut().for_each(|mark| mark.state = state);
            }
            self.at(self.now + down, Event::Start(host));
        }
    }

    /// SIGTERM, and a start after it has ended.
    pub fn stop_cleanly(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            self.say(format!("host {host}: told to leave"));
            self.hosts[host].is_wanted = false;
            self.input(host, self.hosts[host].life, Input::Signal(Signal::Drain));
        }
    }

    pub fn pause(&mut self, host: usize, time: u64, with_guardian: bool) {
        self.say(format!("host {host}: paused for {} ms, guardian too: {with_guardian}", time / MS));
        let until = self.now + time;
        let host = &mut self.hosts[host];
        if with_guardian {
            host.paused_until = host.paused_until.max(until);
        } else {
            host.daemon_paused_until = host.daemon_paused_until.max(until);
        }
    }

    pub fn cut(&mut self, from: usize, to: usize, time: u64) {
        self.say(format!("cut {from} -> {to} for {} ms", time / MS));
        self.cuts.insert((from, to));
        self.at(self.now + time, Event::Heal(from, to));
    }

    // What happens.

    fn at(&mut self, time: u64, event: Event) {
        self.made += 1;
        self.queue.insert((time.max(self.now), self.made), event);
    }

    fn frozen_until(&self, host: usize) -> u64 {
        self.hosts[host].paused_until.max(self.hosts[host].daemon_paused_until)
    }

    fn happen(&mut self, event: Event) {
        // A host that stands still hears of it when it wakes.
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
            return self.at(until, event);
        }
        match event {
            Event::Wake(host, life, wake) => {
                if self.hosts[host].wakes == wake {
                    self.input(host, life, Input::Wake);
                }
            }
            Event::Input(host, life, input) => self.input(host, life, *input),
            Event::Lead(host, life, id, lead) => self.do_lead(host, life, id, &lead),
            Event::Work(host, life, id, work) => self.do_work(host, life, id, *work),
            Event::Dial(host, life, id, server) => self.dial(host, life, id, &server),
            Event::Deliver(link, end) => self.deliver(link, end),
            Event::Close(link, end) => self.close(link, end),
            Event::WatchOver(host, life, id) => self.watch_over(host, life, id),
            Event::ProcessEnd(host, pid) => self.process_end(host, pid, Exit::Code(0)),
            Event::Guard(host) => self.guard(host),
            Event::Start(host) => self.start(host),
            Event::Heal(from, to) => {
                self.cuts.remove(&(from, to));
                self.say(format!("healed {from} -> {to}"));
            }
        }
    }

    fn clock(&self, host: usize) -> Now {
        let wall = WALL + self.now as i64 + self.hosts[host].wall_offset;
        Now { mono: Mono(BOOT + self.now), wall: Wall(wall) }
    }

    fn start(&mut self, host: usize) {
        let now = self.clock(host);
        let it = &mut self.hosts[host];
        if it.node.is_some() {
            return;
        }
        it.life += 1;
        it.is_wanted = true;
        it.lead_free_at = 0;
        if self.without == Some(Guard::Marks) {
            it.marks.clear();
        }
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
            is_alone: false,
            zone: jiff::tz::TimeZone::UTC,
            limits: Limits::default(),
            labels: Vec::new(),
            drain_timeout_ms: 2_000,
            log_retention_days: 0,
            found: found.collect(),
        };
        it.node = Some(Node::new(setup));
        let life = it.life;
        self.say(format!("host {host}: daemon started, life {life}"));
        self.input(host, life, Input::Wake);
    }

    fn input(&mut self, host: usize, life: u64, input: Input) {
        let now = self.clock(host);
        if self.hosts[host].life != life {
            return;
        }
        let Some(mut node) = self.hosts[host].node.take() else { return };
        node.handle(input, now);
        let mut is_over = false;
        while let Some(output) = node.poll_output() {
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
        if let Some(at) = node.poll_timeout(now) {
            self.at(at.0.saturating_sub(BOOT), Event::Wake(host, life, self.hosts[host].wakes));
        }
        self.hosts[host].node = Some(node);
    }

    /// True: the daemon ends.
    fn output(&mut self, host: usize, life: u64, output: Output) -> bool {
        match output {
            Output::Work(id, Work::Lead(lead)) => {
                let at = self.hosts[host].lead_free_at.max(self.now) + self.random.within(MS / 2, 6 * MS);
                self.hosts[host].lead_free_at = at;
                self.at(at, Event::Lead(host, life, id, Box::new(lead)));
            }
            Output::Work(id, work) => {
                let at = self.now + self.random.within(MS / 5, 4 * MS);
                self.at(at, Event::Work(host, life, id, Box::new(work)));
            }
            Output::Reply(client, reply) => {
                if let Ok(Answer::Job(job)) = &reply {
                    self.truth.answered(client, Job::clone(job), self.now);
                }
                self.say(format!(
                    "host {host}: answer to {client:?}: {:?}",
                    reply.map(|_| "ok").map_err(|refusal| refusal.message)
                ));
            }
            Output::Mark(op) => self.mark(host, op),
            Output::Notice(notice) => self.say(format!("host {host}: {}", notice.text)),
            Output::Link(id, server) => {
                self.at(self.now + MS, Event::Dial(host, life, id, server));
            }
            Output::Send(id, message) => self.send(host, life, id, message),
            Output::Unlink(id) => self.unlink(host, life, id),
            // Nobody reads output in this world.
            Output::Ended { .. } | Output::ReadOutput { .. } => {}
            Output::Exit(_) => return true,
        }
        false
    }

    fn mark(&mut self, host: usize, op: MarkOp) {
        let host = &mut self.hosts[host];
        match op {
            MarkOp::Hold { attempt, version, is_mutex } => {
                host.marks.insert(attempt, Mark { version, is_mutex, state: FoundState::Held });
            }
            MarkOp::Ended { attempt, exit } => {
                host.marks.entry(attempt).and_modify(|mark| mark.state = FoundState::Ended(exit));
            }
            MarkOp::Clear { attempt } => drop(host.marks.remove(&attempt)),
            MarkOp::Lease { until } => host.lease = until,
        }
    }

    // Store and Consul.

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    fn do_lead(&mut self, host: usize, life: u64, id: WorkId, lead: &Lead) {
        let store = self.hosts.len();
        let is_away = self.now < self.store_back_at || !self.reaches(host, store);
        let is_answer_lost = !self.reaches(store, host) || self.random.within(0, 150) == 0;
        let done = if is_away {
            Store::failed(lead, StoreError::Away("the store is away".into()))
        } else {
            self.store.is_fenced = self.without != Some(Guard::EpochInTheStore);
            let done = match (self.store.lead(lead), self.without) {
                (Done::Found(Ok(_)), Some(Guard::LogRowReadAgain)) => Done::Found(Ok(BTreeMap::new())),
                (done, _) => done,
            };
            match is_answer_lost {
                true => Store::failed(lead, StoreError::Unavailable("no answer".into())),
                false => done,
            }
        };
        let wait = if is_away || is_answer_lost { self.random.within(1, 3_000) * MS } else { MS };
        self.hosts[host].lead_free_at = self.hosts[host].lead_free_at.max(self.now + wait);
        self.at(self.now + wait, Event::Input(host, life, Box::new(Input::Done(id, done))));
    }

    fn do_work(&mut self, host: usize, life: u64, id: WorkId, work: Work) {
        let (store, consul) = (self.hosts.len(), self.hosts.len() + 1);
        let is_store_away = self.now < self.store_back_at || !self.reaches(host, store) || !self.reaches(store, host);
        let is_consul_away =
            self.now < self.consul_back_at || !self.reaches(host, consul) || !self.reaches(consul, host);
        let done = match work {
            Work::Lead(_) => return,
            Work::Log(_) if is_store_away => Done::LogsWritten(Err(StoreError::Away("the store is away".into()))),
            Work::Log(log) => self.store.log(&log),
            Work::Read(read) if is_store_away => Store::unread(&read),
            Work::Read(read) => self.store.read(&read),
            Work::Consul(_) if is_consul_away => Done::Consul(Err(ConsulError::Unavailable("away".into()))),
            Work::Consul(ask) => {
                let (answer, changed) = self.consul.ask(host, &ask, self.now);
                if changed {
                    self.wake_watches();
                }
                Done::Consul(answer)
            }
            Work::Watch { .. } if is_consul_away => Done::Watched(Err(ConsulError::Unavailable("away".into()))),
            Work::Watch { index, wait_ms } => {
                if self.consul.expire(self.now) {
                    self.wake_watches();
                }
                if index == self.consul.lock.index {
                    self.watches.push((host, life, id, index));
                    return self.at(self.now + wait_ms * MS, Event::WatchOver(host, life, id));
                }
                Done::Watched(Ok(self.consul.lock.clone()))
            }
            Work::Spawn(spawn) => return self.spawn(host, life, id, spawn.attempt, &spawn.job),
            Work::Kill(kill) => {
                let is_it = |process: &Process| process.attempt == kill.attempt;
                // In this world a process that is asked to end does so at once.
                if kill.how == KillHow::Ask || kill.how == KillHow::Force {
                    self.kill_processes(host, is_it);
                }
                Done::Killed
            }
        };
        self.at(self.now + MS, Event::Input(host, life, Box::new(Input::Done(id, done))));
    }

    fn wake_watches(&mut self) {
        for (host, life, id, _) in std::mem::take(&mut self.watches) {
            let done = Done::Watched(Ok(self.consul.lock.clone()));
            self.at(self.now + 2 * MS, Event::Input(host, life, Box::new(Input::Done(id, done))));
        }
    }

    fn watch_over(&mut self, host: usize, life: u64, id: WorkId) {
        let Some(at) = self.watches.iter().position(|watch| (watch.0, watch.1, watch.2) == (host, life, id)) else {
            return;
        };
        self.watches.remove(at);
        if self.consul.expire(self.now) {
            self.wake_watches();
        }
        let consul = self.hosts.len() + 1;
        let is_away = self.now < self.consul_back_at || !self.reaches(host, consul) || !self.reaches(consul, host);
        let state = if is_away { Err(ConsulError::Unavailable("away".into())) } else { Ok(self.consul.lock.clone()) };
        self.input_later(host, life, Input::Done(id, Done::Watched(state)));
    }

    fn input_later(&mut self, host: usize, life: u64, input: Input) {
        self.at(self.now + MS, Event::Input(host, life, Box::new(input)));
    }

    // Processes.

    fn spawn(&mut self, host: usize, life: u64, id: WorkId, attempt: Attempt, job: &Job) {
        let mono = self.clock(host).mono;
        let wall = self.clock(host).wall;
        let duration = self.truth.duration(job);
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
        self.say(format!("host {host}: start {attempt} version {}", job.version.0));
        let wakes: Vec<u64> = self.hosts.iter().map(|host| host.paused_until + 2 * GUARD_EVERY).collect();
        let now = self.now;
        self.truth.started(attempt, job, host, now, |there| now < wakes[there]);
        self.at(self.now + duration, Event::ProcessEnd(host, pid));
        let started = Started { pid: pid as u32, at: wall };
        self.input_later(host, life, Input::Done(id, Done::Spawned(Ok(started))));
    }

    fn process_end(&mut self, host: usize, pid: u64, exit: Exit) {
        let Some(process) = self.hosts[host].processes.remove(&pid) else { return };
        self.truth.ended(process.attempt, host, self.now, exit == Exit::Code(0));
        let input = Input::Exited { attempt: process.attempt, exit, output: String::new() };
        self.input_later(host, process.life, input);
    }

    fn kill_processes(&mut self, host: usize, is_wanted: impl Fn(&Process) -> bool) {
        let wanted = self.hosts[host].processes.iter().filter(|(_, process)| is_wanted(process));
        let pids: Vec<u64> = wanted.map(|(pid, _)| *pid).collect();
        pids.into_iter().for_each(|pid| self.process_end(host, pid, Exit::Signal(9)));
    }

    /// The guardian: at the lease's end it ends mutex runs, whatever the daemon does.
    fn guard(&mut self, host: usize) {
        if self.hosts[host].lease <= self.clock(host).mono && self.without != Some(Guard::GuardiansDeadline) {
            self.kill_processes(host, |process| process.is_mutex);
        }
        self.at(self.now + GUARD_EVERY, Event::Guard(host));
    }

    fn end_daemon(&mut self, host: usize) {
        self.hosts[host].node = None;
        self.hosts[host].life += 1;
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].is_up && self.links[link].ends[end].0 == host {
                    self.at(self.now + MS, Event::Close(link, 1 - end));
                }
            }
        }
    }

    // The network.

    fn dial(&mut self, host: usize, life: u64, id: LinkId, server: &Server) {
        let Some(to) = self.hosts.iter().position(|other| other.server == *server) else { return };
        if !self.reaches(host, to) || !self.reaches(to, host) || self.now < self.frozen_until(to) {
            return;
        }
        if self.hosts[to].node.is_none() {
            return self.input_later(host, life, Input::Unlinked(id, Gone::NobodyThere));
        }
        let link = self.links.len();
        let other = (to, self.hosts[to].life, LinkId::In(link as u64));
        self.links.push(Link {
            ends: [(host, life, id), other],
            is_up: true,
            last: [self.now; 2],
            under_way: Default::default(),
        });
        for (host, life, id) in self.links[link].ends {
            self.input_later(host, life, Input::Linked(id));
        }
    }

    fn send(&mut self, host: usize, life: u64, id: LinkId, message: Message) {
        let has = |link: &Link| link.is_up && link.ends.iter().position(|end| *end == (host, life, id)).is_some();
        let Some(link) = self.links.iter().rposition(has) else { return };
        let end = usize::from(self.links[link].ends[0] == (host, life, id));
        let latency = self.random.within(MS / 10, 3 * MS);
        let at = (self.now + latency).max(self.links[link].last[end] + 1);
        self.links[link].last[end] = at;
        self.links[link].under_way[end].push_back(message);
        self.at(at, Event::Deliver(link, end));
    }

    /// To the end of the link with this number. While the way is cut the bytes wait, as TCP has it.
    fn deliver(&mut self, link: usize, end: usize) {
        let (to, life, id) = self.links[link].ends[end];
        let (from, _, _) = self.links[link].ends[1 - end];
        if !self.links[link].is_up {
            return;
        }
        if !self.reaches(from, to) || self.now < self.frozen_until(to) {
            let at = self.now + 50 * MS;
            return self.at(at, Event::Deliver(link, end));
        }
        if let Some(message) = self.links[link].under_way[end].pop_front() {
            self.input(to, life, Input::Received(id, message));
        }
    }

    fn unlink(&mut self, host: usize, life: u64, id: LinkId) {
        let has = |link: &Link| link.is_up && link.ends.contains(&(host, life, id));
        let Some(link) = self.links.iter().rposition(has) else { return };
        let end = usize::from(self.links[link].ends[0] == (host, life, id));
        // What was sent before arrives before.
        let at = self.now.max(self.links[link].last[end]) + MS;
        self.links[link].ends[1 - end].2 = LinkId::In(u64::MAX);
        self.at(at, Event::Close(link, end));
    }

    fn close(&mut self, link: usize, end: usize) {
        let (to, life, id) = self.links[link].ends[end];
        let (from, _, _) = self.links[link].ends[1 - end];
        let is_first = self.links[link].under_way[end].is_empty();
        if !is_first || !self.reaches(from, to) || self.now < self.frozen_until(to) {
            let at = self.now + 50 * MS;
            return self.at(at, Event::Close(link, end));
        }
        if std::mem::replace(&mut self.links[link].is_up, false) {
            self.input(to, life, Input::Unlinked(id, Gone::Lost));
        }
    }
}
