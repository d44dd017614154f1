//! The HTTP side: listeners, connections, and which request came from which connection.
//!
//! Not here: what a request means (`api`), and when a followed output is asked for again (`core::output::follow`).
//!
//! Invariant: a request that the node was given is answered on the connection that it came from, or not at all where
//! that connection is gone.

use super::connection::{Connection, Progress};
use super::source::Source;
use crate::api;
use crate::core::node::Node;
use crate::core::output::follow::{Follow, Step};
use crate::model::Mono;
use crate::model::command::{CallError, Command, Reply, RequestId, RunOutput};
use crate::wire::http::{Request, Response};
use mio::net::TcpListener;
use mio::{Interest, Registry};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

/// Connections that may be open at one time; a further client is told so, and its connection is closed.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections that are taken from one listener in one turn of the loop.
const ACCEPTS_A_TURN_MAX: usize = 64;
/// Requests of one connection that are answered without the node in one turn of the loop.
const REQUESTS_A_TURN_MAX: usize = 32;
/// How often the deadlines of the connections are looked at.
const HOUSEKEEPING_EVERY_MS: u64 = 250;
/// Clients that may follow a run at one time.
const STREAMS_MAX: usize = 256;
/// Outputs that may be read at one time. Each answer may be a part of full size, and a link has a limit.
const READS_MAX: usize = 32;
/// How many of these reads the streams may take: the others are left to clients that ask for one part.
const STREAM_READS_MAX: usize = 16;

pub struct Http {
    listener: TcpListener,
    debug_listener: Option<TcpListener>,
    next_serial: usize,
    connections: HashMap<usize, Connection>,
    /// Connections of the debug listener: they never reach the node.
    debug: HashSet<usize>,
    requests: HashMap<RequestId, usize>,
    /// The connections whose answer comes in parts.
    streams: BTreeMap<usize, Follow>,
    /// The requests that ask for output.
    reads: BTreeSet<RequestId>,
    next_request: u64,
    unfinished: Vec<usize>,
    housekeeping_at: Mono,
    counters: BTreeMap<&'static str, u64>,
}

impl Http {
    pub fn new(listener: TcpListener, debug_listener: Option<TcpListener>) -> Http {
        Http {
            listener,
            debug_listener,
            next_serial: 0,
            connections: HashMap::new(),
            debug: HashSet::new(),
            requests: HashMap::new(),
            streams: BTreeMap::new(),
            reads: BTreeSet::new(),
            next_request: 0,
            unfinished: Vec::new(),
            housekeeping_at: Mono(0),
            counters: BTreeMap::new(),
        }
    }

    /// Takes the connections that wait at the listener. True: there may be more.
    pub fn accept(&mut self, source: Source, registry: &Registry, now: Mono) -> io::Result<bool> {
        let is_debug = source == Source::DebugListener;
        for _ in 0..ACCEPTS_A_TURN_MAX {
            let listener = if is_debug { self.debug_listener.as_ref() } else { Some(&self.listener) };
            let Some(listener) = listener else { return Ok(false) };
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    // Out of descriptors, or a client that was gone again: the next event comes with the next client.
                    log::warn!("accept a connection: {error}");
                    return Ok(false);
                }
            };
            crate::worker::process::raise_if_short(&stream);
            let serial = self.next_serial;
            self.next_serial += 1;
            // Small answers must not wait for an acknowledgement; if this fails they are merely slower.
            let _ = stream.set_nodelay(true);
            registry.register(
                &mut stream,
                Source::Connection(serial).token(),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            *self.counters.entry("http_connections").or_default() += 1;
            let mut connection = Connection::new(stream, now);
            if CONNECTIONS_MAX <= self.connections.len() {
                let full = CallError::unavailable(format!(
                    "{CONNECTIONS_MAX} connections are open, which is the most there may be"
                ));
                connection.respond_last(api::failure(&full), now);
            }
            if is_debug {
                self.debug.insert(serial);
            }
            self.connections.insert(serial, connection);
            self.unfinished.push(serial);
        }
        Ok(true)
    }

    /// Goes on with a connection, and answers requests that the node need not see. Returns one that it must see.
    pub fn on_ready(&mut self, serial: usize, node: &Node, now: Mono) -> Option<(RequestId, Command)> {
        for _ in 0..REQUESTS_A_TURN_MAX {
            let connection = self.connections.get_mut(&serial)?;
            let response = match connection.advance(now) {
                Progress::Waiting => return None,
                Progress::Unfinished => {
                    self.unfinished.push(serial);
                    return None;
                }
                Progress::Closed => {
                    self.close(serial);
                    return None;
                }
                Progress::BadRequest(bad) => {
                    connection.respond_last(api::bad_request(bad), now);
                    continue;
                }
                Progress::Request(request) => {
                    *self.counters.entry("http_requests").or_default() += 1;
                    if self.debug.contains(&serial) {
                        self.debug_answer(&request, node)
                    } else {
                        match api::command(&request) {
                            Ok(Command::ReadOutput(query)) if query.follow && self.streams.len() < STREAMS_MAX => {
                                self.streams.insert(serial, Follow::new(query, now));
                                return None;
                            }
                            Ok(Command::ReadOutput(query)) if query.follow || READS_MAX <= self.reads.len() => {
                                api::failure(&too_many_reads())
                            }
                            Ok(command) => return Some((self.request(serial, &command), command)),
                            Err(response) => response,
                        }
                    }
                }
            };
            self.connections.get_mut(&serial)?.respond(response, now);
        }
        self.unfinished.push(serial);
        None
    }

    pub fn reply(&mut self, client: RequestId, reply: &Reply, now: Mono) {
        let Some(serial) = self.requests.remove(&client) else { return };
        self.reads.remove(&client);
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        match self.streams.get_mut(&serial) {
            Some(stream) => {
                if pass_on(stream, reply, connection, now) {
                    self.streams.remove(&serial);
                }
            }
            None => connection.respond(api::reply(reply), now),
        }
        self.unfinished.push(serial);
    }

    /// The questions that the streams ask now.
    pub fn take_questions(&mut self, now: Mono) -> Vec<(RequestId, Command)> {
        let mut questions = Vec::new();
        for (serial, stream) in &mut self.streams {
            let is_ready = self.connections.get(serial).is_some_and(Connection::has_sent_all);
            if is_ready
                && self.reads.len() < STREAM_READS_MAX
                && let Some(command) = stream.ask(now)
            {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                self.requests.insert(id, *serial);
                self.reads.insert(id);
                questions.push((id, command));
            }
        }
        questions
    }

    /// When the first stream has a question.
    pub fn deadline(&self) -> Option<Mono> {
        // Where too many questions are open, the answer to one of them comes first.
        let streams = self.streams.iter().filter(|_| self.reads.len() < STREAM_READS_MAX);
        let is_ready = |serial: &usize| self.connections.get(serial).is_some_and(Connection::has_sent_all);
        let ready = streams.filter(|(serial, _)| is_ready(serial));
        ready.filter_map(|(_, stream)| stream.deadline()).min()
    }

    /// The connections to go on with at once.
    pub fn take_unfinished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unfinished)
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Ends the connections whose time is over.
    pub fn housekeeping(&mut self, now: Mono) {
        if now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = now.plus_ms(HOUSEKEEPING_EVERY_MS);
        let overdue: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_overdue(now))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in overdue {
            let Some(connection) = self.connections.get_mut(&serial) else { continue };
            if connection.is_midway() {
                let slow = CallError { status: 408, message: "the request took longer than 10 s to arrive".into() };
                connection.respond_last(api::failure(&slow), now);
                self.unfinished.push(serial);
            } else {
                self.close(serial);
            }
        }
    }

    /// Sends as much of the last answers as goes out at once.
    pub fn flush(&mut self, now: Mono) {
        for (serial, stream) in &mut self.streams {
            let last_line = stream.interrupt("the daemon that was asked is leaving");
            if let (Some(line), Some(connection)) = (last_line, self.connections.get_mut(serial)) {
                end_stream(&line, connection, now);
            }
        }
        #[expect(clippy::iter_over_hash_type, reason = "they have nothing to do with each other")]
        for connection in self.connections.values_mut() {
            let _ = connection.advance(now);
        }
    }

    fn close(&mut self, serial: usize) {
        self.connections.remove(&serial);
        self.debug.remove(&serial);
        self.streams.remove(&serial);
    }

    fn request(&mut self, serial: usize, command: &Command) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, serial);
        if matches!(command, Command::ReadOutput(_)) {
            self.reads.insert(id);
        }
        id
    }

    fn now_open(&self) -> [(&'static str, u64); 3] {
        [
            ("http_connections_open", self.connections.len() as u64),
            ("http_streams_open", self.streams.len() as u64),
            ("http_requests_in_flight", self.requests.len() as u64),
        ]
    }

    fn debug_answer(&self, request: &Request, node: &Node) -> Response {
        match request.path.as_str() {
            "/debug/vars" => {
                let mut vars: BTreeMap<String, u64> = node.counters().collect();
                let ours =
                    self.counters.iter().map(|(name, count)| (*name, *count)).chain(self.now_open()).chain(memory());
                vars.extend(ours.map(|(name, count)| (name.to_string(), count)));
                Response::json(200, serde_json::to_vec(&vars).unwrap_or_default())
            }
            path => {
                api::failure(&CallError { status: 404, message: format!("there is no {path:?}; there is /debug/vars") })
            }
        }
    }
}

/// Sends what an answer brings to a client that follows a run. True: that was the last of it.
fn pass_on(stream: &mut Follow, reply: &Reply, connection: &mut Connection, now: Mono) -> bool {
    match stream.on_reply(reply, now) {
        Step::Wait => return false,
        Step::Refuse => connection.respond(api::reply(reply), now),
        Step::End(line) => end_stream(&line, connection, now),
        Step::Pass { output: RunOutput { attempt, server, part }, is_first } => {
            if is_first {
                let headers = [("X-Run-Attempt", attempt.number.to_string()), ("X-Run-Server", server.to_string())];
                connection.begin_stream(&headers, now);
            }
            connection.stream(&part.bytes, now);
            if part.is_over {
                connection.end_stream(now);
            }
            return part.is_over;
        }
    }
    true
}

fn end_stream(last_line: &str, connection: &mut Connection, now: Mono) {
    connection.stream(last_line.as_bytes(), now);
    connection.end_stream(now);
}

fn too_many_reads() -> CallError {
    CallError::unavailable(format!(
        "too many outputs are being read from this node ({STREAMS_MAX} followed or {READS_MAX} asked for at one time); try another, or again"
    ))
}

/// What the kernel says of this process's memory and threads.
fn memory() -> Vec<(&'static str, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let names = [("memory_rss_kb", "VmRSS:"), ("memory_peak_kb", "VmHWM:"), ("threads", "Threads:")];
    names.into_iter().filter_map(|(name, key)| Some((name, value(key)?))).collect()
}
