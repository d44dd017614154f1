//! The running processes: a pidfd tells when each one ends, and a pipe has its output.
//!
//! A run is over when its main process has ended, even where its pipe is still open: a process that the run left behind
//! on purpose may hold the pipe open for ever. The pipe is read for a moment longer, and these bytes belong to the run.
//! After that the pipe is only drained, so that the remaining process can go on writing; these bytes are dropped.
//!
//! A run that was asked to end (TERM) is over when its whole process group has ended, and its control group is empty. So
//! the processes that a shell had started get the time until KILL as well.
//!
//! What the processes took is read from the control group once the run is over; then the group goes.
//!
//! Where bytes have to go to a file and the disk is too slow, the pipe is not read for the moment: the command waits,
//! as for any slow reader.
//!
//! Not here: the use of the bytes; see `core::log::output`.
//!
//! Invariant: each process that was added comes out of `take_ended` once, reaped.

use super::source::Source;
use crate::core::io::Ended;
use crate::core::io::ports::output_files::FileAnswer;
use crate::core::io::ports::{Kill, KillHow};
use crate::core::log::output::retention::Outputs;
use crate::core::time::bounds::FILE_WAIT_MS;
use crate::model::{Attempt, Exit, Mono, Usage};
use crate::worker::pool::CgroupOrder;
use crate::worker::process::cgroups::Cgroups;
use crate::worker::process::{Running, kill};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// How long an open pipe is read after its process has ended; and how often a process group that was asked to end is
/// looked at.
const AFTER_EXIT_MS: u64 = 50;
/// The most bytes that are read from one run in one turn of the loop, so that a flood of output does not delay other
/// runs.
const TURN_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;

/// How many pipes are drained for processes left behind; beyond it the oldest is closed.
const LEFTOVERS_MAX: usize = 1_024;

pub struct Children {
    pub outputs: Outputs,
    /// None: runs have no control groups.
    cgroups: Option<Arc<Cgroups>>,
    next_serial: usize,
    children: BTreeMap<usize, Child>,
    unfinished: BTreeSet<usize>,
    /// Children whose next bytes, or whose end, must wait until their earlier bytes are in a file.
    waiting: BTreeSet<usize>,
    /// Children whose process is over, and until when their open pipe is read.
    lingering: BTreeMap<usize, Mono>,
    ended: BTreeSet<usize>,
    /// Control groups of runs that are over, for the worker.
    cgroup_orders: Vec<CgroupOrder>,
    /// The pipes of runs that are over, held open by processes left behind.
    leftovers: BTreeMap<usize, OwnedFd>,
    buffer: Vec<u8>,
}

struct Child {
    attempt: Attempt,
    running: Running,
    exit: Option<Exit>,
    /// What the main process took with those that it waited for; then what all did.
    usage: Usage,
    is_eof: bool,
    /// It got a signal that asks it to end and leaves it time.
    is_asked: bool,
}

impl Child {
    fn is_over(&self, cgroups: Option<&Cgroups>) -> bool {
        let is_populated =
            || cgroups.zip(self.running.cgroup.as_ref()).is_some_and(|(cgroups, name)| cgroups.is_populated(name));
        self.exit.is_some() && !(self.is_asked && (kill::has_group(self.running.started.pid) || is_populated()))
    }
}

impl Children {
    pub fn new(outputs: Outputs, cgroups: Option<Arc<Cgroups>>) -> Children {
        Children {
            outputs,
            cgroups,
            next_serial: 0,
            children: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            waiting: BTreeSet::new(),
            lingering: BTreeMap::new(),
            ended: BTreeSet::new(),
            cgroup_orders: Vec::new(),
            leftovers: BTreeMap::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    pub fn add(&mut self, attempt: Attempt, running: Running, registry: &Registry) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let sources = [
            (running.pidfd.as_raw_fd(), Source::ChildExit(serial)),
            (running.output.as_raw_fd(), Source::ChildOutput(serial)),
        ];
        for (fd, source) in sources {
            // This fails only where the kernel has no memory; then the child counts as unfinished, and every turn looks
            // at it.
            if let Err(error) = registry.register(&mut SourceFd(&fd), source.token(), Interest::READABLE) {
                log::error!("watch attempt={attempt}: {error}; it is looked at all the time instead");
                self.unfinished.insert(serial);
            }
        }
        self.outputs.begin(attempt);
        let usage = Usage::default();
        self.children.insert(serial, Child { attempt, running, exit: None, usage, is_eof: false, is_asked: false });
    }

    /// The attempt is being ended in this way.
    pub fn on_kill(&mut self, kill: Kill) {
        if let Some(child) = self.children.values_mut().find(|child| child.attempt == kill.attempt) {
            child.is_asked = kill.how == KillHow::Ask;
        }
    }

    pub fn on_exit(&mut self, serial: usize, now: Mono) {
        let Some(child) = self.children.get_mut(&serial).filter(|child| child.exit.is_none()) else { return };
        let Some((exit, usage)) = child.running.try_wait() else { return };
        child.exit = Some(exit);
        child.usage = usage;
        self.lingering.insert(serial, now.plus_ms(AFTER_EXIT_MS));
        self.on_output(serial, now);
    }

    pub fn on_output(&mut self, serial: usize, now: Mono) {
        let Some(child) = self.children.get_mut(&serial) else { return self.drain_leftover(serial) };
        let mut budget = TURN_BYTES_MAX;
        self.unfinished.remove(&serial);
        while !child.is_eof {
            if self.outputs.must_wait(child.attempt, READ_BYTES) {
                return self.wait_for_file(serial, now);
            }
            match rustix::io::read(&child.running.output, &mut self.buffer[..]) {
                Ok(0) => child.is_eof = true,
                Ok(count) => {
                    self.outputs.push(child.attempt, &self.buffer[..count]);
                    budget = budget.saturating_sub(count);
                    if budget == 0 {
                        self.unfinished.insert(serial);
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => child.is_eof = true,
            }
        }
        if child.is_eof && child.is_over(self.cgroups.as_deref()) {
            if self.outputs.is_being_written(child.attempt) {
                return self.wait_for_file(serial, now);
            }
            self.lingering.remove(&serial);
            self.finish(serial);
        }
    }

    /// The run is over. Where it has a control group, that is read first.
    fn finish(&mut self, serial: usize) {
        match self.children.get_mut(&serial).and_then(|child| child.running.cgroup.take()) {
            Some(name) => self.cgroup_orders.push(CgroupOrder { serial, name }),
            None => drop(self.ended.insert(serial)),
        }
    }

    /// A control group to be read and removed.
    pub fn take_cgroup_order(&mut self) -> Option<CgroupOrder> {
        self.cgroup_orders.pop()
    }

    /// The processes of the child's control group took this.
    pub fn on_used(&mut self, serial: usize, usage: Usage) {
        if let Some(child) = self.children.get_mut(&serial) {
            child.usage = Usage {
                cpu_ms: usage.cpu_ms.or(child.usage.cpu_ms),
                memory_kb_max: usage.memory_kb_max.or(child.usage.memory_kb_max),
            };
            self.ended.insert(serial);
        }
    }

    /// Goes on with the children that had used up their budget.
    pub fn go_on(&mut self, now: Mono) {
        let unfinished: Vec<usize> = self.unfinished.iter().copied().collect();
        unfinished.into_iter().for_each(|serial| self.on_output(serial, now));
    }

    pub fn on_file_answer(&mut self, answer: FileAnswer) {
        if let Some(notice) = self.outputs.on_file_answer(answer) {
            log::warn!("{notice}");
        }
        self.unfinished.append(&mut self.waiting);
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// When the first open pipe of an ended process is given up.
    pub fn deadline(&self) -> Option<Mono> {
        self.lingering.values().min().copied()
    }

    /// One run that is over: how its process ended, and the text for its log row.
    pub fn take_ended(&mut self, registry: &Registry, now: Mono) -> Option<(Attempt, Ended)> {
        if self.ended.is_empty() {
            self.end_lingering(now);
        }
        let serial = self.ended.pop_first()?;
        self.unfinished.remove(&serial);
        self.waiting.remove(&serial);
        let child = self.children.remove(&serial)?;
        let _ = registry.deregister(&mut SourceFd(&child.running.pidfd.as_raw_fd()));
        if child.is_eof {
            let _ = registry.deregister(&mut SourceFd(&child.running.output.as_raw_fd()));
        } else {
            self.keep_leftover(serial, child.running.output);
        }
        let output = self.outputs.close(child.attempt);
        Some((child.attempt, Ended { exit: child.exit?, output, usage: child.usage }))
    }

    fn end_lingering(&mut self, now: Mono) {
        let due = self.lingering.extract_if(.., |_, at| *at <= now);
        for serial in due.map(|(serial, _)| serial).collect::<Vec<usize>>() {
            if self.children.get(&serial).is_none_or(|child| child.is_over(self.cgroups.as_deref())) {
                self.finish(serial);
            } else {
                self.lingering.insert(serial, now.plus_ms(AFTER_EXIT_MS));
            }
        }
    }

    fn wait_for_file(&mut self, serial: usize, now: Mono) {
        self.waiting.insert(serial);
        // As long as the disk makes progress, the wait begins anew.
        if let Some(at) = self.lingering.get_mut(&serial) {
            *at = now.plus_ms(FILE_WAIT_MS);
        }
    }

    fn keep_leftover(&mut self, serial: usize, output: OwnedFd) {
        self.leftovers.insert(serial, output);
        // Closing a pipe takes it out of the poll as well; its writer gets SIGPIPE, as it would of any reader that
        // ends.
        if LEFTOVERS_MAX < self.leftovers.len() {
            self.leftovers.pop_first();
        }
        self.drain_leftover(serial);
    }

    fn drain_leftover(&mut self, serial: usize) {
        let Some(output) = self.leftovers.get(&serial) else { return };
        self.unfinished.remove(&serial);
        let mut budget = TURN_BYTES_MAX;
        while budget != 0 {
            match rustix::io::read(output, &mut self.buffer[..]) {
                Ok(count @ 1..) => budget = budget.saturating_sub(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Ok(0) | Err(_) => {
                    self.leftovers.remove(&serial);
                    return;
                }
            }
        }
        self.unfinished.insert(serial);
    }
}
