//! Hosts, a network, a store and Consul under virtual time, all from one seed.
//!
//! This file has the parts of the world, its time and its queue of events. `host` has the hosts and their daemons,
//! `deeds` the calls and faults of a test, `hands` the work of the daemons, and `network` the messages between them.
//!
//! Invariant: one seed gives one history. Every random number comes from `random`, and events of one moment happen in
//! the order in which they were made.

use crate::consul::Consul;
use crate::guard::Guard;
use crate::host::Host;
use crate::network::Link;
use crate::random::Random;
use crate::store::Store;
use crate::truth::Truth;
use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::io::Input;
use wing_crontab::core::io::ports::{Lead, Log, Work, WorkId};
use wing_crontab::model::config::Limits;
use wing_crontab::model::message::LinkId;
use wing_crontab::model::{Exit, Server};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// What a wall clock shows at virtual time zero.
pub const WALL: i64 = 1_700_000_000 * SECOND as i64;
/// How often a guardian looks at the lease.
pub const GUARD_EVERY: u64 = 100 * MS;

pub struct World {
    pub without: Option<Guard>,
    pub now: u64,
    made: u64,
    pub steps: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub hosts: Vec<Host>,
    pub store: Store,
    pub consul: Consul,
    pub watches: Vec<Watching>,
    pub links: Vec<Link>,
    /// Cut ways, as (from, to): the first cannot send to the second. After the numbers of the hosts come those of the
    /// store and of Consul.
    pub cuts: BTreeSet<(usize, usize)>,
    /// The store answers nobody before this time.
    pub store_back_at: u64,
    /// Consul answers nobody before this time.
    pub consul_back_at: u64,
    /// Until when the store is slow, and the longest time of a statement during that.
    pub store_slow: (u64, u64),
    /// The next host that is about to start a mutex run is stopped: for how long, and whether its guardian is stopped as
    /// well.
    pub stop_at_start: Option<(u64, bool)>,
    /// Whether all faults are over.
    pub is_healed: bool,
    /// The host that was the last to bump the epoch.
    pub leader: Option<usize>,
    pub random: Random,
    pub truth: Truth,
    pub trace: Vec<String>,
    pub limits: Limits,
    pub requests: u64,
}

/// A host waits for the lock to change.
#[derive(Clone, Copy)]
pub struct Watching {
    pub host: usize,
    pub life: u64,
    pub id: WorkId,
}

pub enum Event {
    /// A timer of this life. Only the wake that the node asked for last counts.
    Wake(usize, u64, u64),
    Input(usize, u64, Box<Input>),
    Lead(usize, u64, WorkId, Box<Lead>),
    /// A statement that is carried out when its caller has long given up; a bump only if the epoch is still the same.
    LateLead(Box<Lead>, u64),
    LateLog(Box<Log>),
    Work(usize, u64, WorkId, Box<Work>),
    Dial(usize, u64, LinkId, Server),
    /// The first message that is under way to this end of the link.
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
            // Without a guard only promises to users count: a broken inner rule would not prove that users need the
            // guard.
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

    /// Now and then the limits are small, so that they are reached. Ticks are often cut in parts.
    fn draw_limits(&mut self) -> Limits {
        let part_runs_max = if self.random.chance(70) { 2 } else { Limits::default().part_runs_max };
        let limits = Limits { part_runs_max, ..Limits::default() };
        if self.random.chance(70) {
            return limits;
        }
        Limits { max_running: 4, max_pending: 12, max_pending_per_job: 6, ..limits }
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

    pub fn is_broken(&self) -> bool {
        !self.truth.violations.is_empty()
    }

    /// The second that a clock without error shows.
    pub fn second(&self) -> i64 {
        (WALL + self.now as i64) / SECOND as i64
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.made += 1;
        self.queue.insert((time.max(self.now), self.made), event);
    }

    pub fn input_later(&mut self, host: usize, life: u64, input: Input) {
        self.at(self.now + MS, Event::Input(host, life, Box::new(input)));
    }

    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    fn happen(&mut self, event: Event, made: u64) {
        // A host that stands still gets its events when it wakes, in their order.
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
}
