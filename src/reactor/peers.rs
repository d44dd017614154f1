//! Links to other nodes: a listener, sockets, handshakes, sealed frames.
//!
//! ```text
//! Connecting -> Proving -> Open
//! ```
//!
//! Not here: which links are made, and which messages go over them; the node decides that.
//!
//! Invariants: a stranger can send nothing but its part of the handshake, in two seconds and a small buffer. The bytes that wait to be
//! sent over a link have a limit; beyond it the link is cut, and the node begins anew over the next one.

use super::source::Source;
use super::strangers::{Lines, Strangers};
use super::stream::Accepted;
use crate::core::io::{Gone, Input};
use crate::core::time::bounds::PROVE_MS;
use crate::model::config::{ClusterConfig, Secret};
use crate::model::message::{LinkId, Message};
use crate::model::{Mono, Server};
use crate::wire::channel::Channel;
use crate::wire::frame::{self, BadFrame, Frame};
use crate::wire::handshake::{self, Failed, Handshake, Key, Step};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};

/// How many bytes may wait to be sent over one link.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// The most bytes that are read from one link in one turn of the loop.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Messages after which no more is read from one link in one turn of the loop. Those of the last read are still taken.
const TURN_MESSAGES_MAX: usize = 256;
/// Nodes that are taken from the listener in one turn of the loop.
const ACCEPTS_A_TURN_MAX: usize = 64;

pub struct Peers {
    listener: Option<TcpListener>,
    key: Key,
    /// A secret was given in the configuration.
    has_secret: bool,
    /// Other hosts are spoken to without one.
    is_insecure: bool,
    strangers: Strangers,
    stranger_lines: Lines,
    next_serial: usize,
    peers: BTreeMap<usize, Peer>,
    serials: BTreeMap<LinkId, usize>,
    unfinished: Vec<usize>,
    heard: VecDeque<Input>,
}

struct Peer {
    id: LinkId,
    /// For log lines.
    address: String,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    state: LinkState,
    deadline: Mono,
}

enum LinkState {
    Connecting,
    Proving(Handshake),
    Open(Channel),
}

/// Why a link ends.
enum Ending {
    Gone(Gone),
    Bad(String),
}

impl From<BadFrame> for Ending {
    fn from(bad: BadFrame) -> Ending {
        match bad {
            BadFrame::OtherVersion(theirs) => Ending::Gone(Gone::OtherVersion { theirs, ours: frame::VERSION }),
            BadFrame::Malformed(reason) => Ending::Bad(reason),
        }
    }
}

impl From<Failed> for Ending {
    fn from(failed: Failed) -> Ending {
        match failed {
            Failed::OtherSecret => Ending::Gone(Gone::OtherSecret),
            Failed::Other(reason) => Ending::Bad(reason.into()),
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Gone(if error.kind() == ErrorKind::ConnectionRefused { Gone::NobodyThere } else { Gone::Lost })
    }
}

impl Peers {
    /// `key`: that of the configured secret, or of none.
    pub fn new(listener: Option<TcpListener>, config: &ClusterConfig, key: Key) -> Peers {
        Peers {
            listener,
            key,
            has_secret: config.secret.is_some(),
            is_insecure: config.insecure,
            strangers: Strangers::default(),
            stranger_lines: Lines::default(),
            next_serial: 0,
            peers: BTreeMap::new(),
            serials: BTreeMap::new(),
            unfinished: Vec::new(),
            heard: VecDeque::new(),
        }
    }

    /// Takes the store's secret for links, where the configuration has given none.
    pub fn trust(&mut self, secret: &Secret) {
        if !self.has_secret && !self.is_insecure {
            self.key = Key::of(secret);
        }
    }

    /// Takes the connections that wait at the listener.
    pub fn accept(&mut self, registry: &Registry, now: Mono) -> io::Result<Accepted> {
        for _ in 0..ACCEPTS_A_TURN_MAX {
            let Some(listener) = &self.listener else { return Ok(Accepted::All) };
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Accepted::All),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.warn_of_stranger(format!("accept a node: {error}"), now);
                    return Ok(Accepted::Stuck);
                }
            };
            if !self.may_speak(address.ip().is_loopback()) {
                let text = format!(
                    "a node at {address} is rejected: without cluster_secret only nodes of this host may connect; set it on all nodes"
                );
                self.warn_of_stranger(text, now);
                continue;
            }
            let state = match Handshake::listen(&self.key) {
                Ok(handshake) => LinkState::Proving(handshake),
                Err(failed) => {
                    self.warn_of_stranger(format!("a node at {address} is rejected: {}", BadFrame::from(failed)), now);
                    continue;
                }
            };
            crate::worker::process::raise_if_short(&stream);
            let serial = self.next_serial;
            if let Some(oldest) = self.strangers.add(serial, address.ip()) {
                self.cut_stranger(oldest, "it had not proved itself when many others came", now);
            }
            let id = LinkId::In(serial as u64);
            self.add(Peer { state, ..Peer::new(id, address.to_string(), stream, now) }, registry)?;
        }
        Ok(Accepted::More)
    }

    /// Makes a link to a server.
    pub fn link(&mut self, id: LinkId, server: &Server, registry: &Registry, now: Mono) -> io::Result<()> {
        let address: Option<std::net::SocketAddr> = server.0.parse().ok();
        let is_allowed = address.is_none_or(|address| self.may_speak(address.ip().is_loopback()));
        match address.filter(|_| is_allowed).map(TcpStream::connect) {
            Some(Ok(stream)) => return self.add(Peer::new(id, server.to_string(), stream, now), registry),
            _ => self.heard.push_back(Input::Unlinked(id, if is_allowed { Gone::Lost } else { Gone::NoSecret })),
        }
        Ok(())
    }

    pub fn send(&mut self, id: LinkId, message: &Message) {
        let Some(serial) = self.serials.get(&id).copied() else { return };
        let Some(peer) = self.peers.get_mut(&serial) else { return };
        let LinkState::Open(channel) = &mut peer.state else { return };
        let frames = channel.seal(message).filter(|frames| peer.output.len() + frames.len() <= OUTPUT_BYTES_MAX);
        match frames {
            Some(frames) => {
                peer.output.extend(frames);
                self.unfinished.push(serial);
            }
            None => {
                log::warn!("the link to {} is cut: more than {OUTPUT_BYTES_MAX} bytes wait to be sent", peer.address);
                self.end(serial, Gone::Lost);
            }
        }
    }

    /// Ends a link. Messages from it that the node has not got yet are dropped.
    pub fn unlink(&mut self, id: LinkId) {
        if let Some(serial) = self.serials.remove(&id)
            && let Some(mut peer) = self.peers.remove(&serial)
        {
            // A last message, such as a rejection, is sent if the socket takes it at once.
            let _ = peer.write();
            self.strangers.remove(serial);
        }
        self.heard.retain(|input| !matches!(input, Input::Linked(of) | Input::Received(of, _) if *of == id));
    }

    /// Goes on with a link.
    pub fn on_ready(&mut self, serial: usize, now: Mono) {
        let Some(peer) = self.peers.get_mut(&serial) else { return };
        let result = peer.begin(&self.key, now).and_then(|()| {
            peer.write()?;
            peer.read(&mut self.heard)
        });
        let oldest = match &peer.state {
            LinkState::Proving(handshake) if handshake.has_answered() => self.strangers.greet(serial),
            LinkState::Open(_) => {
                self.strangers.remove(serial);
                None
            }
            _ => None,
        };
        match result {
            Ok(true) => self.unfinished.push(serial),
            Ok(false) => {}
            Err(ending) => self.on_ending(serial, ending, now),
        }
        if let Some(oldest) = oldest {
            self.cut_stranger(oldest, "it had not proved itself when many others came", now);
        }
    }

    fn on_ending(&mut self, serial: usize, ending: Ending, now: Mono) {
        let Some(peer) = self.peers.get_mut(&serial) else { return };
        let (is_open, has_dialled) = (matches!(peer.state, LinkState::Open(_)), matches!(peer.id, LinkId::Out(_)));
        let (gone, reason) = match ending {
            // The other end has proved itself, so it was somebody else who wrote this.
            Ending::Gone(gone) if is_open && gone.is_foreign() => (Gone::Lost, Some(gone.to_string())),
            Ending::Gone(gone) => (gone, gone.is_foreign().then(|| gone.to_string())),
            Ending::Bad(reason) => (Gone::Lost, Some(reason)),
        };
        if gone.is_foreign() && !has_dialled {
            // The other end is to know the reason; whether it hears this is its own concern.
            peer.output.extend(handshake::rejection());
            let _ = peer.write();
        }
        let text = reason.map(|reason| format!("the link to {} is cut: {reason}", peer.address));
        match text {
            // The node says what a leader that it cannot speak with means.
            Some(_) if has_dialled && gone.is_foreign() => {}
            Some(text) if is_open || has_dialled => log::warn!("{text}"),
            Some(text) => self.warn_of_stranger(text, now),
            None => {}
        }
        self.end(serial, gone);
    }

    /// The next input from the links, in the order in which they came.
    pub fn take_heard(&mut self) -> Option<Input> {
        self.heard.pop_front()
    }

    /// How many inputs there are to take.
    pub fn heard_count(&self) -> usize {
        self.heard.len()
    }

    pub fn take_unfinished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unfinished)
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty() || !self.heard.is_empty()
    }

    /// Cuts the links whose time for a proof is over.
    pub fn housekeeping(&mut self, now: Mono) {
        let is_late = |peer: &Peer| !matches!(peer.state, LinkState::Open(_)) && peer.deadline <= now;
        let late: Vec<usize> = self.peers.iter().filter(|(_, peer)| is_late(peer)).map(|(serial, _)| *serial).collect();
        late.into_iter().for_each(|serial| self.cut_stranger(serial, "it has not proved itself in time", now));
        if let Some(summary) = self.stranger_lines.summary(now) {
            log::warn!("{summary}");
        }
    }

    fn cut_stranger(&mut self, serial: usize, reason: &str, now: Mono) {
        let Some(peer) = self.peers.get(&serial) else { return };
        // A leader that does not answer is the node's concern.
        if matches!(peer.id, LinkId::In(_)) {
            let text = format!("the link to {} is cut: {reason}", peer.address);
            self.warn_of_stranger(text, now);
        }
        self.end(serial, Gone::Lost);
    }

    fn warn_of_stranger(&mut self, text: String, now: Mono) {
        if let Some(line) = self.stranger_lines.line(text, now) {
            log::warn!("{line}");
        }
    }

    fn may_speak(&self, is_loopback: bool) -> bool {
        is_loopback || self.has_secret || self.is_insecure
    }

    fn add(&mut self, mut peer: Peer, registry: &Registry) -> io::Result<()> {
        let serial = self.next_serial;
        self.next_serial += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut peer.stream, Source::Peer(serial).token(), interest)?;
        // Small frames must not wait for an acknowledgement; if this fails they are merely slower.
        let _ = peer.stream.set_nodelay(true);
        self.serials.insert(peer.id, serial);
        self.peers.insert(serial, peer);
        self.unfinished.push(serial);
        Ok(())
    }

    fn end(&mut self, serial: usize, gone: Gone) {
        let Some(peer) = self.peers.remove(&serial) else { return };
        self.serials.remove(&peer.id);
        self.strangers.remove(serial);
        let was_known = matches!(peer.state, LinkState::Open(_)) || matches!(peer.id, LinkId::Out(_));
        if was_known {
            self.heard.push_back(Input::Unlinked(peer.id, gone));
        }
    }
}

impl Peer {
    /// A peer whose connection is not known to be made yet.
    fn new(id: LinkId, address: String, stream: TcpStream, now: Mono) -> Peer {
        let (state, deadline) = (LinkState::Connecting, now.plus_ms(PROVE_MS));
        Peer { id, address, stream, input: Vec::new(), output: Vec::new(), sent: 0, state, deadline }
    }

    /// Begins the handshake of a link that this node has dialled, once the connection is made.
    fn begin(&mut self, key: &Key, now: Mono) -> Result<(), Ending> {
        if matches!(self.state, LinkState::Connecting) && self.connected()? {
            let (handshake, first) = Handshake::dial(key)?;
            self.output.extend(first);
            self.state = LinkState::Proving(handshake);
            self.deadline = now.plus_ms(PROVE_MS);
        }
        Ok(())
    }

    /// Whether the connection is made.
    fn connected(&self) -> Result<bool, Ending> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self) -> Result<(), Ending> {
        if matches!(self.state, LinkState::Connecting) {
            return Ok(());
        }
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(Ending::Gone(Gone::Lost)),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        Ok(())
    }

    /// True: there may be more to read.
    fn read(&mut self, heard: &mut VecDeque<Input>) -> Result<bool, Ending> {
        if matches!(self.state, LinkState::Connecting) {
            return Ok(false);
        }
        let mut buffer = [0; 16 << 10];
        let mut budget = TURN_BYTES_MAX;
        let heard_max = heard.len() + TURN_MESSAGES_MAX;
        while budget != 0 && heard.len() < heard_max {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Ending::Gone(Gone::Lost)),
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    self.input.extend_from_slice(&buffer[..count]);
                    self.take_frames(heard)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn take_frames(&mut self, heard: &mut VecDeque<Input>) -> Result<(), Ending> {
        loop {
            let bytes_max = match self.state {
                LinkState::Open(_) => frame::BODY_BYTES_MAX,
                _ => handshake::BODY_BYTES_MAX,
            };
            let Some(frame) = frame::take(&mut self.input, bytes_max)? else { return Ok(()) };
            self.on_frame(&frame, heard)?;
            self.write()?;
        }
    }

    fn on_frame(&mut self, frame: &Frame, heard: &mut VecDeque<Input>) -> Result<(), Ending> {
        match &mut self.state {
            LinkState::Connecting => {}
            LinkState::Proving(handshake) => match handshake.on_frame(frame)? {
                Step::Send(bytes) => self.output.extend(bytes),
                Step::Done(bytes, channel) => {
                    self.output.extend(bytes);
                    self.state = LinkState::Open(channel);
                    heard.push_back(Input::Linked(self.id));
                }
            },
            LinkState::Open(channel) => {
                if let Some(message) = channel.open(frame)? {
                    heard.push_back(Input::Received(self.id, message));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
