//! What the tests do to the world: calls of users, and faults, each for some time.

use crate::guard::Guard;
use crate::world::{Event, MS, SECOND, World};
use wing_crontab::core::io::{FoundState, Input, Signal};
use wing_crontab::model::Mono;
use wing_crontab::model::command::{Command, RequestId};

impl World {
    pub fn command(&mut self, host: usize, command: Command) -> RequestId {
        self.requests += 1;
        let client = RequestId(self.requests);
        self.say(format!("host {host}: {command:?}"));
        if self.without == Some(Guard::TicksBeforeChanges) {
            self.store.change_early(&command);
        }
        let command = Input::Command(client, command);
        self.at(self.now, Event::Input(host, self.hosts[host].life, Box::new(command)));
        client
    }

    /// Asks the leader for the state of its nodes.
    pub fn look(&mut self) {
        if let Some(leader) = self.leader.filter(|leader| self.is_up(*leader) && self.frozen_until(*leader) <= self.now)
        {
            self.requests += 1;
            let show = Input::Command(RequestId(self.requests), Command::ShowCluster);
            self.input(leader, self.hosts[leader].life, show);
        }
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

    /// Kills the whole host for a while; after a reboot its marks are void.
    pub fn kill_host(&mut self, host: usize, down: u64, is_reboot: bool) {
        if self.hosts[host].node.is_some() {
            self.say(format!("host {host}: gone for {} ms, reboot {is_reboot}", down / MS));
            self.end_daemon(host);
            self.kill_processes(host, |_| true);
            if is_reboot {
                // With a power loss some marks may not have reached the disk; the new boot id says so.
                let state = if self.without == Some(Guard::BootId) { FoundState::Held } else { FoundState::Unknown };
                self.hosts[host].lease = Mono(0);
                self.hosts[host].marks.values_mut().for_each(|mark| mark.state = state);
                let random = &mut self.random;
                self.hosts[host].marks.retain(|_, _| !random.chance(30));
                self.hosts[host].is_rebooted = true;
            }
            self.at(self.now + down, Event::Start(host));
        }
    }

    /// SIGTERM; when the daemon has ended it is started again.
    pub fn stop_cleanly(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            self.say(format!("host {host}: told to end"));
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

    pub fn stop_at_start(&mut self, time: u64, with_guardian: bool) {
        self.stop_at_start = Some((time, with_guardian));
    }

    pub fn cut(&mut self, from: usize, to: usize, time: u64) {
        self.say(format!("cut {from} -> {to} for {} ms", time / MS));
        self.cuts.insert((from, to));
        self.at(self.now + time, Event::Heal(from, to));
    }

    pub fn store_away(&mut self, time: u64) {
        self.say(format!("the store is away for {} ms", time / MS));
        self.store_back_at = self.now + time;
    }

    pub fn slow_store(&mut self, latency_ms: u64, time: u64) {
        self.say(format!("the store takes up to {latency_ms} ms for {} ms", time / MS));
        self.store_slow = (self.now + time, latency_ms * MS);
    }

    pub fn consul_away(&mut self, time: u64) {
        self.say(format!("Consul is away for {} ms and forgets all", time / MS));
        self.consul_back_at = self.now + time;
        self.consul.restart(self.now);
    }

    pub fn step_clock(&mut self, host: usize, step_ms: i64) {
        self.say(format!("host {host}: clock stepped by {step_ms} ms"));
        self.hosts[host].wall_offset += step_ms * MS as i64;
        self.hosts[host].stepped_at = self.now;
    }

    /// For a while the host asks a Consul server that lags: it reads the state of the moment `as_of`.
    pub fn read_old_news(&mut self, host: usize, as_of: u64, time: u64) {
        self.say(format!("host {host}: reads Consul as of {:.3} for {} ms", as_of as f64 / SECOND as f64, time / MS));
        self.hosts[host].old_news = Some((as_of, self.now + time));
        self.tell_watches(|watching| watching.host == host);
    }

    /// Ends every fault. A fault that lasts for some time was drawn so that it is over by now.
    pub fn heal(&mut self) {
        self.say("nothing goes wrong any more".into());
        self.store_slow = (0, 0);
        self.stop_at_start = None;
        self.is_healed = true;
        for host in &mut self.hosts {
            host.wall_offset = host.wall_offset.clamp(-(50 * MS as i64), 50 * MS as i64);
            host.stepped_at = self.now;
        }
    }
}
