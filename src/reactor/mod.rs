//! The reactor: one thread with one poll loop. It gives the events of sockets, pipes, signals and clocks to the node as
//! inputs, and carries out the node's effects.
//!
//! Not a place for decisions, and not for work that blocks: that goes to the pool. The only room that names mio.
//!
//! Invariants: the thread blocks in poll and nowhere else; an event is a hint, so each source is read and written until
//! it would block, or until its budget for this turn of the loop is used up. mio tells of a source once. So a source
//! that has used up its budget is kept in a list; the next turn goes on with it, and does not wait for events.

mod budget;
mod children;
mod connection;
mod connections;
mod http;
mod outbox;
mod pace;
mod peers;
mod socket;
mod source;
mod start;
mod strangers;
mod stream;
mod timer;
mod tls;

pub use start::run;

use crate::core::io::ports::{Done, Spawn, SpawnError, Work, WorkId};
use crate::core::io::{Effect, ExitReason, Input, MarkOp, Signal};
use crate::core::node::Node;
use crate::model::Mono;
use crate::worker::clock;
use crate::worker::pool::{Answer, KillOrder, Pool, SpawnOrder};
use crate::worker::process::{DaemonLink, MarkBook};
use children::Children;
use crossbeam_channel::Receiver;
use http::Http;
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use peers::Peers;
use socket::SocketFile;
use source::Source;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use stream::Accepted;
use timer::Timer;

/// The longest wait in poll. The next deadline may be later, so this only repairs a missed wake-up.
const POLL_MAX: Duration = Duration::from_millis(500);
const EVENTS_MAX: usize = 1_024;
/// The workers' answers that are taken in one turn of the loop.
const ANSWERS_A_TURN_MAX: usize = 1_024;
/// The signals of one kind that are taken in one turn of the loop.
const SIGNALS_A_TURN_MAX: usize = 16;
/// A listener for whose clients the host has no descriptor or no memory is asked again after so long.
const STUCK_MS: u64 = 250;
/// How long the handshakes of TLS may take in one turn of the loop. One more may have begun by then: see
/// `Connections::take_handshake`.
const HANDSHAKES_A_TURN: Duration = Duration::from_millis(2);

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
    /// Held, for the file goes with it.
    _socket_file: Option<SocketFile>,
    exit: Option<ExitReason>,
    /// Sources that had used up their budget. No event will tell of what they still have: they are gone on with in any
    /// case. Connections, links and children have lists of their own.
    unfinished: BTreeSet<Source>,
    /// Listeners that are asked again at that moment.
    stuck: BTreeSet<Source>,
    ask_again_at: Mono,
}

impl Reactor {
    fn serve(mut self) -> io::Result<ExitReason> {
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
        // A due deadline comes before the events, so that the runs of this second start first.
        if deadline <= clock::mono() {
            self.input(Input::Wake);
        }
        for event in events.iter() {
            self.on_event(Source::of(event.token()))?;
        }
        self.go_on()?;
        self.housekeeping();
        Ok(())
    }

    fn on_event(&mut self, source: Source) -> io::Result<()> {
        let mut has_more = false;
        match source {
            Source::Answers => has_more = self.take_answers(),
            Source::Timer => {
                if self.timer.was_clock_set() {
                    self.input(Input::Wake);
                }
            }
            Source::Signal(at) => has_more = self.on_signal(at),
            Source::Guardian => self.on_guardian(),
            Source::HttpListener | Source::DebugListener | Source::SocketListener => {
                let accepted = self.http.connections.accept(source, self.poll.registry(), clock::mono())?;
                has_more = self.is_to_be_asked(source, accepted);
            }
            Source::Connection(serial) => self.on_connection(serial),
            Source::PeerListener => {
                let accepted = self.peers.accept(self.poll.registry(), clock::mono())?;
                has_more = self.is_to_be_asked(source, accepted);
            }
            Source::Peer(serial) => self.peers.on_ready(serial, clock::mono()),
            Source::ChildExit(serial) => self.children.on_exit(serial, clock::mono()),
            Source::ChildOutput(serial) => self.children.on_output(serial, clock::mono()),
        }
        if has_more {
            self.unfinished.insert(source);
        }
        Ok(())
    }

    /// Goes on with sources that had used up their budget, and gives the node their inputs.
    ///
    /// Each loop here ends: nothing that the node does about an ended run or a part of an output ends another run or
    /// gives another part at once. What it does about a link may end a link, which is heard of in the next turn.
    fn go_on(&mut self) -> io::Result<()> {
        for source in std::mem::take(&mut self.unfinished) {
            self.on_event(source)?;
        }
        for serial in self.http.connections.take_unfinished() {
            self.on_connection(serial);
        }
        self.shake_hands();
        for (client, command) in self.http.take_questions(clock::mono()) {
            self.input(Input::Command(client, command));
        }
        for serial in self.peers.take_unfinished() {
            self.peers.on_ready(serial, clock::mono());
        }
        for _ in 0..self.peers.heard_count() {
            // The node may have ended a link, and the inputs from it are dropped then.
            let Some(input) = self.peers.take_heard() else { break };
            self.input(input);
        }
        self.children.go_on(clock::mono());
        while let Some((attempt, ended)) = self.children.take_ended(self.poll.registry(), clock::mono()) {
            self.input(Input::Exited { attempt, ended });
        }
        while let Some(order) = self.children.take_cgroup_order() {
            self.pool.end_cgroup(order);
        }
        while let Some((request, part)) = self.children.outputs.take_answer() {
            self.input(Input::OutputRead { request, part });
        }
        while let Some(order) = self.children.outputs.take_order() {
            self.pool.output_file(order);
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        let has_own = !self.unfinished.is_empty();
        has_own
            || self.http.connections.has_unfinished()
            || self.peers.has_unfinished()
            || self.children.has_unfinished()
    }

    /// Goes on with handshakes for as long as a turn has for them. A flood of them takes many turns, and no tick waits for it.
    fn shake_hands(&mut self) {
        let begin = clock::mono();
        while clock::mono().since(begin) < HANDSHAKES_A_TURN
            && let Some(serial) = self.http.connections.take_handshake()
        {
            self.hear(serial);
        }
    }

    fn on_connection(&mut self, serial: usize) {
        if !self.http.connections.queue_handshake(serial) {
            self.hear(serial);
        }
    }

    fn hear(&mut self, serial: usize) {
        if let Some((client, command)) = self.http.on_ready(serial, &self.node, clock::mono()) {
            self.input(Input::Command(client, command));
        }
    }

    /// True: there may be more.
    fn on_signal(&mut self, at: usize) -> bool {
        let Some((signal, stream)) = self.signals.get_mut(at) else { return false };
        let signal = *signal;
        let mut bytes = [0; SIGNALS_A_TURN_MAX];
        let count = stream.read(&mut bytes).unwrap_or(0);
        if signal == Signal::Reload && count != 0 {
            self.pool.read_files_again();
        }
        (0..count).for_each(|_| self.input(Input::Signal(signal)));
        count == bytes.len()
    }

    fn on_guardian(&mut self) {
        let mut byte = [0];
        // Nobody writes to this pipe: its end of file is the message.
        if matches!(rustix::io::read(&self.link.death_pipe, &mut byte), Ok(0)) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&self.link.death_pipe.as_raw_fd()));
            log::error!("the guardian is dead: the daemon ends its runs and exits");
            self.input(Input::Signal(Signal::Orphaned));
        }
    }

    /// True: there may be more.
    fn take_answers(&mut self) -> bool {
        let (answers, has_more) = take_some(&self.answers, ANSWERS_A_TURN_MAX);
        for answer in answers {
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
                Answer::Used(serial, usage) => {
                    self.children.on_used(serial, usage);
                    continue;
                }
                Answer::Tokens(tokens) => {
                    self.http.set_tokens(tokens, clock::mono());
                    continue;
                }
                Answer::Certificate(certificate) => {
                    self.http.connections.set_certificate(certificate.server);
                    continue;
                }
                Answer::Spawned(id, _, Err(error)) => Input::Done(id, Done::Spawned(Err(error))),
            };
            self.input(input);
        }
        has_more
    }

    fn input(&mut self, input: Input) {
        self.node.handle(input, clock::now());
        self.drain();
    }

    /// Carries out every effect that the node wants. The loop ends: only a start that fails at once gives the node a new
    /// input here, and each such input leaves it one run fewer to start.
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
                Effect::LinkSecret(secret) => self.peers.trust(&secret),
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

    /// Whether the listener is to be asked again in this turn. One that is stuck is asked a little later.
    fn is_to_be_asked(&mut self, listener: Source, accepted: Accepted) -> bool {
        if accepted == Accepted::Stuck {
            self.stuck.insert(listener);
            self.ask_again_at = clock::mono().plus_ms(STUCK_MS);
        }
        accepted == Accepted::More
    }

    fn housekeeping(&mut self) {
        if self.ask_again_at <= clock::mono() {
            self.unfinished.append(&mut self.stuck);
        }
        self.http.connections.housekeeping(clock::mono());
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

/// Takes so many from the queue at the most. True: there may be more.
fn take_some<T>(queue: &Receiver<T>, most: usize) -> (Vec<T>, bool) {
    let taken: Vec<T> = queue.try_iter().take(most).collect();
    let has_more = taken.len() == most;
    (taken, has_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_not_emptied_is_gone_on_with() {
        let (sender, queue) = crossbeam_channel::unbounded();
        (0..=ANSWERS_A_TURN_MAX).for_each(|answer| sender.send(answer).unwrap());
        let (first, has_more) = take_some(&queue, ANSWERS_A_TURN_MAX);
        assert_eq!((first.len(), has_more), (ANSWERS_A_TURN_MAX, true));
        assert_eq!(take_some(&queue, ANSWERS_A_TURN_MAX), (vec![ANSWERS_A_TURN_MAX], false));
        assert_eq!(take_some(&queue, ANSWERS_A_TURN_MAX), (vec![], false));
    }
}
