//! The open HTTP connections: they are accepted, counted, given time, and closed.
//!
//! Not here: requests and their answers; see `http`.
//!
//! Invariant: the budget's sums are those of the connections that are open.

use super::budget::{Budget, Holding};
use super::connection::{Connection, Progress};
use super::source::Source;
use super::strangers::Lines;
use super::stream::{Accepted, Listener};
use super::tls::Handshake;
use crate::api;
use crate::api::access::Arrival;
use crate::model::Mono;
use crate::model::command::CallError;
use crate::wire::http::Response;
use crate::worker::process::{descriptors_max, raise_if_short};
use mio::{Interest, Registry};
use rustls::ServerConfig;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Connections that may be open at one time; a further client is told so, and its connection is closed. Where the host
/// gives the daemon few descriptors, clients may take half of them: the others are for runs, the store and the nodes.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections that are taken from one listener in one turn of the loop.
const ACCEPTS_A_TURN_MAX: usize = 64;
/// How often the deadlines of the connections are looked at.
const HOUSEKEEPING_EVERY_MS: u64 = 250;

/// Where clients connect.
pub struct Listeners {
    pub api: Listener,
    pub debug: Option<Listener>,
    /// The Unix socket in data_dir.
    pub socket: Option<Listener>,
}

/// A connection, and what is known of its client.
struct Client {
    connection: Connection,
    arrival: Arrival,
    /// It came by the debug listener: its requests never reach the node.
    is_debug: bool,
    /// Its handshake is not over.
    is_handshaking: bool,
    /// It stands in the queue for handshakes.
    is_queued: bool,
}

pub struct Connections {
    listeners: Listeners,
    next_serial: usize,
    open: HashMap<usize, Client>,
    budget: Budget,
    unfinished: Vec<usize>,
    /// The connections whose handshake can go on, the longest waiting first. Each step may take a millisecond, so each turn
    /// of the loop has time for some.
    handshakes: VecDeque<usize>,
    /// What is said about clients that speak TLS where http is spoken.
    lines: Lines,
    housekeeping_at: Mono,
    /// `CONNECTIONS_MAX`, or as many as there are descriptors for.
    open_max: usize,
    counters: BTreeMap<&'static str, u64>,
}

impl Connections {
    pub fn new(listeners: Listeners) -> Connections {
        Connections {
            listeners,
            next_serial: 0,
            open: HashMap::new(),
            budget: Budget::default(),
            unfinished: Vec::new(),
            handshakes: VecDeque::new(),
            lines: Lines::default(),
            housekeeping_at: Mono(0),
            open_max: CONNECTIONS_MAX.min(descriptors_max() / 2),
            counters: BTreeMap::new(),
        }
    }

    /// Takes the connections that wait at the listener.
    pub fn accept(&mut self, source: Source, registry: &Registry, now: Mono) -> io::Result<Accepted> {
        for _ in 0..ACCEPTS_A_TURN_MAX {
            let listener = match source {
                Source::DebugListener => self.listeners.debug.as_ref(),
                Source::SocketListener => self.listeners.socket.as_ref(),
                _ => Some(&self.listeners.api),
            };
            let Some(listener) = listener else { return Ok(Accepted::All) };
            let (mut stream, arrival) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Accepted::All),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.lines.line(format!("accept a connection: {error}"), now).iter().for_each(warn);
                    return Ok(Accepted::Stuck);
                }
            };
            raise_if_short(&stream);
            let serial = self.next_serial;
            self.next_serial += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Source::Connection(serial).token(), interest)?;
            self.count("http_connections");
            let mut connection = Connection::new(stream, now);
            if self.open_max <= self.open.len() {
                let full = format!("{} connections are open, which is the most there may be", self.open_max);
                connection.respond_last(api::busy(full), now);
            }
            let client = Client {
                is_handshaking: connection.stream.handshake() != Handshake::Over,
                connection,
                arrival,
                is_debug: source == Source::DebugListener,
                is_queued: false,
            };
            self.open.insert(serial, client);
            self.unfinished.push(serial);
        }
        Ok(Accepted::More)
    }

    /// The connections from now on are made with this certificate.
    pub fn set_certificate(&mut self, certificate: Arc<ServerConfig>) {
        if let Listener::Tls(_, config) = &mut self.listeners.api {
            *config = certificate;
        }
    }

    /// Where the connection's handshake is not over, it has to wait for its time in this turn. True: it waits.
    pub fn queue_handshake(&mut self, serial: usize) -> bool {
        let Some(client) = self.open.get_mut(&serial).filter(|client| client.is_handshaking) else { return false };
        if !std::mem::replace(&mut client.is_queued, true) {
            self.handshakes.push_back(serial);
        }
        true
    }

    /// The connection whose handshake is next.
    pub fn take_handshake(&mut self) -> Option<usize> {
        let serial = self.handshakes.pop_front()?;
        if let Some(client) = self.open.get_mut(&serial) {
            client.is_queued = false;
        }
        Some(serial)
    }

    pub fn get(&self, serial: usize) -> Option<&Connection> {
        self.open.get(&serial).map(|client| &client.connection)
    }

    pub fn get_mut(&mut self, serial: usize) -> Option<&mut Connection> {
        self.open.get_mut(&serial).map(|client| &mut client.connection)
    }

    /// How the client has come; none where it came by the debug listener.
    pub fn arrival(&self, serial: usize) -> Option<Arrival> {
        self.open.get(&serial).filter(|client| !client.is_debug).map(|client| client.arrival)
    }

    /// The connections to go on with at once.
    pub fn take_unfinished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unfinished)
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty() || !self.handshakes.is_empty()
    }

    /// Has the connection gone on with in this turn of the loop.
    pub fn go_on_soon(&mut self, serial: usize) {
        self.unfinished.push(serial);
    }

    pub fn respond(&mut self, serial: usize, response: Response, now: Mono) {
        if let Some(connection) = self.get_mut(serial) {
            connection.respond(response, now);
        }
        self.settle(serial, now);
    }

    /// Gives the last answer: after it the connection ends.
    pub fn respond_last(&mut self, serial: usize, response: Response, now: Mono) {
        if let Some(connection) = self.get_mut(serial) {
            connection.respond_last(response, now);
        }
        self.settle(serial, now);
    }

    pub fn close(&mut self, serial: usize) {
        if let Some(mut client) = self.open.remove(&serial) {
            self.budget.replace(client.connection.counted, Holding::default());
            client.connection.take_leave();
            if client.connection.stream.handshake() == Handshake::Begun {
                self.count("http_tls_handshakes_failed");
            }
        }
    }

    /// Ends a connection on which TLS has come to a port of plain http: its client could not read an answer. False: this is
    /// no such connection.
    pub fn close_tls(&mut self, serial: usize, now: Mono) -> bool {
        let Some(Arrival::Tcp { from, is_tls: false, .. }) = self.open.get(&serial).map(|client| client.arrival) else {
            return false;
        };
        let line = format!(
            "{from} speaks TLS, and this port speaks plain http: ask it by http://, or set http_tls_cert and http_tls_key"
        );
        self.lines.line(line, now).iter().for_each(warn);
        self.close(serial);
        true
    }

    /// Tells the budget what the connection holds now, and ends slow readers where unread answers come to too much.
    /// False: there is no memory for the request that it has begun or gone on with.
    pub fn settle(&mut self, serial: usize, now: Mono) -> bool {
        let Some(client) = self.open.get_mut(&serial) else { return true };
        let connection = &mut client.connection;
        if client.is_handshaking && connection.stream.handshake() == Handshake::Over {
            client.is_handshaking = false;
            *self.counters.entry("http_tls_handshakes").or_default() += u64::from(!connection.stream.is_refused());
        }
        let holding = connection.holding();
        let former = std::mem::replace(&mut connection.counted, holding);
        self.budget.replace(former, holding);
        while self.budget.has_too_many_answers() {
            let unread = self.open.iter().filter(|(_, client)| client.connection.counted.answer != 0);
            let slowest = unread.min_by_key(|(serial, client)| (client.connection.patience(now), **serial));
            let Some((slowest, _)) = slowest else { break };
            self.close(*slowest);
            self.count("http_slow_readers_cut");
        }
        !(former.request < holding.request && self.budget.has_too_many_requests())
    }

    /// Ends the connections whose time is over.
    pub fn housekeeping(&mut self, now: Mono) {
        if now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = now.plus_ms(HOUSEKEEPING_EVERY_MS);
        self.lines.summary(now).iter().for_each(warn);
        let overdue = self.open.iter().filter(|(_, client)| client.connection.is_overdue(now));
        let overdue: Vec<usize> = overdue.map(|(serial, _)| *serial).collect();
        for serial in overdue {
            match self.get(serial).and_then(Connection::slow_part) {
                Some(slow_part) => {
                    let slow = CallError { status: 408, message: slow_part.into() };
                    self.respond_last(serial, api::failure(&slow), now);
                    self.go_on_soon(serial);
                }
                None => self.close(serial),
            }
        }
    }

    /// Sends as much of the last answers as goes out at once.
    pub fn flush(&mut self, now: Mono) {
        #[expect(clippy::iter_over_hash_type, reason = "they have nothing to do with each other")]
        for client in self.open.values_mut() {
            // A handshake takes time, and nobody waits for an answer behind it yet.
            if !client.is_handshaking {
                while matches!(client.connection.advance(now), Progress::Unfinished) {}
                client.connection.take_leave();
            }
        }
    }

    pub fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    /// What is counted here, and what is held now, by name.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let held = self.budget.total();
        let now_held = [
            ("http_connections_open", self.open.len() as u64),
            ("http_request_bytes_held", held.request as u64),
            ("http_answer_bytes_held", held.answer as u64),
        ];
        self.counters.iter().map(|(name, count)| (*name, *count)).chain(now_held)
    }
}

fn warn(line: &String) {
    log::warn!("HTTP: {line}");
}
