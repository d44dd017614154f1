//! Ears and mouth: one thread, one poll loop. It hears sockets, pipes, signals and clocks, hands them to the node as
//! inputs, and does what the node says.
//!
//! Not a place for decisions, and never for waiting: what blocks goes to the pool. The only room that names mio.
//!
//! Invariants: the thread blocks in poll and nowhere else; an event is a hint, so each source is read and written until
//! it would block, or until it has used up its budget for this turn of the loop.

mod budget;
mod children;
mod connection;
mod http;
mod outbox;
mod pace;
mod peers;
mod start;
mod timer;

use crate::core::io::{Effect, ExitReason, Input, MarkOp, Signal};
use crate::core::node::Node;
use crate::core::ports::{Done, Spawn, SpawnError, Work, WorkId};
use crate::model::Mono;
use crate::model::config::Config;
use crate::worker::clock;
use crate::worker::pool::{Answer, KillOrder, Pool, SpawnOrder};
use crate::worker::process::{DaemonLink, MarkBook};
use children::Children;
use crossbeam_channel::Receiver;
use http::Http;
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use peers::Peers;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use timer::Timer;

/// The longest wait in poll, however far the next deadline lies: a safety net, not a clock.
const POLL_MAX: Duration = Duration::from_millis(500);
const EVENTS_MAX: usize = 1_024;

/// What an event belongs to, packed into mio's token. Serial numbers are never used twice, so an event of a source that
/// is gone finds nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Answers,
    Timer,
    Signal(usize),
    Guardian,
    HttpListener,
    DebugListener,
    Connection(usize),
    PeerListener,
    Peer(usize),
    ChildExit(usize),
    ChildOutput(usize),
}

const KINDS: usize = 11;

impl Source {
    fn token(self) -> Token {
        let (serial, kind) = match self {
            Source::Answers => (0, 0),
            Source::Timer => (0, 1),
            Source::Signal(at) => (at, 2),
            Source::Guardian => (0, 3),
            Source::HttpListener => (0, 4),
            Source::DebugListener => (0, 5),
            Source::Connection(serial) => (serial, 6),
            Source::ChildExit(serial) => (serial, 7),
            Source::ChildOutput(serial) => (serial, 8),
            Source::PeerListener => (0, 9),
            Source::Peer(serial) => (serial, 10),
        };
        Token(serial * KINDS + kind)
    }

    fn of(token: Token) -> Source {
        let serial = token.0 / KINDS;
        match token.0 % KINDS {
            0 => Source::Answers,
            1 => Source::Timer,
            2 => Source::Signal(serial),
            3 => Source::Guardian,
            4 => Source::HttpListener,
            5 => Source::DebugListener,
            6 => Source::Connection(serial),
            7 => Source::ChildExit(serial),
            8 => Source::ChildOutput(serial),
            9 => Source::PeerListener,
            _ => Source::Peer(serial),
        }
    }
}

/// Runs the daemon to its end. The error says why the event loop could not start or go on.
pub fn run(config: &Config, link: DaemonLink) -> Result<ExitReason, String> {
    start::reactor(config, link)?.run().map_err(|error| format!("the event loop: {error}"))
}

struct Reactor {
    poll: Poll,
    node: Node,
    timer: Timer,
    answers: Receiver<Answer>,
    pool: Pool,
    marks: MarkBook,
    children: Children,
    http: Http,
    peers: Peers,
    signals: Vec<(Signal, UnixStream)>,
    link: DaemonLink,
    exit: Option<ExitReason>,
}

impl Reactor {
    fn run(mut self) -> io::Result<ExitReason> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.input(Input::Wake);
        loop {
            if let Some(reason) = self.exit.take() {
                self.http.flush(clock::now().mono);
                return Ok(reason);
            }
            self.turn(&mut events)?;
        }
    }

    /// One turn of the loop: wait, hear every event, let the node act.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let now = clock::now();
        let others = [self.children.deadline(), self.http.deadline()];
        let deadline = others.into_iter().flatten().fold(self.node.poll_timeout(), Mono::min);
        self.timer.arm(deadline, now)?;
        let is_due = deadline <= now.mono;
        let timeout = if is_due || self.has_more() { Duration::ZERO } else { POLL_MAX };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        // A due deadline goes before the events: they can wait until the runs of this second are started.
        if deadline <= clock::mono() {
            self.input(Input::Wake);
        }
        for event in events.iter() {
            self.on_event(Source::of(event.token()))?;
        }
        self.go_on();
        self.housekeeping();
        Ok(())
    }

    fn on_event(&mut self, source: Source) -> io::Result<()> {
        match source {
            Source::Answers => self.take_answers(),
            Source::Timer => {
                if self.timer.was_clock_set() {
                    self.input(Input::Wake);
                }
            }
            Source::Signal(at) => self.on_signal(at),
            Source::Guardian => self.on_guardian(),
            Source::HttpListener | Source::DebugListener => {
                self.http.accept(source, self.poll.registry(), clock::mono())?
            }
            Source::Connection(serial) => self.on_connection(serial),
            Source::PeerListener => self.peers.accept(self.poll.registry(), clock::mono())?,
            Source::Peer(serial) => self.peers.on_ready(serial, clock::mono()),
            Source::ChildExit(serial) => self.children.on_exit(serial, clock::mono()),
            Source::ChildOutput(serial) => self.children.on_output(serial, clock::mono()),
        }
        Ok(())
    }

    /// Goes on with sources that had used up their budget, and gives the node what has come of them.
    fn go_on(&mut self) {
        for serial in self.http.take_unfinished() {
            self.on_connection(serial);
        }
        for (client, command) in self.http.take_questions(clock::mono()) {
            self.input(Input::Command(client, command));
        }
        for serial in self.peers.take_unfinished() {
            self.peers.on_ready(serial, clock::mono());
        }
        while let Some(input) = self.peers.take_heard() {
            self.input(input);
        }
        self.children.go_on(clock::mono());
        while let Some((attempt, exit, output)) = self.children.take_ended(self.poll.registry(), clock::mono()) {
            self.input(Input::Exited { attempt, exit, output });
        }
        while let Some((request, part)) = self.children.outputs.take_answer() {
            self.input(Input::OutputRead { request, part });
        }
        while let Some(order) = self.children.outputs.take_order() {
            self.pool.output_file(order);
        }
    }

    fn has_more(&self) -> bool {
        self.http.has_unfinished() || self.peers.has_unfinished() || self.children.has_unfinished()
    }

    fn on_connection(&mut self, serial: usize) {
        if let Some((client, command)) = self.http.on_ready(serial, &self.node, clock::mono()) {
            self.input(Input::Command(client, command));
        }
    }

    fn on_signal(&mut self, at: usize) {
        let Some((signal, stream)) = self.signals.get_mut(at) else { return };
        let signal = *signal;
        let mut bytes = [0; 16];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if signal == Signal::Reload {
                self.pool.read_files_again();
            }
            (0..count).for_each(|_| self.node.handle(Input::Signal(signal), clock::now()));
        }
        self.drain();
    }

    fn on_guardian(&mut self) {
        let mut byte = [0];
        // Nobody writes to this pipe: its end of file is the message.
        if matches!(rustix::io::read(&self.link.death_pipe, &mut byte), Ok(0)) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&self.link.death_pipe.as_raw_fd()));
            log::error!("the guardian is dead: ending the runs and exiting");
            self.input(Input::Signal(Signal::Orphaned));
        }
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            let input = match answer {
                Answer::Done(id, done) => Input::Done(id, done),
                Answer::Spawned(id, attempt, Ok(running)) => {
                    let started = running.started;
                    self.children.add(attempt, *running, self.poll.registry());
                    Input::Done(id, Done::Spawned(Ok(started)))
                }
                Answer::File(answer) => {
                    self.children.on_file_answer(answer);
                    continue;
                }
                Answer::Spawned(id, _, Err(error)) => Input::Done(id, Done::Spawned(Err(error))),
            };
            self.input(input);
        }
    }

    fn input(&mut self, input: Input) {
        self.node.handle(input, clock::now());
        self.drain();
    }

    /// Carries out every effect that the node wants.
    fn drain(&mut self) {
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Work(id, Work::Spawn(spawn)) => self.spawn(id, spawn),
                Effect::Work(id, Work::Kill(kill)) => {
                    self.children.on_kill(kill);
                    self.pool.kill(KillOrder { id, kill, mark: self.marks.read(kill.attempt) });
                }
                Effect::Work(id, work) => self.pool.work(id, work),
                Effect::Reply(client, reply) => self.http.reply(client, &reply, clock::mono()),
                Effect::Ended { attempt, state, last_lines } => self.children.outputs.end(attempt, state, last_lines),
                Effect::ReadOutput { request, attempt, from } => self.children.outputs.read(request, attempt, from),
                Effect::Mark(op) => {
                    if let MarkOp::Clear { attempt } = op {
                        self.children.outputs.forget_soon(attempt, clock::mono());
                    }
                    if !self.marks.apply(op) {
                        log::error!("no mark is free for {op:?}");
                    }
                }
                Effect::Link(id, server) => {
                    if let Err(error) = self.peers.link(id, &server, self.poll.registry(), clock::mono()) {
                        log::error!("make a link to {server}: {error}");
                    }
                }
                Effect::Send(id, message) => self.peers.send(id, &message),
                Effect::Unlink(id) => self.peers.unlink(id),
                Effect::Notice(notice) => log::log!(notice.level, "{}", notice.text),
                Effect::Exit(reason) => self.exit = Some(reason),
            }
        }
    }

    fn spawn(&mut self, id: WorkId, spawn: Spawn) {
        log::debug!("start attempt={}", spawn.attempt);
        match self.marks.ticket(spawn.attempt) {
            Some(ticket) => self.pool.spawn(SpawnOrder { id, attempt: spawn.attempt, job: spawn.job, ticket }),
            None => {
                let reason = "not started: the marks file has no free slot for it".to_string();
                let failed = SpawnError::Failed(reason);
                self.node.handle(Input::Done(id, Done::Spawned(Err(failed))), clock::now());
            }
        }
    }

    fn housekeeping(&mut self) {
        self.http.housekeeping(clock::mono());
        self.peers.housekeeping(clock::mono());
        self.children.outputs.housekeeping(clock::mono());
    }
}

/// Wakes the loop for the pool's answers.
fn waker(poll: &Poll) -> io::Result<Arc<Waker>> {
    Ok(Arc::new(Waker::new(poll.registry(), Source::Answers.token())?))
}

fn readable(poll: &Poll, fd: &impl AsRawFd, source: Source) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), source.token(), Interest::READABLE)
}

/// The earlier of two moments, each of which may be none.
fn earlier(left: Option<Mono>, right: Option<Mono>) -> Option<Mono> {
    left.into_iter().chain(right).min()
}
