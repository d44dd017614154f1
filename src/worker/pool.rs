//! The pool: the threads that block. Each kind of work has a queue of its own, so that a slow kind does not delay
//! another: the leader's statements, the log rows, the spool, the reads, the searches, Consul, the Consul watch, the
//! starts of processes (two threads), the starts whose user must be looked up first, the ends of processes, their control groups, and the files of whole outputs.
//!
//! Not a place for decisions: the core asks for the work and acts on the answer.
//!
//! Invariants: every piece of work gets exactly one answer (a start may be told to wait before it). A thread that panics ends the daemon, which the guardian
//! starts again, so the daemon never runs without one of its threads.

use super::clock;
use super::consul::ConsulClient;
use super::home::Home;
use super::operator_files::OperatorFiles;
use super::output_files::OutputFiles;
use super::process::cgroups::{Cgroups, Keeper};
use super::process::kill::Family;
use super::process::{self, Account, FreeMemory, Mark, Running, Spawner, Start, Ticket, kill};
use super::spool::SpoolFile;
use super::store::{Hand, Store};
use crate::core::io::ports::output_files::{FileAnswer, FileOrder};
use crate::core::io::ports::{
    Consul, ConsulError, Done, Kill, KillHow, Lead, Left, Log, Read, SpawnError, Spool, StoreError, Work, WorkId,
};
use crate::core::time::bounds::KILL_ALL_MS;
use crate::model::access::{Certificate, Tokens};
use crate::model::job::JobPage;
use crate::model::{Attempt, Job, Mono, Usage};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How many processes are being started at one time. More threads do not start more processes a second.
const SPAWN_THREADS: usize = 2;
/// Orders to end runs that are taken together.
const KILLS_AT_ONCE_MAX: usize = 4_096;
/// How often control groups are looked at in which a run has left processes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// An answer of a thread.
#[derive(Debug)]
pub enum Answer {
    Done(WorkId, Done),
    /// A process was started, or could not be. The reactor keeps its descriptors and tells the node the rest.
    Spawned(WorkId, Attempt, Result<Box<Running>, SpawnError>),
    File(FileAnswer),
    /// What the processes of a run took: the answer to `CgroupOrder`.
    Used(usize, Usage),
    /// The file of tokens was read again.
    Tokens(Tokens),
    /// The API's certificate was read again.
    Certificate(Certificate),
}

/// A process to start, with its slot in the marks.
#[derive(Debug)]
pub struct SpawnOrder {
    pub id: WorkId,
    pub attempt: Attempt,
    pub job: Arc<Job>,
    pub ticket: Ticket,
}

/// A run to signal, with its mark; none where it has no mark any more.
#[derive(Debug)]
pub struct KillOrder {
    pub id: WorkId,
    pub kill: Kill,
    pub mark: Option<Mark>,
}

/// A run that is over, and whose control group is to be read and removed.
#[derive(Debug)]
pub struct CgroupOrder {
    /// Comes back with the answer.
    pub serial: usize,
    pub name: String,
}

/// What the threads work with.
pub struct Tools<'a> {
    /// Makes one more connection to the same store.
    pub new_store: Box<dyn Fn(Hand) -> Box<dyn Store> + 'a>,
    pub consul: Option<Arc<ConsulClient>>,
    pub spawner: Arc<Spawner>,
    pub spool: SpoolFile,
    pub memory: Arc<FreeMemory>,
    /// The pid of our guardian: our runs' processes are below it, those of another daemon are not.
    pub guardian: u32,
    /// None: runs have no control groups.
    pub cgroups: Option<Arc<Cgroups>>,
    pub output_files: OutputFiles,
    pub home: Arc<Home>,
    pub operator_files: OperatorFiles,
}

/// The queues to the threads. A thread ends when its queue is dropped.
#[derive(Debug)]
pub struct Pool {
    lead: Sender<(WorkId, Lead)>,
    log: Sender<(WorkId, Log)>,
    spool: Sender<(WorkId, Spool)>,
    read: Sender<(WorkId, Read)>,
    search: Sender<(WorkId, Read)>,
    consul: Sender<(WorkId, Consul)>,
    watch: Sender<(WorkId, u64, u64)>,
    consul_client: Option<Arc<ConsulClient>>,
    spawn: Sender<SpawnOrder>,
    kill: Sender<KillOrder>,
    cgroups: Sender<CgroupOrder>,
    output_files: Sender<FileOrder>,
    files: Sender<()>,
}

/// Where the threads put their answers: a queue, and a way to wake its reader.
#[derive(Clone)]
pub struct Answers {
    pub queue: Sender<Answer>,
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl Answers {
    fn give(&self, answer: Answer) {
        // The reader is gone only when the daemon is on its way out.
        if self.queue.send(answer).is_ok() {
            (self.wake)();
        }
    }
}

impl Pool {
    /// Starts the threads. Error: the host has no resources for another thread.
    pub fn start(tools: Tools, answers: Answers) -> std::io::Result<Pool> {
        let [mut lead_store, mut log_store] = [Hand::Lead, Hand::Log].map(&tools.new_store);
        let [mut read_store, mut search_store] = [(); 2].map(|()| (tools.new_store)(Hand::Reader));
        let consul = tools.consul.clone();
        let watcher = tools.consul.clone();
        let mut spool = tools.spool;
        let (lead_home, log_home) = (Arc::clone(&tools.home), tools.home);
        let spawn = spawning_threads(&answers, &tools.spawner, &tools.memory)?;
        Ok(Pool {
            lead: thread("store-lead", &answers, move |(id, lead)| {
                Answer::Done(
                    id,
                    match lead_home.check() {
                        Ok(()) => do_lead(&mut *lead_store, lead),
                        Err(reason) => lead.failed(StoreError::Away(reason)),
                    },
                )
            })?,
            log: thread("store-log", &answers, move |(id, log)| {
                Answer::Done(
                    id,
                    match log_home.check() {
                        Ok(()) => do_log(&mut *log_store, log),
                        Err(reason) => log.failed(StoreError::Away(reason)),
                    },
                )
            })?,
            spool: thread("spool", &answers, move |(id, work)| Answer::Done(id, Done::Spooled(spool.carry_out(work))))?,
            read: thread("store-read", &answers, move |(id, read)| Answer::Done(id, do_read(&mut *read_store, read)))?,
            search: thread("store-search", &answers, move |(id, read)| {
                Answer::Done(id, do_read(&mut *search_store, read))
            })?,
            consul: thread("consul", &answers, move |(id, work)| {
                Answer::Done(id, Done::Consul(ask(consul.as_ref()).and_then(|consul| consul.carry_out(&work))))
            })?,
            watch: thread("consul-watch", &answers, move |(id, index, wait_ms)| {
                Answer::Done(id, Done::Watched(ask(watcher.as_ref()).and_then(|consul| consul.watch(index, wait_ms))))
            })?,
            consul_client: tools.consul,
            spawn,
            kill: killer(&answers, tools.guardian, tools.cgroups.clone())?,
            cgroups: cgroup_keeper(&answers, tools.cgroups)?,
            output_files: file_keeper(&answers, tools.output_files)?,
            files: files_reader(&answers, tools.operator_files)?,
        })
    }

    /// Gives work to its thread. Not for processes: they have `spawn` and `kill`.
    pub fn work(&self, id: WorkId, work: Work) {
        // Whole outputs are as old as their log rows, and are deleted with them.
        if let Work::Log(Log::Retain { before, is_first: true }) = work {
            self.output_file(FileOrder::Retain { before });
        }
        let sent = match work {
            Work::Lead(lead) => self.lead.send((id, lead)).is_ok(),
            Work::Log(log) => self.log.send((id, log)).is_ok(),
            Work::Spool(spool) => self.spool.send((id, spool)).is_ok(),
            Work::Read(read) if is_search(&read) => self.search.send((id, read)).is_ok(),
            Work::Read(read) => self.read.send((id, read)).is_ok(),
            Work::Consul(consul) => self.consul.send((id, consul)).is_ok(),
            Work::Watch { index, wait_ms } => self.watch.send((id, index, wait_ms)).is_ok(),
            Work::Spawn(_) | Work::Kill(_) => false,
        };
        debug_assert!(sent, "processes do not come this way");
    }

    /// Has files read again that the operator may have replaced: Consul's token and certificates, the API's tokens and certificate.
    pub fn read_files_again(&self) {
        self.consul_client.iter().for_each(|consul| consul.read_files_again());
        let _ = self.files.send(());
    }

    /// Has a process started; the answer is `Answer::Spawned`.
    pub fn spawn(&self, order: SpawnOrder) {
        let _ = self.spawn.send(order);
    }

    /// Has a run signalled; the answer is `Done::Killed`.
    pub fn kill(&self, order: KillOrder) {
        let _ = self.kill.send(order);
    }

    /// Has a control group read and removed; the answer is `Answer::Used`.
    pub fn end_cgroup(&self, order: CgroupOrder) {
        let _ = self.cgroups.send(order);
    }

    /// Has a file of a whole output written, read or removed; the answer, if any, is `Answer::File`.
    pub fn output_file(&self, order: FileOrder) {
        let _ = self.output_files.send(order);
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    answers: &Answers,
    work: impl FnMut(T) -> Answer + Send + 'static,
) -> std::io::Result<Sender<T>> {
    let (sender, receiver) = unbounded();
    worker(name, answers, &receiver, work)?;
    Ok(sender)
}

/// The threads that start processes. An order whose user must be looked up goes to a thread of its own, so that a directory
/// that hangs delays no other start; that thread starts it, too.
fn spawning_threads(
    answers: &Answers,
    spawner: &Arc<Spawner>,
    memory: &Arc<FreeMemory>,
) -> std::io::Result<Sender<SpawnOrder>> {
    let (spawn, orders) = unbounded::<SpawnOrder>();
    let (looker, memory_of_looker) = (Arc::clone(spawner), Arc::clone(memory));
    let look_up = thread("accounts", answers, move |(order, since): (SpawnOrder, Mono)| {
        let account = looker.look_up(&order.job, since);
        start(&looker, &memory_of_looker, &order, account)
    })?;
    for _ in 0..SPAWN_THREADS {
        let (spawner, memory, look_up) = (Arc::clone(spawner), Arc::clone(memory), look_up.clone());
        worker("spawn", answers, &orders, move |order: SpawnOrder| match spawner.account(&order.job) {
            Some(account) => start(&spawner, &memory, &order, account),
            None => {
                let id = order.id;
                // Its answer may come first; then this one finds no question.
                let _ = look_up.send((order, clock::mono()));
                Answer::Done(id, Done::LookingUp)
            }
        })?;
    }
    Ok(spawn)
}

fn start(
    spawner: &Spawner,
    memory: &FreeMemory,
    order: &SpawnOrder,
    account: Result<Option<Arc<Account>>, SpawnError>,
) -> Answer {
    let running = memory.check().map_err(SpawnError::Exhausted).and(account).and_then(|account| {
        let start = Start { attempt: order.attempt, job: &order.job, account: account.as_deref() };
        spawner.spawn(start, order.ticket)
    });
    Answer::Spawned(order.id, order.attempt, running.map(Box::new))
}

/// The thread that ends runs. It takes orders that wait together: a look at the host's processes costs the same for many
/// runs as for one.
fn killer(answers: &Answers, guardian: u32, cgroups: Option<Arc<Cgroups>>) -> std::io::Result<Sender<KillOrder>> {
    let (sender, orders) = unbounded::<KillOrder>();
    let answers = answers.clone();
    // When our guardian is dead, another process adopts us and the runs' orphans.
    let family = move || match process::parent() {
        parent if parent == guardian => Family::Below(guardian),
        _ => Family::Orphans { cgroup: process::cgroup_of("self") },
    };
    let body = move || {
        while let Ok(first) = orders.recv() {
            let batch = with_waiting(first, &orders, KILLS_AT_ONCE_MAX);
            let cgroups = cgroups.as_deref();
            let (forced, asked): (Vec<_>, Vec<_>) = batch.iter().partition(|order| order.kill.how == KillHow::Force);
            asked.iter().filter_map(|order| order.mark).for_each(|mark| kill::ask(&mark, cgroups));
            let marks: Vec<Mark> = forced.iter().filter_map(|order| order.mark).collect();
            let left = kill::end_runs(&marks, family(), cgroups, KILL_ALL_MS, || ());
            let mut left = left.into_iter();
            let mut left_of = |order: &KillOrder| {
                let pids = if order.mark.is_some() { left.next().unwrap_or_default() } else { BTreeSet::new() };
                Left { pids: pids.into_iter().collect(), is_sure: cgroups.is_some() }
            };
            asked.iter().for_each(|order| answers.give(Answer::Done(order.id, Done::Killed(Left::default()))));
            forced.iter().for_each(|order| answers.give(Answer::Done(order.id, Done::Killed(left_of(order)))));
        }
    };
    start_thread("kill", body).map(|()| sender)
}

/// The thread that reads and removes the control groups of runs that are over. What it takes up must not delay a kill.
fn cgroup_keeper(answers: &Answers, cgroups: Option<Arc<Cgroups>>) -> std::io::Result<Sender<CgroupOrder>> {
    let (sender, orders) = unbounded::<CgroupOrder>();
    let Some(cgroups) = cgroups else { return Ok(sender) };
    let answers = answers.clone();
    let body = move || {
        let mut keeper = Keeper::new(cgroups);
        let mut looked_at = clock::mono();
        loop {
            let order = match keeper.is_idle() {
                true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => orders.recv_timeout(LOOK_AGAIN),
            };
            match order {
                Ok(CgroupOrder { serial, name }) => answers.give(Answer::Used(serial, keeper.end(name))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if LOOK_AGAIN <= clock::mono().since(looked_at) {
                keeper.look_again();
                looked_at = clock::mono();
            }
        }
    };
    start_thread("cgroups", body).map(|()| sender)
}

/// The first with those that wait behind it, so many at the most.
fn with_waiting<T>(first: T, waiting: &Receiver<T>, most: usize) -> Vec<T> {
    std::iter::once(first).chain(waiting.try_iter()).take(most).collect()
}

fn file_keeper(answers: &Answers, files: OutputFiles) -> std::io::Result<Sender<FileOrder>> {
    let (sender, orders) = unbounded();
    let answers = answers.clone();
    let body = move || {
        let done = orders.iter().filter_map(|order| files.carry_out(order));
        done.for_each(|answer| answers.give(Answer::File(answer)));
    };
    start_thread("output-files", body).map(|()| sender)
}

/// The thread that reads the API's files again.
fn files_reader(answers: &Answers, files: OperatorFiles) -> std::io::Result<Sender<()>> {
    let (sender, orders) = unbounded();
    let answers = answers.clone();
    let body = move || {
        orders.iter().for_each(|()| {
            files.tokens().into_iter().for_each(|tokens| answers.give(Answer::Tokens(tokens)));
            files.certificate().into_iter().for_each(|certificate| answers.give(Answer::Certificate(certificate)));
        });
    };
    start_thread("api-files", body).map(|()| sender)
}

fn worker<T: Send + 'static>(
    name: &str,
    answers: &Answers,
    orders: &Receiver<T>,
    mut work: impl FnMut(T) -> Answer + Send + 'static,
) -> std::io::Result<()> {
    let (answers, orders) = (answers.clone(), orders.clone());
    let body = move || orders.iter().for_each(|order| answers.give(work(order)));
    start_thread(name, body)
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts the threads that block")]
fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

fn do_lead(store: &mut dyn Store, lead: Lead) -> Done {
    match lead {
        Lead::Open => Done::Opened(store.open()),
        Lead::Bump(bump) => Done::Bumped(store.bump(&bump)),
        Lead::Load { epoch, since } => Done::Loaded(store.load(epoch, &since)),
        Lead::Journal(entry) => Done::Journaled(store.journal(&entry)),
        Lead::Change { epoch, request, change } => Done::Changed(store.change(epoch, request, &change)),
        Lead::ReadRows { epoch, attempts } => Done::Rows(store.find_logs(epoch, &attempts)),
        Lead::Pause { epoch, paused } => Done::Paused(store.pause(epoch, paused)),
        Lead::Close { epoch, entries, delete_before } => Done::Closed(store.close(epoch, &entries, delete_before)),
    }
}

fn do_log(store: &mut dyn Store, log: Log) -> Done {
    match log {
        Log::Write(rows) => Done::LogsWritten(store.write_logs(&rows)),
        Log::Retain { before, .. } => Done::LogsRetained(store.retain_logs(before)),
        Log::Ping => Done::Pinged(store.ping()),
    }
}

/// Whether a read may have to go through a whole table.
fn is_search(read: &Read) -> bool {
    match read {
        Read::Logs(filter) => filter.search.is_some(),
        Read::Jobs(filter) => filter.as_ref().is_some_and(|filter| filter.search.is_some()),
        Read::LastRuns(_) | Read::LogRow { .. } | Read::Batch { .. } | Read::Differences(_) | Read::Leader => false,
    }
}

fn do_read(store: &mut dyn Store, read: Read) -> Done {
    match read {
        Read::Logs(filter) => Done::Logs(store.list_logs(&filter)),
        Read::Jobs(None) => Done::Jobs(store.list_jobs().map(|jobs| JobPage { jobs, total: None })),
        Read::Jobs(Some(filter)) => Done::Jobs(store.find_jobs(&filter)),
        Read::LastRuns(ids) => Done::LastRuns(store.last_runs(&ids)),
        Read::Batch { after, limit } => Done::Batch(store.read_batch(after, limit)),
        Read::Differences(since) => Done::Differences(store.differences(&since)),
        Read::Leader => Done::Leader(store.leader()),
        Read::LogRow { run, attempt } => Done::LogRow(store.find_log(run, attempt).map(|row| row.map(Box::new))),
    }
}

fn ask(consul: Option<&Arc<ConsulClient>>) -> Result<&ConsulClient, ConsulError> {
    let standing_alone = || ConsulError::Unavailable("this node stands alone".into());
    consul.map(Arc::as_ref).ok_or_else(standing_alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_beyond_a_batch_wait_for_the_next_and_none_is_lost() {
        let (sender, orders) = unbounded();
        (0..=KILLS_AT_ONCE_MAX).for_each(|order| sender.send(order).unwrap());
        let first = with_waiting(orders.recv().unwrap(), &orders, KILLS_AT_ONCE_MAX);
        assert!(first.into_iter().eq(0..KILLS_AT_ONCE_MAX));
        assert_eq!(with_waiting(orders.recv().unwrap(), &orders, KILLS_AT_ONCE_MAX), [KILLS_AT_ONCE_MAX]);
        assert!(orders.is_empty());
    }
}
