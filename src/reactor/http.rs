//! The HTTP side: requests are let in, given to the node, and answered on their connection.
//!
//! Not here: the meaning of a request and who may send it (`api`), the connections themselves (`connections`), and when a
//! followed output is asked for again (`core::log::output::follow`).
//!
//! Invariant: a request that the node was given is answered on the connection that it came from, or not at all where
//! that connection is gone.

use super::connection::{Connection, Progress};
use super::connections::{Connections, Listeners};
use crate::api;
use crate::api::access::{Denied, Door};
use crate::core::log::output::follow::{Follow, Step};
use crate::core::node::Node;
use crate::model::Mono;
use crate::model::access::{Caller, Tokens};
use crate::model::command::{Command, Reply, RequestId, RunOutput};
use crate::wire::http::{BadRequest, Request, Response};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Requests of one connection that are answered without the node in one turn of the loop.
const REQUESTS_A_TURN_MAX: usize = 32;
/// Clients that may follow a run at one time.
const STREAMS_MAX: usize = 256;
/// Outputs that may be read at one time. Each answer may be a part of full size, and a link has a limit.
const READS_MAX: usize = 32;
/// How many of these reads the streams may take: the others are left to clients that ask for one part.
const STREAM_READS_MAX: usize = 16;
/// Pages of log rows that the node may be asked for at one time; the other clients wait. Each page may be as large as pages
/// get, and is in memory twice while it becomes an answer.
const LOG_PAGES_MAX: usize = 4;

/// A client that follows a run.
struct Follower {
    follow: Follow,
    caller: Caller,
}

pub struct Http {
    pub connections: Connections,
    door: Door,
    requests: HashMap<RequestId, usize>,
    /// The connections whose answer comes in parts.
    streams: BTreeMap<usize, Follower>,
    /// The questions for the health whose clients are told the status only.
    status_only: BTreeSet<RequestId>,
    /// The requests that ask for output.
    reads: BTreeSet<RequestId>,
    /// The requests for log rows that the node has, and those that wait.
    log_pages: BTreeSet<RequestId>,
    waiting: VecDeque<(RequestId, Command)>,
    next_request: u64,
}

impl Http {
    pub fn new(listeners: Listeners, door: Door) -> Http {
        Http {
            connections: Connections::new(listeners),
            door,
            requests: HashMap::new(),
            streams: BTreeMap::new(),
            status_only: BTreeSet::new(),
            reads: BTreeSet::new(),
            log_pages: BTreeSet::new(),
            waiting: VecDeque::new(),
            next_request: 0,
        }
    }

    /// Goes on with a connection, and answers requests that the node need not see. Returns one that it must see.
    pub fn on_ready(&mut self, serial: usize, node: &Node, now: Mono) -> Option<(RequestId, Command)> {
        for _ in 0..REQUESTS_A_TURN_MAX {
            let progress = self.connections.get_mut(serial)?.advance(now);
            let has_memory = self.connections.settle(serial, now);
            match progress {
                Progress::Closed => {
                    self.connections.close(serial);
                    return None;
                }
                Progress::BadRequest(BadRequest::TLS) if self.connections.close_tls(serial, now) => return None,
                Progress::Waiting | Progress::Unfinished | Progress::Body | Progress::Request(_) if !has_memory => {
                    self.connections.count("http_requests_without_memory");
                    self.connections.respond_last(serial, api::busy(NO_MEMORY), now);
                }
                Progress::Waiting => return None,
                Progress::Unfinished => {
                    self.connections.go_on_soon(serial);
                    return None;
                }
                Progress::Body => self.connections.get_mut(serial)?.admit(now),
                Progress::BadRequest(bad) => self.connections.respond_last(serial, api::bad_request(bad), now),
                Progress::Request(request) => {
                    self.connections.count("http_requests");
                    match self.on_request(serial, &request, node, now) {
                        Ok(command) => return command,
                        Err(response) => self.connections.respond(serial, response, now),
                    }
                }
            }
        }
        self.connections.go_on_soon(serial);
        None
    }

    /// A request that the node must see, or none where it has to wait or a stream begins; the error answers any other.
    fn on_request(
        &mut self,
        serial: usize,
        request: &Request,
        node: &Node,
        now: Mono,
    ) -> Result<Option<(RequestId, Command)>, Response> {
        let Some(arrival) = self.connections.arrival(serial) else {
            return Err(api::debug(request, || self.vars(node)));
        };
        let caller = match self.door.admit(request, arrival, now) {
            Ok(caller) => caller,
            // A probe need not be known, and gets the status only.
            Err(denied) if denied.status == 403 && api::asks_for_health(request) => {
                let id = self.new_id(serial);
                self.status_only.insert(id);
                return Ok(Some((id, Command::ShowHealth)));
            }
            Err(denied) => {
                self.connections.count("http_refused");
                return Err(api::denied(denied));
            }
        };
        let command = api::command(request, &caller).inspect_err(|response| {
            if response.status == 403 {
                self.connections.count("http_refused");
            }
        })?;
        match command {
            Command::ReadOutput(query) if query.follow && self.streams.len() < STREAMS_MAX => {
                self.streams.insert(serial, Follower { follow: Follow::new(query, now), caller });
                Ok(None)
            }
            Command::ReadOutput(query) if query.follow || READS_MAX <= self.reads.len() => Err(too_many_reads()),
            command @ Command::ListLogs(_) if LOG_PAGES_MAX <= self.log_pages.len() => {
                let id = self.new_id(serial);
                self.waiting.push_back((id, command));
                Ok(None)
            }
            command => Ok(Some((self.request(serial, &command), command))),
        }
    }

    pub fn reply(&mut self, client: RequestId, reply: &Reply, now: Mono) {
        let Some(serial) = self.requests.remove(&client) else { return };
        self.reads.remove(&client);
        self.log_pages.remove(&client);
        let is_status_only = self.status_only.remove(&client);
        let Some(connection) = self.connections.get_mut(serial) else { return };
        match self.streams.get_mut(&serial) {
            Some(stream) => {
                if pass_on(&mut stream.follow, reply, connection, now) {
                    self.streams.remove(&serial);
                }
            }
            None if is_status_only => connection.respond(api::status_only(reply), now),
            None => connection.respond(api::reply(reply), now),
        }
        self.connections.settle(serial, now);
        self.connections.go_on_soon(serial);
    }

    /// Puts these tokens in force, and ends the streams of those that are gone.
    pub fn set_tokens(&mut self, tokens: Tokens, now: Mono) {
        log::info!("{} token(s) are in force", tokens.len());
        self.door.set_tokens(tokens);
        let is_out = |follower: &Follower| !self.door.is_known(&follower.caller);
        let out = self.streams.iter().filter(|(_, follower)| is_out(follower));
        let out: Vec<usize> = out.map(|(serial, _)| *serial).collect();
        for serial in out {
            let Some(follower) = self.streams.remove(&serial) else { continue };
            let Some(connection) = self.connections.get_mut(serial) else { continue };
            match follower.follow.interrupt("this token is not in force any more") {
                Some(line) => end_stream(&line, connection, now),
                None => connection.respond_last(api::denied(Denied::token_gone()), now),
            }
            self.connections.settle(serial, now);
            self.connections.go_on_soon(serial);
        }
    }

    /// The questions that the streams ask now, and the requests that need not wait any more.
    pub fn take_questions(&mut self, now: Mono) -> Vec<(RequestId, Command)> {
        let mut questions = self.take_waiting();
        self.streams.retain(|serial, _| self.connections.get(*serial).is_some());
        for (serial, stream) in &mut self.streams {
            let is_ready = self.connections.get(*serial).is_some_and(Connection::has_sent_all);
            if is_ready
                && self.reads.len() < STREAM_READS_MAX
                && let Some(command) = stream.follow.ask(now)
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

    /// The requests that have waited and need not wait any more. Those whose client is gone are dropped.
    fn take_waiting(&mut self) -> Vec<(RequestId, Command)> {
        let mut taken = Vec::new();
        while self.log_pages.len() < LOG_PAGES_MAX
            && let Some((id, command)) = self.waiting.pop_front()
        {
            let serial = self.requests.get(&id);
            if serial.is_some_and(|serial| self.connections.get(*serial).is_some()) {
                self.log_pages.insert(id);
                taken.push((id, command));
            } else {
                self.requests.remove(&id);
            }
        }
        taken
    }

    /// When the first stream has a question.
    pub fn deadline(&self) -> Option<Mono> {
        // Where too many questions are open, the answer to one of them comes first.
        let streams = self.streams.iter().filter(|_| self.reads.len() < STREAM_READS_MAX);
        let is_ready = |serial: &usize| self.connections.get(*serial).is_some_and(Connection::has_sent_all);
        let ready = streams.filter(|(serial, _)| is_ready(serial));
        ready.filter_map(|(_, stream)| stream.follow.deadline()).min()
    }

    /// Sends as much of the last answers as goes out at once.
    pub fn flush(&mut self, now: Mono) {
        for (serial, stream) in &self.streams {
            let last_line = stream.follow.interrupt("the daemon that was asked is shutting down");
            if let (Some(line), Some(connection)) = (last_line, self.connections.get_mut(*serial)) {
                end_stream(&line, connection, now);
            }
        }
        self.connections.flush(now);
    }

    fn request(&mut self, serial: usize, command: &Command) -> RequestId {
        let id = self.new_id(serial);
        let _ = match command {
            Command::ReadOutput(_) => self.reads.insert(id),
            Command::ListLogs(_) => self.log_pages.insert(id),
            _ => false,
        };
        id
    }

    fn new_id(&mut self, serial: usize) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, serial);
        id
    }

    /// What the daemon counts, by name.
    fn vars(&self, node: &Node) -> BTreeMap<String, u64> {
        let now_open = [
            ("http_streams_open", self.streams.len() as u64),
            ("http_requests_in_flight", self.requests.len() as u64),
            ("http_tokens_failed", self.door.failed_tries()),
        ];
        let ours = self.connections.counts().chain(now_open).chain(memory());
        node.counters().chain(ours.map(|(name, count)| (name.to_string(), count))).collect()
    }
}

const NO_MEMORY: &str = "so many requests are being received that there is no memory for another; repeat this one";

/// Sends what an answer brings to a client that follows a run. True: that was the last of it.
fn pass_on(stream: &mut Follow, reply: &Reply, connection: &mut Connection, now: Mono) -> bool {
    match stream.on_reply(reply, now) {
        Step::Wait => return false,
        Step::Refuse => connection.respond(api::reply(reply), now),
        Step::End(line) => end_stream(&line, connection, now),
        Step::Pass { output: RunOutput { attempt, server, part }, is_first } => {
            if is_first {
                let headers = vec![("X-Run-Attempt", attempt.number.to_string()), ("X-Run-Server", server.to_string())];
                if !connection.begin_stream(headers, now) {
                    connection.end_stream(now);
                    return true;
                }
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

fn too_many_reads() -> Response {
    api::busy(format!(
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
