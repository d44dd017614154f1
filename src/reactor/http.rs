//! The HTTP side: listeners, connections, and which request belongs to which.
//!
//! Invariant: a request that was given to the node is answered on the connection that it came from, or not at all if
//! that is gone.

use super::Source;
use super::connection::{Connection, Progress};
use crate::api;
use crate::model::Mono;
use crate::model::command::{Command, Refusal, Reply, RequestId};
use crate::wire::http::{Request, Response};
use mio::net::TcpListener;
use mio::{Interest, Registry};
use std::collections::{BTreeMap, HashMap};
use std::io;

/// Connections at one time; one more is told so and closed.
const CONNECTIONS_MAX: usize = 10_000;
/// How often the connections' deadlines are looked at.
const SWEEP_EVERY_MS: u64 = 250;

pub struct Http {
    listener: TcpListener,
    debug_listener: Option<TcpListener>,
    next_serial: usize,
    connections: HashMap<usize, Connection>,
    /// Connections of the debug listener: they never reach the node.
    debug: HashMap<usize, ()>,
    requests: HashMap<RequestId, usize>,
    next_request: u64,
    unfinished: Vec<usize>,
    sweep_at: Mono,
    counters: BTreeMap<&'static str, u64>,
}

impl Http {
    pub fn new(listener: TcpListener, debug_listener: Option<TcpListener>) -> Http {
        Http {
            listener,
            debug_listener,
            next_serial: 0,
            connections: HashMap::new(),
            debug: HashMap::new(),
            requests: HashMap::new(),
            next_request: 0,
            unfinished: Vec::new(),
            sweep_at: Mono(0),
            counters: BTreeMap::new(),
        }
    }

    /// Takes every connection that waits at the listener.
    pub fn accept(&mut self, source: Source, registry: &Registry, now: Mono) -> io::Result<()> {
        let is_debug = source == Source::DebugListener;
        loop {
            let listener = if is_debug { self.debug_listener.as_ref() } else { Some(&self.listener) };
            let Some(listener) = listener else { return Ok(()) };
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // Out of descriptors, or a client that was gone again: the next event comes with the next client.
                    log::warn!("accept a connection: {error}");
                    return Ok(());
                }
            };
            crate::worker::process::make_room(&stream);
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
                let full = Refusal::unavailable(format!(
                    "{CONNECTIONS_MAX} connections are open, which is the most there may be"
                ));
                connection.respond_last(api::failure(&full), now);
            }
            if is_debug {
                self.debug.insert(serial, ());
            }
            self.connections.insert(serial, connection);
            self.unfinished.push(serial);
        }
    }

    /// Goes on with a connection; answers here what the node need not see.
    pub fn on_ready(&mut self, serial: usize, now: Mono) -> Option<(RequestId, Command)> {
        loop {
            let connection = self.connections.get_mut(&serial)?;
            let response = match connection.advance(now) {
                Progress::Waiting => return None,
                Progress::Unfinished => {
                    self.unfinished.push(serial);
                    return None;
                }
                Progress::Closed => {
                    self.connections.remove(&serial);
                    self.debug.remove(&serial);
                    return None;
                }
                Progress::BadRequest(bad) => {
                    connection.respond_last(api::bad_request(bad), now);
                    continue;
                }
                Progress::Request(request) => {
                    *self.counters.entry("http_requests").or_default() += 1;
                    if self.debug.contains_key(&serial) {
                        self.debug_answer(&request)
                    } else {
                        match api::command(&request) {
                            Ok(command) => return Some((self.request(serial), command)),
                            Err(response) => response,
                        }
                    }
                }
            };
            self.connections.get_mut(&serial)?.respond(response, now);
        }
    }

    pub fn reply(&mut self, client: RequestId, reply: &Reply, now: Mono) {
        let Some(serial) = self.requests.remove(&client) else { return };
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.respond(api::reply(reply), now);
            self.unfinished.push(serial);
        }
    }

    /// Connections to go on with at once.
    pub fn take_unfinished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unfinished)
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Ends connections whose time is over.
    pub fn sweep(&mut self, now: Mono) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now.plus_ms(SWEEP_EVERY_MS);
        let overdue: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_overdue(now))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in overdue {
            let Some(connection) = self.connections.get_mut(&serial) else { continue };
            if connection.is_midway() {
                let slow = Refusal { status: 408, message: "the request took longer than 10 s to arrive".into() };
                connection.respond_last(api::failure(&slow), now);
                self.unfinished.push(serial);
            } else {
                self.connections.remove(&serial);
                self.debug.remove(&serial);
            }
        }
    }

    /// Sends what can be sent of the last answers.
    pub fn flush(&mut self, now: Mono) {
        for connection in self.connections.values_mut() {
            let _ = connection.advance(now);
        }
    }

    fn request(&mut self, serial: usize) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, serial);
        id
    }

    fn debug_answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/debug/vars" => {
                let mut vars: BTreeMap<&str, u64> = self.counters.clone();
                vars.insert("http_connections_open", self.connections.len() as u64);
                vars.insert("http_requests_in_flight", self.requests.len() as u64);
                vars.extend(memory());
                Response::json(200, serde_json::to_vec(&vars).unwrap_or_default())
            }
            path => {
                api::failure(&Refusal { status: 404, message: format!("there is no {path:?}; there is /debug/vars") })
            }
        }
    }
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
