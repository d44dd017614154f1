//! Links to other nodes: a listener, sockets, proofs, frames.
//!
//! ```text
//! Connecting -> Proving -> Open
//! ```
//!
//! Not here: which links are made, and which messages go over them; the node decides that.
//!
//! Invariants: a stranger can send nothing but its proof, in five seconds and a small buffer. The bytes that wait to be
//! sent over a link have a limit; beyond it the link is cut, and the node begins anew over the next one.

use super::source::Source;
use crate::core::io::{Gone, Input};
use crate::model::config::{ClusterConfig, Secret};
use crate::model::message::{LinkId, Message};
use crate::model::{Mono, Server};
use crate::wire::frame::{self, FRAME_BYTES_MAX, Kind, message_frame};
use crate::wire::handshake::{self, End, Handshake, NONCE_BYTES, Step};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};

/// How many links may be without a proof at one time.
const STRANGERS_MAX: usize = 256;
/// How long a link may be without a proof.
const PROVE_MS: u64 = 5_000;
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
    config: ClusterConfig,
    next_serial: usize,
    peers: BTreeMap<usize, Peer>,
    serials: BTreeMap<LinkId, usize>,
    unfinished: Vec<usize>,
    heard: VecDeque<Input>,
    /// A log line has said that without a secret there are no links to other hosts.
    is_secret_missed: bool,
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
    Open,
}

/// Why a link ends.
enum Ending {
    Gone(Gone),
    Bad(String),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Gone(if error.kind() == ErrorKind::ConnectionRefused { Gone::NobodyThere } else { Gone::Lost })
    }
}

impl Peers {
    pub fn new(listener: Option<TcpListener>, config: ClusterConfig) -> Peers {
        Peers {
            listener,
            config,
            next_serial: 0,
            peers: BTreeMap::new(),
            serials: BTreeMap::new(),
            unfinished: Vec::new(),
            heard: VecDeque::new(),
            is_secret_missed: false,
        }
    }

    /// Takes the connections that wait at the listener. True: there may be more.
    pub fn accept(&mut self, registry: &Registry, now: Mono) -> io::Result<bool> {
        for _ in 0..ACCEPTS_A_TURN_MAX {
            let Some(listener) = &self.listener else { return Ok(false) };
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    log::warn!("accept a node: {error}");
                    return Ok(false);
                }
            };
            if !self.may_speak(address.ip().is_loopback()) {
                log::warn!(
                    "a node at {address} is rejected: without cluster_secret only nodes of this host may connect; set it on all nodes"
                );
                continue;
            }
            let strangers = self.peers.values().filter(|peer| !matches!(peer.state, LinkState::Open)).count();
            if STRANGERS_MAX <= strangers {
                continue;
            }
            crate::worker::process::raise_if_short(&stream);
            let id = LinkId::In(self.next_serial as u64);
            let Some(handshake) = self.handshake(End::Listener) else { continue };
            let (output, state) = (handshake.challenge(), LinkState::Proving(handshake));
            self.add(Peer { output, state, ..Peer::new(id, address.to_string(), stream, now) }, registry)?;
        }
        Ok(true)
    }

    /// Makes a link to a server.
    pub fn link(&mut self, id: LinkId, server: &Server, registry: &Registry, now: Mono) -> io::Result<()> {
        let address: Option<std::net::SocketAddr> = server.0.parse().ok();
        let is_allowed = address.is_some_and(|address| self.may_speak(address.ip().is_loopback()));
        if !is_allowed && !std::mem::replace(&mut self.is_secret_missed, true) {
            log::error!(
                "no link to {server}: without cluster_secret this node connects only to nodes of its own host; set it on all nodes"
            );
        }
        match address.filter(|_| is_allowed).map(TcpStream::connect) {
            Some(Ok(stream)) => self.add(Peer::new(id, server.to_string(), stream, now), registry),
            _ => {
                self.heard.push_back(Input::Unlinked(id, Gone::Lost));
                Ok(())
            }
        }
    }

    pub fn send(&mut self, id: LinkId, message: &Message) {
        let Some(serial) = self.serials.get(&id).copied() else { return };
        let Some(peer) = self.peers.get_mut(&serial).filter(|peer| matches!(peer.state, LinkState::Open)) else {
            return;
        };
        let frame = message_frame(message).filter(|frame| peer.output.len() + frame.len() <= OUTPUT_BYTES_MAX);
        match frame {
            Some(frame) => {
                peer.output.extend(frame);
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
        }
        self.heard.retain(|input| !matches!(input, Input::Linked(of) | Input::Received(of, _) if *of == id));
    }

    /// Goes on with a link.
    pub fn on_ready(&mut self, serial: usize, now: Mono) {
        let Some(peer) = self.peers.get_mut(&serial) else { return };
        let result = match peer.state {
            LinkState::Connecting => {
                peer.connected().map(|is_up| is_up.then(|| handshake_of(&self.config, End::Dialler)))
            }
            _ => Ok(None),
        };
        let result = result.and_then(|handshake| {
            if let Some(handshake) = handshake {
                let handshake = handshake.ok_or_else(|| Ending::Bad("no random numbers are to be had".into()))?;
                peer.output.extend(handshake.challenge());
                peer.state = LinkState::Proving(handshake);
                peer.deadline = now.plus_ms(PROVE_MS);
            }
            peer.write()?;
            peer.read(&mut self.heard)
        });
        match result {
            Ok(true) => self.unfinished.push(serial),
            Ok(false) => {}
            Err(Ending::Gone(gone)) => {
                if matches!(&peer.state, LinkState::Proving(handshake) if handshake.has_proved()) {
                    log::warn!("{} does not take this node's proof: has it the same cluster_secret?", peer.address);
                }
                self.end(serial, gone);
            }
            Err(Ending::Bad(reason)) => {
                log::warn!("the link to {} is cut: {reason}", peer.address);
                self.end(serial, Gone::Lost);
            }
        }
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
        let is_late = |peer: &Peer| !matches!(peer.state, LinkState::Open) && peer.deadline <= now;
        let late: Vec<usize> = self.peers.iter().filter(|(_, peer)| is_late(peer)).map(|(serial, _)| *serial).collect();
        late.into_iter().for_each(|serial| self.end(serial, Gone::Lost));
    }

    fn may_speak(&self, is_loopback: bool) -> bool {
        is_loopback || self.config.secret.is_some() || self.config.insecure
    }

    fn handshake(&self, end: End) -> Option<Handshake> {
        handshake_of(&self.config, end)
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
        let was_known = matches!(peer.state, LinkState::Open) || matches!(peer.id, LinkId::Out(_));
        if was_known {
            self.heard.push_back(Input::Unlinked(peer.id, gone));
        }
    }
}

fn handshake_of(config: &ClusterConfig, end: End) -> Option<Handshake> {
    let mut nonce = [0; NONCE_BYTES];
    rustix::rand::getrandom(&mut nonce[..], rustix::rand::GetRandomFlags::empty()).ok()?;
    let secret = config.secret.clone().unwrap_or_else(|| Secret(String::new()));
    Some(Handshake::new(end, secret, nonce))
}

impl Peer {
    /// A peer whose connection is not known to be made yet.
    fn new(id: LinkId, address: String, stream: TcpStream, now: Mono) -> Peer {
        let (state, deadline) = (LinkState::Connecting, now.plus_ms(PROVE_MS));
        Peer { id, address, stream, input: Vec::new(), output: Vec::new(), sent: 0, state, deadline }
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
            let is_open = matches!(self.state, LinkState::Open);
            let bytes_max = if is_open { FRAME_BYTES_MAX } else { handshake::FRAME_BYTES_MAX };
            let frame = frame::take(&mut self.input, bytes_max).map_err(|bad| Ending::Bad(bad.0))?;
            let Some(frame) = frame else { return Ok(()) };
            match &mut self.state {
                LinkState::Connecting => return Ok(()),
                LinkState::Proving(handshake) => {
                    match handshake.on_frame(&frame).map_err(|why| Ending::Bad(why.into()))? {
                        Step::Wait => {}
                        Step::Send(bytes) => self.output.extend(bytes),
                        Step::Done(bytes) => {
                            self.output.extend(bytes.unwrap_or_default());
                            self.state = LinkState::Open;
                            heard.push_back(Input::Linked(self.id));
                        }
                    }
                }
                LinkState::Open if frame.kind == Kind::Message => {
                    let message = frame::message(&frame.body).map_err(|bad| Ending::Bad(bad.0))?;
                    heard.push_back(Input::Received(self.id, message));
                }
                LinkState::Open => return Err(Ending::Bad("a proof after the proof".into())),
            }
            self.write()?;
        }
    }
}

#[cfg(test)]
mod tests;
